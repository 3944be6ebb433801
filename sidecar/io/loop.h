/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_IO_LOOP_H
#define SIDECAR_IO_LOOP_H

/*
 * One event loop a thread: descriptors, timers and deferred work. Nothing here
 * may be called from another thread; threads talk through mailboxes (sidecar/io/mailbox.h).
 *
 * Readiness is edge-triggered and collected: a watch is registered once (and once more when its
 * socket is full for the first time, since room to write is the rule and telling of it a waste),
 * and the loop adds to watch->ready whatever becomes possible. Whoever reads or writes clears the
 * bit when the system says EAGAIN (watch_clear), and only then; as long as the bit is set there may
 * be more. So the interest of a connection never has to be changed with a system call, and
 * backpressure is simply not to read.
 *
 * No callback comes after the _stop of its watch, timer or task. All of them may be called from
 * within any callback of the same loop. The objects live in their owners; the loop borrows them
 * between _start and _stop. Tests link a second implementation, whose clock is moved by hand.
 */

#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdbool.h>
#include <stdint.h>

#include "sidecar/base/list.h"

struct loop;

/* 0 or -ENOMEM. */
int loop_new(struct loop **loop);
/* All watches, timers and tasks must have been stopped. */
void loop_free(struct loop *loop);
/* Runs until loop_stop. */
void loop_run(struct loop *loop);
/* Makes loop_run return after the current turn. Must be called from the loop's own thread. */
void loop_stop(struct loop *loop);

/* Monotonic time in milliseconds, read once a turn, when it is first asked for. */
uint64_t loop_now_ms(struct loop *loop);

enum watch_ready {
    WATCH_READ = 1,
    WATCH_WRITE = 2,
    /* The peer has ended its direction, or is gone. A reset comes as READ and WRITE alone: reading
     * tells. */
    WATCH_END = 4,
};

struct watch {
    struct loop *loop;
    int fd;
    unsigned ready; /* enum watch_ready */
    void (*on_ready)(struct watch *watch);
    unsigned wanted;   /* private to the implementation, as is all below */
    bool awaits_write; /* registered for writing; most connections never need it */
    bool is_level;
    struct list link;
};

/*
 * Begins to watch fd. ready starts out as the bits given: WATCH_READ | WATCH_WRITE makes the owner
 * try at once instead of waiting for the loop, which is right for a fresh connection.
 * 0 or -ENOMEM. A zeroed watch counts as stopped.
 */
int watch_start(struct watch *watch, struct loop *loop, int fd, unsigned ready,
                void (*on_ready)(struct watch *watch));
/*
 * The same for code that is not written for edges (listeners, libcurl): on_ready comes in each turn
 * in which one of the wanted bits is possible, and ready holds those that are. To want other bits,
 * stop and start again. WATCH_END cannot be wanted.
 */
int watch_start_level(struct watch *watch, struct loop *loop, int fd, unsigned wanted,
                      void (*on_ready)(struct watch *watch));
/*
 * watch_start_level for reading from a descriptor that other loops watch, too, a listener: of those
 * that sleep only one is woken, always the one that has watched for longest. To stop and start
 * again is to go to the end of that line.
 */
int watch_start_shared(struct watch *watch, struct loop *loop, int fd,
                       void (*on_ready)(struct watch *watch));
/* Does nothing on a stopped watch. Must come before the descriptor is closed. */
void watch_stop(struct watch *watch);
bool watch_is_started(const struct watch *watch);
/* Stops the watch, started or not, and closes its descriptor, of which there must be no duplicate.
 */
void watch_close(struct watch *watch);

/* For watch_clear: from now on the loop tells of room to write, too. */
void watch_await_write(struct watch *watch);

/* The system said EAGAIN. */
static inline void watch_clear(struct watch *watch, enum watch_ready bits)
{
    watch->ready &= ~(unsigned)bits;
    if ((bits & WATCH_WRITE) != 0 && !watch->awaits_write) {
        watch_await_write(watch);
    }
}

struct timer {
    struct loop *loop;
    uint64_t due_ms; /* loop time; meaningful while armed */
    void (*on_due)(struct timer *timer);
    struct event event; /* private, as are ask_ms and link */
    uint64_t ask_ms;
    struct list link;
    bool armed;
};

void timer_init(struct timer *timer, struct loop *loop, void (*on_due)(struct timer *timer));
/* (Re)arms the timer to fire once. 0 or -ENOMEM. */
int timer_start(struct timer *timer, uint64_t delay_ms);
void timer_stop(struct timer *timer);

/*
 * Work for the end of this turn, or of the next one when it is deferred by a task itself: each task
 * runs once, in the order of task_defer. Deferring a task that waits already does nothing.
 */
struct task {
    void (*run)(struct task *task);
    struct list link; /* private */
};

void task_init(struct task *task, void (*run)(struct task *task));
void task_defer(struct task *task, struct loop *loop);
void task_stop(struct task *task);

#endif
