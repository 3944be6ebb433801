/* SPDX-License-Identifier: MIT */
/*
 * The life of an exchange: its states, how a request ends, and how the connection does. Must never
 * leave a worker, a ticket or a descriptor behind, whatever the web server does.
 */
#include "sidecar/relay/exchange.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "fcgi/writer.h"
#include "sidecar/base/memory.h"
#include "sidecar/relay/answer.h"
#include "sidecar/relay/exchange_parts.h"

/* How long we read what a web server still sends after an answer that came before the end of its
 * request; closing with unread bytes would reset the answer over TCP. */
#define DRAIN_MS 5000
/* How long a new connection that waits for PHP's answer may go unwatched. */
#define UNWATCHED_MS 5
/* How long the last answers may take when shutdown_timeout is over. */
#define CUT_MS 1000
/* An answer of ours: a message of 4 KiB, every byte of it escaped; and PHP's headers, of which each
 * line may grow by its line end and a space. */
#define ANSWER_EXTRA ((size_t)64 * 1024)

#define EDGE(state) (1u << (EXCHANGE_##state))
/* Every state may also go to ENDED or DRAIN (an answer of ours) and to CLOSED. */
static const unsigned edges[EXCHANGE_STATES] = {
    [EXCHANGE_PARAMS] = EDGE(SPOOL) | EDGE(QUEUED) | EDGE(CONNECT) | EDGE(STATUS) | EDGE(ENDED) |
                        EDGE(DRAIN) | EDGE(CLOSED),
    [EXCHANGE_SPOOL] = EDGE(QUEUED) | EDGE(CONNECT) | EDGE(ENDED) | EDGE(DRAIN) | EDGE(CLOSED),
    [EXCHANGE_QUEUED] = EDGE(CONNECT) | EDGE(ENDED) | EDGE(DRAIN) | EDGE(CLOSED),
    [EXCHANGE_CONNECT] = EDGE(HEAD) | EDGE(ENDED) | EDGE(DRAIN) | EDGE(CLOSED),
    [EXCHANGE_HEAD] = EDGE(RELAY) | EDGE(CAPTURE) | EDGE(ENDED) | EDGE(DRAIN) | EDGE(CLOSED),
    [EXCHANGE_RELAY] = EDGE(ENDED) | EDGE(DRAIN) | EDGE(CLOSED),
    [EXCHANGE_CAPTURE] = EDGE(BUILD) | EDGE(ENDED) | EDGE(DRAIN) | EDGE(CLOSED),
    [EXCHANGE_BUILD] = EDGE(DELIVER) | EDGE(ENDED) | EDGE(DRAIN) | EDGE(CLOSED),
    [EXCHANGE_DELIVER] = EDGE(ENDED) | EDGE(DRAIN) | EDGE(CLOSED),
    [EXCHANGE_STATUS] = EDGE(ENDED) | EDGE(DRAIN) | EDGE(CLOSED),
    [EXCHANGE_ENDED] = EDGE(PARAMS) | EDGE(DRAIN) | EDGE(CLOSED),
    [EXCHANGE_DRAIN] = EDGE(CLOSED),
    [EXCHANGE_CLOSED] = 0,
};

static const char *const state_names[EXCHANGE_STATES] = {
    "params", "spool",   "queued", "connect", "head",  "relay",  "capture",
    "build",  "deliver", "status", "ended",   "drain", "closed",
};

const char *exchange_state_name(enum exchange_state state)
{
    return state_names[state];
}

void exchange_change_state(struct exchange *exchange, enum exchange_state state)
{
    assert((edges[exchange->state] & (1u << state)) != 0);
    if (state == EXCHANGE_DELIVER) {
        stats_count(exchange->relay->stats, STAT_DOWNLOADS_ACTIVE);
    } else if (exchange->state == EXCHANGE_DELIVER) {
        stats_drop(exchange->relay->stats, STAT_DOWNLOADS_ACTIVE);
    }
    exchange->state = state;
}

static void on_front_ready(struct watch *watch)
{
    exchange_pump(list_entry(watch, struct exchange, front.watch));
}

static void on_task(struct task *task)
{
    exchange_pump(list_entry(task, struct exchange, task));
}

/* Bytes that have passed between us and the web server, in either direction. What lies in the
 * socket's buffer has not: a unix socket lets us send again only when most of it has been read. */
