/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SIM_LOOP_MANUAL_H
#define TESTS_SIM_LOOP_MANUAL_H

/* What the simulated loop has beyond sidecar/io/loop.h: turns and time, moved by the test. */

#include "sidecar/io/loop.h"

/* The time of a new loop. */
#define LOOP_MANUAL_BEGIN_MS 1000000

/* One turn without waiting and without time passing. False when nothing happened. */
bool loop_manual_turn(struct loop *loop);
/* When the next timer is due; false when none is armed. */
bool loop_manual_next_due(const struct loop *loop, uint64_t *due_ms);
/* Moves the clock forward and fires what is due. */
void loop_manual_advance(struct loop *loop, uint64_t now_ms);

#endif
