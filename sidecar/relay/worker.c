/* SPDX-License-Identifier: MIT */
/*
 * Connecting to PHP-FPM and letting its child go. Must never send a request's bytes twice, and
 * never hold a child that has ended its request.
 */
#include "sidecar/relay/worker.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "sidecar/base/memory.h"
#include "sidecar/relay/relay.h"

/* PARAMS (max_params_size is checked before) and one read of the body, with their headers. */
#define WORKER_KEPT_EXTRA ((size_t)1024 * 1024)
/* Between two attempts while the backlog is full. */
#define WORKER_RETRY_MS 10
/* So that one that sends without end does not hold up the exchanges of the thread. */
#define LINGER_READS_PER_TURN 8
/* What 0 means for connect_timeout: no limit that anybody would notice. */
#define UNLIMITED_MS ((uint64_t)365 * 24 * 3600 * 1000)

static void on_worker_timer(struct timer *timer);
static void on_task(struct task *task);
static void on_worker_ready(struct watch *watch);

int worker_new(struct worker **worker, struct relay *relay, const struct worker_events *events,
               void *owner)
{
    struct worker *made = memory_zeroed(sizeof(*made));

    if (made == NULL) {
        return -ENOMEM;
    }
    made->relay = relay;
    made->events = events;
    made->owner = owner;
    made->state = WORKER_QUEUED;
    made->fd = -1;
    made->watch.fd = -1;
    fcgi_reader_init(&made->reader);
    outq_init(&made->out, &made->watch, relay->options->max_params_size * 2 + WORKER_KEPT_EXTRA);
    timer_init(&made->timer, relay->loop, on_worker_timer);
    task_init(&made->task, on_task);
    list_init(&made->link);
    *worker = made;
    return 0;
}

bool worker_take_place(struct worker *worker)
{
    struct limit *limit = worker->relay->limit;

    if (limit != NULL && !limit_take(limit)) {
        return false;
    }
    worker_give_place(worker);
    return true;
}

void worker_give_place(struct worker *worker)
{
    worker->has_place = true;
    stats_count(worker->relay->stats, STAT_WORKERS_ACTIVE);
}

static void give_place_back(struct worker *worker)
{
    if (!worker->has_place) {
        return;
    }
    worker->has_place = false;
    stats_drop(worker->relay->stats, STAT_WORKERS_ACTIVE);
    if (worker->relay->limit != NULL) {
        limit_release(worker->relay->limit);
    }
}

static void close_descriptor(struct worker *worker)
{
    if (worker->fd >= 0) {
        watch_close(&worker->watch);
        worker->fd = -1;
    }
}

void worker_close(struct worker *worker)
{
    if (worker->state == WORKER_CLOSED) {
        return;
    }
    close_descriptor(worker);
    timer_stop(&worker->timer);
    outq_deinit(&worker->out);
    worker->state = WORKER_CLOSED;
    give_place_back(worker);
}

void worker_free(struct worker *worker)
{
    if (worker == NULL) {
        return;
    }
    worker_close(worker);
    outq_deinit(&worker->out); /* what came in after a close within the round */
    task_stop(&worker->task);
    list_remove(&worker->link);
    free(worker);
}

void worker_set_timeout(struct worker *worker, uint64_t delay_ms)
{
    if (worker->state == WORKER_CLOSED) {
        return;
    }
    if (delay_ms == 0) {
        timer_stop(&worker->timer);
    } else if (timer_start(&worker->timer, delay_ms) != 0) {
        worker_close(worker);
        task_defer(&worker->task, worker->relay->loop); /* tells the owner */
    }
}

static int failed(enum worker_failure failure)
{
    return -1 - (int)failure;
}

/* 0, or the failure of a timer that cannot be had. */
static int wait_ms(struct worker *worker, uint64_t delay_ms)
{
    return timer_start(&worker->timer, delay_ms) == 0 ? 0 : failed(WORKER_OUT_OF_MEMORY);
}

/* The backlog is full, which poll cannot tell us of (the socket is not in progress): again soon. */
static int connect_later(struct worker *worker)
{
    uint64_t now_ms = loop_now_ms(worker->relay->loop);

    worker->state = WORKER_WAITING;
    worker->tried = 0;
    if (now_ms >= worker->connect_by_ms) {
        stats_count(worker->relay->stats, STAT_WORKER_ERRORS_BACKLOG);
        return failed(WORKER_BACKLOG_FULL);
    }
    if (now_ms + WORKER_RETRY_MS > worker->connect_by_ms) {
        return wait_ms(worker, worker->connect_by_ms - now_ms);
    }
    return wait_ms(worker, WORKER_RETRY_MS);
}

static int connected(struct worker *worker)
{
    timer_stop(&worker->timer);
    worker->state = WORKER_CONNECTED;
    return 0;
}

/* An attempt has begun on a descriptor. */
static int attempt_begun(struct worker *worker, int progress)
{
    unsigned ready = progress == 0 ? WATCH_WRITE : 0;
    uint64_t now_ms;
    int error = watch_start(&worker->watch, worker->relay->loop, worker->fd, ready,
                            on_worker_ready);

    if (error != 0) {
        close(worker->fd);
        worker->fd = -1;
        return failed(WORKER_OUT_OF_MEMORY);
    }
    if (progress == 0) {
        return connected(worker);
    }
    worker->state = WORKER_CONNECTING;
    now_ms = loop_now_ms(worker->relay->loop);
    return wait_ms(worker, worker->connect_by_ms > now_ms ? worker->connect_by_ms - now_ms : 0);
}

static bool is_our_shortage(int error)
{
    return error == -EMFILE || error == -ENFILE || error == -ENOMEM || error == -ENOBUFS;
}

