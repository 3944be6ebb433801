/* SPDX-License-Identifier: MIT */
/*
 * From the web server to PHP-FPM: the request's head and body. Must never open a worker before the
 * head is complete, and never pass on a byte beyond the announced length.
 */
#include <errno.h>

#include "fcgi/params.h"
#include "fcgi/writer.h"
#include "sidecar/relay/exchange_parts.h"

/* While PHP-FPM has not taken the connection, the begin of a body is collected up to this size. */
#define EARLY_BODY_MAX ((size_t)64 * 1024)

/* So that one upload does not hold up the other exchanges of the thread. */
#define FRONT_READS_PER_TURN 8

static bool sends_to_worker(const struct exchange *exchange)
{
    return exchange->worker != NULL && exchange->state != EXCHANGE_SPOOL;
}

/* Backpressure: what PHP-FPM does not read is not read from the web server. */
static bool takes_input(const struct exchange *exchange)
{
    const struct front *front = &exchange->front;

    if (buf_length(&front->control) > 0) {
        return false; /* who does not read our answers is asked no more questions */
    }
    if (exchange->state == EXCHANGE_PARAMS) {
        return outq_is_empty(&front->out);
    }
    if (!sends_to_worker(exchange) || front->body_ended) {
        return true;
    }
    if (exchange->state == EXCHANGE_QUEUED || exchange->state == EXCHANGE_CONNECT) {
        return buf_length(&exchange->worker->out.kept) < EARLY_BODY_MAX;
    }
    return outq_is_empty(&exchange->worker->out);
}

bool exchange_awaits_body(const struct exchange *exchange)
{
    return exchange->request != NULL && !exchange->front.body_ended && takes_input(exchange);
}

/* PARAMS as PHP-FPM wants them: no pair split across records, the end not padded. */
static void add_params(struct gather *gather, struct span params)
{
    while (params.len > 0) {
        size_t len = params_cut(params, FCGI_CONTENT_MAX);
        struct span part = span_take(&params, len);

        fcgi_header_write(gather_add_small(gather, FCGI_HEADER_SIZE), FCGI_PARAMS, 1,
                          (uint16_t)part.len, 0);
        gather_add(gather, part.ptr, part.len);
    }
    fcgi_header_write(gather_add_small(gather, FCGI_HEADER_SIZE), FCGI_PARAMS, 1, 0, 0);
}

static void add_body_end(struct gather *gather)
{
    fcgi_header_write(gather_add_small(gather, FCGI_HEADER_SIZE), FCGI_STDIN, 1, 0, 0);
}

/* The request's last byte is on its way: from here on PHP is on the clock. */
static void start_response_clock(struct exchange *exchange)
{
    if (exchange->state == EXCHANGE_HEAD && exchange->relay->options->response_timeout_ms > 0) {
        worker_set_timeout(exchange->worker, exchange->relay->options->response_timeout_ms);
    }
}

void exchange_on_connect_failure(struct exchange *exchange, enum worker_failure failure)
{
    exchange_drop_worker(exchange);
    switch (failure) {
    case WORKER_UNREACHABLE:
        /* As when PHP-FPM itself is down: the web server says 502 or asks the next upstream. */
        log_error(exchange->relay->log, "PHP-FPM cannot be reached: request closed without answer",
                  log_uint("addresses", exchange->relay->options->address_count));
        exchange_close(exchange);
        break;
    case WORKER_OUT_OF_MEMORY:
        exchange_fail_text(exchange, FAILURE_BUSY,
                           "The server is out of memory or file descriptors. Try again.");
        break;
    case WORKER_QUEUED_TOO_LONG:
        exchange_leave_queue(exchange);
        exchange_fail_text(exchange, FAILURE_BUSY,
                           "All connections to PHP-FPM were in use for the whole of "
                           "queue_timeout. Try again.");
        break;
    case WORKER_BACKLOG_FULL:
    case WORKER_TIMED_OUT:
        exchange_fail_text(exchange, FAILURE_BUSY,
                           "PHP-FPM takes no more connections at the moment. Try again.");
        break;
    }
}

