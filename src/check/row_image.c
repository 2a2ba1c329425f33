/*-------------------------------------------------------------------------
 *
 * row_image.c
 *	  The image of a row and its hash.
 *
 * Blue hashes its rows with what its SQL has (hash_postgres.c, hash_tsql.c);
 * green makes the same bytes here.  There are two images, since no two engines
 * can write the same bytes at a bearable price: docs/consistency.md has both,
 * type by type, with vectors that were computed by something else.
 *
 * Values come in the types of the feed, which are blue's; a value blue cannot
 * have (a timestamp between two ticks of datetime) is written with a tag of its
 * own, so that it is equal to nothing.
 *
 * A hasher keeps one buffer for all its rows, and between begin and end one
 * hash context, which is the resource owner's: both in one transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "row_image.h"

#include "call.h"
#include "catalog/pg_type.h"
#include "common/cryptohash.h"
#include "common/hashfn.h"
#include "common/sha2.h"
#include "funcapi.h"
#include "libpq/pqformat.h"
#include "mb/pg_wchar.h"
#include "port/pg_bswap.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"
#include "utils/uuid.h"

BCMIG_FUNCTION(bcmig_row_hash);
BCMIG_FUNCTION(bcmig_chunk_hash_step);
BCMIG_FUNCTION(bcmig_chunk_hash_end);

/* tags of fields */
#define TAG_NULL		0x00
#define TAG_INTEGER		0x01
#define TAG_DECIMAL		0x02
#define TAG_TEXT		0x03
#define TAG_DATETIME	0x04
#define TAG_GUID		0x05
#define TAG_BINARY		0x06
#define TAG_OTHER		0x07	/* its text; blue has no such image */
#define TAG_NO_DATETIME	0x84	/* a timestamp that is no datetime */
#define TAG_INEXACT		0xFF

#define DAYS_1900_TO_2000	36524

typedef struct Attribute
{
	Oid			type;
	int32		scale;			/* of a numeric, -1 = none */
	FmgrInfo	send;			/* record image, types without a short way */
	FmgrInfo	out;			/* fields image, the same */
} Attribute;

struct BcmigHasher
{
	BcmigImage	image;
	TupleDesc	desc;
	Attribute  *attributes;
	StringInfoData bytes;
	MemoryContext scratch;		/* of one row */
	pg_cryptohash_ctx *sha;		/* NULL = one for each row */
};

BcmigHasher *
bcmig_hasher_create(BcmigImage image, TupleDesc desc)
{
	BcmigHasher *h = palloc0(sizeof(BcmigHasher));

	h->image = image;
	h->desc = desc;
	h->attributes = palloc0(sizeof(Attribute) * Max(desc->natts, 1));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		Attribute  *a = &h->attributes[i];
		Oid			function;
		bool		varlena;

		if (att->attisdropped)
			continue;
		a->type = getBaseType(att->atttypid);
		a->scale = a->type == NUMERICOID && att->atttypmod >= (int32) VARHDRSZ ?
			(((att->atttypmod - VARHDRSZ) & 0x7ff) ^ 1024) - 1024 : -1;
		if (image == BCMIG_IMAGE_RECORD)
		{
			getTypeBinaryOutputInfo(a->type, &function, &varlena);
			fmgr_info(function, &a->send);
		}
		else
		{
			getTypeOutputInfo(a->type, &function, &varlena);
			fmgr_info(function, &a->out);
		}
	}
	initStringInfo(&h->bytes);
	h->scratch = AllocSetContextCreate(CurrentMemoryContext, "bcmig row image", ALLOCSET_DEFAULT_SIZES);
	return h;
}

static pg_cryptohash_ctx *
create_context(void)
{
	pg_cryptohash_ctx *sha = pg_cryptohash_create(PG_SHA256);

	if (sha == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("could not create a hash context")));
	return sha;
}

void
bcmig_hasher_begin(BcmigHasher *h)
{
	h->sha = create_context();
}

void
bcmig_hasher_end(BcmigHasher *h)
{
	pg_cryptohash_free(h->sha);
	h->sha = NULL;
}

/* ---- image of a record: as record_send() ---- */

