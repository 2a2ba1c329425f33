/* http_may.c: is a URL one below the server's? */
#include "fuzz.h"

#include "http.h"
#include "../../src/switch/http_server.c"

void
fuzz_http_may(const FuzzInput *input)
{
	BcmigHttpServer server = {.name = "s", .url = bcmig_url(NULL, "https://gw.example/api/")};
	BcmigUrl   *url = bcmig_url("https://gw.example/api/", pnstrdup((const char *) input->data, input->size));

	if (url != NULL && bcmig_http_may(&server, url))
	{
		FUZZ_MUST(strncmp(url->whole, "https://gw.example:443/api", 26) == 0);
		FUZZ_MUST(url->whole[26] == '\0' || strchr("/?", url->whole[26]) != NULL);
		FUZZ_MUST(strstr(url->path, "..") == NULL || strstr(url->path, "/../") == NULL);
	}
}
