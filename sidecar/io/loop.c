/* SPDX-License-Identifier: MIT */
/*
 * The loop: descriptors in an epoll set of its own, timers in libevent, tasks in a list. It must
 * never be shared between threads: neither has locks.
 *
 * libevent 2.1 cannot watch a listener for one of several threads (EPOLLEXCLUSIVE), which works
 * only in the set that the thread itself sleeps on; and it insists on taking a descriptor out of
 * its set before that is closed, a system call for each connection that the kernel does not need.
 */
#include "sidecar/io/loop.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "sidecar/base/clock.h"

#define EVENTS_PER_TURN 64
/* libevent's clock is the kernel's coarse one, which is a tick behind ours, 4 ms on most machines:
 * before that there is no use in asking it. */
#define COARSE_MS 4

struct loop {
    struct event_base *timers;
    int epoll_fd;
    struct list tasks;
    bool stopping;
    bool is_now_known; /* in this turn */
    uint64_t now_ms;
    uint64_t ask_ms; /* libevent knows of no timer that is due earlier; UINT64_MAX: of none */
    /* Of this turn. Those from event_at on are still to be told; stopped ones are NULL there. */
    int event_at;
    int event_count;
    struct epoll_event events[EVENTS_PER_TURN];
};

static struct event_base *timers_new(void)
{
    struct event_config *config = event_config_new();
    struct event_base *base = NULL;

    if (config == NULL) {
        return NULL;
    }
    if (event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK) == 0 &&
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
    made->timers = timers_new();
    made->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (made->timers == NULL || made->epoll_fd < 0) {
        loop_free(made);
        return -ENOMEM;
    }
    made->ask_ms = UINT64_MAX;
    list_init(&made->tasks);
    *loop = made;
    return 0;
}