/* room for so many bytes; mostly it is there, and that is seen without a call */
static inline void
make_room(StringInfo s, int bytes)
{
	if (s->maxlen - s->len <= bytes)
		enlargeStringInfo(s, bytes);
}

/*
 * A numeric as numeric_send() writes it, out of the form it is stored in: the
 * header (two bytes; four where weight or scale are large), then groups of four
 * digits.  That form is as old as pg_upgrade can go back, but it is not ours:
 * what the probe's numerics do not come out right with is pulled.  false: NaN
 * or infinity.
 */
static bool
stored_numeric(StringInfo s, struct varlena *value)
{
	const char *data = VARDATA_ANY(value);
	int			len = VARSIZE_ANY_EXHDR(value);
	uint16		header;
	int16		weight;
	uint16		sign;
	uint16		scale;

	memcpy(&header, data, sizeof(header));
	if ((header & 0xC000) == 0xC000)
		return false;
	if (header & 0x8000)
	{
		sign = header & 0x2000 ? 0x4000 : 0;
		scale = (header & 0x1F80) >> 7;
		weight = (header & 0x0040 ? ~0x3F : 0) | (header & 0x3F);
		data += sizeof(uint16);
		len -= sizeof(uint16);
	}
	else
	{
		sign = header & 0xC000;
		scale = header & 0x3FFF;
		memcpy(&weight, data + sizeof(uint16), sizeof(weight));
		data += 2 * sizeof(uint16);
		len -= 2 * sizeof(uint16);
	}
	make_room(s, 4 + 8 + len);
	pq_writeint32(s, 8 + len);
	pq_writeint16(s, len / sizeof(int16));
	pq_writeint16(s, weight);
	pq_writeint16(s, sign);
	pq_writeint16(s, scale);
	for (int i = 0; i < len; i += sizeof(int16))
	{
		uint16		digits;

		memcpy(&digits, data + i, sizeof(digits));
		pq_writeint16(s, digits);
	}
	return true;
}

/* the length of a value and the value; room for eight bytes of each is there */
static void
record_value(BcmigHasher *h, const Attribute *a, Datum value)
{
	StringInfo	s = &h->bytes;

	switch (a->type)
	{
		case INT4OID:
			pq_writeint32(s, 4);
			pq_writeint32(s, DatumGetInt32(value));
			return;
		case INT8OID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			pq_writeint32(s, 8);
			pq_writeint64(s, DatumGetInt64(value));
			return;
		case INT2OID:
			pq_writeint32(s, 2);
			pq_writeint16(s, DatumGetInt16(value));
			return;
		case UUIDOID:
			pq_writeint32(s, UUID_LEN);
			appendBinaryStringInfo(s, (char *) DatumGetUUIDP(value)->data, UUID_LEN);
			return;
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case BYTEAOID:
			{
				/* our processes have the database's encoding as their client's */
				struct varlena *v = PG_DETOAST_DATUM_PACKED(value);
				int			len = VARSIZE_ANY_EXHDR(v);

				make_room(s, 4 + len);
				pq_writeint32(s, len);
				memcpy(s->data + s->len, VARDATA_ANY(v), len);
				s->len += len;
				return;
			}
		case NUMERICOID:
			if (stored_numeric(s, PG_DETOAST_DATUM_PACKED(value)))
				return;
			/* FALLTHROUGH */
		default:
			{
				bytea	   *v = SendFunctionCall((FmgrInfo *) &a->send, value);

				pq_sendint32(s, VARSIZE(v) - VARHDRSZ);
				appendBinaryStringInfo(s, VARDATA(v), VARSIZE(v) - VARHDRSZ);
			}
	}
}

/* ---- image of fields: as hash_tsql.c ---- */

