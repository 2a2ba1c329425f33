/*-------------------------------------------------------------------------
 *
 * fuzz.c
 *	  libFuzzer inside of PostgreSQL: bcmig_fuzz(target, arguments).
 *
 * The parsers need PostgreSQL: ereport, jsonb, encodings.  So the fuzzer runs
 * where they do, in a single-user server with the sanitizer's runtime loaded
 * before it.  Only our sources are instrumented.  An ERROR is what an input may
 * end in; a crash, a report of a sanitizer, a leak or FUZZ_MUST is a finding.
 *
 * libFuzzer ends the process when it is done.
 *
 *-------------------------------------------------------------------------
 */
#include "fuzz.h"

#include "al_metadata.h"
#include "bc_names.h"
#include "bc_types.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "parser/parser.h"
#include "row_image.h"
#include "tsql.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT __attribute__((visibility("default"))) Datum bcmig_fuzz(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(bcmig_fuzz);

extern int	LLVMFuzzerRunDriver(int *argc, char ***argv, int (*input) (const uint8_t *data, size_t size));

const FuzzInput *fuzz_answer;

/* ---- memory ---- */

#undef palloc
#undef pfree

/* before each value */
typedef struct FuzzBlock
{
	struct FuzzBlock *next;
	struct FuzzBlock **link;
	Size		size;
} FuzzBlock;

static FuzzBlock *blocks = NULL;
static MemoryContext one_input;

/* NULL: PostgreSQL has allocated it */
static FuzzBlock *
block_of(void *p)
{
	FuzzBlock  *b = (FuzzBlock *) p - 1;

	for (FuzzBlock *known = blocks; known != NULL; known = known->next)
	{
		if (known == b)
			return b;
	}
	return NULL;
}

void *
fuzz_palloc(Size size)
{
	FuzzBlock  *b;

	if (!AllocSizeIsValid(size))
		elog(ERROR, "invalid memory alloc request size %zu", size);
	b = malloc(sizeof(FuzzBlock) + size);
	b->size = size;
	b->next = blocks;
	b->link = &blocks;
	if (blocks != NULL)
		blocks->link = &b->next;
	blocks = b;
	return b + 1;
}

void *
fuzz_palloc0(Size size)
{
	return memset(fuzz_palloc(size), 0, size);
}

static void
free_block(FuzzBlock *b)
{
	*b->link = b->next;
	if (b->next != NULL)
		b->next->link = b->link;
	free(b);
}

void *
fuzz_repalloc(void *p, Size size)
{
	FuzzBlock  *b = block_of(p);
	void	   *copy;

	if (b == NULL)
		return (repalloc) (p, size);
	copy = fuzz_palloc(size);
	memcpy(copy, p, Min(size, b->size));
	free_block(b);
	return copy;
}

void
fuzz_pfree(void *p)
{
	FuzzBlock  *b = block_of(p);

	if (b == NULL)
		pfree(p);
	else
		free_block(b);
}

char *
fuzz_pnstrdup(const char *s, Size len)
{
	char	   *copy;

	len = strnlen(s, len);
	copy = fuzz_palloc(len + 1);
	memcpy(copy, s, len);
	copy[len] = '\0';
	return copy;
}

char *
fuzz_pstrdup(const char *s)
{
	return fuzz_pnstrdup(s, strlen(s));
}

/* ---- targets ---- */

static bytea *
bytea_of(const FuzzInput *input)
{
	bytea	   *b = fuzz_palloc(VARHDRSZ + input->size);

	SET_VARSIZE(b, VARHDRSZ + input->size);
	memcpy(VARDATA(b), input->data, input->size);
	return b;
}

static void
fuzz_blob(const FuzzInput *input)
{
	bytea	   *content = bcmig_inflate(bytea_of(input), 64 * 1024);

	FUZZ_MUST(VARSIZE_ANY_EXHDR(content) <= Max((size_t) 64 * 1024, input->size));
}

static void
fuzz_al_table(const FuzzInput *input)
{
	BcmigAlTable *table = bcmig_read_al_table(bytea_of(input));
	ListCell   *lc;

	foreach(lc, table->fields)
	{
		BcmigAlField *f = lfirst(lc);

		FUZZ_MUST(f->name != NULL && f->type != NULL && f->class != NULL && f->length >= 0);
	}
}

static void
fuzz_al_enum(const FuzzInput *input)
{
	ListCell   *lc;

	foreach(lc, bcmig_read_al_enum(bytea_of(input)))
		FUZZ_MUST(((BcmigAlOption *) lfirst(lc))->name != NULL);
}

