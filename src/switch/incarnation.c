/*-------------------------------------------------------------------------
 *
 * incarnation.c
 *	  Is this green still the one that moves the traffic of a sync?
 *
 * A copy of green has the same tables, so it would set the same balancers.
 * What tells it:
 *
 *	- what is stored in bcmig.incarnation when a sync is first started, and read
 *	  from the server anew by each job: system identifier, database, timeline,
 *	  machine, data directory;
 *	- the outside witness: with each epoch goes a random nonce, and blue is told
 *	  both.  It is asked after each start of the server and before anything is
 *	  changed outside.  A copy that has everything the original has, or an older
 *	  state restored in place, has another nonce as soon as one of them has
 *	  moved traffic.
 *
 * What disagrees is never corrected: traffic is held until bcmig_adopt().  While
 * blue does not answer, nothing speaks against a green that has asked since it
 * was started; one that has not waits.
 *
 * Telling blue comes after the commit of the epoch it is told of.  So blue may
 * have the nonce that is stored, or the one it had confirmed before that
 * (bcmig.incarnation.witnessed): a crash in between looks like this, and is
 * mended by telling again.  Any other nonce is somebody else's.
 *
 * Two jobs of a sync may be at this at the same time, the one of traffic and the
 * one that brings writes back, and a session that adopts: an epoch is given out
 * with the row of bcmig.traffic locked, what blue has answered is stored only if
 * it is about the nonce that is stored, and nothing is held on what has changed
 * meanwhile.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "traffic.h"

#include <ctype.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "common/string.h"
#include "miscadmin.h"
#include "options.h"
#include "postmaster/postmaster.h"
#include "storage/fd.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "witness.h"

#define MACHINE_ID		"/etc/machine-id"
#define MACHINE_ID_MOST	64
#define NONCE_BYTES		16

/* what PostgreSQL writes into a history file when nothing told it where to stop */
#define NO_TARGET		"no recovery target specified"

typedef struct Green
{
	char	   *system;
	Oid			database;
	int64		timeline;
	char	   *machine;		/* "" = not known */
	char	   *directory;
} Green;

/* a row of bcmig.incarnation, and what goes with it */
typedef struct Stored
{
	Green		green;
	char	   *disputed;
	char	   *nonce;			/* NULL = no epoch was given out */
	char	   *witness;
	char	   *witnessed;
	char	   *problem;		/* of asking or telling blue */
	bool		asked;			/* blue, since the server started */
	int64		epoch;
	bool		goes_on;		/* on_promotion */
} Stored;

/* ---- what this green is ---- */

/*
 * The machine: of hexadecimal digits as systemd has it, but anything will do
 * that stays the same.
 */
static char *
read_machine(void)
{
	FILE	   *file = AllocateFile(MACHINE_ID, "r");
	char		buf[MACHINE_ID_MOST + 1] = "";
	char	   *p = buf;

	if (file == NULL)
		return pstrdup("");
	if (fgets(buf, sizeof(buf), file) == NULL)
		buf[0] = '\0';
	FreeFile(file);
	while (isalnum((unsigned char) *p) || *p == '-')
		p++;
	*p = '\0';
	return pstrdup(buf);
}

static void
read_green(Green *g)
{
	struct stat dir;
	struct stat version;

	g->system = psprintf(UINT64_FORMAT, GetSystemIdentifier());
	g->database = MyDatabaseId;
	g->timeline = GetWALInsertionTimeLine();
	g->machine = read_machine();

	/* PG_VERSION is written by initdb or a copy, and never again */
	if (stat(DataDir, &dir) != 0 || stat(psprintf("%s/PG_VERSION", DataDir), &version) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not stat data directory \"%s\": %m", DataDir)));
	g->directory = psprintf("%u:%u:" UINT64_FORMAT ":" UINT64_FORMAT, major(dir.st_dev), minor(dir.st_dev),
							(uint64) dir.st_ino, (uint64) version.st_ino);
}

