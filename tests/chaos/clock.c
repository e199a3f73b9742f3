/* A wall clock that can be stepped, for one process: preloaded, it adds to CLOCK_REALTIME the seconds that stand in the
 * file $CHAOS_CLOCK.  No other clock is touched.  Waits until a wall-clock time behave as they do when the clock is
 * really stepped: they end when the stepped clock gets there, however long that takes. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

static int file = -1;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CHAOS_CLOCK");
    if (path) file = open(path, O_RDONLY | O_CLOEXEC);
}

/* Seconds; the file is overwritten in place, with as many characters each time. */
static time_t step(void) {
    char text[17];
    ssize_t size = file < 0 ? 0 : pread(file, text, 16, 0);
    if (size <= 0) return 0;
    text[size] = 0;
    return (time_t)atol(text);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    long failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += step();
    return (int)failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec t;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &t);
    now->tv_sec = t.tv_sec;
    now->tv_usec = t.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (now) *now = t.tv_sec;
    return t.tv_sec;
}

int timespec_get(struct timespec *now, int base) {
    if (base != TIME_UTC) return 0;
    clock_gettime(CLOCK_REALTIME, now);
    return base;
}

/* librdkafka's waits.  (pthread_cond_timedwait is left alone: a condition may be bound to the monotonic clock.) */
int cnd_timedwait(cnd_t *restrict cond, mtx_t *restrict mutex, const struct timespec *restrict until) {
    static int (*real)(cnd_t *, mtx_t *, const struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "cnd_timedwait");
    for (;;) { /* in slices: the clock may be stepped meanwhile */
        struct timespec slice, now;
        clock_gettime(CLOCK_REALTIME, &now);
        double left = (double)(until->tv_sec - now.tv_sec) + (double)(until->tv_nsec - now.tv_nsec) / 1e9;
        if (left <= 0) return thrd_timedout;
        if (left > 0.05) left = 0.05;
        syscall(SYS_clock_gettime, CLOCK_REALTIME, &slice);
        slice.tv_nsec += (long)(left * 1e9);
        if (slice.tv_nsec >= 1000000000L) slice.tv_sec++, slice.tv_nsec -= 1000000000L;
        int result = real(cond, mutex, &slice);
        if (result != thrd_timedout) return result;
    }
}
