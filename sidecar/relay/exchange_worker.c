/* SPDX-License-Identifier: MIT */
/*
 * From PHP-FPM to the web server: response heads, bodies and error output. Must never change a byte
 * of an ordinary response, and never do anything between reading END_REQUEST and closing the
 * worker.
 */
#include <errno.h>

#include "fcgi/writer.h"
#include "sidecar/base/clock.h"
#include "sidecar/relay/exchange_parts.h"

/* So that one response does not hold up the other exchanges of the thread. */
#define WORKER_READS_PER_TURN 8

static void on_worker_ready(void *owner)
{
    struct exchange *exchange = owner;

    if (exchange->state == EXCHANGE_CONNECT) {
        exchange_send_request(exchange);
    }
    exchange_pump(exchange);
}

static void on_worker_failure(void *owner, enum worker_failure failure)
{
    struct exchange *exchange = owner;

    if (failure == WORKER_TIMED_OUT && exchange->state == EXCHANGE_HEAD) {
        stats_count(exchange->relay->stats, STAT_WORKER_ERRORS_RESPONSE_TIMEOUT);
        exchange_drop_worker(exchange);
        exchange_fail_text(exchange, FAILURE_TIMEOUT,
                           "PHP did not begin its answer within response_timeout.");
    } else if (failure == WORKER_TIMED_OUT) {
        log_warn(exchange->relay->log,
                 "worker closed: it did not end its request in finish_timeout",
                 log_str("request_id", exchange->request->build_id));
        exchange_drop_worker(exchange);
    } else {
        exchange_on_connect_failure(exchange, failure);
    }
}

const struct worker_events *exchange_worker_events(void)
{
    static const struct worker_events events = { on_worker_ready, on_worker_failure };

    return &events;
}

void exchange_on_worker_death(struct exchange *exchange, int error)
{
    enum exchange_state state = exchange->state;

    stats_count(exchange->relay->stats, STAT_WORKER_ERRORS_DIED);
    log_error(
        exchange->relay->log, "worker died before the end of its response",
        log_str("state", exchange_state_name(state)),
        log_str("address", exchange->worker->address->text),
        log_str("error", error == -EPIPE ? "closed without END_REQUEST" : strerrordesc_np(-error)));
    exchange_drop_worker(exchange);
    switch (state) {
    case EXCHANGE_CONNECT:
    case EXCHANGE_HEAD:
    case EXCHANGE_CAPTURE:
        if (exchange->has_served && exchange->request->worker_had_bytes) {
            /* nginx would send the request again on a connection that has served before
             * (ngx_http_upstream.c, peer.cached), and PHP may have done its work. */
            exchange_fail_text(exchange, FAILURE_WORKER_FAILED,
                               "The PHP worker died before it answered.");
        } else {
            exchange_close(exchange);
        }
        break;
    case EXCHANGE_RELAY:
        exchange_break_off(exchange);
        break;
    default:
        break; /* the build is independent of PHP */
    }
}

/*
 * The rest of the current record, of which rest is here, begins a record of the front's. in_place:
 * the FCGI_HEADER_SIZE bytes before it are no part of anything that is still to be sent.
 */
static void pass_rest(struct exchange *exchange, struct span rest, bool in_place)
{
    struct gather *gather = &exchange->relay->gather;
    size_t total = rest.len + exchange->worker->reader.content_left;
    uint8_t *place = in_place ? (uint8_t *)(uintptr_t)rest.ptr - FCGI_HEADER_SIZE : NULL;

    if (total > 0) {
        front_add_begin(&exchange->front, gather, place, total);
        gather_add(gather, rest.ptr, rest.len);
    }
}

static void stop_response_clock(struct exchange *exchange)
{
    if (exchange->relay->options->response_timeout_ms > 0 && exchange->worker != NULL) {
        worker_set_timeout(exchange->worker, 0);
    }
}

static void begin_relay(struct exchange *exchange)
{
    stop_response_clock(exchange);
    exchange_change_state(exchange, EXCHANGE_RELAY);
    exchange->request->head_is_out = true;
    stats_count(exchange->relay->stats, STAT_REQUESTS_RELAYED);
}

/* A head that outgrew max_response_head goes through a sieve that holds nothing back but the
 * header. */
