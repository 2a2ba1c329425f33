/*-------------------------------------------------------------------------
 *
 * observe.c
 *	  When does green show which row?
 *
 *	observe CONNINFO TABLE COLUMN
 *
 * Asks every half millisecond which values of an ascending bigint column it
 * has not seen yet and notes the time when the answer was there; on SIGINT
 * prints a line "value seconds" for each and ends.  A value that is missing
 * while 10,000 higher ones are there is given up.
 *
 *-------------------------------------------------------------------------
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libpq-fe.h>

#define GIVE_UP		10000

static volatile sig_atomic_t stopped = 0;

static void
stop(int signo)
{
	(void) signo;
	stopped = 1;
}

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

int
main(int argc, char **argv)
{
	PGconn	   *conn;
	PGresult   *res;
	char		sql[512];
	double	   *seen = NULL;
	long		size = 0;
	long		low = 1;		/* all below it were seen */
	long		high = 0;
	int			last = 0;

	if (argc != 4)
	{
		fprintf(stderr, "usage: observe CONNINFO TABLE COLUMN\n");
		return 2;
	}
	signal(SIGINT, stop);
	signal(SIGTERM, stop);
	conn = PQconnectdb(argv[1]);
	snprintf(sql, sizeof(sql), "SELECT %s FROM %s WHERE %s >= $1", argv[3], argv[2], argv[3]);
	res = PQprepare(conn, "look", sql, 1, NULL);
	if (PQresultStatus(res) != PGRES_COMMAND_OK)
	{
		fprintf(stderr, "observe: %s", PQerrorMessage(conn));
		return 1;
	}
	PQclear(res);

	/* once more after the signal, so that nothing is missed at the end */
	while (!last)
	{
		char		from[32];
		const char *params[1] = {from};
		double		at;

		last = stopped;
		snprintf(from, sizeof(from), "%ld", low);
		res = PQexecPrepared(conn, "look", 1, params, NULL, NULL, 0);
		at = now();
		if (PQresultStatus(res) != PGRES_TUPLES_OK)
		{
			fprintf(stderr, "observe: %s", PQerrorMessage(conn));
			return 1;
		}
		for (int i = 0; i < PQntuples(res); i++)
		{
			long		no = atol(PQgetvalue(res, i, 0));

			if (no >= size)
			{
				long		more = 2 * no + 1024;

				seen = realloc(seen, more * sizeof(double));
				if (seen == NULL)
					return 1;
				memset(seen + size, 0, (more - size) * sizeof(double));
				size = more;
			}
			if (seen[no] == 0)
				seen[no] = at;
			if (no > high)
				high = no;
		}
		PQclear(res);
		while (low <= high && (seen[low] != 0 || low < high - GIVE_UP))
			low++;
		nanosleep(&(struct timespec) {0, 500000}, NULL);
	}
	for (long no = 1; no <= high; no++)
	{
		if (seen[no] != 0)
			printf("%ld %.6f\n", no, seen[no]);
	}
	PQfinish(conn);
	return 0;
}
