#include "events.h"

#include <time.h>

double monotonic_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void events_add_in(struct event *timer, double seconds)
{
    if (seconds < 0)
        seconds = 0;
    struct timeval delay = {.tv_sec = (time_t)seconds};
    delay.tv_usec = (suseconds_t)((seconds - (double)delay.tv_sec) * 1e6);
    evtimer_add(timer, &delay);
}