static void log_refusal(struct worker *worker, int error)
{
    stats_count(worker->relay->stats, STAT_WORKER_ERRORS_CONNECT);
    log_warn(worker->relay->log, "cannot connect to PHP-FPM",
             log_str("address", worker->address->text), log_errno("error", error));
}

/* Tries one address after the other. */
static int try_addresses(struct worker *worker)
{
    struct gate *gate = &worker->relay->gate;
    bool backlog_full = false;

    for (;;) {
        uint64_t now_ms = loop_now_ms(worker->relay->loop);
        int error;

        worker->address = gate_pick(gate, now_ms, worker->tried++);
        if (worker->address == NULL) {
            return backlog_full ? connect_later(worker) : failed(WORKER_UNREACHABLE);
        }
        error = sock_connect(worker->address, &worker->fd);
        if (error == 0 || error == -EINPROGRESS) {
            return attempt_begun(worker, error);
        }
        worker->fd = -1;
        if (is_our_shortage(error)) {
            return failed(WORKER_OUT_OF_MEMORY);
        }
        if (error == -EAGAIN) {
            backlog_full = true;
            continue;
        }
        log_refusal(worker, error);
        gate_skip(gate, worker->address, now_ms);
    }
}

int worker_connect(struct worker *worker)
{
    uint64_t timeout_ms = worker->relay->options->connect_timeout_ms;

    worker->connect_by_ms = loop_now_ms(worker->relay->loop) +
                            (timeout_ms == 0 ? UNLIMITED_MS : timeout_ms);
    worker->tried = 0;
    worker->state = WORKER_WAITING;
    timer_stop(&worker->timer);
    return try_addresses(worker);
}

/* on_failure frees the worker, so nothing may follow. */
static void report(struct worker *worker, int result)
{
    if (result < 0) {
        worker->events->on_failure(worker->owner, (enum worker_failure)(-1 - result));
    } else if (worker_is_connected(worker)) {
        worker->events->on_ready(worker->owner);
    }
}

static void on_connect_progress(struct worker *worker)
{
    int error = sock_error(worker->fd);

    if (error == 0) {
        connected(worker);
    } else {
        log_refusal(worker, error);
        gate_skip(&worker->relay->gate, worker->address, loop_now_ms(worker->relay->loop));
        close_descriptor(worker);
        timer_stop(&worker->timer);
        report(worker, try_addresses(worker));
        return;
    }
    report(worker, 0);
}

/* Looks for END_REQUEST in output that nobody wants. True when the worker has ended. */
static bool drop_output(struct worker *worker, struct span output)
{
    enum fcgi_event event;
    struct span content;

    while ((event = fcgi_reader_next(&worker->reader, &output, &content)) != FCGI_NEED_DATA) {
        if (event == FCGI_MALFORMED ||
            (event == FCGI_RECORD_END && worker->reader.header.type == FCGI_END_REQUEST)) {
            return true;
        }
    }
    return false;
}

/* Goes on with a worker that nobody listens to any more; frees it at its end. */
static void linger_on(struct worker *worker)
{
    uint8_t *room = relay_read_buffer(worker->relay);
    struct span output;
    int result = 1;

    for (unsigned reads = 0; result > 0 && reads < LINGER_READS_PER_TURN; reads++) {
        result = relay_receive(&worker->watch, room, RELAY_READ_SIZE, &output);
        if (result > 0 && drop_output(worker, output)) {
            worker_free(worker);
            return;
        }
    }
    if (result < 0 || outq_send(&worker->out) != 0) {
        worker_free(worker);
    } else if (result > 0) {
        task_defer(&worker->task, worker->relay->loop);
    }
}

static void on_task(struct task *task)
{
    struct worker *worker = list_entry(task, struct worker, task);

    if (worker->owner == NULL) {
        linger_on(worker);
    } else {
        worker->events->on_failure(worker->owner, WORKER_OUT_OF_MEMORY);
    }
}

static void on_worker_ready(struct watch *watch)
{
    struct worker *worker = list_entry(watch, struct worker, watch);

    if (worker->state == WORKER_CONNECTING) {
        if ((watch->ready & (WATCH_WRITE | WATCH_END)) != 0) {
            on_connect_progress(worker);
        }
    } else if (worker->owner == NULL) {
        linger_on(worker);
    } else {
        worker->events->on_ready(worker->owner);
    }
}

static void on_worker_timer(struct timer *timer)
{
    struct worker *worker = list_entry(timer, struct worker, timer);

    if (worker->state == WORKER_WAITING) {
        report(worker, try_addresses(worker));
    } else if (worker->state == WORKER_QUEUED) {
        report(worker, failed(WORKER_QUEUED_TOO_LONG));
    } else if (worker->owner == NULL) {
        log_warn(worker->relay->log, "worker closed: it did not end its request in finish_timeout",
                 log_str("address", worker->address->text));
        worker_free(worker);
    } else if (worker->state == WORKER_CONNECTING) {
        log_refusal(worker, -ETIMEDOUT);
        gate_skip(&worker->relay->gate, worker->address, loop_now_ms(worker->relay->loop));
        report(worker, failed(WORKER_UNREACHABLE));
    } else {
        worker->events->on_failure(worker->owner, WORKER_TIMED_OUT);
    }
}

void worker_linger(struct worker *worker, struct span rest)
{
    if (worker->state != WORKER_CONNECTED) {
        worker_free(worker);
        return;
    }
    worker->owner = NULL;
    list_append(&worker->relay->lingering, &worker->link);
    if (!worker->timer.armed) {
        worker_set_timeout(worker, worker->relay->options->finish_timeout_ms);
    }
    if (worker->state == WORKER_CLOSED || drop_output(worker, rest)) {
        worker_free(worker);
        return;
    }
    task_defer(&worker->task, worker->relay->loop);
}
