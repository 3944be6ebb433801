/* SPDX-License-Identifier: MIT */
/*
 * The loop of sidecar/io/loop.h with a clock that is moved by hand, for scenario tests: all loops
 * of a scenario run in one thread, and time passes only when nothing else can happen. Descriptors
 * are real, and epoll tells what is ready, because its edges are what the code under test must live
 * with: an event that is missed here would be missed in the daemon.
 */
#include "tests/sim/loop_manual.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "tests/sim/faults.h"

/* Descriptors told of in one turn; the others come in the next one. */
#define EVENTS_PER_TURN 64

struct loop {
    struct list watches;
    struct list timers;
    struct list tasks;
    uint64_t now_ms;
    int epoll_fd;
    bool stopping;
};

int loop_new(struct loop **loop)
{
    struct loop *made = calloc(1, sizeof(*made));

    if (made == NULL) {
        return -ENOMEM;
    }
    made->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (made->epoll_fd < 0) {
        free(made);
        return -ENOMEM;
    }
    list_init(&made->watches);
    list_init(&made->timers);
    list_init(&made->tasks);
    made->now_ms = LOOP_MANUAL_BEGIN_MS;
    *loop = made;
    return 0;
}

void loop_free(struct loop *loop)
{
    assert(list_is_empty(&loop->watches));
    assert(list_is_empty(&loop->timers));
    assert(list_is_empty(&loop->tasks));
    close(loop->epoll_fd);
    free(loop);
}

void loop_stop(struct loop *loop)
{
    loop->stopping = true;
}

uint64_t loop_now_ms(struct loop *loop)
{
    return loop->now_ms;
}

/* The watch that was started on fd, unless it has been stopped in this very turn. */
static struct watch *watch_of(const struct loop *loop, int fd)
{
    struct list *link;

    for (link = loop->watches.next; link != &loop->watches; link = link->next) {
        struct watch *watch = list_entry(link, struct watch, link);

        if (watch->fd == fd) {
            return watch;
        }
    }
    return NULL;
}

/* As libevent 2.1 translates (epoll.c:epoll_dispatch): an error or a hang-up without the peer's end
 * shows as read and write only. */
static unsigned translate(uint32_t events)
{
    if ((events & EPOLLERR) != 0 || ((events & EPOLLHUP) != 0 && (events & EPOLLRDHUP) == 0)) {
        return WATCH_READ | WATCH_WRITE;
    }
    return ((events & EPOLLIN) != 0 ? WATCH_READ : 0u) |
           ((events & EPOLLOUT) != 0 ? WATCH_WRITE : 0u) |
           ((events & EPOLLRDHUP) != 0 ? WATCH_END : 0u);
}

static bool deliver(struct watch *watch, uint32_t events)
{
    unsigned bits = translate(events);

    if (watch->wanted != 0) {
        bits &= watch->wanted;
        watch->ready = 0;
    }
    if (bits == 0) {
        return false;
    }
    watch->ready |= bits;
    watch->on_ready(watch);
    return true;
}

static bool poll_watches(struct loop *loop)
{
    struct epoll_event events[EVENTS_PER_TURN];
    int count = epoll_wait(loop->epoll_fd, events, EVENTS_PER_TURN, 0);
    bool any = false;

    for (int i = 0; i < count; i++) {
        struct watch *watch = watch_of(loop, events[i].data.fd);

        if (watch != NULL) {
            any |= deliver(watch, events[i].events);
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

static int add_watch(struct watch *watch, struct loop *loop, int fd, uint32_t events,
                     void (*on_ready)(struct watch *watch))
{
    struct epoll_event event = { .events = events, .data.fd = fd };

    watch->loop = NULL;
    if (faults_strike() || epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        return -ENOMEM;
    }
    watch->loop = loop;
    watch->fd = fd;
    watch->on_ready = on_ready;
    list_append(&loop->watches, &watch->link);
    return 0;
}

int watch_start(struct watch *watch, struct loop *loop, int fd, unsigned ready,
                void (*on_ready)(struct watch *watch))
{
    watch->ready = ready;
    watch->wanted = 0;
    return add_watch(watch, loop, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, on_ready);
}

int watch_start_level(struct watch *watch, struct loop *loop, int fd, unsigned wanted,
                      void (*on_ready)(struct watch *watch))
{
    watch->ready = 0;
    watch->wanted = wanted;
    return add_watch(watch, loop, fd,
                     ((wanted & WATCH_READ) != 0 ? EPOLLIN : 0u) |
                         ((wanted & WATCH_WRITE) != 0 ? EPOLLOUT : 0u),
                     on_ready);
}

/* One loop at a time runs here, so that nobody need be woken in place of another. */
int watch_start_shared(struct watch *watch, struct loop *loop, int fd,
                       void (*on_ready)(struct watch *watch))
{
    return watch_start_level(watch, loop, fd, WATCH_READ, on_ready);
}

/* Everything is registered from the begin. */
void watch_await_write(struct watch *watch)
{
    (void)watch;
}

void watch_stop(struct watch *watch)
{
    if (watch->loop != NULL) {
        int result = epoll_ctl(watch->loop->epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);

        assert(result == 0); /* closing the descriptor first would be a fault */
        (void)result;
        list_remove(&watch->link);
        watch->loop = NULL;
        watch->ready = 0;
    }
}

void watch_close(struct watch *watch)
{
    watch_stop(watch);
    close(watch->fd);
    watch->fd = -1;
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
    /* libevent takes memory for a timer that is new in its heap only. */
    if (!timer->armed && faults_strike()) {
        return -ENOMEM;
    }
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
