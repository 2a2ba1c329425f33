/*-------------------------------------------------------------------------
 *
 * probe.c
 *	  Time from COMMIT on blue to the row being visible on green.
 *
 * probe BLUE GREEN SAMPLES [FIRST]: two connections that stay open; inserts a
 * row into table probe on blue, with id FIRST (0), then the next, and asks green
 * for it until it is there.  One machine, one monotonic clock.  Prints one line:
 * p50 p90 p99 max, in milliseconds.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <libpq-fe.h>

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

static int
run(PGconn *conn, const char *sql)
{
	PGresult   *res = PQexec(conn, sql);
	int			rows;

	if (PQresultStatus(res) != PGRES_COMMAND_OK && PQresultStatus(res) != PGRES_TUPLES_OK)
	{
		fprintf(stderr, "%s: %s", sql, PQerrorMessage(conn));
		exit(1);
	}
	rows = PQntuples(res);
	PQclear(res);
	return rows;
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
	int			n = argc > 3 ? atoi(argv[3]) : 0;
	int			first = argc > 4 ? atoi(argv[4]) : 0;
	double	   *ms = malloc(sizeof(double) * (n > 0 ? n : 1));

	if (n < 1 || PQstatus(blue) != CONNECTION_OK || PQstatus(green) != CONNECTION_OK)
	{
		fprintf(stderr, "usage: probe BLUE GREEN SAMPLES [FIRST]\n%s%s", PQerrorMessage(blue), PQerrorMessage(green));
		return 1;
	}
	srand(1);
	for (int i = 0; i < n; i++)
	{
		char		insert[100];
		char		look[100];
		double		committed;

		snprintf(insert, sizeof(insert), "INSERT INTO probe (id) VALUES (%d)", first + i);
		snprintf(look, sizeof(look), "SELECT 1 FROM probe WHERE id = %d", first + i);
		run(blue, insert);
		committed = now_ms();
		while (run(green, look) == 0)
		{
			if (now_ms() - committed > 60000)
			{
				fprintf(stderr, "row %d is not there after a minute\n", first + i);
				return 1;
			}
			pause_ms(0.5);
		}
		ms[i] = now_ms() - committed;

		/* not in step with the polls */
		pause_ms(20 + rand() % 40);
	}
	qsort(ms, n, sizeof(double), compare);
	printf("%.1f %.1f %.1f %.1f\n", ms[n / 2], ms[n * 9 / 10], ms[n * 99 / 100], ms[n - 1]);
	return 0;
}
