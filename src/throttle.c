/*-------------------------------------------------------------------------
 *
 * throttle.c
 *	  How long blue takes to answer, and whether what can wait has to wait.
 *
 * Blue is measured by the poll: it is asked all the time, always the same
 * small question, so nothing is asked of a blue in trouble to find out that it
 * is in trouble, and our own big statements are not what is measured.  The
 * answer time is the middle one of the last few polls, so that a single slow
 * one decides nothing; a poll that is still out counts by itself once it has
 * taken several times the bound, else a blue that does not answer at all would
 * go unnoticed.
 *
 * Above the bound a pause begins: no copy chunk, sweep, compare or group of a
 * validation is started, by any worker and for any sync of that blue.  Windows
 * and polls go on.  It ends when blue answers well below the bound again, and
 * not before PAUSE is over.
 *
 * The state is in shared memory, one for a blue; whoever wants to know brings
 * it up to date.  Nothing of it is stored: after a restart blue is measured
 * anew.  All times are of the monotonic clock, so that a clock that is set back
 * holds nothing up.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "throttle.h"

#include "through.h"

#define AUTO_BOUND			1000000 /* us, where max_answer is auto */
#define AUTO_TIMES			4		/* or so many times what blue takes at its best */
#define OUT_TIMES			3		/* the bound, for a poll that is out */
#define PAUSE				1000000 /* us at least */
#define LATELY				60000000	/* us after a pause */

void
bcmig_throttle_reset(BcmigBlue *blue)
{
	blue->throttle.answers = 0;
	blue->throttle.out = false;
}

void
bcmig_throttle_asked(BcmigBlue *blue, int waits)
{
	blue->throttle.out = true;
	blue->throttle.waits = waits;
	INSTR_TIME_SET_CURRENT(blue->throttle.asked_at);
}

static int
compare_us(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return x < y ? -1 : x > y;
}

void
bcmig_throttle_answered(BcmigBlue *blue, int64 us)
{
	BcmigThrottle *t = &blue->throttle;
	int64		sorted[BCMIG_ANSWERS];
	int			n;

	t->out = false;
	if (us < 0)
		return;
	t->us[t->answers++ % BCMIG_ANSWERS] = us;
	n = Min(t->answers, BCMIG_ANSWERS);
	memcpy(sorted, t->us, sizeof(int64) * n);
	qsort(sorted, n, sizeof(int64), compare_us);
	t->middle = sorted[n / 2];
	if (n == BCMIG_ANSWERS && (t->least == 0 || t->middle < t->least))
		t->least = Max(1, t->middle);
}

/* how long the poll that is out has been so, what blue may wait on purpose left out */
static int64
out_us(const BcmigThrottle *t)
{
	return t->out ? Max(0, bcmig_age_of(t->asked_at) - t->waits * INT64CONST(1000)) : 0;
}

int64
bcmig_answer_us(const BcmigBlue *blue)
{
	const BcmigThrottle *t = &blue->throttle;

	return Max(t->answers > 0 ? t->middle : 0, out_us(t) / OUT_TIMES);
}

int64
bcmig_bound_us(const BcmigBlue *blue)
{
	const BcmigThrottle *t = &blue->throttle;
	int64		bound = t->max_answer * INT64CONST(1000);
	int64		by_itself = Max(AUTO_BOUND, AUTO_TIMES * t->least);

	if (t->automatic && (bound == 0 || by_itself < bound))
		bound = by_itself;
	return bound;
}

bool
bcmig_throttled(BcmigBlue *blue)
{
	BcmigThrottle *t = &blue->throttle;
	int64		answer = bcmig_answer_us(blue);
	int64		bound = bcmig_bound_us(blue);

	if (!t->on && bound > 0 && answer > bound)
	{
		t->on = true;
		t->pauses++;
		if (!t->told)
			t->slowest = 0;
		t->slowest = Max(t->slowest, answer);
		INSTR_TIME_SET_CURRENT(t->since);
	}
	else if (t->on)
	{
		int64		us = bcmig_age_of(t->since);

		t->slowest = Max(t->slowest, answer);
		if (bound == 0 || (us >= PAUSE && answer <= bound / 4 * 3))
		{
			t->on = false;
			t->paused += us;
			INSTR_TIME_SET_CURRENT(t->since);
		}
	}
	return t->on;
}

bool
bcmig_throttled_lately(const BcmigBlue *blue)
{
	const BcmigThrottle *t = &blue->throttle;

	return t->on || (t->pauses > 0 && bcmig_age_of(t->since) < LATELY);
}

int64
bcmig_throttled_us(const BcmigBlue *blue)
{
	return blue->throttle.paused + (blue->throttle.on ? bcmig_age_of(blue->throttle.since) : 0);
}
