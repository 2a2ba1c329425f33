/*-------------------------------------------------------------------------
 *
 * fuzz.h
 *	  Included before every source that is fuzzed.
 *
 * Memory contexts give a sanitizer nothing to see: a block holds many values.
 * So what our sources allocate comes from malloc() one by one, with its end
 * where it ends, and is freed after each input.  What PostgreSQL's functions
 * allocate stays in a memory context, which is reset then.
 *
 *-------------------------------------------------------------------------
 */
#ifndef FUZZ_H
#define FUZZ_H

#include "postgres.h"

#include "fmgr.h"
#include "utils/memutils.h"

extern void *fuzz_palloc(Size size);
extern void *fuzz_palloc0(Size size);
extern void *fuzz_repalloc(void *p, Size size);
extern void fuzz_pfree(void *p);
extern char *fuzz_pstrdup(const char *s);
extern char *fuzz_pnstrdup(const char *s, Size len);

#define palloc(size)		fuzz_palloc(size)
#define palloc0(size)		fuzz_palloc0(size)
#define palloc_extended(size, flags)	fuzz_palloc(size)
#define repalloc(p, size)	fuzz_repalloc(p, size)
#define pfree(p)			fuzz_pfree(p)
#define pstrdup(s)			fuzz_pstrdup(s)
#define pnstrdup(s, len)	fuzz_pnstrdup(s, len)

/* a target: the input as bytes, and as a C string of the server's encoding when it is one */
typedef struct FuzzInput
{
	const uint8_t *data;
	size_t		size;
	char	   *text;			/* ends where the allocation does; NULL = it is none */
} FuzzInput;

typedef void (*FuzzTarget) (const FuzzInput *input);

/* what must hold; a failure is a finding like a crash */
#define FUZZ_MUST(condition) \
	do { \
		if (!(condition)) \
		{ \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
			abort(); \
		} \
	} while (0)

/* the answer bcmig_http() and bcmig_socket_line() give */
extern const FuzzInput *fuzz_answer;

extern void fuzz_haproxy(const FuzzInput *input);
extern void fuzz_health(const FuzzInput *input);
extern void fuzz_url(const FuzzInput *input);
extern void fuzz_http_may(const FuzzInput *input);
extern void fuzz_options(const FuzzInput *input);
extern void fuzz_tds_message(const FuzzInput *input);
extern void fuzz_mark(const FuzzInput *input);
extern void fuzz_image(const FuzzInput *input);

#endif							/* FUZZ_H */
