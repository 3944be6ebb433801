/* SPDX-License-Identifier: MIT */
/*
 * From PHP's build request to the file: capture, submit, result, delivery. Must never make PHP wait
 * for any of it.
 */
#include <errno.h>

#include "fcgi/writer.h"
#include "sidecar/base/clock.h"
#include "sidecar/build/policy.h"
#include "sidecar/relay/accel.h"
#include "sidecar/relay/answer.h"
#include "sidecar/relay/exchange_parts.h"

/* Our head, beside PHP's headers, of which each line may grow by its line end and a space. */
#define HEAD_EXTRA ((size_t)4096)
/* The prefix, and a path of which each byte takes three. */
#define LOCATION_MAX ((size_t)16 * 1024)

/* A build request that cannot be served; PHP may go on writing, nobody listens. */
static void refuse(struct exchange *exchange, const char *message)
{
    exchange_fail_text(exchange, FAILURE_REQUEST_INVALID, message);
}

static void out_of_memory(struct exchange *exchange)
{
    exchange_fail_text(exchange, FAILURE_BUSY, "The server is out of memory. Try again.");
}

/* The builder has it; what only the request needed goes, since the wait may be long. */
static void wait_for_build(struct exchange *exchange)
{
    struct request *request = exchange->request;

    exchange_change_state(exchange, EXCHANGE_BUILD);
    capture_deinit(&request->capture);
    (void)condition_collect(buf_span(&exchange->front.params), &request->conditions);
    request->line = request_line_keep(buf_span(&exchange->front.params));
    buf_clear(&exchange->front.params);
    if (exchange->worker != NULL) {
        worker_set_timeout(exchange->worker, exchange->relay->options->finish_timeout_ms);
    }
}

static void submit(struct exchange *exchange, struct build_request *build)
{
    struct request *request = exchange->request;
    struct relay *relay = exchange->relay;
    int error;

    memcpy(request->build_id, build->id, sizeof(request->build_id));
    memcpy(request->os, build->os, sizeof(request->os));
    memcpy(request->arch, build->arch, sizeof(request->arch));
    request->ticket = relay_add_ticket(relay, &request->ticket_link);
    error = builder_submit(relay->builder, request->ticket, build, &relay->mailbox);
    if (error == 0) {
        wait_for_build(exchange);
        return;
    }
    list_remove(&request->ticket_link);
    request->ticket = 0;
    build_request_deinit(build);
    if (error == -EPIPE) {
        exchange_fail_text(exchange, FAILURE_BUSY, "The server is stopping. Try again.");
    } else {
        out_of_memory(exchange);
    }
}

/* The request is well-formed; may it be built? */
static void check_and_submit(struct exchange *exchange, struct build_request *build)
{
    const struct policy_options *policy = exchange->relay->policy;
    char message[POLICY_MESSAGE_SIZE];
    int error = policy == NULL ? 0 : policy_check(policy, build, message);

    if (error == 0) {
        submit(exchange, build);
        return;
    }
    memcpy(exchange->request->build_id, build->id, sizeof(build->id));
    build_request_deinit(build);
    if (error == -EPERM) {
        exchange_fail_text(exchange, FAILURE_FORBIDDEN, message);
    } else {
        out_of_memory(exchange);
    }
}

static void on_captured(struct exchange *exchange)
{
    char message[BUILD_REQUEST_MESSAGE_SIZE];
    struct build_request build;
    int error = build_request_parse(buf_span(&exchange->request->capture.body), &build, message);

    if (error == 0) {
        check_and_submit(exchange, &build);
    } else if (error == -EINVAL) {
        memcpy(exchange->request->build_id, build.id, sizeof(build.id));
        refuse(exchange, message);
    } else {
        out_of_memory(exchange);
    }
}

static void on_capture_result(struct exchange *exchange, enum capture_result result)
{
    switch (result) {
    case CAPTURE_MORE:
        break;
    case CAPTURE_COMPLETE:
        on_captured(exchange);
        break;
    case CAPTURE_TOO_LARGE:
        refuse(exchange, "The build request is larger than max_request_size.");
        break;
    case CAPTURE_UNKNOWN_ENCODING:
        refuse(exchange, "The build request has a Content-Encoding that is not understood: gzip, "
                         "deflate and identity are.");
        break;
    case CAPTURE_UNDECODABLE:
        refuse(exchange, "The build request is not what its Content-Encoding says.");
        break;
    case CAPTURE_NO_MEMORY:
        out_of_memory(exchange);
        break;
    }
}

void exchange_start_capture(struct exchange *exchange, struct span head, struct span rest)
{
    struct request *request = exchange->request;
    enum capture_result result;

    exchange_change_state(exchange, EXCHANGE_CAPTURE);
    stats_count(exchange->relay->stats, STAT_REQUESTS_BUILT);
    if (buf_length(&request->head) == 0 && buf_append_span(&request->head, head) != 0) {
        out_of_memory(exchange);
        return;
    }
    result = capture_init(&request->capture, buf_span(&request->head),
                          exchange->relay->options->max_request_size);
    if (result != CAPTURE_MORE || rest.len == 0) {
        on_capture_result(exchange, result);
        return;
    }
    exchange_capture(exchange, rest);
}