void exchange_send_request(struct exchange *exchange)
{
    exchange_change_state(exchange, EXCHANGE_HEAD);
    exchange->request->worker_had_bytes = true;
    if (exchange->front.body_ended) {
        start_response_clock(exchange);
    }
}

/* A place is taken: the connection is begun. False: it has failed, and so has the request. */
static bool begin_connect(struct exchange *exchange)
{
    int result;

    exchange_change_state(exchange, EXCHANGE_CONNECT);
    result = worker_connect(exchange->worker);
    if (result < 0) {
        exchange_on_connect_failure(exchange, (enum worker_failure)(-1 - result));
        return false;
    }
    if (worker_is_connected(exchange->worker)) {
        exchange_send_request(exchange);
    }
    return true;
}

/* No place is free: joins the queue. False: out of memory. */
static bool join_queue(struct exchange *exchange)
{
    struct relay *relay = exchange->relay;
    struct request *request = exchange->request;

    exchange_change_state(exchange, EXCHANGE_QUEUED);
    request->ticket = relay_add_ticket(relay, &request->ticket_link);
    stats_count(relay->stats, STAT_WORKERS_QUEUED);
    if (limit_wait(relay->limit, &relay->turns, request->ticket, &request->waiter) != 0) {
        exchange_leave_queue(exchange);
        exchange_on_connect_failure(exchange, WORKER_OUT_OF_MEMORY);
        return false;
    }
    worker_set_timeout(exchange->worker, relay->options->queue_timeout_ms);
    return true;
}

void exchange_leave_queue(struct exchange *exchange)
{
    struct request *request = exchange->request;

    if (exchange->state != EXCHANGE_QUEUED || request->ticket == 0) {
        return;
    }
    if (request->waiter != NULL) {
        limit_leave(exchange->relay->limit, request->waiter);
        request->waiter = NULL;
    }
    list_remove(&request->ticket_link);
    request->ticket = 0;
    stats_drop(exchange->relay->stats, STAT_WORKERS_QUEUED);
}

void exchange_on_turn(struct exchange *exchange)
{
    exchange->request->waiter = NULL; /* freed by the receiver of the message */
    exchange_leave_queue(exchange);
    worker_give_place(exchange->worker);
    if (begin_connect(exchange)) {
        exchange_pump(exchange);
    }
}

/*
 * Everything up to the body goes out in the round that is open for worker->out, together with what
 * the web server has sent of the body already.
 */
static void connect_worker(struct exchange *exchange)
{
    struct relay *relay = exchange->relay;
    struct gather *gather = &relay->gather;

    if (worker_new(&exchange->worker, relay, exchange_worker_events(), exchange) != 0) {
        exchange_on_connect_failure(exchange, WORKER_OUT_OF_MEMORY);
        return;
    }
    if (worker_take_place(exchange->worker) ? !begin_connect(exchange) : !join_queue(exchange)) {
        return;
    }
    gather_begin(gather, &exchange->worker->out);
    fcgi_begin_write(gather_add_small(gather, FCGI_FIXED_RECORD_SIZE), 1, FCGI_RESPONDER, 0);
    add_params(gather, buf_span(&exchange->front.params));
}