static void strip_head(struct exchange *exchange, struct span content)
{
    struct request *request = exchange->request;
    struct span keep;
    enum cgi_strip_event event;

    while ((event = cgi_strip_next(&request->strip, &content, &keep)) == CGI_STRIP_KEEP) {
        /* The sieve's own bytes do not outlive the next call. */
        if (!exchange_queue_stdout(exchange, keep)) {
            return;
        }
    }
    if (event == CGI_STRIP_END) {
        begin_relay(exchange);
        pass_rest(exchange, content, false);
    }
}

static void start_stripping(struct exchange *exchange, struct span content)
{
    struct request *request = exchange->request;
    struct span held = buf_span(&request->head);

    log_warn(exchange->relay->log, "response head over max_response_head is not intercepted",
             log_uint("max_response_head", exchange->relay->options->max_response_head));
    stop_response_clock(exchange);
    request->is_stripping = true;
    request->head_is_out = true;
    cgi_strip_init(&request->strip, INTERCEPT_HEADER);
    strip_head(exchange, held);
    if (!exchange_is_closed(exchange)) {
        buf_clear(&request->head);
        strip_head(exchange, content);
    }
}

/* The head is complete, and the header is in it but asks for nothing. */
static void relay_stripped(struct exchange *exchange, struct span head, struct span rest)
{
    struct buf kept;

    buf_init(&kept, head.len);
    if (intercept_strip(head, &kept) != 0) {
        buf_deinit(&kept);
        exchange_leave(exchange);
        return;
    }
    if (exchange_queue_stdout(exchange, buf_span(&kept))) {
        begin_relay(exchange);
        pass_rest(exchange, rest, false);
    }
    buf_deinit(&kept);
}

/* head borrows from request->head or, where it came whole, from the read buffer right before rest.
 * */
static void on_response_head(struct exchange *exchange, struct span head, struct span rest)
{
    struct request *request = exchange->request;
    bool is_held = buf_length(&request->head) > 0;

    stop_response_clock(exchange);
    switch (intercept_judge(head, request->may_build, exchange->relay->options->intercept)) {
    case INTERCEPT_PASS:
        if (!is_held) {
            begin_relay(exchange);
            pass_rest(exchange, span_of(head.ptr, head.len + rest.len), true);
        } else if (exchange_queue_stdout(exchange, head)) {
            begin_relay(exchange);
            pass_rest(exchange, rest, false);
            buf_clear(&request->head);
        }
        break;
    case INTERCEPT_UNSERVED:
        log_warn(exchange->relay->log, "build request not intercepted: no server_url is set",
                 log_str("header", INTERCEPT_HEADER));
        relay_stripped(exchange, head, rest);
        break;
    case INTERCEPT_STRIP:
        relay_stripped(exchange, head, rest);
        break;
    case INTERCEPT_BUILD:
        exchange_start_capture(exchange, head, rest);
        break;
    }
}

static void on_head_content(struct exchange *exchange, struct span content)
{
    struct request *request = exchange->request;
    size_t length = content.len;
    bool is_complete;
    int error = 0;

    if (request->is_stripping) {
        strip_head(exchange, content);
        return;
    }
    is_complete = cgi_scan_next(&request->scan, content, &length);
    if (buf_length(&request->head) + length > request->head.max) {
        start_stripping(exchange, content);
        return;
    }
    if (is_complete && buf_length(&request->head) == 0) {
        on_response_head(exchange, span_of(content.ptr, length),
                         span_of(content.ptr + length, content.len - length));
        return;
    }
    error = buf_append(&request->head, content.ptr, length);
    if (error != 0) {
        exchange_drop_worker(exchange);
        exchange_fail_text(exchange, FAILURE_BUSY, "The server is out of memory. Try again.");
        return;
    }
    if (is_complete) {
        on_response_head(exchange, buf_span(&request->head),
                         span_of(content.ptr + length, content.len - length));
    }
}

static void add_stderr(struct exchange *exchange, struct span content)
{
    /* A front that does not read must not keep a worker from ending its request. */
    bool is_stuck = exchange->state == EXCHANGE_BUILD && !outq_is_empty(&exchange->front.out);

    if (exchange->front.is_scgi || is_stuck) {
        log_info(exchange->relay->log, "PHP error output", log_span("stderr", content));
    } else {
        front_add_stderr(&exchange->front, &exchange->relay->gather, content);
    }
}

/* A record of the worker's begins at the read buffer's place behind its header. */
static void on_record(struct exchange *exchange, const uint8_t *behind_header)
{
    const struct fcgi_header *header = &exchange->worker->reader.header;

    exchange->worker->end_length = 0;
    if (header->type == FCGI_STDOUT && exchange->state == EXCHANGE_RELAY) {
        front_add_begin(&exchange->front, &exchange->relay->gather,
                        (uint8_t *)(uintptr_t)behind_header - FCGI_HEADER_SIZE,
                        header->content_length);
    }
}