/* for a person who looks for it */
static char *
describe_green(const Green *g)
{
	char		host[256] = "?";

	(void) gethostname(host, sizeof(host) - 1);
	return psprintf("%s, port %d, %s, database oid %u (system identifier %s, timeline " INT64_FORMAT ", machine %s)",
					host, PostPortNumber, DataDir, g->database, g->system, g->timeline, g->machine[0] ? g->machine : "?");
}

static void
load_stored(const BcmigSync *sync, Stored *s)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	const char *query =
		"SELECT i.system, i.database, i.timeline, i.machine, i.directory, i.disputed, i.nonce, i.witness, i.witnessed, "
		" i.server_start IS NOT DISTINCT FROM $2, t.epoch, i.witness_error FROM bcmig.incarnation i JOIN bcmig.traffic t USING (sync_id) "
		"WHERE i.sync_id = $1";

	bcmig_catalog_begin(&scope);
	if (bcmig_sql(query, "iz", sync->sync_id, PgStartTime) == 0)
	{
		bcmig_incarnation_seen(sync->sync_id);
		(void) bcmig_sql(query, "iz", sync->sync_id, PgStartTime);
	}
	MemoryContextSwitchTo(caller);
	s->green.system = bcmig_get_text(0, 1);
	s->green.database = (Oid) bcmig_get_int64(0, 2, InvalidOid);
	s->green.timeline = bcmig_get_int64(0, 3, 0);
	s->green.machine = bcmig_get_text(0, 4);
	s->green.directory = bcmig_get_text(0, 5);
	s->disputed = bcmig_get_text(0, 6);
	s->nonce = bcmig_get_text(0, 7);
	s->witness = bcmig_get_text(0, 8);
	s->witnessed = bcmig_get_text(0, 9);
	s->asked = bcmig_get_bool(0, 10);
	s->epoch = bcmig_get_int64(0, 11, 0);
	s->problem = bcmig_get_text(0, 12);
	s->goes_on = strcmp(bcmig_option_value("on_promotion", NULL, sync->options), "continue") == 0;
	bcmig_catalog_end(&scope);
	MemoryContextSwitchTo(caller);
}

/* ---- comparing ---- */

/*
 * Between two timelines: where one of the recoveries was told to stop, in the
 * words of the history file, or why that cannot be said; NULL: each replayed all
 * there was, as a standby that is promoted does.
 */
static char *
recovery_target(int64 from, int64 to)
{
	char		path[MAXPGPATH];
	char		line[MAXPGPATH];
	char	   *target = NULL;
	bool		found = false;
	FILE	   *file;

	TLHistoryFilePath(path, (TimeLineID) to);
	file = AllocateFile(path, "r");
	while (file != NULL && target == NULL && fgets(line, sizeof(line), file) != NULL)
	{
		unsigned int timeline;
		unsigned int hi;
		unsigned int lo;
		int			words = 0;

		/* timeline, where it ended, why */
		if (sscanf(line, "%u\t%X/%X\t%n", &timeline, &hi, &lo, &words) < 3 || words == 0 || timeline < from)
			continue;
		found |= timeline == from;
		(void) pg_strip_crlf(line);
		if (strcmp(line + words, NO_TARGET) != 0)
			target = psprintf("recovered to a target: %s", line + words);
	}
	if (file != NULL)
		FreeFile(file);
	if (target == NULL && !found)
		target = psprintf("its history file %s does not lead there", path);
	return target;
}

/*
 * Why "is" may not be "was", or NULL.  *promoted: a newer timeline, and it may
 * go on.
 */
static char *
compare(const Green *was, const Green *is, bool goes_on, bool *promoted)
{
	char	   *target;

	*promoted = false;
	if (strcmp(was->system, is->system) != 0)
		return psprintf("this is another cluster: system identifier %s, was %s", is->system, was->system);
	if (was->database != is->database)
		return psprintf("this is another database: oid %u, was %u", is->database, was->database);
	if (is->timeline < was->timeline)
		return psprintf("an older state was restored: timeline " INT64_FORMAT ", was " INT64_FORMAT, is->timeline, was->timeline);
	if (is->timeline > was->timeline)
	{
		target = recovery_target(was->timeline, is->timeline);
		*promoted = goes_on && target == NULL;
		return *promoted ? NULL :
			psprintf("this cluster was promoted or recovered: timeline " INT64_FORMAT ", was " INT64_FORMAT "%s%s",
					 is->timeline, was->timeline, target ? ", " : "", target ? target : "");
	}
	if (strcmp(was->machine, is->machine) != 0)
		return psprintf("this is another machine: machine id \"%s\", was \"%s\"", is->machine, was->machine);
	if (strcmp(was->directory, is->directory) != 0)
		return psprintf("this is another data directory (device and inodes): %s, was %s", is->directory, was->directory);
	return NULL;
}

