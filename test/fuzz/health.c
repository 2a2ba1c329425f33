/* health.c: what a health URL answers */
#include "fuzz.h"

#include "../../src/switch/health.c"

void
fuzz_health(const FuzzInput *input)
{
	char	   *text = pnstrdup((const char *) input->data, input->size);
	Body		body = {text};

	(void) printable(pstrdup(text));
	read_body(&body);
}