static void on_stdout(struct exchange *exchange, struct span content)
{
    switch (exchange->state) {
    case EXCHANGE_RELAY:
        gather_add(&exchange->relay->gather, content.ptr, content.len);
        break;
    case EXCHANGE_HEAD:
        on_head_content(exchange, content);
        break;
    case EXCHANGE_CAPTURE:
        exchange_capture(exchange, content);
        break;
    default:
        break; /* behind the build request */
    }
}

static void on_content(struct exchange *exchange, struct span content)
{
    struct worker *worker = exchange->worker;

    switch (worker->reader.header.type) {
    case FCGI_STDOUT:
        on_stdout(exchange, content);
        break;
    case FCGI_STDERR:
        add_stderr(exchange, content);
        break;
    case FCGI_END_REQUEST:
        content = span_take(&content, (size_t)(FCGI_BODY_SIZE - worker->end_length));
        memcpy(worker->end_body + worker->end_length, content.ptr, content.len);
        worker->end_length += (uint8_t)content.len;
        break;
    default:
        break;
    }
}

/* PHP's END_REQUEST, in the states in which the answer is PHP's. */
static void relay_end(struct exchange *exchange, struct fcgi_end end)
{
    struct gather *gather = &exchange->relay->gather;
    struct request *request = exchange->request;

    if (exchange->state == EXCHANGE_HEAD) {
        /* Not a response by the rules, but PHP's: the web server judges. */
        if (request->is_stripping) {
            exchange_queue_stdout(exchange, cgi_strip_flush(&request->strip));
        } else if (buf_length(&request->head) > 0) {
            struct span head = buf_span(&request->head);

            relay_stripped(exchange, head, span_of(NULL, 0));
        }
        if (exchange_is_closed(exchange)) {
            return;
        }
        if (exchange->state == EXCHANGE_HEAD) {
            begin_relay(exchange);
        }
    }
    front_add_end(&exchange->front, gather, end);
    if (gather_flush(gather) != 0) {
        exchange_leave(exchange);
        return;
    }
    exchange_end_request(exchange);
}

/* The worker is free when we close; so that comes first. */
static void on_end_request(struct exchange *exchange)
{
    struct worker *worker = exchange->worker;
    struct fcgi_end end = fcgi_end_read(worker->end_body);
    uint64_t begun_ns = clock_monotonic_ns();

    worker_close(worker);
    stats_observe_ns(exchange->relay->stats, STAT_WORKER_RELEASE, clock_monotonic_ns() - begun_ns);
    if (exchange->state == EXCHANGE_HEAD || exchange->state == EXCHANGE_RELAY) {
        relay_end(exchange, end);
        return;
    }
    exchange_drop_worker(exchange);
    if (exchange->state == EXCHANGE_CAPTURE) {
        exchange_capture_end(exchange);
    }
}

static bool is_end_request(const struct worker *worker)
{
    return worker->reader.header.type == FCGI_END_REQUEST && worker->end_length == FCGI_BODY_SIZE;
}

/* One event of the worker's output. */
static void on_event(struct exchange *exchange, enum fcgi_event event, struct span content)
{
    struct worker *worker = exchange->worker;

    switch (event) {
    case FCGI_RECORD:
        exchange->front.owed_bytes = 0;
        front_add_control(&exchange->front, &exchange->relay->gather);
        if (worker->reader.header.request_id != 1) {
            exchange_on_worker_death(exchange, -EPROTO); /* an answer to a question not asked */
            break;
        }
        on_record(exchange, exchange->worker_rest.ptr);
        break;
    case FCGI_CONTENT:
        on_content(exchange, content);
        break;
    case FCGI_RECORD_END:
        if (is_end_request(worker)) {
            on_end_request(exchange);
        } else if (worker->reader.header.type == FCGI_END_REQUEST) {
            exchange_on_worker_death(exchange, -EPROTO);
        }
        break;
    case FCGI_MALFORMED:
        exchange_on_worker_death(exchange, -EPROTO);
        break;
    case FCGI_NEED_DATA:
        break;
    }
}

