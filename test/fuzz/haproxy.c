/* haproxy.c: what HAProxy's runtime API answers */
#include "fuzz.h"

#include "../../src/switch/balancer_haproxy.c"

BcmigHttpAnswer *
bcmig_socket_line(const char *url, const char *line, int timeout, int most_bytes)
{
	BcmigHttpAnswer *answer = palloc0(sizeof(BcmigHttpAnswer));

	/* any bytes; the body is a C string */
	answer->body = pnstrdup((const char *) fuzz_answer->data, Min(fuzz_answer->size, most_bytes));
	return answer;
}

void
bcmig_pause(long ms)
{
}

char *
bcmig_balancer_text(const BcmigBalancer *balancer, const char *name)
{
	return "bc";
}

List *
bcmig_balancer_list(const BcmigBalancer *balancer, const char *name)
{
	return strcmp(name, "blue") == 0 ? list_make2("blue1", "blue2") : list_make1("green1");
}

void
fuzz_haproxy(const FuzzInput *input)
{
	BcmigBalancer b = {.url = "tcp://h:1", .name = "b", .sync_name = "s", .timeout = 1};
	double		percent = -1;

	fuzz_answer = input;
	if (haproxy_get(&b, &percent) == NULL)
		FUZZ_MUST(percent >= 0 && percent <= 100);
	(void) haproxy_set(&b, 10);
	(void) haproxy_leave(&b);
}