/* Goes on with a body that was collected: a piece at a time, as PHP-FPM takes it. */
void exchange_send_spool(struct exchange *exchange)
{
    struct request *request = exchange->request;
    struct gather *gather = &exchange->relay->gather;
    uint8_t *room = relay_read_buffer(exchange->relay);

    for (unsigned reads = 0;
         request->spool_sent < request->spool.length && outq_is_empty(&exchange->worker->out);
         reads++) {
        ssize_t got;
        int error;

        if (reads == FRONT_READS_PER_TURN) {
            task_defer(&exchange->task, exchange->relay->loop);
            return;
        }
        got = spool_read(&request->spool, request->spool_sent, room, RELAY_READ_SIZE);

        if (got <= 0) {
            log_error(exchange->relay->log, "collected request body cannot be read back",
                      log_errno("error", (int)got));
            exchange_drop_worker(exchange);
            exchange_close(exchange);
            return;
        }
        request->spool_sent += (uint64_t)got;
        gather_begin(gather, &exchange->worker->out);
        fcgi_header_write(room - FCGI_HEADER_SIZE, FCGI_STDIN, 1, (uint16_t)got, 0);
        gather_add(gather, room - FCGI_HEADER_SIZE, (size_t)got + FCGI_HEADER_SIZE);
        if (request->spool_sent == request->spool.length) {
            add_body_end(gather);
        }
        error = gather_flush(gather);
        if (error == -ENOMEM || error == -ENOBUFS) {
            exchange_close(exchange); /* part of the body is lost */
        }
        if (error != 0) {
            return; /* the worker's end is read from its socket */
        }
    }
    if (request->spool_sent == request->spool.length) {
        spool_deinit(&request->spool);
        request->spool_sent = 0;
        start_response_clock(exchange);
    }
}

static void on_head(struct exchange *exchange)
{
    struct front *front = &exchange->front;

    exchange_stop_head_clock(exchange);
    exchange->begun_ms = loop_now_ms(exchange->relay->loop);
    exchange->begun_bytes = front->out.sent_bytes;
    exchange->request = request_new(exchange->relay);
    if (exchange->request == NULL) {
        exchange_fail_text(exchange, FAILURE_BUSY, "The server is out of memory. Try again.");
        return;
    }
    exchange->request->exchange = exchange;
    exchange_watch_stall(exchange);
    if (exchange_is_closed(exchange)) {
        return;
    }
    switch (request_read_params(exchange->request, &front->params, exchange->relay)) {
    case REQUEST_OK:
        break;
    case REQUEST_PAIR_TOO_LARGE:
        exchange_fail_text(exchange, FAILURE_PARAMS_TOO_LARGE,
                           "One request header or variable is over 65000 bytes, which PHP-FPM "
                           "does not take.");
        return;
    case REQUEST_MALFORMED:
        log_warn(exchange->relay->log, "front closed: malformed PARAMS",
                 log_uint("bytes", buf_length(&front->params)));
        exchange_close(exchange);
        return;
    case REQUEST_NO_MEMORY:
        exchange_fail_text(exchange, FAILURE_BUSY, "The server is out of memory. Try again.");
        return;
    }
    if (exchange->request->own != OWN_NONE) {
        exchange_answer_own(exchange);
    } else if (exchange->request->has_length) {
        connect_worker(exchange);
    } else {
        exchange_change_state(exchange, EXCHANGE_SPOOL);
    }
}

static void collect_body(struct exchange *exchange, struct span piece)
{
    int error = spool_append(&exchange->request->spool, piece);

    if (error == -EFBIG) {
        exchange_fail_text(exchange, FAILURE_BODY_TOO_LARGE,
                           "The request body is larger than max_spooled_body. Send it with a "
                           "Content-Length, or raise max_spooled_body.");
    } else if (error != 0) {
        log_error(exchange->relay->log, "request body cannot be collected in spool_directory",
                  log_str("spool_directory", exchange->relay->options->spool_directory),
                  log_errno("error", error));
        exchange_fail_text(exchange, FAILURE_BUSY,
                           "The server cannot store the request body at the moment. Try again.");
    }
}

static void on_body(struct exchange *exchange, struct span piece)
{
    struct request *request = exchange->request;
    uint8_t *header = (uint8_t *)(uintptr_t)piece.ptr - FCGI_HEADER_SIZE;

    if (exchange->state == EXCHANGE_SPOOL) {
        collect_body(exchange, piece);
        return;
    }
    if (request == NULL) {
        return;
    }
    if (piece.len > request->body_left) {
        piece.len = (size_t)request->body_left;
    }
    request->body_left -= piece.len;
    if (piece.len == 0 || !sends_to_worker(exchange)) {
        return;
    }
    fcgi_header_write(header, FCGI_STDIN, 1, (uint16_t)piece.len, 0);
    gather_add(&exchange->relay->gather, header, piece.len + FCGI_HEADER_SIZE);
}