void exchange_capture(struct exchange *exchange, struct span piece)
{
    on_capture_result(exchange, capture_next(&exchange->request->capture, piece));
}

void exchange_capture_end(struct exchange *exchange)
{
    on_capture_result(exchange, capture_end(&exchange->request->capture));
}

void exchange_forget_ticket(struct exchange *exchange)
{
    struct request *request = exchange->request;

    if (request == NULL || request->ticket == 0) {
        return; /* no build is waited for */
    }
    builder_cancel(exchange->relay->builder, request->ticket);
    list_remove(&request->ticket_link);
    request->ticket = 0;
}

/* All of the file, a part of it, or the news that the client has it. */
static struct condition_verdict judge(const struct request *request,
                                      const struct artifact *artifact)
{
    struct condition_entity entity;

    answer_entity(artifact, &entity);
    return condition_judge(buf_span(&request->conditions), &entity);
}

static int queue_head(struct exchange *exchange, const struct build_result *result,
                      struct condition_verdict part, struct span accel_redirect)
{
    struct request *request = exchange->request;
    struct answer_artifact answer = {
        .artifact = &result->artifact,
        .php_head = buf_span(&request->head),
        .request_id = request->build_id,
        .os = request->os,
        .arch = request->arch,
        .from_cache = result->from_cache,
        .duration_ms = result->duration_ms,
        .cache_age_s = result->cache_age_s,
        .part = part,
        .accel_redirect = accel_redirect,
    };
    struct buf head;
    int error;

    buf_init(&head, buf_length(&request->head) * 2 + HEAD_EXTRA + accel_redirect.len);
    error = answer_artifact_head(&answer, &head);
    if (error == 0 && !exchange_queue_stdout(exchange, buf_span(&head))) {
        error = -EPIPE;
    }
    buf_deinit(&head);
    return error;
}

static void log_sent(const struct exchange *exchange)
{
    const struct delivery *delivery = &exchange->request->delivery;

    log_info(exchange->relay->log, "artifact sent",
             log_str("request_id", exchange->request->build_id),
             log_uint("bytes", delivery->offset - delivery->first),
             log_uint("duration_ms", (clock_monotonic_ns() - delivery->started_ns) / 1000000));
}

static void on_delivered(struct exchange *exchange)
{
    const struct delivery *delivery = &exchange->request->delivery;

    log_sent(exchange);
    /* What was sent past the front's queue. */
    exchange->begun_bytes -= delivery->offset - delivery->first - delivery->queued_bytes;
    if (front_queue_end(&exchange->front, 0, FCGI_REQUEST_COMPLETE) != 0) {
        exchange_close(exchange);
        return;
    }
    exchange_end_request(exchange);
}

static void note_first_byte(const struct exchange *exchange)
{
    stats_observe_ns(exchange->relay->stats, STAT_STREAM_TTFB,
                     clock_monotonic_ns() - exchange->request->delivery.started_ns);
}

void exchange_on_pages(struct delivery *delivery)
{
    struct exchange *exchange = list_entry(delivery, struct request, delivery)->exchange;

    task_defer(&exchange->task, exchange->relay->loop);
}

static void on_stream_ready(struct watch *watch)
{
    exchange_pump(list_entry(watch, struct request, stream.watch)->exchange);
}

static void start_delivery(struct exchange *exchange, struct build_result *result)
{
    struct request *request = exchange->request;
    struct condition_verdict part = judge(request, &result->artifact);
    int error = queue_head(exchange, result, part, span_of(NULL, 0));

    if (error == -EPIPE) {
        return; /* closed */
    }
    if (error != 0) {
        out_of_memory(exchange);
        return;
    }
    exchange_release_worker(exchange);
    exchange_change_state(exchange, EXCHANGE_DELIVER);
    request->head_is_out = true;
    buf_clear(&request->head);
    deliver_start(&request->delivery, &exchange->relay->carrier, result->artifact, part.first,
                  part.end, &exchange->front);
    result->artifact.fd = -1;
    if (request->delivery.artifact.is_stream &&
        deliver_stream_start(&request->stream, &request->delivery, exchange->relay->loop,
                             on_stream_ready) != 0) {
        exchange_break_off(exchange);
        return;
    }
    if (!request->delivery.artifact.is_stream) {
        deliver_small(&request->delivery, &exchange->front);
    }
    if (request->delivery.queued_bytes > 0) {
        stats_add(exchange->relay->stats, STAT_ARTIFACT_BYTES, request->delivery.queued_bytes);
        note_first_byte(exchange);
        on_delivered(exchange);
        return;
    }
    task_defer(&exchange->task, exchange->relay->loop);
}