static uint64_t passed_bytes(const struct exchange *exchange)
{
    const struct front *front = &exchange->front;
    uint64_t delivered = exchange->request == NULL ? 0 : exchange->request->delivery.offset;

    return front->received_bytes + front->out.sent_bytes + delivered -
           sock_unread_by_peer(front->fd);
}

static bool waits_for_front(const struct exchange *exchange)
{
    const struct front *front = &exchange->front;

    if (exchange->state == EXCHANGE_DELIVER && exchange->request->delivery.artifact.is_stream &&
        (front->watch.ready & WATCH_WRITE) != 0) {
        return false; /* but for the source of the file */
    }
    if (exchange->state == EXCHANGE_DELIVER && deliver_awaits_disk(&exchange->request->delivery)) {
        return false;
    }
    return !outq_is_empty(&front->out) || exchange->state == EXCHANGE_DELIVER ||
           exchange_awaits_body(exchange);
}

void exchange_watch_stall(struct exchange *exchange)
{
    uint64_t stall_ms = exchange->relay->options->stall_timeout_ms;

    if (stall_ms == 0) {
        return;
    }
    exchange->moved_bytes = passed_bytes(exchange);
    exchange->moved_ms = loop_now_ms(exchange->relay->loop);
    if (timer_start(&exchange->timer, stall_ms / 4 + 1) != 0) {
        exchange_close(exchange);
    }
}

static void check_stall(struct exchange *exchange)
{
    uint64_t stall_ms = exchange->relay->options->stall_timeout_ms;

    if (!waits_for_front(exchange) || exchange->moved_bytes != passed_bytes(exchange)) {
        exchange_watch_stall(exchange);
    } else if (loop_now_ms(exchange->relay->loop) - exchange->moved_ms < stall_ms) {
        if (timer_start(&exchange->timer, stall_ms / 4 + 1) != 0) {
            exchange_close(exchange);
        }
    } else {
        log_warn(exchange->relay->log, "front cut: no byte moved for stall_timeout",
                 log_str("state", exchange_state_name(exchange->state)),
                 log_uint("stall_timeout_ms", stall_ms));
        exchange_leave(exchange);
    }
}

/* In PARAMS. Requests may have come and gone since the timer was armed: they leave it alone. */
static void check_idle(struct exchange *exchange)
{
    uint64_t idle_ms = exchange->relay->options->idle_timeout_ms;
    uint64_t since_ms = loop_now_ms(exchange->relay->loop) - exchange->idle_since_ms;

    if (idle_ms == 0) {
        return;
    }
    if (since_ms >= idle_ms || timer_start(&exchange->timer, idle_ms - since_ms) != 0) {
        exchange_close(exchange);
    }
}

static void on_timer(struct timer *timer)
{
    struct exchange *exchange = list_entry(timer, struct exchange, timer);
    const struct relay_options *options = exchange->relay->options;

    if (exchange->is_timing_head) {
        log_info(exchange->relay->log, "request head not complete in header_timeout",
                 log_uint("header_timeout_ms", options->header_timeout_ms));
        exchange_close(exchange);
    } else if (exchange->state == EXCHANGE_PARAMS) {
        check_idle(exchange);
    } else if (exchange->state == EXCHANGE_DRAIN &&
               (exchange->is_write_shut || exchange->relay->is_cutting)) {
        exchange_close(exchange);
    } else if (options->stall_timeout_ms > 0) {
        check_stall(exchange);
    }
}

int exchange_new(struct relay *relay, int fd, bool is_unix, bool is_scgi)
{
    struct exchange *exchange = memory_zeroed(sizeof(*exchange));

    if (exchange == NULL) {
        return -ENOMEM;
    }
    exchange->relay = relay;
    exchange->state = EXCHANGE_PARAMS;
    exchange->idle_since_ms = loop_now_ms(relay->loop);
    exchange->begun_ms = exchange->idle_since_ms;
    timer_init(&exchange->timer, relay->loop, on_timer);
    task_init(&exchange->task, on_task);
    list_init(&exchange->unwatched_link);
    front_init(&exchange->front, relay, fd, is_unix, is_scgi);
    list_append(&relay->exchanges, &exchange->link);
    relay->exchange_count++;
    stats_count(relay->stats, STAT_FRONTS_ACCEPTED);
    stats_count(relay->stats, STAT_FRONTS_ACTIVE);
    /* The web server connects to send: often its request is there already. */
    exchange_pump(exchange);
    return 0;
}

void exchange_free(struct exchange *exchange)
{
    list_remove(&exchange->link);
    free(exchange);
}

