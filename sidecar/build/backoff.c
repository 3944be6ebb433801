/* SPDX-License-Identifier: MIT */
/* Exponential backoff. It must never read a clock or a random generator. */
#include "sidecar/build/backoff.h"

uint64_t backoff_delay_ms(const struct retry_options *options, unsigned attempt, double random)
{
    double delay_ms = (double)options->initial_delay_ms;
    double max_ms = (double)options->max_delay_ms;

    for (unsigned i = 1; i < attempt && delay_ms < max_ms && options->multiplier > 1.0; i++) {
        delay_ms *= options->multiplier;
    }
    if (delay_ms > max_ms) {
        delay_ms = max_ms;
    }
    delay_ms *= 1.0 + options->jitter * (2.0 * random - 1.0);
    return (uint64_t)(delay_ms + 0.5);
}
