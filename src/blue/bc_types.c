/*-------------------------------------------------------------------------
 *
 * bc_types.c
 *	  Values as Business Central stores them: BLOBs, closing dates.
 *
 * Green holds what blue holds, bit for bit; these functions are for those who
 * read it.
 *
 * A field of AL type BLOB with Compressed = true (the default) begins with four
 * bytes of magic, a raw deflate stream follows to the end: no zlib header, no
 * checksum, no length.  So damage is found only where the stream stops making
 * sense, and the length of the content only by inflating it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <zlib.h>

#include "bc_types.h"

#include "compat.h"
#include "errors.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/datetime.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define MAGIC			"\x02\x45\x7D\x5B"
#define MAGIC_LENGTH	4

/* most bytes inflated between two checks for interrupts */
#define PIECE			(1024 * 1024)

/* bytes a bytea may hold */
#define BYTEA_LIMIT		(MaxAllocSize - VARHDRSZ)

BCMIG_FUNCTION(bcmig_blob);
BCMIG_FUNCTION(bcmig_is_closing_date);

/* zlib's memory goes with the memory context: an ERROR leaks nothing */
static voidpf
zlib_alloc(voidpf opaque, uInt items, uInt size)
{
	return palloc_extended((Size) items * size, MCXT_ALLOC_NO_OOM);
}

static void
zlib_free(voidpf opaque, voidpf address)
{
	pfree(address);
}

/* the first byte of a BLOB has offset 0 */
pg_noreturn static void
damaged(const z_stream *z, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_BM_DAMAGED),
			 errmsg("compressed BLOB is damaged at byte offset %lu", MAGIC_LENGTH + z->total_in),
			 errdetail("%s", detail),
			 errhint("Compare it with the same value on blue.")));
}

bytea *
bcmig_inflate(bytea *stored, Size limit)
{
	Size		len = VARSIZE_ANY_EXHDR(stored);
	Size		size;
	bytea	   *result;
	z_stream	z = {0};
	int			rc;

	if (len < MAGIC_LENGTH || memcmp(VARDATA_ANY(stored), MAGIC, MAGIC_LENGTH) != 0)
		return stored;

	limit = Min(limit, BYTEA_LIMIT);
	size = Min(Max(4 * len, 256), limit);
	result = palloc(VARHDRSZ + size);
	z.zalloc = zlib_alloc;
	z.zfree = zlib_free;
	z.next_in = (Bytef *) VARDATA_ANY(stored) + MAGIC_LENGTH;
	z.avail_in = len - MAGIC_LENGTH;
	rc = inflateInit2(&z, -MAX_WBITS);
	while (rc == Z_OK)
	{
		CHECK_FOR_INTERRUPTS();
		if (z.total_out == size && size < limit)
		{
			size = Min(2 * size, limit);
			result = repalloc(result, VARHDRSZ + size);
		}
		if (z.total_out < size)
		{
			z.next_out = (Bytef *) VARDATA(result) + z.total_out;
			z.avail_out = Min(size - z.total_out, PIECE);
			rc = inflate(&z, Z_NO_FLUSH);
		}
		else
		{
			Bytef		beyond;

			/* full: the stream must end here */
			z.next_out = &beyond;
			z.avail_out = 1;
			rc = inflate(&z, Z_NO_FLUSH);
			if (z.avail_out == 0)
				ereport(ERROR,
						(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						 errmsg("compressed BLOB of %zu bytes holds more than %zu bytes", len, limit),
						 errdetail("The limit was reached at byte offset %lu.", MAGIC_LENGTH + z.total_in)));
		}
	}
	if (rc == Z_MEM_ERROR)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory"),
				 errdetail("A BLOB could not be inflated.")));
	if (rc == Z_BUF_ERROR)
		damaged(&z, "It ends before its deflate stream does.");
	if (rc != Z_STREAM_END)
		damaged(&z, z.msg ? z.msg : "It is no deflate stream.");
	if (z.avail_in > 0)
		damaged(&z, "More bytes follow the end of its deflate stream.");
	SET_VARSIZE(result, VARHDRSZ + z.total_out);
	inflateEnd(&z);
	return result;
}

/*
 * SQL: bcmig_blob(stored bytea)
 */
Datum
bcmig_blob(PG_FUNCTION_ARGS)
{
	PG_RETURN_BYTEA_P(bcmig_inflate(PG_GETARG_BYTEA_PP(0), BYTEA_LIMIT));
}

/*
 * SQL: bcmig_is_closing_date(value timestamp)
 *
 * A closing date is the moment after a day's normal entries.  BC writes it as
 * 23:59:59.000 of the day; a blank date is 1753-01-01 00:00:00, no real date is
 * before 1754-01-01.
 */
Datum
bcmig_is_closing_date(PG_FUNCTION_ARGS)
{
	Timestamp	value = PG_GETARG_TIMESTAMP(0);
	Timestamp	first_day = (Timestamp) (date2j(1754, 1, 1) - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY;

	if (TIMESTAMP_NOT_FINITE(value) || value < first_day)
		PG_RETURN_BOOL(false);
	PG_RETURN_BOOL((value - first_day) % USECS_PER_DAY == USECS_PER_DAY - USECS_PER_SEC);
}