/* Looks through one read. False: the exchange has closed, or has no worker any more. */
static bool consume(struct exchange *exchange, struct span output)
{
    struct gather *gather = &exchange->relay->gather;
    struct span content = { .ptr = NULL };
    enum fcgi_event event;

    gather_begin(gather, &exchange->front.out);
    exchange->worker_rest = output;
    while (exchange->worker != NULL &&
           (event = fcgi_reader_next(&exchange->worker->reader, &exchange->worker_rest,
                                     &content)) != FCGI_NEED_DATA) {
        on_event(exchange, event, content);
        if (exchange_is_closed(exchange)) {
            gather_begin(gather, NULL);
            return false;
        }
    }
    exchange->worker_rest = span_of(NULL, 0);
    if (gather_flush(gather) != 0) {
        gather_begin(gather, NULL);
        exchange_leave(exchange);
        return false;
    }
    gather_begin(gather, NULL);
    if (exchange->state == EXCHANGE_RELAY && exchange->worker != NULL) {
        exchange->front.owed_bytes = exchange->worker->reader.header.type == FCGI_STDOUT
                                         ? exchange->worker->reader.content_left
                                         : 0;
    }
    return exchange->worker != NULL;
}

/* Before reading: what waits to be sent. False: the exchange has closed or no worker. */
static bool send_to_worker(struct exchange *exchange)
{
    struct worker *worker = exchange->worker;
    bool was_behind = !outq_is_empty(&worker->out);

    (void)outq_send(&worker->out); /* an error shows when reading, behind what PHP still said */
    if (was_behind && outq_is_empty(&worker->out)) {
        /* The web server's input, held back until now, may cause no event any more. */
        task_defer(&exchange->task, exchange->relay->loop);
    }
    if (exchange->request->spool.length > 0 && outq_is_empty(&worker->out)) {
        exchange_send_spool(exchange);
    }
    return !exchange_is_closed(exchange) && exchange->worker != NULL;
}

/* A long response's long records need not be looked at: see bulk.h. */
static bool is_bulk(const struct exchange *exchange)
{
    const struct request *request = exchange->request;
    const struct fcgi_header *header = &exchange->worker->reader.header;

    return exchange->state == EXCHANGE_RELAY && header->type == FCGI_STDOUT &&
           bulk_is_worth(&request->bulk, &exchange->front, request->relayed_bytes,
                         header->content_length);
}

/* True: bulk_move has done what can be done in this turn. */
static bool move_bulk(struct exchange *exchange)
{
    struct bulk *bulk = &exchange->request->bulk;

    if (!bulk_is_under_way(bulk) &&
        !(is_bulk(exchange) && fcgi_reader_at_boundary(&exchange->worker->reader))) {
        return false;
    }
    switch (bulk_move(bulk, exchange->worker, &exchange->front)) {
    case BULK_UNFIT:
        return false;
    case BULK_BLOCKED:
        return true;
    case BULK_PAUSED:
        task_defer(&exchange->task, exchange->relay->loop);
        return true;
    case BULK_LOST:
        exchange_leave(exchange);
        return true;
    }
    return false;
}

/* Reads and passes on once. False: that is all for this turn. */
static bool read_once(struct exchange *exchange)
{
    struct worker *worker = exchange->worker;
    size_t size = RELAY_READ_SIZE;
    struct span output;
    int result;

    if (is_bulk(exchange) && !fcgi_reader_at_boundary(&worker->reader)) {
        /* Up to the begin of the next record, from where on bulk_move may take over. */
        size_t left = (size_t)worker->reader.content_left + worker->reader.padding_left;

        size = left > 0 && left < size ? left : size;
    }
    result = relay_receive(&worker->watch, relay_read_buffer(exchange->relay), size, &output);
    if (result < 0) {
        exchange_on_worker_death(exchange, result);
    }
    if (result <= 0) {
        return false;
    }
    exchange->request->relayed_bytes += output.len;
    return consume(exchange, output);
}

void exchange_process_worker(struct exchange *exchange)
{
    if (exchange->worker == NULL || !worker_is_connected(exchange->worker) ||
        !send_to_worker(exchange)) {
        return;
    }
    for (unsigned reads = 0;
         exchange->state == EXCHANGE_BUILD || outq_is_empty(&exchange->front.out); reads++) {
        if (move_bulk(exchange) || (exchange->worker->watch.ready & WATCH_READ) == 0) {
            return;
        }
        if (reads == WORKER_READS_PER_TURN) {
            task_defer(&exchange->task, exchange->relay->loop);
            return;
        }
        if (!read_once(exchange)) {
            return;
        }
    }
}
