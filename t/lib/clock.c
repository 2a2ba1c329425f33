/*-------------------------------------------------------------------------
 *
 * clock.c
 *	  A clock that can be set, for one server: preloaded into it.
 *
 * BCMIG_CLOCK names a file of one int64, the microseconds this server's clock
 * is off; it is mapped, so all processes see a change at once.  The monotonic
 * clock is left alone, as it is when somebody sets a real one.
 *
 * libfaketime would do, but what PostgreSQL up to 15 starts in a signal handler
 * of the postmaster, background workers that is, it leaves on the true time.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define MILLION 1000000

static const volatile int64_t *offset;
static int	(*real_gettimeofday) (struct timeval *, void *);
static int	(*real_clock_gettime) (clockid_t, struct timespec *);

__attribute__((constructor))
static void
begin(void)
{
	const char *name = getenv("BCMIG_CLOCK");
	int			fd = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
	void	   *map;

	real_gettimeofday = dlsym(RTLD_NEXT, "gettimeofday");
	real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
	if (fd < 0)
		return;
	map = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
	if (map != MAP_FAILED)
		offset = map;
	close(fd);
}

static int64_t
now(void)
{
	struct timeval tv;

	real_gettimeofday(&tv, NULL);
	return tv.tv_sec * (int64_t) MILLION + tv.tv_usec + (offset ? *offset : 0);
}

int
gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
	int64_t		t = now();

	tv->tv_sec = t / MILLION;
	tv->tv_usec = t % MILLION;
	return 0;
}

int
clock_gettime(clockid_t id, struct timespec *ts)
{
	int64_t		t;

	if (id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE)
		return real_clock_gettime(id, ts);
	t = now();
	ts->tv_sec = t / MILLION;
	ts->tv_nsec = t % MILLION * 1000;
	return 0;
}

time_t
time(time_t *t)
{
	time_t		s = now() / MILLION;

	if (t)
		*t = s;
	return s;
}
