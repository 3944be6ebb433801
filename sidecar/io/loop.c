/* SPDX-License-Identifier: MIT */
/*
 * The loop on libevent's core. It must never be shared between threads: the base has no locks.
 */
#include "sidecar/io/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sidecar/base/clock.h"

struct loop {
    struct event_base *base;
    struct list tasks;
    bool stopping;
    bool is_now_known; /* in this turn */
    uint64_t now_ms;
};

static struct event_base *base_new(void)
{
    struct event_config *config = event_config_new();
    struct event_base *base = NULL;

    if (config == NULL) {
        return NULL;
    }
    /* Edges and EPOLLRDHUP mean epoll. The environment must not switch it off (EVENT_NOEPOLL). */
    if (event_config_require_features(config, EV_FEATURE_ET | EV_FEATURE_EARLY_CLOSE) == 0 &&
        event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK) == 0 &&
        event_config_set_flag(config, EVENT_BASE_FLAG_IGNORE_ENV) == 0) {
        base = event_base_new_with_config(config);
    }
    event_config_free(config);
    return base;
}

int loop_new(struct loop **loop)
{
    struct loop *made = calloc(1, sizeof(*made));

    if (made == NULL) {
        return -ENOMEM;
    }
    made->base = base_new();
    if (made->base == NULL) {
        free(made);
        return -ENOMEM;
    }
    list_init(&made->tasks);
    *loop = made;
    return 0;
}

void loop_free(struct loop *loop)
{
    event_base_free(loop->base);
    free(loop);
}

/* Runs what is deferred now; what a task defers waits for the next turn. */
static void run_tasks(struct loop *loop)
{
    struct list turn;
    struct list *link;

    if (list_is_empty(&loop->tasks)) {
        return;
    }
    list_init(&turn);
    while ((link = list_shift(&loop->tasks)) != NULL) {
        list_append(&turn, link);
    }
    while ((link = list_shift(&turn)) != NULL) {
        struct task *task = list_entry(link, struct task, link);

        task->run(task);
    }
}

void loop_run(struct loop *loop)
{
    loop->stopping = false;
    while (!loop->stopping) {
        int flags = EVLOOP_ONCE | EVLOOP_NO_EXIT_ON_EMPTY;

        if (!list_is_empty(&loop->tasks)) {
            /* With NONBLOCK alone libevent would go on for as long as anything is ready. */
            flags |= EVLOOP_NONBLOCK;
        }
        loop->is_now_known = false;
        event_base_loop(loop->base, flags);
        run_tasks(loop);
    }
}

void loop_stop(struct loop *loop)
{
    loop->stopping = true;
    event_base_loopbreak(loop->base);
}

uint64_t loop_now_ms(struct loop *loop)
{
    if (!loop->is_now_known) {
        loop->now_ms = clock_monotonic_ns() / 1000000;
        loop->is_now_known = true;
    }
    return loop->now_ms;
}

static unsigned ready_of(short what)
{
    return ((what & EV_READ) != 0 ? WATCH_READ : 0u) | ((what & EV_WRITE) != 0 ? WATCH_WRITE : 0u) |
           ((what & EV_CLOSED) != 0 ? WATCH_END : 0u);
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
    struct watch *watch = arg;

    (void)fd;
    /* A reset comes as READ and WRITE and as nothing else (libevent 2.1, epoll.c:epoll_dispatch):
     * whoever reads until EAGAIN learns of it, and to ask here would cost a call for every event.
     * */
    watch->ready |= ready_of(what);
    watch->on_ready(watch);
}

static void on_level_event(evutil_socket_t fd, short what, void *arg)
{
    struct watch *watch = arg;

    (void)fd;
    watch->ready = ready_of(what);
    watch->on_ready(watch);
}

static int add_edges(struct watch *watch)
{
    short events = EV_READ | EV_CLOSED | EV_ET | EV_PERSIST;

    if (watch->awaits_write) {
        events |= EV_WRITE;
    }
    if (event_assign(&watch->event, watch->loop->base, watch->fd, events, on_event, watch) != 0 ||
        event_add(&watch->event, NULL) != 0) {
        return -ENOMEM;
    }
    return 0;
}

int watch_start(struct watch *watch, struct loop *loop, int fd, unsigned ready,
                void (*on_ready)(struct watch *watch))
{
    watch->loop = loop;
    watch->fd = fd;
    watch->ready = ready;
    watch->on_ready = on_ready;
    watch->awaits_write = (ready & WATCH_WRITE) == 0;
    if (add_edges(watch) != 0) {
        watch->loop = NULL;
        return -ENOMEM;
    }
    return 0;
}

void watch_await_write(struct watch *watch)
{
    if (watch->loop == NULL) {
        return; /* watch_start will see that there is no room */
    }
    watch->awaits_write = true;
    event_del(&watch->event);
    if (add_edges(watch) != 0) {
        /* The owner finds out by himself when he tries again. */
        watch->ready |= WATCH_READ | WATCH_WRITE | WATCH_END;
    }
}

int watch_start_level(struct watch *watch, struct loop *loop, int fd, unsigned wanted,
                      void (*on_ready)(struct watch *watch))
{
    short events = EV_PERSIST;

    if ((wanted & WATCH_READ) != 0) {
        events |= EV_READ;
    }
    if ((wanted & WATCH_WRITE) != 0) {
        events |= EV_WRITE;
    }
    watch->loop = loop;
    watch->fd = fd;
    watch->ready = 0;
    watch->on_ready = on_ready;
    watch->awaits_write = true;
    if (event_assign(&watch->event, loop->base, fd, events, on_level_event, watch) != 0 ||
        event_add(&watch->event, NULL) != 0) {
        watch->loop = NULL;
        return -ENOMEM;
    }
    return 0;
}

void watch_stop(struct watch *watch)
{
    if (watch->loop == NULL) {
        return;
    }
    event_del(&watch->event);
    watch->loop = NULL;
    watch->ready = 0;
}

void watch_close(struct watch *watch)
{
    /* In this order: once it is closed, the number may be another thread's. */
    watch_stop(watch);
    close(watch->fd);
    watch->fd = -1;
}

bool watch_is_started(const struct watch *watch)
{
    return watch->loop != NULL;
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
    struct timer *timer = arg;
    uint64_t now_ms = loop_now_ms(timer->loop);

    (void)fd;
    (void)what;
    timer->armed = false;
    /* libevent waits by a coarse clock, which may be some milliseconds behind ours. */
    if (now_ms < timer->due_ms && timer_start(timer, timer->due_ms - now_ms) == 0) {
        return;
    }
    timer->on_due(timer);
}

void timer_init(struct timer *timer, struct loop *loop, void (*on_due)(struct timer *timer))
{
    memset(timer, 0, sizeof(*timer));
    timer->loop = loop;
    timer->on_due = on_due;
    event_assign(&timer->event, loop->base, -1, 0, on_timeout, timer);
}

int timer_start(struct timer *timer, uint64_t delay_ms)
{
    struct timeval delay = {
        .tv_sec = (time_t)(delay_ms / 1000),
        .tv_usec = (suseconds_t)(delay_ms % 1000 * 1000),
    };

    if (event_add(&timer->event, &delay) != 0) {
        return -ENOMEM;
    }
    timer->due_ms = loop_now_ms(timer->loop) + delay_ms;
    timer->armed = true;
    return 0;
}

void timer_stop(struct timer *timer)
{
    if (timer->armed) {
        event_del(&timer->event);
        timer->armed = false;
    }
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
