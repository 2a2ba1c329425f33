/*-------------------------------------------------------------------------
 *
 * bc_types.c
 *	  Values of Business Central for people to read: compressed blobs, closing
 *	  dates.
 *
 * A blob of a field with Compressed = true is 02 45 7D 5B and a raw deflate
 * stream without header and trailer; any other blob is its bytes.  Copies keep
 * the container as it is; these functions are for whoever reads green.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <zlib.h>

#include "bcmig.h"
#include "errors.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

BCMIG_FUNCTION(bcmig_blob);
BCMIG_FUNCTION(bcmig_is_closing_date);

#define MAGIC_LENGTH	4
#define STEP			65536	/* bytes inflated between two looks for interrupts */

static const unsigned char magic[MAGIC_LENGTH] = {0x02, 0x45, 0x7D, 0x5B};

static voidpf
allocate(voidpf opaque, uInt items, uInt size)
{
	return palloc((Size) items * size);
}

static void
release(voidpf opaque, voidpf address)
{
	pfree(address);
}

static void
damaged(const z_stream *z, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("compressed blob is damaged at byte %lu: %s", MAGIC_LENGTH + z->total_in, what),
			 errhint("SELECT the column itself for its bytes; compare them with blue's.")));
}

/*
 * bcmig_blob(bytea): what a blob holds.  zlib's memory is palloc'd, so an
 * error leaves nothing behind.
 */
Datum
bcmig_blob(PG_FUNCTION_ARGS)
{
	bytea	   *source = PG_GETARG_BYTEA_PP(0);
	Size		length = VARSIZE_ANY_EXHDR(source);
	unsigned char *bytes = (unsigned char *) VARDATA_ANY(source);
	Size		room;
	Size		used = 0;
	bytea	   *result;
	z_stream	z = {0};
	int			rc = Z_OK;

	if (length < MAGIC_LENGTH || memcmp(bytes, magic, MAGIC_LENGTH) != 0)
		PG_RETURN_BYTEA_P(source);

	z.zalloc = allocate;
	z.zfree = release;
	if (inflateInit2(&z, -MAX_WBITS) != Z_OK)
		elog(ERROR, "inflateInit2 failed: %s", z.msg ? z.msg : "no message");
	z.next_in = bytes + MAGIC_LENGTH;
	z.avail_in = length - MAGIC_LENGTH;

	room = Min(Max(length * 4, 1024), (Size) MaxAllocSize - VARHDRSZ);
	result = palloc(room + VARHDRSZ);
	while (rc != Z_STREAM_END)
	{
		CHECK_FOR_INTERRUPTS();
		if (used == room)
		{
			if (room >= MaxAllocSize - VARHDRSZ)
				ereport(ERROR,
						(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						 errmsg("a compressed blob of %zu bytes holds more than %zu bytes", length, room)));
			room = Min(room * 2, (Size) MaxAllocSize - VARHDRSZ);
			result = repalloc(result, room + VARHDRSZ);
		}
		z.next_out = (unsigned char *) VARDATA(result) + used;
		z.avail_out = Min(room - used, STEP);
		rc = inflate(&z, Z_NO_FLUSH);
		used = z.next_out - (unsigned char *) VARDATA(result);
		if (rc == Z_BUF_ERROR || (rc == Z_OK && z.avail_in == 0 && z.avail_out > 0))
			damaged(&z, "it ends too early");
		if (rc != Z_OK && rc != Z_STREAM_END)
			damaged(&z, z.msg ? z.msg : "it is no deflate stream");
	}
	if (z.avail_in > 0)
		damaged(&z, "more bytes follow its end");
	inflateEnd(&z);
	SET_VARSIZE(result, used + VARHDRSZ);
	PG_RETURN_BYTEA_P(result);
}

/*
 * bcmig_is_closing_date(timestamp): 23:59:59 on a Date means the closing date,
 * which sorts after the day and before the next one.
 */
Datum
bcmig_is_closing_date(PG_FUNCTION_ARGS)
{
	Timestamp	at = PG_GETARG_TIMESTAMP(0);
	int64		of_day;

	if (TIMESTAMP_NOT_FINITE(at))
		PG_RETURN_BOOL(false);
	of_day = at % USECS_PER_DAY;
	if (of_day < 0)
		of_day += USECS_PER_DAY;
	PG_RETURN_BOOL(of_day == USECS_PER_DAY - USECS_PER_SEC);
}
