/* SPDX-License-Identifier: MIT */
/*
 * Places and their queue. Must never lose a place, nor leave one free while somebody waits.
 */
#include "sidecar/relay/limit.h"

#include <errno.h>
#include <stdlib.h>

void limit_init(struct limit *limit, unsigned max)
{
    *limit = (struct limit){ .max = max };
    atomic_init(&limit->taken, 0);
    atomic_init(&limit->peak, 0);
    atomic_init(&limit->waiting, 0);
    pthread_mutex_init(&limit->lock, NULL);
    list_init(&limit->queue);
}

void limit_deinit(struct limit *limit)
{
    pthread_mutex_destroy(&limit->lock);
}

/* After the first minutes a mere look, at a value that lies beside the one just changed. */
static void note_peak(struct limit *limit, unsigned taken)
{
    unsigned peak = atomic_load_explicit(&limit->peak, memory_order_relaxed);

    while (taken > peak && !atomic_compare_exchange_weak(&limit->peak, &peak, taken)) {}
}

static bool take_place(struct limit *limit)
{
    unsigned taken = atomic_load(&limit->taken);

    while (taken < limit->max) {
        if (atomic_compare_exchange_weak(&limit->taken, &taken, taken + 1)) {
            note_peak(limit, taken + 1);
            return true;
        }
    }
    return false;
}

bool limit_take(struct limit *limit)
{
    /* Nobody overtakes those who wait. */
    return atomic_load(&limit->waiting) == 0 && take_place(limit);
}

/* Under the lock: places that are free go to those who wait. */
static void serve_queue(struct limit *limit)
{
    while (!list_is_empty(&limit->queue) && take_place(limit)) {
        struct list *link = list_shift(&limit->queue);
        struct limit_waiter *waiter = list_entry(link, struct limit_waiter, link);

        waiter->is_queued = false;
        atomic_fetch_sub(&limit->waiting, 1);
        if (mailbox_post(waiter->reply_to, &waiter->mail) != 0) {
            /* Its relay has stopped, and with it whoever waited. */
            free(waiter);
            atomic_fetch_sub(&limit->taken, 1);
        }
    }
}

int limit_wait(struct limit *limit, struct mailbox *reply_to, uint64_t number,
               struct limit_waiter **waiter)
{
    struct limit_waiter *made = calloc(1, sizeof(*made));

    if (made == NULL) {
        return -ENOMEM;
    }
    list_init(&made->mail.link);
    made->reply_to = reply_to;
    made->number = number;
    made->is_queued = true;
    *waiter = made;
    pthread_mutex_lock(&limit->lock);
    list_append(&limit->queue, &made->link);
    atomic_fetch_add(&limit->waiting, 1);
    /* A place may have become free between the caller's attempt and the line above, by somebody who
     * saw nobody wait. */
    serve_queue(limit);
    pthread_mutex_unlock(&limit->lock);
    return 0;
}

void limit_leave(struct limit *limit, struct limit_waiter *waiter)
{
    bool was_queued;

    pthread_mutex_lock(&limit->lock);
    was_queued = waiter->is_queued;
    if (was_queued) {
        list_remove(&waiter->link);
        atomic_fetch_sub(&limit->waiting, 1);
    }
    pthread_mutex_unlock(&limit->lock);
    if (was_queued) {
        free(waiter);
    }
}

void limit_release(struct limit *limit)
{
    atomic_fetch_sub(&limit->taken, 1);
    if (atomic_load(&limit->waiting) == 0) {
        return;
    }
    pthread_mutex_lock(&limit->lock);
    serve_queue(limit);
    pthread_mutex_unlock(&limit->lock);
}
