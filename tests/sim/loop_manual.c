/* SPDX-License-Identifier: MIT */
/*
 * The loop of sidecar/io/loop.h with a clock that is moved by hand, for scenario tests: all loops of
 * a scenario share one simulated machine (struct sim_clock in sim.h), run in one thread, and time
 * passes only when nothing else can happen. Descriptors are real (socket pairs, eventfds).
 */
#include "tests/sim/loop_manual.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define WATCHES_MAX 4096

struct loop {
    struct list watches;
    struct list timers;
    struct list tasks;
    uint64_t now_ms;
    bool stopping;
};

int loop_new(struct loop **loop)
{
    struct loop *made = calloc(1, sizeof(*made));

    if (made == NULL) {
        return -ENOMEM;
    }
    list_init(&made->watches);
    list_init(&made->timers);
    list_init(&made->tasks);
    made->now_ms = 1000;
    *loop = made;
    return 0;
}

void loop_free(struct loop *loop)
{
    assert(list_is_empty(&loop->watches));
    assert(list_is_empty(&loop->timers));
    assert(list_is_empty(&loop->tasks));
    free(loop);
}

void loop_stop(struct loop *loop)
{
    loop->stopping = true;
}

uint64_t loop_now_ms(const struct loop *loop)
{
    return loop->now_ms;
}

static bool watch_is_listed(const struct loop *loop, const struct watch *wanted)
{
    const struct list *link;

    for (link = loop->watches.next; link != &loop->watches; link = link->next) {
        if (list_entry(link, struct watch, link) == wanted) {
            return true;
        }
    }
    return false;
}

static bool deliver(struct watch *watch, short revents)
{
    unsigned bits = 0;

    bits |= (revents & (POLLIN | POLLHUP | POLLERR)) != 0 ? WATCH_READ : 0u;
    bits |= (revents & (POLLOUT | POLLHUP | POLLERR)) != 0 ? WATCH_WRITE : 0u;
    bits |= (revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0 ? WATCH_END : 0u;
    if (watch->wanted != 0) {
        watch->ready = bits & watch->wanted;
        if (watch->ready == 0) {
            return false;
        }
    } else {
        if ((bits & ~watch->ready) == 0) {
            return false;
        }
        watch->ready |= bits;
    }
    watch->on_ready(watch);
    return true;
}

static bool poll_watches(struct loop *loop)
{
    struct watch *watches[WATCHES_MAX];
    struct pollfd fds[WATCHES_MAX];
    struct list *link;
    nfds_t count = 0;
    bool any = false;

    for (link = loop->watches.next; link != &loop->watches; link = link->next) {
        struct watch *watch = list_entry(link, struct watch, link);

        assert(count < WATCHES_MAX);
        watches[count] = watch;
        fds[count++] = (struct pollfd){ .fd = watch->fd, .events = POLLIN | POLLOUT | POLLRDHUP };
    }
    if (poll(fds, count, 0) <= 0) {
        return false;
    }
    for (nfds_t i = 0; i < count; i++) {
        if (fds[i].revents != 0 && watch_is_listed(loop, watches[i]) &&
            watches[i]->fd == fds[i].fd) {
            any |= deliver(watches[i], fds[i].revents);
        }
    }
    return any;
}

static bool run_tasks(struct loop *loop)
{
    struct list turn;
    struct list *link;
    bool any = false;

    list_init(&turn);
    while ((link = list_shift(&loop->tasks)) != NULL) {
        list_append(&turn, link);
    }
    while ((link = list_shift(&turn)) != NULL) {
        struct task *task = list_entry(link, struct task, link);

        any = true;
        task->run(task);
    }
    return any;
}

static struct timer *next_timer(const struct loop *loop)
{
    struct timer *next = NULL;
    struct list *link;

    for (link = loop->timers.next; link != &loop->timers; link = link->next) {
        struct timer *timer = list_entry(link, struct timer, link);

        if (next == NULL || timer->due_ms < next->due_ms) {
            next = timer;
        }
    }
    return next;
}

bool loop_manual_turn(struct loop *loop)
{
    bool any = poll_watches(loop);

    return run_tasks(loop) || any;
}

bool loop_manual_next_due(const struct loop *loop, uint64_t *due_ms)
{
    const struct timer *timer = next_timer(loop);

    if (timer == NULL) {
        return false;
    }
    *due_ms = timer->due_ms;
    return true;
}

void loop_manual_advance(struct loop *loop, uint64_t now_ms)
{
    struct timer *timer;

    assert(now_ms >= loop->now_ms);
    loop->now_ms = now_ms;
    while ((timer = next_timer(loop)) != NULL && timer->due_ms <= now_ms) {
        timer_stop(timer);
        timer->on_due(timer);
    }
}

void loop_run(struct loop *loop)
{
    uint64_t due_ms;

    loop->stopping = false;
    while (!loop->stopping) {
        if (loop_manual_turn(loop)) {
            continue;
        }
        if (!loop_manual_next_due(loop, &due_ms)) {
            return;
        }
        loop_manual_advance(loop, due_ms > loop->now_ms ? due_ms : loop->now_ms);
    }
}

int watch_start(struct watch *watch, struct loop *loop, int fd, unsigned ready,
                void (*on_ready)(struct watch *watch))
{
    watch->loop = loop;
    watch->fd = fd;
    watch->ready = ready;
    watch->wanted = 0;
    watch->on_ready = on_ready;
    list_append(&loop->watches, &watch->link);
    return 0;
}

int watch_start_level(struct watch *watch, struct loop *loop, int fd, unsigned wanted,
                      void (*on_ready)(struct watch *watch))
{
    int error = watch_start(watch, loop, fd, 0, on_ready);

    watch->wanted = wanted;
    return error;
}

void watch_stop(struct watch *watch)
{
    if (watch->loop != NULL) {
        list_remove(&watch->link);
        watch->loop = NULL;
        watch->ready = 0;
    }
}

bool watch_is_started(const struct watch *watch)
{
    return watch->loop != NULL;
}

void timer_init(struct timer *timer, struct loop *loop, void (*on_due)(struct timer *timer))
{
    memset(timer, 0, sizeof(*timer));
    timer->loop = loop;
    timer->on_due = on_due;
    list_init(&timer->link);
}

int timer_start(struct timer *timer, uint64_t delay_ms)
{
    timer_stop(timer);
    timer->due_ms = timer->loop->now_ms + delay_ms;
    timer->armed = true;
    list_append(&timer->loop->timers, &timer->link);
    return 0;
}

void timer_stop(struct timer *timer)
{
    list_remove(&timer->link);
    timer->armed = false;
}

void task_init(struct task *task, void (*run)(struct task *task))
{
    task->run = run;
    list_init(&task->link);
}

void task_defer(struct task *task, struct loop *loop)
{
    if (list_is_empty(&task->link)) {
        list_append(&loop->tasks, &task->link);
    }
}

void task_stop(struct task *task)
{
    list_remove(&task->link);
}