void loop_free(struct loop *loop)
{
    if (loop->epoll_fd >= 0) {
        close(loop->epoll_fd);
    }
    if (loop->timers != NULL) {
        event_base_free(loop->timers);
    }
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

static int note_first(const struct event_base *base, const struct event *event, void *arg)
{
    struct loop *loop = arg;
    const struct timer *timer = event_get_callback_arg(event);

    (void)base;
    loop->ask_ms = timer->ask_ms;
    return 1;
}

/*
 * Timers are all that libevent has here, and the first that it shows is the root of its heap, the
 * next one due (event.c:event_base_foreach_event_nolock_); test_loop.c would notice if not.
 */
static void run_timers(struct loop *loop)
{
    if (loop->ask_ms == UINT64_MAX || loop->ask_ms > loop_now_ms(loop)) {
        return;
    }
    event_base_loop(loop->timers, EVLOOP_NONBLOCK);
    loop->ask_ms = UINT64_MAX;
    event_base_foreach_event(loop->timers, note_first, loop);
}

/* How long to wait for events, as epoll_wait wants it. */
static int wait_ms(struct loop *loop)
{
    uint64_t now_ms;

    if (!list_is_empty(&loop->tasks)) {
        return 0;
    }
    if (loop->ask_ms == UINT64_MAX) {
        return -1;
    }
    now_ms = loop_now_ms(loop);
    if (loop->ask_ms <= now_ms) {
        return 1; /* it did not know yet: a slower tick, or one that was just missed */
    }
    return loop->ask_ms - now_ms < INT_MAX ? (int)(loop->ask_ms - now_ms) : INT_MAX;
}

static void on_event(struct watch *watch, uint32_t events);

void loop_run(struct loop *loop)
{
    loop->stopping = false;
    while (!loop->stopping) {
        loop->event_count = epoll_wait(loop->epoll_fd, loop->events, EVENTS_PER_TURN,
                                       wait_ms(loop));
        loop->is_now_known = false;
        for (loop->event_at = 0; loop->event_at < loop->event_count;) {
            const struct epoll_event *event = &loop->events[loop->event_at++];

            if (event->data.ptr != NULL) {
                on_event(event->data.ptr, event->events);
            }
        }
        run_timers(loop);
        run_tasks(loop);
    }
}

void loop_stop(struct loop *loop)
{
    loop->stopping = true;
}

uint64_t loop_now_ms(struct loop *loop)
{
    if (!loop->is_now_known) {
        loop->now_ms = clock_monotonic_ns() / 1000000;
        loop->is_now_known = true;
    }
    return loop->now_ms;
}

static unsigned ready_of(uint32_t events)
{
    /* A reset comes as READ and WRITE and as nothing else: whoever reads until EAGAIN learns of
     * it, and to ask here would cost a call for every event. */
    if ((events & EPOLLERR) != 0 || ((events & EPOLLHUP) != 0 && (events & EPOLLRDHUP) == 0)) {
        return WATCH_READ | WATCH_WRITE;
    }
    return ((events & EPOLLIN) != 0 ? WATCH_READ : 0u) |
           ((events & EPOLLOUT) != 0 ? WATCH_WRITE : 0u) |
           ((events & EPOLLRDHUP) != 0 ? WATCH_END : 0u);
}

static void on_event(struct watch *watch, uint32_t events)
{
    unsigned ready = ready_of(events) & watch->wanted;

    watch->ready = watch->is_level ? ready : watch->ready | ready;
    if (ready != 0) {
        watch->on_ready(watch);
    }
}

static int control(struct watch *watch, int operation, uint32_t flags)
{
    struct epoll_event event = {
        .events = flags | ((watch->wanted & WATCH_READ) != 0 ? EPOLLIN : 0u) |
                  ((watch->wanted & WATCH_WRITE) != 0 ? EPOLLOUT : 0u) |
                  ((watch->wanted & WATCH_END) != 0 ? EPOLLRDHUP : 0u),
        .data.ptr = watch,
    };

    return epoll_ctl(watch->loop->epoll_fd, operation, watch->fd, &event) == 0 ? 0 : -ENOMEM;
}

int watch_start(struct watch *watch, struct loop *loop, int fd, unsigned ready,
                void (*on_ready)(struct watch *watch))
{
    watch->loop = loop;
    watch->fd = fd;
    watch->ready = ready;
    watch->on_ready = on_ready;
    watch->is_level = false;
    watch->awaits_write = (ready & WATCH_WRITE) == 0;
    watch->wanted = WATCH_READ | WATCH_END | (watch->awaits_write ? WATCH_WRITE : 0u);
    if (control(watch, EPOLL_CTL_ADD, EPOLLET) != 0) {
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
    watch->wanted |= WATCH_WRITE;
    if (control(watch, EPOLL_CTL_MOD, EPOLLET) != 0) {
        /* The owner finds out by himself when he tries again. */
        watch->ready |= WATCH_READ | WATCH_WRITE | WATCH_END;
    }
}

static int start_level(struct watch *watch, struct loop *loop, int fd, uint32_t flags,
                       void (*on_ready)(struct watch *watch))
{
    watch->loop = loop;
    watch->fd = fd;
    watch->ready = 0;
    watch->on_ready = on_ready;
    watch->is_level = true;
    watch->awaits_write = true;
    if (control(watch, EPOLL_CTL_ADD, flags) != 0) {
        watch->loop = NULL;
        return -ENOMEM;
    }
    return 0;
}

int watch_start_level(struct watch *watch, struct loop *loop, int fd, unsigned wanted,
                      void (*on_ready)(struct watch *watch))
{
    watch->wanted = wanted;
    return start_level(watch, loop, fd, 0, on_ready);
}

int watch_start_shared(struct watch *watch, struct loop *loop, int fd,
                       void (*on_ready)(struct watch *watch))
{
    watch->wanted = WATCH_READ;
    return start_level(watch, loop, fd, EPOLLEXCLUSIVE, on_ready);
}

/* What this turn still had to tell of it is not told. */
static void forget(struct watch *watch)
{
    struct loop *loop = watch->loop;

    for (int i = loop->event_at; i < loop->event_count; i++) {
        if (loop->events[i].data.ptr == watch) {
            loop->events[i].data.ptr = NULL;
        }
    }
    watch->loop = NULL;
    watch->ready = 0;
}

void watch_stop(struct watch *watch)
{
    if (watch->loop == NULL) {
        return;
    }
    (void)control(watch, EPOLL_CTL_DEL, 0);
    forget(watch);
}

void watch_close(struct watch *watch)
{
    if (watch->loop != NULL) {
        forget(watch); /* out of the set it goes by the close */
    }
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
    event_assign(&timer->event, loop->timers, -1, 0, on_timeout, timer);
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
    timer->ask_ms = delay_ms == 0 ? timer->due_ms : timer->due_ms + COARSE_MS;
    if (timer->ask_ms < timer->loop->ask_ms) {
        timer->loop->ask_ms = timer->ask_ms;
    }
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
