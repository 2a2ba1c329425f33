/*-------------------------------------------------------------------------
 *
 * through.c
 *	  How far a sync is proved, from shared memory.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "through.h"

#include "miscadmin.h"

int64
bcmig_age_of(instr_time then)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, then);
	return INSTR_TIME_GET_MICROSEC(now);
}

bool
bcmig_is_clean(const BcmigTable *table)
{
	return table->state == BCMIG_STREAMING && table->window_poll > 0 && !table->hinted &&
		table->window_poll >= table->moved_poll;
}

/*
 * The position a table proves: everything of blue below it is on green.
 * Returns false when it proves nothing.
 */
static bool
proved_position(const BcmigTable *table, const BcmigBlue *blue, int64 *position)
{
	if (table->state != BCMIG_STREAMING || table->window_poll == 0)
		return false;
	*position = bcmig_is_clean(table) ? blue->horizon : table->position;
	*position = Min(*position, table->swept_position);
	return true;
}

/*
 * How far tables of a sync are proved: the newest (clock, top) pair of its blue whose top
 * is at or below the position of every table.  Caller holds the lock.
 */
bool
bcmig_tables_through(int sync_id, const Bitmapset *tables, TimestampTz *through, int64 *lag_us, int *blue_index)
{
	HASH_SEQ_STATUS seq;
	BcmigTable *table;
	int64		least = PG_INT64_MAX;
	bool		proved = true;
	BcmigBlue  *blue;

	*blue_index = -1;
	hash_seq_init(&seq, bcmig_tables);
	while ((table = hash_seq_search(&seq)) != NULL)
	{
		int64		position;

		if (table->key.dboid != MyDatabaseId || table->sync_id != sync_id ||
			table->stopping || table->blue < 0)
			continue;
		if (tables != NULL && !bms_is_member(table->key.table_id, tables))
			continue;
		*blue_index = table->blue;
		if (!proved_position(table, &bcmig_shared->blues[table->blue], &position))
			proved = false;
		else
			least = Min(least, position);
	}
	if (*blue_index < 0 || !proved)
		return false;
	blue = &bcmig_shared->blues[*blue_index];
	for (int i = blue->npairs - 1; i >= 0; i--)
	{
		if (blue->pairs[i].top <= least)
		{
			*through = blue->pairs[i].clock;
			*lag_us = blue->clock - blue->pairs[i].clock + bcmig_age_of(blue->read_at);
			return true;
		}
	}
	return false;
}

bool
bcmig_synced_through(int sync_id, TimestampTz *through, int64 *lag_us, int *blue_index)
{
	return bcmig_tables_through(sync_id, NULL, through, lag_us, blue_index);
}