static void
field_text(StringInfo s, const char *text, int len)
{
	int			at;
	uint32		bytes = 0;

	appendStringInfoChar(s, TAG_TEXT);
	at = s->len;
	pq_sendint32(s, 0);
	if (GetDatabaseEncoding() != PG_UTF8)
	{
		text = (char *) pg_do_encoding_conversion((unsigned char *) text, len, GetDatabaseEncoding(), PG_UTF8);
		len = strlen(text);
	}
	enlargeStringInfo(s, 2 * len + 4);
	for (const unsigned char *p = (const unsigned char *) text, *end = p + len; p < end;)
	{
		pg_wchar	c = *p;
		unsigned char *to = (unsigned char *) s->data + s->len;

		if (c < 0x80)
			p++;
		else
		{
			c = utf8_to_unicode(p);
			p += pg_utf_mblen(p);
		}
		if (c < 0x10000)
		{
			to[0] = c;
			to[1] = c >> 8;
			s->len += 2;
			bytes += 2;
		}
		else
		{
			uint32		high = 0xD800 + ((c - 0x10000) >> 10);
			uint32		low = 0xDC00 + ((c - 0x10000) & 0x3FF);

			to[0] = high;
			to[1] = high >> 8;
			to[2] = low;
			to[3] = low >> 8;
			s->len += 4;
			bytes += 4;
		}
	}
	s->data[s->len] = '\0';
	bytes = pg_hton32(bytes);
	memcpy(s->data + at, &bytes, 4);
}

/* digits with exactly "scale" decimals; more stay where they are not zero */
static void
field_decimal(StringInfo s, char *digits, int scale)
{
	char	   *point = strchr(digits, '.');
	int			len = strlen(digits);
	int			decimals = point ? len - (point - digits) - 1 : 0;

	if (scale >= 0 && strspn(digits, "-0123456789.") == len)
	{
		while (decimals > scale && digits[len - 1] == '0')
		{
			digits[--len] = '\0';
			decimals--;
		}
		if (point && decimals == 0 && digits[len - 1] == '.')
		{
			digits[--len] = '\0';
			point = NULL;
		}
	}
	appendStringInfoChar(s, TAG_DECIMAL);
	pq_sendint32(s, len + (decimals < scale ? scale - decimals + (point == NULL) : 0));
	appendBinaryStringInfo(s, digits, len);
	if (decimals < scale)
	{
		if (point == NULL)
			appendStringInfoChar(s, '.');
		for (int i = decimals; i < scale; i++)
			appendStringInfoChar(s, '0');
	}
}

static void
field_datetime(StringInfo s, Timestamp t)
{
	int64		day = t / USECS_PER_DAY - (t % USECS_PER_DAY < 0);
	int64		usec = t - day * USECS_PER_DAY;
	int64		msec = usec / 1000;
	int64		ticks = (msec * 3 + 5) / 10;

	if (TIMESTAMP_NOT_FINITE(t) || usec % 1000 != 0 || (ticks * 10 + 1) / 3 != msec)
	{
		appendStringInfoChar(s, (char) TAG_NO_DATETIME);
		pq_sendint64(s, t);
		return;
	}
	appendStringInfoChar(s, TAG_DATETIME);
	pq_sendint32(s, (int32) (day + DAYS_1900_TO_2000));
	pq_sendint32(s, (int32) ticks);
}

static void
field_value(BcmigHasher *h, const Attribute *a, Datum value)
{
	StringInfo	s = &h->bytes;

	switch (a->type)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case BOOLOID:
			appendStringInfoChar(s, TAG_INTEGER);
			pq_sendint64(s, a->type == INT2OID ? DatumGetInt16(value) : a->type == INT4OID ? DatumGetInt32(value) :
						 a->type == INT8OID ? DatumGetInt64(value) : DatumGetBool(value));
			return;
		case NUMERICOID:
			field_decimal(s, OutputFunctionCall((FmgrInfo *) &a->out, value), a->scale);
			return;
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
			{
				text	   *v = DatumGetTextPP(value);

				field_text(s, VARDATA_ANY(v), VARSIZE_ANY_EXHDR(v));
				return;
			}
		case TIMESTAMPOID:
			field_datetime(s, DatumGetTimestamp(value));
			return;
		case UUIDOID:
			{
				const unsigned char *u = DatumGetUUIDP(value)->data;
				const char	swapped[] = {u[3], u[2], u[1], u[0], u[5], u[4], u[7], u[6]};

				appendStringInfoChar(s, TAG_GUID);
				appendBinaryStringInfo(s, swapped, 8);
				appendBinaryStringInfo(s, (const char *) u + 8, 8);
				return;
			}
		case BYTEAOID:
			{
				bytea	   *v = DatumGetByteaPP(value);

				appendStringInfoChar(s, TAG_BINARY);
				pq_sendint32(s, VARSIZE_ANY_EXHDR(v));
				appendBinaryStringInfo(s, VARDATA_ANY(v), VARSIZE_ANY_EXHDR(v));
				return;
			}
		default:
			{
				char	   *v = OutputFunctionCall((FmgrInfo *) &a->out, value);

				appendStringInfoChar(s, TAG_OTHER);
				pq_sendint32(s, strlen(v));
				appendStringInfoString(s, v);
			}
	}
}