/* The head is all that we send; what the client has already is between it and nginx. */
static void end_handed_over(struct exchange *exchange, struct span location)
{
    log_info(exchange->relay->log, "artifact sent",
             log_str("request_id", exchange->request->build_id), log_uint("bytes", 0),
             log_uint("duration_ms", 0), log_span("x_accel_redirect", location));
    exchange_release_worker(exchange);
    if (front_queue_end(&exchange->front, 0, FCGI_REQUEST_COMPLETE) == 0) {
        exchange_end_request(exchange);
    } else {
        exchange_close(exchange);
    }
}

/* nginx is told where the file is, and sends it. */
static void hand_over(struct exchange *exchange, struct build_result *result)
{
    const struct relay_options *options = exchange->relay->options;
    struct condition_verdict whole = { .status = 200, .end = result->artifact.size_bytes };
    struct buf location;
    int error;

    buf_init(&location, LOCATION_MAX);
    error = accel_location(result->artifact.fd, options->accel_root, options->accel_prefix,
                           &location);
    if (error == -ENOENT) {
        log_error(exchange->relay->log, "the built file cannot be delivered",
                  log_str("request_id", exchange->request->build_id),
                  log_str("reason", "it has no name below the root any more"));
        exchange_fail_text(exchange, FAILURE_ARTIFACT_UNAVAILABLE,
                           "The built file was moved or removed before it could be sent.");
    } else if (error == 0) {
        error = queue_head(exchange, result, whole, buf_span(&location));
    }
    if (error == 0) {
        end_handed_over(exchange, buf_span(&location));
    } else if (error != -EPIPE && error != -ENOENT) {
        out_of_memory(exchange);
    }
    buf_deinit(&location);
}

void exchange_on_result(struct exchange *exchange, struct build_result *result)
{
    list_remove(&exchange->request->ticket_link);
    exchange->request->ticket = 0;
    if (result->failure != FAILURE_NONE) {
        exchange_fail(exchange, result->failure, buf_span(&result->message), result->retry_after_s);
    } else if (exchange->relay->options->delivery == DELIVERY_X_ACCEL_REDIRECT &&
               !result->artifact.is_fetched) {
        hand_over(exchange, result);
    } else {
        start_delivery(exchange, result);
    }
    build_result_free(result);
}

/* The web server must see that the file is not whole: END_REQUEST before Content-Length is reached
 * breaks the client's transfer at once, a mere close may not. Yet the rest of the last record must
 * not be filled up, or the client would hold a file of the right length. */
static void on_truncated(struct exchange *exchange)
{
    struct front *front = &exchange->front;
    const struct delivery *delivery = &exchange->request->delivery;
    /* SCGI has no END_REQUEST: the close alone must tell. */
    bool is_last_record = front->is_scgi || delivery->offset + front->owed_bytes >= delivery->end;
    const struct log_field fields[] = {
        log_str("request_id", exchange->request->build_id),
        log_uint("bytes_sent", delivery->offset),
        log_uint("bytes_promised", delivery->end),
        log_errno("error", delivery->error),
    };

    log_event(exchange->relay->log, LOG_ERROR,
              "artifact became shorter or unreadable while being sent", fields,
              delivery->error != 0 ? 4 : 3);
    if ((front->owed_bytes == 0 || !is_last_record) && exchange_fill_record(exchange) &&
        front_queue_end(front, 0, FCGI_REQUEST_COMPLETE) == 0) {
        front->is_kept = false;
        exchange_end_request(exchange);
        return;
    }
    exchange_break_off(exchange);
}

static enum deliver_result send_some(struct exchange *exchange, struct delivery *delivery)
{
    uint64_t budget = exchange->relay->options->chunk_size;

    if (!delivery->artifact.is_stream) {
        return deliver_send(delivery, &exchange->front, budget);
    }
    return deliver_stream_send(&exchange->request->stream, delivery, &exchange->front,
                               relay_read_buffer(exchange->relay), RELAY_READ_SIZE, budget);
}

void exchange_process_delivery(struct exchange *exchange)
{
    struct delivery *delivery;
    uint64_t before;
    enum deliver_result result;

    if (exchange->state != EXCHANGE_DELIVER) {
        return;
    }
    delivery = &exchange->request->delivery;
    before = delivery->offset;
    result = send_some(exchange, delivery);
    stats_add(exchange->relay->stats, STAT_ARTIFACT_BYTES, delivery->offset - before);
    if (before == delivery->first && delivery->offset > before) {
        note_first_byte(exchange);
    }
    switch (result) {
    case DELIVER_DONE:
        on_delivered(exchange);
        break;
    case DELIVER_PAUSED:
        task_defer(&exchange->task, exchange->relay->loop);
        break;
    case DELIVER_BLOCKED:
    case DELIVER_WAITING:
        break;
    case DELIVER_TRUNCATED:
        on_truncated(exchange);
        break;
    case DELIVER_LOST:
        exchange_leave(exchange);
        break;
    }
}
