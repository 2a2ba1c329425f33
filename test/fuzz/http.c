/* http.c: URLs, and the bytes of an answer as libcurl hands them over */
#include "fuzz.h"

#define bcmig_socket_line	real_socket_line
#include "../../src/switch/http.c"

void
fuzz_url(const FuzzInput *input)
{
	char	   *url = pnstrdup((const char *) input->data, input->size);
	char	   *line = strchr(url, '\n');
	Transfer	t = {.most_bytes = 100};
	size_t		at = 0;
	BcmigUrl   *u;

	if (line != NULL)
		*line++ = '\0';
	u = bcmig_url(line, url);
	if (u != NULL)
	{
		FUZZ_MUST(strncmp(u->origin, "http://", 7) == 0 || strncmp(u->origin, "https://", 8) == 0);
		FUZZ_MUST(strchr(u->origin, '@') == NULL && u->path[0] == '/');
	}

	/* in pieces of all sizes; more than its bound is refused */
	t.body = palloc(t.most_bytes + 1);
	while (at < input->size && !t.too_long)
	{
		size_t		n = Min(input->size - at, (size_t) input->data[at] + 1);

		if (take_body((char *) input->data + at, 1, n, &t) != n)
			FUZZ_MUST(t.too_long);
		at += n;
	}
	FUZZ_MUST(t.bytes <= t.most_bytes && t.too_long == (input->size > t.most_bytes));
	(void) answer_of(&t, NULL);
}
