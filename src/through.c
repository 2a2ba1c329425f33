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

static void
begin_proved(BcmigProved *proved, int sync_id)
{
	proved->sync_id = sync_id;
	proved->blue = -1;
	proved->all = true;
	proved->reading = false;
	proved->least = PG_INT64_MAX;
}

static void
add_table(BcmigProved *proved, const BcmigTable *table)
{
	int64		position;

	proved->blue = table->blue;
	if (!proved_position(table, &bcmig_shared->blues[table->blue], &position))
		proved->all = false;
	else
		proved->least = Min(proved->least, position);
	proved->reading |= table->state != BCMIG_STREAMING && table->state != BCMIG_SUSPENDED;
}

/* does it count for what its sync proves? */
static bool
counts(const BcmigTable *table)
{
	return table->key.dboid == MyDatabaseId && !table->stopping && table->blue >= 0;
}

/* the newest (clock, top) pair of blue whose top is at or below the position of every table */
bool
bcmig_proved_through(const BcmigProved *proved, TimestampTz *through, int64 *lag_us)
{
	BcmigBlue  *blue;

	if (proved->blue < 0 || !proved->all)
		return false;
	blue = &bcmig_shared->blues[proved->blue];
	for (int i = blue->npairs - 1; i >= 0; i--)
	{
		if (blue->pairs[i].top <= proved->least)
		{
			*through = blue->pairs[i].clock;
			*lag_us = blue->clock - blue->pairs[i].clock + bcmig_age_of(blue->read_at);
			return true;
		}
	}
	return false;
}

HTAB *
bcmig_all_proved(void)
{
	HASHCTL		ctl = {0};
	HTAB	   *all;
	HASH_SEQ_STATUS seq;
	BcmigTable *table;

	ctl.keysize = sizeof(int);
	ctl.entrysize = sizeof(BcmigProved);
	ctl.hcxt = CurrentMemoryContext;
	all = hash_create("bcmig proved", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	hash_seq_init(&seq, bcmig_tables);
	while ((table = hash_seq_search(&seq)) != NULL)
	{
		BcmigProved *proved;
		bool		found;

		if (table->key.dboid != MyDatabaseId)
			continue;
		proved = hash_search(all, &table->sync_id, HASH_ENTER, &found);
		if (!found)
			begin_proved(proved, table->sync_id);
		if (counts(table))
			add_table(proved, table);
	}
	return all;
}

bool
bcmig_tables_through(int sync_id, const Bitmapset *tables, TimestampTz *through, int64 *lag_us, int *blue_index)
{
	HASH_SEQ_STATUS seq;
	BcmigTable *table;
	BcmigProved proved;

	begin_proved(&proved, sync_id);
	hash_seq_init(&seq, bcmig_tables);
	while ((table = hash_seq_search(&seq)) != NULL)
	{
		if (counts(table) && table->sync_id == sync_id &&
			(tables == NULL || bms_is_member(table->key.table_id, tables)))
			add_table(&proved, table);
	}
	*blue_index = proved.blue;
	return bcmig_proved_through(&proved, through, lag_us);
}

bool
bcmig_synced_through(int sync_id, TimestampTz *through, int64 *lag_us, int *blue_index)
{
	return bcmig_tables_through(sync_id, NULL, through, lag_us, blue_index);
}
