/* Preloaded into a node: syncs that fail, and a clock that jumps.
 *
 * CHAOS_PAGE names a file that is mapped: what the run writes there takes effect at the next call,
 * and what was done is counted there. bench/chaos/preload.py has the same layout. Without the
 * variable nothing changes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct page {
    volatile int64_t clock_offset_ns;   /* added to CLOCK_REALTIME */
    volatile int64_t failing;           /* not 0: fsync and fdatasync fail with EIO */
    volatile int64_t failed;            /* how many did */
    volatile int64_t shifted;           /* how often a clock was read that is off */
};

static struct page *page;
static int (*real_clock_gettime)(clockid_t, struct timespec *);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);

__attribute__((constructor)) static void start(void)
{
    real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    const char *path = getenv("CHAOS_PAGE");
    if (!path)
        return;
    int file = open(path, O_RDWR | O_CLOEXEC);
    void *mapped = file < 0 ? MAP_FAILED
        : mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (mapped == MAP_FAILED) {
        perror(path);
        _exit(70);   /* a run whose faults cannot bite is worth nothing */
    }
    close(file);
    page = mapped;
}

static int syncs_fail(void)
{
    if (!page || !page->failing)
        return 0;
    __atomic_add_fetch(&page->failed, 1, __ATOMIC_RELAXED);
    errno = EIO;
    return 1;
}

int fsync(int file) { return syncs_fail() ? -1 : real_fsync(file); }
int fdatasync(int file) { return syncs_fail() ? -1 : real_fdatasync(file); }

int clock_gettime(clockid_t clock, struct timespec *now)
{
    /* Called by libraries' constructors too, which may run before ours. */
    if (!real_clock_gettime)
        real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real_clock_gettime(clock, now);
    int64_t offset_ns = page ? page->clock_offset_ns : 0;
    if (result || !offset_ns || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE))
        return result;
    __atomic_add_fetch(&page->shifted, 1, __ATOMIC_RELAXED);
    int64_t ns = now->tv_nsec + offset_ns % 1000000000;
    now->tv_sec += offset_ns / 1000000000;
    if (ns < 0) { ns += 1000000000; now->tv_sec--; }
    if (ns >= 1000000000) { ns -= 1000000000; now->tv_sec++; }
    now->tv_nsec = ns;
    return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec precise;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out)
{
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (out)
        *out = precise.tv_sec;
    return precise.tv_sec;
}