/* the same of what blue remembers */
static char *
compare_witness(const Stored *s, const BcmigWitness *w)
{
	if (w->answer == BCMIG_WITNESS_NOTHING && s->witnessed != NULL)
		return psprintf("blue has forgotten which green moves its traffic");
	if (w->answer != BCMIG_WITNESS_KNOWN ||
		(s->nonce != NULL && strcmp(w->nonce, s->nonce) == 0) ||
		(s->witnessed != NULL && strcmp(w->nonce, s->witnessed) == 0))
		return NULL;
	return psprintf("blue was told at %s of epoch " INT64_FORMAT " by %s; the last one here is " INT64_FORMAT,
					w->at, w->epoch, w->green, s->epoch);
}

/* blue was told something, and has not been asked since the server started */
static bool
unasked(const Stored *s)
{
	return !s->asked && s->nonce != NULL && strcmp(s->witness, "absent") != 0;
}

char *
bcmig_incarnation_differs(const BcmigSync *sync, bool *waiting)
{
	Stored		s;
	Green		is;
	bool		promoted;

	load_stored(sync, &s);
	read_green(&is);
	if (waiting != NULL)
		*waiting = unasked(&s) && s.problem != NULL;
	return s.disputed ? s.disputed : compare(&s.green, &is, s.goes_on, &promoted);
}

void
bcmig_this_green(char **parts)
{
	Green		is;

	read_green(&is);
	parts[0] = is.system;
	parts[1] = psprintf("%u", is.database);
	parts[2] = psprintf(INT64_FORMAT, is.timeline);
	parts[3] = is.machine;
	parts[4] = is.directory;
}

char *
bcmig_another_green(char *const *parts)
{
	Green		was = {parts[0], atooid(parts[1]), strtoi64(parts[2], NULL, 10), parts[3], parts[4]};
	Green		is;
	bool		promoted;

	read_green(&is);
	return compare(&was, &is, false, &promoted);
}

/* ---- storing ---- */

#define GREEN_TYPES		"toItt"
#define GREEN_VALUES(g)	(g)->system, (g)->database, (g)->timeline, (g)->machine, (g)->directory

void
bcmig_incarnation_seen(int sync_id)
{
	Green		is;

	read_green(&is);
	bcmig_sql("INSERT INTO bcmig.incarnation (sync_id, system, database, timeline, machine, directory) "
			  "VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING", "i" GREEN_TYPES, sync_id, GREEN_VALUES(&is));
}

/* "witness": what is to become of it next */
static void
become(int sync_id, const Green *is, const char *witness)
{
	bcmig_sql("UPDATE bcmig.incarnation SET system = $2, database = $3, timeline = $4, machine = $5, directory = $6, "
			  " disputed = NULL, witness = $7, server_start = $8 WHERE sync_id = $1",
			  "i" GREEN_TYPES "tz", sync_id, GREEN_VALUES(is), witness, PgStartTime);
}

void
bcmig_incarnation_adopt(int sync_id)
{
	Green		is;

	read_green(&is);
	become(sync_id, &is, "take");
}

