/*-------------------------------------------------------------------------
 *
 * row_image.h
 *	  The image of a row and its hash, as blue's dialect makes them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_ROW_IMAGE_H
#define BCMIG_ROW_IMAGE_H

#include "dialect.h"
#include "access/tupdesc.h"

#define BCMIG_HASH_BYTES	16	/* of SHA-256, kept: four lanes of 32 bits */

typedef struct BcmigHash
{
	uint8		bytes[BCMIG_HASH_BYTES];
} BcmigHash;

/* rows of a chunk: how many, and the sums of the lanes of their hashes */
typedef struct BcmigSums
{
	int64		rows;
	int64		lanes[4];
} BcmigSums;

typedef struct BcmigHasher BcmigHasher;

/* for rows of this shape; lives, with all it needs, in the current context */
extern BcmigHasher *bcmig_hasher_create(BcmigImage image, TupleDesc desc);

/* in a transaction, around many rows: one hash context serves them all */
extern void bcmig_hasher_begin(BcmigHasher *hasher);
extern void bcmig_hasher_end(BcmigHasher *hasher);

/*
 * Hash of some attributes (indexes, in order) of a row.  inexact: values the
 * casts to the feed's types have changed; such a row equals no row of blue.
 */
extern void bcmig_hash_row(BcmigHasher *hasher, const Datum *values, const bool *isnull,
						   int n, const int *attributes, int inexact, BcmigHash *hash);

extern void bcmig_sums_add(BcmigSums *sums, const BcmigHash *hash);

/* 32 hexadecimal digits -> hash; false when it is something else */
extern bool bcmig_hash_read(const char *hex, BcmigHash *hash);

#endif							/* BCMIG_ROW_IMAGE_H */