/* The collected body is complete: its counted length is what PHP sees. */
static void on_collected(struct exchange *exchange)
{
    struct request *request = exchange->request;

    if (request->spool.length > 0 &&
        request_set_length(&exchange->front.params, request->spool.length) != 0) {
        exchange_fail_text(exchange, FAILURE_BUSY, "The server is out of memory. Try again.");
        return;
    }
    connect_worker(exchange);
    if (!sends_to_worker(exchange)) {
        return;
    }
    if (request->spool.length == 0) {
        add_body_end(&exchange->relay->gather);
        start_response_clock(exchange);
    }
}

/* PHP-FPM would wait for the missing bytes for ever (main/fastcgi.c:fcgi_read). */
static void on_short_body(struct exchange *exchange)
{
    switch (exchange->state) {
    case EXCHANGE_QUEUED:
    case EXCHANGE_CONNECT:
    case EXCHANGE_HEAD:
    case EXCHANGE_CAPTURE:
        exchange_drop_worker(exchange);
        exchange_fail_text(exchange, FAILURE_BODY_SHORT,
                           "The request body is shorter than its Content-Length.");
        break;
    case EXCHANGE_RELAY:
        log_info(exchange->relay->log, "response cut: the request body ended too early",
                 log_uint("bytes_missing", exchange->request->body_left));
        exchange_break_off(exchange);
        break;
    default:
        exchange_drop_worker(exchange);
        break;
    }
}

static void on_body_end(struct exchange *exchange)
{
    if (exchange->state == EXCHANGE_SPOOL) {
        on_collected(exchange);
        return;
    }
    if (exchange->request == NULL) {
        return;
    }
    if (exchange->request->body_left > 0) {
        on_short_body(exchange);
        return;
    }
    if (sends_to_worker(exchange)) {
        add_body_end(&exchange->relay->gather);
        start_response_clock(exchange);
    }
}

bool exchange_fill_record(struct exchange *exchange)
{
    static const uint8_t zeros[1024];
    struct front *front = &exchange->front;

    if (exchange->request != NULL && bulk_is_under_way(&exchange->request->bulk) &&
        bulk_abandon(&exchange->request->bulk, front) != 0) {
        return false;
    }
    while (front->owed_bytes > 0) {
        size_t len = front->owed_bytes < sizeof(zeros) ? front->owed_bytes : sizeof(zeros);

        if (buf_append(&front->out.kept, zeros, len) != 0) {
            return false;
        }
        front->owed_bytes -= len;
    }
    return true;
}

static void on_abort(struct exchange *exchange)
{
    struct front *front = &exchange->front;

    exchange_note_leave(exchange);
    exchange_drop_worker(exchange);
    if (!exchange_fill_record(exchange) || front_queue_end(front, 0, FCGI_REQUEST_COMPLETE) != 0) {
        exchange_close(exchange);
        return;
    }
    exchange_stop_head_clock(exchange);
    exchange_end_request(exchange);
}

static void on_event(struct exchange *exchange, enum front_event event, struct span body)
{
    switch (event) {
    case FRONT_HEAD:
        on_head(exchange);
        break;
    case FRONT_BODY:
        on_body(exchange, body);
        break;
    case FRONT_BODY_END:
        on_body_end(exchange);
        break;
    case FRONT_ABORT:
        on_abort(exchange);
        break;
    case FRONT_PARAMS_TOO_LARGE:
        exchange_fail_text(exchange, FAILURE_PARAMS_TOO_LARGE,
                           "The request's headers and variables together are over "
                           "max_params_size.");
        break;
    case FRONT_REFUSED:
        exchange_end_refused(exchange);
        break;
    case FRONT_MALFORMED:
        log_warn(exchange->relay->log, "front closed: malformed FastCGI record",
                 log_uint("type", exchange->front.reader.header.type),
                 log_uint("request_id", exchange->front.reader.header.request_id));
        exchange_leave(exchange);
        break;
    case FRONT_NO_MEMORY:
        exchange_leave(exchange);
        break;
    case FRONT_NEED_DATA:
        break;
    }
}

