/*-------------------------------------------------------------------------
 *
 * probe.c
 *	  Time from COMMIT on blue to the row being visible on green.
 *
 * probe BLUE GREEN SAMPLES [FIRST [TABLE]]: two connections that stay open; one
 * machine, one monotonic clock.  Rows have only an id, from FIRST (0) on, and
 * go into TABLE (probe).
 *
 * SAMPLES > 0: one row after the other, the next one when green has the last.
 * SAMPLES 0: a row every INTERVAL whatever green does, until SIGTERM, then until
 * green has them all; so a time in which nothing arrives counts as often as it
 * would for an application.
 *
 * Prints one line: p50 p90 p99 max, in milliseconds; with SAMPLES 0 also how many.
 *
 *-------------------------------------------------------------------------
 */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <libpq-fe.h>

#define MOST		1000000		/* samples */
#define INTERVAL	50.0		/* ms */
#define LONGEST		60000.0		/* ms a row may take, one after the other */

static volatile sig_atomic_t stop = 0;

static void
on_term(int signo)
{
	stop = 1;
}

static double
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000.0 + t.tv_nsec / 1000000.0;
}

static void
pause_ms(double ms)
{
	struct timespec t = {(time_t) (ms / 1000), (long) (ms * 1000000.0) % 1000000000L};

	nanosleep(&t, NULL);
}

static PGresult *
run(PGconn *conn, const char *sql)
{
	PGresult   *res = PQexec(conn, sql);

	if (PQresultStatus(res) != PGRES_COMMAND_OK && PQresultStatus(res) != PGRES_TUPLES_OK)
	{
		fprintf(stderr, "%s: %s", sql, PQerrorMessage(conn));
		exit(1);
	}
	return res;
}

static void
insert(PGconn *blue, const char *table, int id)
{
	char		sql[200];

	snprintf(sql, sizeof(sql), "INSERT INTO %s (id) VALUES (%d)", table, id);
	PQclear(run(blue, sql));
}

/* how many of the rows from "id" on green has, without a gap */
static int
arrived(PGconn *green, const char *table, int id)
{
	char		sql[200];
	PGresult   *res;
	int			n;

	snprintf(sql, sizeof(sql), "SELECT id FROM %s WHERE id >= %d ORDER BY id", table, id);
	res = run(green, sql);
	for (n = 0; n < PQntuples(res) && atoi(PQgetvalue(res, n, 0)) == id + n; n++)
		;
	PQclear(res);
	return n;
}

static void
one_by_one(PGconn *blue, PGconn *green, const char *table, int first, int n, double *ms)
{
	for (int i = 0; i < n; i++)
	{
		double		committed;

		insert(blue, table, first + i);
		committed = now_ms();
		while (arrived(green, table, first + i) == 0)
		{
			if (now_ms() - committed > LONGEST)
			{
				fprintf(stderr, "row %d is not there after a minute\n", first + i);
				exit(1);
			}
			pause_ms(0.5);
		}
		ms[i] = now_ms() - committed;

		/* not in step with the polls */
		pause_ms(20 + rand() % 40);
	}
}

/* ms[i] is when row i was committed until it has arrived */
static int
at_a_rate(PGconn *blue, PGconn *green, const char *table, int first, double *ms)
{
	double		next = now_ms();
	int			sent = 0;
	int			there = 0;

	while (there < sent || !stop)
	{
		int			n;

		if (!stop && sent < MOST && now_ms() >= next)
		{
			insert(blue, table, first + sent);
			ms[sent++] = now_ms();
			next += INTERVAL;
		}
		n = arrived(green, table, first + there);
		for (double now = now_ms(); n > 0; n--, there++)
			ms[there] = now - ms[there];
		pause_ms(2);
	}
	return sent;
}

static int
compare(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return x < y ? -1 : x > y;
}

int
main(int argc, char **argv)
{
	PGconn	   *blue = PQconnectdb(argc > 3 ? argv[1] : "");
	PGconn	   *green = PQconnectdb(argc > 3 ? argv[2] : "");
	int			n = argc > 3 ? atoi(argv[3]) : -1;
	bool		count = n == 0;
	int			first = argc > 4 ? atoi(argv[4]) : 0;
	const char *table = argc > 5 ? argv[5] : "probe";
	double	   *ms = malloc(sizeof(double) * MOST);

	if (n < 0 || n > MOST || ms == NULL || PQstatus(blue) != CONNECTION_OK || PQstatus(green) != CONNECTION_OK)
	{
		fprintf(stderr, "usage: probe BLUE GREEN SAMPLES [FIRST [TABLE]]\n%s%s", PQerrorMessage(blue), PQerrorMessage(green));
		return 1;
	}
	srand(1);
	signal(SIGTERM, on_term);
	if (n > 0)
		one_by_one(blue, green, table, first, n, ms);
	else
		n = at_a_rate(blue, green, table, first, ms);
	if (n == 0)
		return 1;
	qsort(ms, n, sizeof(double), compare);
	printf("%.1f %.1f %.1f %.1f", ms[n / 2], ms[n * 9 / 10], ms[n * 99 / 100], ms[n - 1]);
	printf(count ? " %d\n" : "\n", n);
	return 0;
}
