/*
 * Waiting with a deadline.
 */

#include "clock.h"

#include <stddef.h>
#include <time.h>


/* Milliseconds on a clock that nobody sets. */
long
clock_now(void)
{
    struct timespec  now;

    clock_gettime(CLOCK_MONOTONIC, &now);

    return (long) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}


/* Sleeps a little. */
void
clock_pause(int ms)
{
    struct timespec  pause;

    pause.tv_sec = ms / 1000;
    pause.tv_nsec = (long) (ms % 1000) * 1000000L;
    nanosleep(&pause, NULL);
}