int64
bcmig_give_epoch(int sync_id, int64 witnessed)
{
	uint8		random[NONCE_BYTES];
	char		nonce[2 * NONCE_BYTES + 1];

	if (!pg_strong_random(random, sizeof(random)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random value")));
	nonce[hex_encode((char *) random, sizeof(random), nonce)] = '\0';
	bcmig_sql("UPDATE bcmig.incarnation SET nonce = $2, witness = CASE witness WHEN 'take' THEN witness ELSE 'behind' END "
			  "WHERE sync_id = $1", "it", sync_id, nonce);

	/* the timeline of this server: what an older one gave out stays below */
	bcmig_sql("UPDATE bcmig.traffic SET epoch = greatest(epoch, $2, $3) + 1, updated_at = clock_timestamp() "
			  "WHERE sync_id = $1 RETURNING epoch",
			  "iII", sync_id, witnessed, (int64) GetWALInsertionTimeLine() << 32);
	return bcmig_get_int64(0, 1, 0);
}

/*
 * Not if what was compared has changed meanwhile: another job of this sync has
 * told blue, or a person has adopted.  Then the next look decides.
 */
static void
hold(const BcmigSync *sync, BcmigTraffic *t, const Stored *s, const char *why)
{
	BcmigCatalogScope scope;
	char	   *reason = psprintf("%s. If this database is the one that moves the traffic: SELECT bcmig_adopt(%s);",
								  why, quote_literal_cstr(sync->name));

	bcmig_start_transaction();
	if (bcmig_traffic_load(sync->sync_id, true, t) && t->held == NULL)
	{
		bcmig_catalog_begin(&scope);
		if (bcmig_sql("UPDATE bcmig.incarnation SET disputed = $2 WHERE sync_id = $1 AND witness = $3 "
					  "AND (nonce, witnessed) IS NOT DISTINCT FROM ($4, $5)",
					  "itttt", sync->sync_id, why, s->witness, s->nonce, s->witnessed) > 0)
		{
			bcmig_traffic_hold(sync->sync_id, sync->name, NULL, reason);
			t->held = reason;
		}
		bcmig_catalog_end(&scope);
	}
	bcmig_end_transaction();
}

/* ---- the witness; in no transaction ---- */

/*
 * What blue has answered, once nothing speaks against this green.  told: the
 * nonce it was told, NULL = it was only asked; one that is not stored any more
 * is of no account.
 */
static void
note_answer(const BcmigSync *sync, const BcmigWitness *w, const char *told)
{
	BcmigCatalogScope scope;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	if (w->answer == BCMIG_WITNESS_UNKNOWN)
		bcmig_sql("UPDATE bcmig.incarnation SET witness_error = $2 WHERE sync_id = $1 AND witness_error IS DISTINCT FROM $2",
				  "it", sync->sync_id, w->problem);
	else if (w->answer == BCMIG_WITNESS_ABSENT)
		bcmig_sql("UPDATE bcmig.incarnation SET witness = 'absent', witnessed = NULL, witness_error = $2, server_start = $3 "
				  "WHERE sync_id = $1 AND (witness, witness_error, server_start) IS DISTINCT FROM ('absent', $2, $3)",
				  "itz", sync->sync_id, w->problem, PgStartTime);
	else if (told != NULL)
		bcmig_sql("UPDATE bcmig.incarnation SET witness = 'kept', witnessed = nonce, witness_error = NULL, server_start = $3 "
				  "WHERE sync_id = $1 AND nonce = $2", "itz", sync->sync_id, told, PgStartTime);
	else
		bcmig_sql("UPDATE bcmig.incarnation SET server_start = $2, witness_error = NULL, "
				  " witness = CASE WHEN witness <> 'absent' THEN witness WHEN nonce IS NULL THEN 'none' ELSE 'behind' END "
				  "WHERE sync_id = $1 AND (server_start IS DISTINCT FROM $2 OR witness_error IS NOT NULL)",
				  "iz", sync->sync_id, PgStartTime);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
}

/* of a green that has been adopted: above whatever blue has been told by others */
static void
give_epoch_above(const BcmigSync *sync, int64 witnessed)
{
	BcmigTraffic t;
	BcmigCatalogScope scope;

	bcmig_start_transaction();
	if (bcmig_traffic_load(sync->sync_id, true, &t))
	{
		bcmig_catalog_begin(&scope);
		(void) bcmig_give_epoch(sync->sync_id, witnessed);
		bcmig_catalog_end(&scope);
	}
	bcmig_end_transaction();
}

static void
load_in_transaction(const BcmigSync *sync, Stored *s, Green *is)
{
	bcmig_start_transaction();
	load_stored(sync, s);
	read_green(is);
	bcmig_end_transaction();
}

/* t->held is set when blue refuses */
static void
tell_blue(const BcmigSync *sync, BcmigTraffic *t)
{
	Stored		s;
	Green		is;
	BcmigWitness w;
	char	   *why;

	load_in_transaction(sync, &s, &is);
	if (strcmp(s.witness, "take") == 0)
	{
		bcmig_witness_ask(sync, &w);
		if (w.answer == BCMIG_WITNESS_KNOWN || w.answer == BCMIG_WITNESS_NOTHING)
		{
			give_epoch_above(sync, w.answer == BCMIG_WITNESS_KNOWN ? w.epoch : 0);
			load_in_transaction(sync, &s, &is);
		}
		else
		{
			note_answer(sync, &w, NULL);
			return;
		}
	}
	else if (strcmp(s.witness, "behind") != 0 || s.nonce == NULL)
		return;
	bcmig_debug_point("witness");
	bcmig_witness_tell(sync, describe_green(&is), s.epoch, s.nonce, &w);

	/* refused: another green was faster, or has been all the time; who was adopted tries again */
	why = compare_witness(&s, &w);
	if (why == NULL && w.answer == BCMIG_WITNESS_KNOWN && strcmp(w.nonce, s.nonce) != 0)
		why = psprintf("blue does not take epoch " INT64_FORMAT ", it has " INT64_FORMAT, s.epoch, w.epoch);
	if (why == NULL)
		note_answer(sync, &w, s.nonce);
	else if (strcmp(s.witness, "take") != 0)
		hold(sync, t, &s, why);
}

void
bcmig_witness_store(const BcmigSync *sync)
{
	BcmigTraffic t;

	tell_blue(sync, &t);
}

/*
 * A standby that was promoted is this green from now on, unless another job has
 * seen to that.
 */
static void
go_on(const BcmigSync *sync, const Stored *s, const Green *is, bool absent)
{
	BcmigTraffic t;
	BcmigCatalogScope scope;

	bcmig_start_transaction();
	if (bcmig_traffic_load(sync->sync_id, true, &t))
	{
		bcmig_catalog_begin(&scope);
		if (bcmig_sql("SELECT FROM bcmig.incarnation WHERE sync_id = $1 AND timeline = $2", "iI", sync->sync_id, s->green.timeline) > 0)
		{
			become(sync->sync_id, is, absent ? "absent" : "behind");
			if (!absent)
				(void) bcmig_give_epoch(sync->sync_id, 0);
			(void) bcmig_traffic_event(sync->name, "promoted", -1, -1, 0, NULL,
									   psprintf("timeline " INT64_FORMAT ", was " INT64_FORMAT, is->timeline, s->green.timeline));
		}
		bcmig_catalog_end(&scope);
	}
	bcmig_end_transaction();
}

bool
bcmig_green_may_act(const BcmigSync *sync, BcmigTraffic *t, bool acting)
{
	Stored		s;
	Green		is;
	BcmigWitness w;
	bool		promoted;
	bool		asking;
	char	   *why;

	load_in_transaction(sync, &s, &is);
	if (t->held != NULL)
		return s.disputed == NULL;
	why = compare(&s.green, &is, s.goes_on, &promoted);
	if (why == NULL && strcmp(s.witness, "take") == 0)
	{
		tell_blue(sync, t);
		return true;
	}
	asking = acting || promoted || !s.asked;
	if (why == NULL && asking)
	{
		bcmig_witness_ask(sync, &w);
		why = compare_witness(&s, &w);
		if (why == NULL)
			note_answer(sync, &w, NULL);

		/* what another green may have done while this server was down is not known */
		if (w.answer == BCMIG_WITNESS_UNKNOWN && (promoted || (acting && unasked(&s))))
			return false;
		if (why == NULL && promoted)
			go_on(sync, &s, &is, w.answer == BCMIG_WITNESS_ABSENT);
	}
	if (why != NULL)
	{
		hold(sync, t, &s, why);
		return false;
	}
	if (asking || strcmp(s.witness, "behind") == 0)
		tell_blue(sync, t);
	return t->held == NULL;
}