/* a name; and lines: companies until an empty one, then tables */
static void
fuzz_names(const FuzzInput *input)
{
	BcmigInventory inventory = {.invalid_chars = BCMIG_INVALID_CHARS};
	bool		tables = false;
	char	   *snake;
	char	   *rest = NULL;
	ListCell   *lc;

	if (input->text == NULL)
		return;
	snake = bcmig_snake(input->text);
	FUZZ_MUST(snake[0] != '\0' && strlen(snake) < NAMEDATALEN);
	FUZZ_MUST(pg_verify_mbstr(PG_UTF8, snake, strlen(snake), true));
	FUZZ_MUST(strlen(bcmig_mapped_name(input->text, BCMIG_INVALID_CHARS)) <= strlen(input->text));
	for (char *line = strtok_r(fuzz_pstrdup(input->text), "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest))
	{
		if (line[0] == '-')
			tables = true;
		else if (tables)
		{
			BcmigFound *found = fuzz_palloc0(sizeof(BcmigFound));

			found->schema = "dbo";
			found->name = line;
			found->has_identity = line[0] & 1;
			found->keys = list_make1("k");
			inventory.tables = lappend(inventory.tables, found);
		}
		else
			inventory.companies = lappend(inventory.companies, line);
	}
	bcmig_classify(&inventory);
	foreach(lc, inventory.tables)
		FUZZ_MUST(((BcmigFound *) lfirst(lc))->shape != NULL && ((BcmigFound *) lfirst(lc))->al_name != NULL);
}

static void
fuzz_types(const FuzzInput *input)
{
	if (input->text == NULL)
		return;
	FUZZ_MUST(bcmig_tsql_green_type(input->text) != NULL);
	(void) bcmig_tsql_constant(input->text);
	(void) bcmig_postgres_constant(input->text);
}

/* what the check lets pass is one statement, or none that PostgreSQL can read */
static void
fuzz_own_query(const FuzzInput *input)
{
	List	   *statements;
	volatile int n = 1;

	if (input->text == NULL || input->size == 0)
		return;
	if (input->data[0] == 't')
	{
		(void) bcmig_tsql_own_query(input->text + 1, 10);
		return;
	}
	statements = bcmig_postgres_own_query(input->text, 10);
	PG_TRY();
	{
		n = list_length(raw_parser(lsecond(statements), RAW_PARSE_DEFAULT));
	}
	PG_CATCH();
	{
		FlushErrorState();
	}
	PG_END_TRY();
	FUZZ_MUST(n == 1);
}

/* an array as blue's text of it, for a key of two columns */
static void
fuzz_bound(const FuzzInput *input)
{
	BcmigTableInfo table = {.target_name = "t", .nkeys = 2};
	Oid			function;
	Oid			param;
	char	  **texts;

	if (input->text == NULL)
		return;
	getTypeInputInfo(TEXTARRAYOID, &function, &param);
	texts = bcmig_bound_values(&table, OidInputFunctionCall(function, input->text, param, -1));
	for (int i = 0; i < table.nkeys; i++)
		FUZZ_MUST(texts[i] != NULL);
}

static const struct
{
	const char *name;
	FuzzTarget	run;
}			targets[] =
{
	{"blob", fuzz_blob},
	{"al_table", fuzz_al_table},
	{"al_enum", fuzz_al_enum},
	{"image", fuzz_image},
	{"names", fuzz_names},
	{"types", fuzz_types},
	{"own_query", fuzz_own_query},
	{"bound", fuzz_bound},
	{"options", fuzz_options},
	{"haproxy", fuzz_haproxy},
	{"health", fuzz_health},
	{"url", fuzz_url},
	{"http_may", fuzz_http_may},
	{"tds_message", fuzz_tds_message},
	{"mark", fuzz_mark},
};

/* ---- the fuzzer ---- */

static FuzzTarget present;

static int
run_input(const uint8_t *data, size_t size)
{
	MemoryContext caller = CurrentMemoryContext;
	FuzzInput	input = {data, size, NULL};

	MemoryContextSwitchTo(one_input);
	if (memchr(data, '\0', size) == NULL && pg_verify_mbstr(PG_UTF8, (const char *) data, size, true))
		input.text = fuzz_pnstrdup((const char *) data, size);
	PG_TRY();
	{
		present(&input);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		FlushErrorState();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	while (blocks != NULL)
		free_block(blocks);
	MemoryContextReset(one_input);
	return 0;
}

/*
 * bcmig_fuzz(target text, arguments text[]): arguments of libFuzzer
 */
Datum
bcmig_fuzz(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	Datum	   *elements;
	int			n;
	char	  **argv;
	int			argc;

	for (int i = 0; i < lengthof(targets); i++)
	{
		if (strcmp(targets[i].name, name) == 0)
			present = targets[i].run;
	}
	if (present == NULL)
		elog(ERROR, "there is no target \"%s\"", name);
	if (GetDatabaseEncoding() != PG_UTF8)
		elog(ERROR, "the targets take UTF-8");
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), TEXTOID, -1, false, TYPALIGN_INT, &elements, NULL, &n);
	argv = palloc0(sizeof(char *) * (n + 2));
	argv[0] = name;
	for (int i = 0; i < n; i++)
		argv[i + 1] = TextDatumGetCString(elements[i]);
	argc = n + 1;
	one_input = AllocSetContextCreate(CurrentMemoryContext, "one input", ALLOCSET_DEFAULT_SIZES);
	LLVMFuzzerRunDriver(&argc, &argv, run_input);
	PG_RETURN_VOID();
}
