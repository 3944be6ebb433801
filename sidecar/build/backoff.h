/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_BACKOFF_H
#define SIDECAR_BUILD_BACKOFF_H

/* How long to wait between attempts. Pure: the random number is the caller's. */

#include "sidecar/build/options.h"

/*
 * The delay in milliseconds after the failure of attempt number attempt (from 1): initial_delay ×
 * multiplier^(attempt - 1), at most max_delay, then drawn from delay × (1 ± jitter) by random (from
 * 0 up to, not including, 1; 0.5 is the middle).
 */
uint64_t backoff_delay_ms(const struct retry_options *options, unsigned attempt, double random);

#endif
