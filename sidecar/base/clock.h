/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BASE_CLOCK_H
#define SIDECAR_BASE_CLOCK_H

/*
 * The machine's clocks. Timers and deadlines do not read them: they use the time of their loop
 * (sidecar/io/loop.h), which tests move by hand.
 */

#include <stdint.h>
#include <time.h>

/* CLOCK_MONOTONIC in nanoseconds, for measuring how long something took. */
static inline uint64_t clock_monotonic_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* CLOCK_REALTIME, for log lines and ages of files. */
static inline struct timespec clock_wall(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return now;
}

#endif