/* ---- hashes ---- */

static void
digest_row(BcmigHasher *h, const Datum *values, const bool *isnull, int n, const int *attributes, int inexact,
		   uint8 *digest)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(h->scratch);
	pg_cryptohash_ctx *sha;

	MemoryContextReset(h->scratch);
	resetStringInfo(&h->bytes);
	if (h->image == BCMIG_IMAGE_RECORD)
		pq_sendint32(&h->bytes, n);
	for (int i = 0; i < n; i++)
	{
		int			att = attributes[i];
		const Attribute *a = &h->attributes[att];

		if (h->image == BCMIG_IMAGE_RECORD)
		{
			make_room(&h->bytes, 24);
			pq_writeint32(&h->bytes, a->type);
			if (isnull[att])
				pq_writeint32(&h->bytes, (uint32) -1);
			else
				record_value(h, a, values[att]);
		}
		else if (isnull[att])
			appendStringInfoChar(&h->bytes, TAG_NULL);
		else
			field_value(h, a, values[att]);
	}
	if (inexact > 0)
	{
		appendStringInfoChar(&h->bytes, (char) TAG_INEXACT);
		pq_sendint32(&h->bytes, inexact);
	}
	sha = h->sha ? h->sha : create_context();
	if (pg_cryptohash_init(sha) < 0 ||
		pg_cryptohash_update(sha, (uint8 *) h->bytes.data, h->bytes.len) < 0 ||
		pg_cryptohash_final(sha, digest, PG_SHA256_DIGEST_LENGTH) < 0)
		elog(ERROR, "could not hash a row: %s", pg_cryptohash_error(sha));
	if (sha != h->sha)
		pg_cryptohash_free(sha);
	MemoryContextSwitchTo(oldcontext);
}

void
bcmig_hash_row(BcmigHasher *h, const Datum *values, const bool *isnull, int n, const int *attributes, int inexact,
			   BcmigHash *hash)
{
	uint8		digest[PG_SHA256_DIGEST_LENGTH];

	digest_row(h, values, isnull, n, attributes, inexact, digest);
	memcpy(hash->bytes, digest, BCMIG_HASH_BYTES);
}

void
bcmig_sums_add(BcmigSums *sums, const BcmigHash *hash)
{
	sums->rows++;
	for (int lane = 0; lane < 4; lane++)
	{
		uint32		v;

		memcpy(&v, hash->bytes + 4 * lane, 4);
		sums->lanes[lane] += pg_ntoh32(v);
	}
}

bool
bcmig_hash_read(const char *hex, BcmigHash *hash)
{
	if (strlen(hex) != 2 * BCMIG_HASH_BYTES || strspn(hex, "0123456789abcdefABCDEF") != 2 * BCMIG_HASH_BYTES)
		return false;
	(void) hex_decode(hex, 2 * BCMIG_HASH_BYTES, (char *) hash->bytes);
	return true;
}

/* ---- for people: the same from SQL ---- */

/* what a call keeps for the next */
typedef struct SqlHasher
{
	BcmigHasher *hasher;
	Oid			type;
	int32		typmod;
	BcmigImage	image;
	int			natts;
	int		   *attributes;
	Datum	   *values;
	bool	   *isnull;
} SqlHasher;

static BcmigImage
image_of(text *name)
{
	char	   *s = text_to_cstring(name);

	if (strcmp(s, "fields") == 0)
		return BCMIG_IMAGE_FIELDS;
	if (strcmp(s, "record") == 0)
		return BCMIG_IMAGE_RECORD;
	ereport(ERROR,
			(errcode(ERRCODE_BM_OPTION),
			 errmsg("there is no image \"%s\"", s),
			 errhint("Images: fields (as SQL Server hashes its rows), record (as PostgreSQL does).")));
	return BCMIG_IMAGE_FIELDS;	/* keep compiler quiet */
}