/* Ends the round for the worker. An error is of no interest here: the worker's death is read. */
static void flush_to_worker(struct exchange *exchange)
{
    struct gather *gather = &exchange->relay->gather;

    if (exchange->worker != NULL && gather->outq == &exchange->worker->out) {
        if (gather_flush(gather) == -ENOMEM) {
            exchange_leave(exchange);
        }
    }
    gather_begin(gather, NULL);
}

/*
 * A short read that ends a request has emptied the socket, and another one would only say so. Where
 * the front is not watched yet, whatever happened meanwhile is told when that begins; where it is,
 * over a unix socket, a close that came together with these bytes has been told as the end of
 * input. (Over TCP it may have been a reset, which is not told apart from bytes: see loop.c.)
 */
static void skip_empty_read(struct front *front, size_t got)
{
    bool is_watched = watch_is_started(&front->watch);

    if (got < RELAY_READ_SIZE && front->is_active && front->body_ended &&
        (!is_watched || (front->is_unix && (front->watch.ready & WATCH_END) == 0))) {
        watch_clear(&front->watch, WATCH_READ);
    }
}

/* Looks through one read. False: the rest has been put back, or nothing more is to be done. */
static bool consume(struct exchange *exchange, struct span input)
{
    struct front *front = &exchange->front;
    struct gather *gather = &exchange->relay->gather;
    enum front_event event;
    struct span body;

    gather_begin(gather, exchange->worker == NULL ? NULL : &exchange->worker->out);
    /* In DRAIN, whatever it is, there will be no answer on this connection. */
    while (exchange->state != EXCHANGE_DRAIN &&
           (event = front_next(front, exchange->relay, &input, &body)) != FRONT_NEED_DATA) {
        on_event(exchange, event, body);
        if (exchange_is_closed(exchange)) {
            gather_begin(gather, NULL);
            return false;
        }
        if (exchange->worker == NULL) {
            gather_begin(gather, NULL);
        }
    }
    flush_to_worker(exchange);
    return !exchange_is_closed(exchange);
}

/* The web server has ended its direction, or the connection is lost. */
static void on_input_end(struct exchange *exchange, int error)
{
    struct front *front = &exchange->front;

    front->is_input_ended = true;
    if (exchange->state == EXCHANGE_DRAIN && error == -EPIPE) {
        exchange->drain_input = false;
        return;
    }
    /* lighttpd may half-close a unix socket and wait for its answer; over TCP, and in the middle of
     * a request, the end of input means that nobody waits any more. */
    if (error == -EPIPE && exchange->request != NULL && front->body_ended && front->is_unix &&
        !front_is_gone(front)) {
        return;
    }
    exchange_leave(exchange);
}

static void add_control(struct exchange *exchange)
{
    struct gather *gather = &exchange->relay->gather;

    if (buf_length(&exchange->front.control) == 0) {
        return;
    }
    gather_begin(gather, &exchange->front.out);
    front_add_control(&exchange->front, gather);
    gather_begin(gather, NULL);
}

void exchange_process_front(struct exchange *exchange)
{
    struct front *front = &exchange->front;
    struct span input;
    int result = 1;

    for (unsigned reads = 0; takes_input(exchange); reads++) {
        if ((front->watch.ready & WATCH_READ) == 0) {
            break;
        }
        if (reads == FRONT_READS_PER_TURN) {
            task_defer(&exchange->task, exchange->relay->loop);
            break;
        }
        result = front_read(front, exchange->relay, &input);
        if (result <= 0) {
            break;
        }
        if (!consume(exchange, input)) {
            return;
        }
        skip_empty_read(front, input.len);
    }
    if (result < 0) {
        on_input_end(exchange, result);
    } else if (!takes_input(exchange) && (front->watch.ready & WATCH_READ) != 0 &&
               front_is_gone(front)) {
        exchange_leave(exchange);
    }
    if (!exchange_is_closed(exchange)) {
        add_control(exchange);
    }
}