void exchange_close(struct exchange *exchange)
{
    struct relay *relay = exchange->relay;

    if (exchange_is_closed(exchange)) {
        return;
    }
    exchange_leave_queue(exchange);
    exchange_drop_worker(exchange);
    exchange_forget_ticket(exchange);
    exchange_change_state(exchange, EXCHANGE_CLOSED);
    if (relay->gather.outq == &exchange->front.out) {
        gather_begin(&relay->gather, NULL);
    }
    request_free(exchange->request);
    exchange->request = NULL;
    front_deinit(&exchange->front);
    timer_stop(&exchange->timer);
    task_stop(&exchange->task);
    list_remove(&exchange->unwatched_link);
    relay->exchange_count--;
    limit_release(relay->fronts);
    stats_drop(relay->stats, STAT_FRONTS_ACTIVE);
    list_remove(&exchange->link);
    list_append(&relay->closed, &exchange->link);
    task_defer(&relay->reap, relay->loop);
}

void exchange_note_leave(const struct exchange *exchange)
{
    /* Who leaves a build is counted by the builder, which knows whether it had begun. */
    if (exchange->state == EXCHANGE_DELIVER) {
        stats_count(exchange->relay->stats, STAT_CLIENTS_LEFT_STREAM);
        log_info(exchange->relay->log, "client left", log_str("stage", "stream"),
                 log_str("request_id", exchange->request->build_id));
    } else if (exchange->state == EXCHANGE_QUEUED) {
        stats_count(exchange->relay->stats, STAT_CLIENTS_LEFT_QUEUE);
        log_info(exchange->relay->log, "client left", log_str("stage", "queue"));
    }
}

void exchange_leave(struct exchange *exchange)
{
    exchange_note_leave(exchange);
    exchange_close(exchange);
}

void exchange_stop_head_clock(struct exchange *exchange)
{
    /* The clock of idleness stays armed over many requests; it looks at idle_since_ms when due. */
    if (exchange->is_timing_head) {
        exchange->is_timing_head = false;
        timer_stop(&exchange->timer);
    }
}

void exchange_drop_worker(struct exchange *exchange)
{
    if (exchange->worker == NULL) {
        return;
    }
    worker_free(exchange->worker);
    exchange->worker = NULL;
    exchange->worker_rest = span_of(NULL, 0);
    /* What the worker held up, the front's input above all, goes on without an event. */
    task_defer(&exchange->task, exchange->relay->loop);
}

void exchange_release_worker(struct exchange *exchange)
{
    struct worker *worker = exchange->worker;

    if (worker != NULL) {
        exchange->worker = NULL;
        worker_linger(worker, exchange->worker_rest);
        exchange->worker_rest = span_of(NULL, 0);
    }
}

bool exchange_queue_stdout(struct exchange *exchange, struct span content)
{
    struct gather *gather = &exchange->relay->gather;

    /* Behind everything that is on its way already, and together with it: what PHP wrote at once
     * leaves at once. */
    if ((gather->outq == &exchange->front.out && gather_keep(gather) != 0) ||
        front_queue_stdout(&exchange->front, content) != 0) {
        exchange_leave(exchange);
        return false;
    }
    return true;
}

/* The connection ends here: what is queued goes out first. */
static void drain(struct exchange *exchange, bool drain_input)
{
    exchange->drain_input = drain_input;
    exchange->is_timing_head = false;
    exchange_change_state(exchange, EXCHANGE_DRAIN);
    timer_stop(&exchange->timer);
    task_defer(&exchange->task, exchange->relay->loop);
    exchange_watch_stall(exchange);
}

void exchange_end_request(struct exchange *exchange)
{
    const struct relay *relay = exchange->relay;
    bool body_ended = exchange->front.body_ended;
    bool is_kept = exchange->front.is_kept && !exchange->front.is_input_ended &&
                   (!relay->is_draining || (body_ended && !relay->is_cutting));

    exchange->is_last = relay->is_draining;
    exchange_leave_queue(exchange);
    exchange_release_worker(exchange);
    exchange_forget_ticket(exchange);
    request_free(exchange->request);
    exchange->request = NULL;
    exchange->has_served = true;
    front_end_request(&exchange->front);
    exchange_change_state(exchange, EXCHANGE_ENDED);
    if (!is_kept) {
        drain(exchange, !body_ended);
        return;
    }
    exchange_change_state(exchange, EXCHANGE_PARAMS);
    exchange->idle_since_ms = loop_now_ms(exchange->relay->loop);
    task_defer(&exchange->task, exchange->relay->loop);
}

