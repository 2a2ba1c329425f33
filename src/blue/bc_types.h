/*-------------------------------------------------------------------------
 *
 * bc_types.h
 *	  Values as Business Central stores them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_BC_TYPES_H
#define BCMIG_BC_TYPES_H

/*
 * The content of a BLOB: inflated where it is compressed, else as it is (then
 * "stored" itself is returned, which must not be a toasted value).  ERROR when
 * it is damaged or its content is longer than "limit" bytes.
 */
extern bytea *bcmig_inflate(bytea *stored, Size limit);

#endif							/* BCMIG_BC_TYPES_H */