static void
digest_record(FunctionCallInfo fcinfo, HeapTupleHeader record, BcmigImage image, uint8 *digest)
{
	SqlHasher  *sql = fcinfo->flinfo->fn_extra;
	HeapTupleData tuple;

	if (sql == NULL || sql->type != HeapTupleHeaderGetTypeId(record) ||
		sql->typmod != HeapTupleHeaderGetTypMod(record) || sql->image != image)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
		TupleDesc	desc = lookup_rowtype_tupdesc_copy(HeapTupleHeaderGetTypeId(record), HeapTupleHeaderGetTypMod(record));

		sql = palloc0(sizeof(SqlHasher));
		sql->type = HeapTupleHeaderGetTypeId(record);
		sql->typmod = HeapTupleHeaderGetTypMod(record);
		sql->image = image;
		sql->hasher = bcmig_hasher_create(image, desc);
		sql->attributes = palloc(sizeof(int) * Max(desc->natts, 1));
		sql->values = palloc(sizeof(Datum) * Max(desc->natts, 1));
		sql->isnull = palloc(sizeof(bool) * Max(desc->natts, 1));
		for (int i = 0; i < desc->natts; i++)
		{
			if (!TupleDescAttr(desc, i)->attisdropped)
				sql->attributes[sql->natts++] = i;
		}
		fcinfo->flinfo->fn_extra = sql;
		MemoryContextSwitchTo(oldcontext);
	}
	tuple.t_len = HeapTupleHeaderGetDatumLength(record);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = record;
	heap_deform_tuple(&tuple, sql->hasher->desc, sql->values, sql->isnull);
	digest_row(sql->hasher, sql->values, sql->isnull, sql->natts, sql->attributes, 0, digest);
}

/*
 * bcmig_row_hash(record, image): SHA-256 of the image of a row
 */
Datum
bcmig_row_hash(PG_FUNCTION_ARGS)
{
	bytea	   *result = palloc(VARHDRSZ + PG_SHA256_DIGEST_LENGTH);

	digest_record(fcinfo, PG_GETARG_HEAPTUPLEHEADER(0), image_of(PG_GETARG_TEXT_PP(1)), (uint8 *) VARDATA(result));
	SET_VARSIZE(result, VARHDRSZ + PG_SHA256_DIGEST_LENGTH);
	PG_RETURN_BYTEA_P(result);
}

/*
 * bcmig_chunk_hash(record, image), an aggregate: {rows, four sums of lanes}.
 * The state is a BcmigSums in the aggregate's context.
 */
Datum
bcmig_chunk_hash_step(PG_FUNCTION_ARGS)
{
	MemoryContext context;
	BcmigSums  *sums;
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	BcmigHash	hash;

	if (!AggCheckCallContext(fcinfo, &context))
		elog(ERROR, "called outside an aggregate");
	sums = PG_ARGISNULL(0) ? MemoryContextAllocZero(context, sizeof(BcmigSums)) : (BcmigSums *) PG_GETARG_POINTER(0);
	if (!PG_ARGISNULL(1) && !PG_ARGISNULL(2))
	{
		digest_record(fcinfo, PG_GETARG_HEAPTUPLEHEADER(1), image_of(PG_GETARG_TEXT_PP(2)), digest);
		memcpy(hash.bytes, digest, BCMIG_HASH_BYTES);
		bcmig_sums_add(sums, &hash);
	}
	PG_RETURN_POINTER(sums);
}

Datum
bcmig_chunk_hash_end(PG_FUNCTION_ARGS)
{
	BcmigSums	none = {0};
	BcmigSums  *sums = PG_ARGISNULL(0) ? &none : (BcmigSums *) PG_GETARG_POINTER(0);
	Datum		values[5] = {Int64GetDatum(sums->rows)};

	for (int lane = 0; lane < 4; lane++)
		values[lane + 1] = Int64GetDatum(sums->lanes[lane]);
	PG_RETURN_ARRAYTYPE_P(construct_array(values, 5, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}
