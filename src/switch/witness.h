/*-------------------------------------------------------------------------
 *
 * witness.h
 *	  What blue remembers of the green that moved a sync's traffic last.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_WITNESS_H
#define BCMIG_WITNESS_H

#include "configure.h"

typedef enum BcmigWitnessAnswer
{
	BCMIG_WITNESS_KNOWN,		/* blue remembers something */
	BCMIG_WITNESS_NOTHING,		/* it would, but has been told nothing */
	BCMIG_WITNESS_ABSENT,		/* it cannot remember anything */
	BCMIG_WITNESS_UNKNOWN		/* it could not be asked */
} BcmigWitnessAnswer;

typedef struct BcmigWitness
{
	BcmigWitnessAnswer answer;
	char	   *problem;		/* of ABSENT and UNKNOWN */

	/* of KNOWN */
	char	   *green;
	int64		epoch;
	char	   *nonce;
	char	   *at;
} BcmigWitness;

/*
 * Ask blue, and tell it.  In a worker that runs as the sync's owner, outside of
 * a transaction; raise nothing but interrupts.  After telling: what blue
 * remembers now, so that another nonce than the one given means it refused.
 */
extern void bcmig_witness_ask(const BcmigSync *sync, BcmigWitness *witness);
extern void bcmig_witness_tell(const BcmigSync *sync, const char *green, int64 epoch, const char *nonce,
							   BcmigWitness *witness);

#endif							/* BCMIG_WITNESS_H */
