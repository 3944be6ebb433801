/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_RELAY_LIMIT_H
#define SIDECAR_RELAY_LIMIT_H

/*
 * How many connections to PHP-FPM there may be at once ([php_fpm] max_connections), counted over
 * all relay threads, and the queue of those who wait for one: first come, first served.
 *
 * A place is taken and given back without a lock as long as nobody waits; the lock covers the queue
 * alone. With max UINT_MAX it only counts.
 */

#include <stdatomic.h>

#include "sidecar/io/mailbox.h"

struct limit {
    unsigned max;
    atomic_uint taken;
    atomic_uint peak;    /* the most that were ever taken at once */
    atomic_uint waiting; /* length of the queue, readable without the lock */
    pthread_mutex_t lock;
    struct list queue; /* under lock */
};

/* One who waits; it is also the message that tells him his turn. */
struct limit_waiter {
    struct mail mail; /* first */
    struct list link; /* in the queue, under the limit's lock */
    struct mailbox *reply_to;
    uint64_t number; /* the waiter's own, by which he recognises the message */
    bool is_queued;  /* under lock; false: the message is on its way or has come */
};

void limit_init(struct limit *limit, unsigned max);
/* Nobody may wait any more. */
void limit_deinit(struct limit *limit);

/* True: a place is taken; it must be given back by limit_release. */
bool limit_take(struct limit *limit);

/*
 * Joins the queue. The waiter's mail arrives at reply_to when it is his turn: a place is taken
 * then, and the object is the receiver's. 0 with *waiter, borrowed until the mail has come, or
 * -ENOMEM.
 */
int limit_wait(struct limit *limit, struct mailbox *reply_to, uint64_t number,
               struct limit_waiter **waiter);
/* Leaves the queue. The mail may be on its way already: its receiver gives the place back then. */
void limit_leave(struct limit *limit, struct limit_waiter *waiter);

/* Gives a place back, to the first who waits. */
void limit_release(struct limit *limit);

#endif