void exchange_end_refused(struct exchange *exchange)
{
    drain(exchange, true);
}

void exchange_break_off(struct exchange *exchange)
{
    bool body_ended = exchange->front.body_ended;

    exchange_leave_queue(exchange);
    exchange_drop_worker(exchange);
    exchange_forget_ticket(exchange);
    request_free(exchange->request);
    exchange->request = NULL;
    front_end_request(&exchange->front);
    drain(exchange, !body_ended);
}

static void log_failure(struct exchange *exchange, enum failure failure, struct span message)
{
    log_info(exchange->relay->log, "request failed", log_str("error", failure_info(failure)->error),
             log_uint("status", failure_info(failure)->status), log_span("message", message),
             log_str("request_id", exchange->request == NULL ? "" : exchange->request->build_id));
}

/* Builds the answer; behind an interception it carries PHP's headers and the request's id. */
static int build_failure(struct exchange *exchange, enum failure failure, struct span message,
                         unsigned retry_after_s, struct buf *answer)
{
    struct request *request = exchange->request;
    bool intercepted = exchange->state == EXCHANGE_CAPTURE || exchange->state == EXCHANGE_BUILD;
    struct answer_failure description = {
        .failure = failure,
        .message = message,
        .request_id = request != NULL && request->build_id[0] != '\0' ? request->build_id : NULL,
        .php_head = intercepted ? buf_span(&request->head) : span_of(NULL, 0),
        .retry_after_s = retry_after_s,
    };

    return answer_failure(&description, answer);
}

void exchange_fail(struct exchange *exchange, enum failure failure, struct span message,
                   unsigned retry_after_s)
{
    struct buf answer;
    int error;

    stats_count_failure(exchange->relay->stats, failure);
    log_failure(exchange, failure, message);
    if (exchange->request != NULL && exchange->request->head_is_out) {
        exchange_break_off(exchange); /* part of a head that was too long to be held */
        return;
    }
    buf_init(&answer, ANSWER_EXTRA + exchange->relay->options->max_response_head * 2);
    error = build_failure(exchange, failure, message, retry_after_s, &answer);
    if (error != 0) {
        buf_deinit(&answer);
        exchange_break_off(exchange);
        return;
    }
    if (exchange_queue_stdout(exchange, buf_span(&answer))) {
        if (front_queue_end(&exchange->front, 0, FCGI_REQUEST_COMPLETE) == 0) {
            exchange_end_request(exchange);
        } else {
            exchange_close(exchange);
        }
    }
    buf_deinit(&answer);
}

void exchange_fail_text(struct exchange *exchange, enum failure failure, const char *message)
{
    exchange_fail(exchange, failure, span_of_string(message), 0);
}

/* Whether the web server is gone although nothing was read that says so. */
static bool has_left(struct exchange *exchange)
{
    struct front *front = &exchange->front;

    if ((front->watch.ready & WATCH_END) == 0) {
        return false;
    }
    watch_clear(&front->watch, WATCH_END);
    front->watch.ready |= WATCH_READ; /* the end itself is still to be read */
    if (exchange->state == EXCHANGE_PARAMS) {
        return false;
    }
    /* Over TCP the end of input is all that there is to see of a client's leaving. It may lie
     * behind bytes of a body that we do not read, since PHP does not. */
    return front_is_gone(front) || (exchange->request != NULL && !front->is_unix);
}

/* In DRAIN: everything is out, so say so, and wait for the web server's end where it still sends.
 * */
static void finish_drain(struct exchange *exchange)
{
    struct front *front = &exchange->front;

    if (!outq_is_empty(&front->out)) {
        return;
    }
    if (!exchange->drain_input || front->is_input_ended) {
        exchange_close(exchange);
        return;
    }
    if (!exchange->is_write_shut) {
        exchange->is_write_shut = true;
        shutdown(front->fd, SHUT_WR);
        if (timer_start(&exchange->timer, DRAIN_MS) != 0) {
            exchange_close(exchange);
        }
    }
}

/* In PARAMS: the clock of the head runs from its first byte, that of idleness otherwise. */
static void set_timer(struct exchange *exchange)
{
    const struct relay_options *options = exchange->relay->options;
    bool in_head = front_is_in_head(&exchange->front);
    int error = 0;

    if (in_head && !exchange->is_timing_head && options->header_timeout_ms > 0) {
        exchange->is_timing_head = true;
        error = timer_start(&exchange->timer, options->header_timeout_ms);
    } else if (!in_head) {
        if (exchange->is_timing_head) {
            exchange->is_timing_head = false;
            timer_stop(&exchange->timer);
        }
        if (!exchange->timer.armed && options->idle_timeout_ms > 0) {
            error = timer_start(&exchange->timer, options->idle_timeout_ms);
        }
    }
    if (error != 0) {
        exchange_close(exchange);
    }
}

void exchange_watch_front(struct exchange *exchange)
{
    list_remove(&exchange->unwatched_link);
    if (front_watch(&exchange->front, exchange->relay, on_front_ready) != 0) {
        exchange_close(exchange);
    }
}

/*
 * On a connection that is new and has said all, the next thing to happen is PHP's answer, and often
 * the last. It is watched only if that does not come at once; a client that leaves in these
 * milliseconds is seen then.
 */
static bool may_be_unwatched(const struct exchange *exchange)
{
    return exchange->front.body_ended && outq_is_empty(&exchange->front.out) &&
           (exchange->state == EXCHANGE_CONNECT || exchange->state == EXCHANGE_HEAD);
}

static void settle_watch(struct exchange *exchange)
{
    struct relay *relay = exchange->relay;

    if (watch_is_started(&exchange->front.watch)) {
        return;
    }
    if (!may_be_unwatched(exchange) ||
        (!relay->watch_them.armed && timer_start(&relay->watch_them, UNWATCHED_MS) != 0)) {
        exchange_watch_front(exchange);
    } else if (list_is_empty(&exchange->unwatched_link)) {
        list_append(&relay->unwatched, &exchange->unwatched_link);
    }
}

/* Drained, but for a request that the web server has sent on the kept connection meanwhile: a close
 * would be a reset to it. */
static void close_unless_asked(struct exchange *exchange)
{
    uint8_t byte;

    if (recv(exchange->front.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0) {
        exchange->front.watch.ready |= WATCH_READ;
        task_defer(&exchange->task, exchange->relay->loop);
    } else {
        exchange_close(exchange);
    }
}

static void settle(struct exchange *exchange)
{
    struct front *front = &exchange->front;

    if (exchange->state == EXCHANGE_DRAIN) {
        finish_drain(exchange);
    } else if (exchange->state == EXCHANGE_PARAMS) {
        if ((exchange->relay->closes_idle || exchange->is_last) && exchange->request == NULL &&
            !front->is_active && outq_is_empty(&front->out)) {
            close_unless_asked(exchange);
        } else {
            set_timer(exchange);
        }
    }
}

/* At the end of a turn. What was held back because of these bytes may cause no event any more. */
static bool send_kept(struct exchange *exchange)
{
    struct outq *out = &exchange->front.out;

    if (outq_is_empty(out)) {
        return true;
    }
    if (outq_send(out) != 0) {
        exchange_leave(exchange);
        return false;
    }
    if (outq_is_empty(out)) {
        task_defer(&exchange->task, exchange->relay->loop);
    }
    return true;
}

void exchange_pump(struct exchange *exchange)
{
    if (exchange_is_closed(exchange)) {
        return;
    }
    if (has_left(exchange) || outq_send(&exchange->front.out) != 0) {
        exchange_leave(exchange);
        return;
    }
    exchange_process_front(exchange);
    if (!exchange_is_closed(exchange)) {
        exchange_process_worker(exchange);
    }
    if (!exchange_is_closed(exchange)) {
        exchange_process_delivery(exchange);
    }
    if (exchange->state == EXCHANGE_STATUS) {
        exchange_process_own(exchange);
    }
    if (!exchange_is_closed(exchange) && send_kept(exchange)) {
        settle(exchange);
    }
    if (!exchange_is_closed(exchange)) {
        settle_watch(exchange);
    }
}

void exchange_drain(struct exchange *exchange)
{
    if (exchange->state == EXCHANGE_PARAMS) {
        exchange->front.watch.ready |= WATCH_READ; /* a request may have come in this moment */
    }
    task_defer(&exchange->task, exchange->relay->loop);
}

void exchange_cut(struct exchange *exchange)
{
    if (exchange->state != EXCHANGE_BUILD) {
        exchange_close(exchange);
        return;
    }
    exchange_fail_text(exchange, FAILURE_BUSY,
                       "The server is stopping before the build was ready. Try again.");
    /* Who does not read is not waited for, either. */
    if (!exchange_is_closed(exchange) && timer_start(&exchange->timer, CUT_MS) != 0) {
        exchange_close(exchange);
    }
}
