/* SPDX-License-Identifier: MIT */
/*
 * What there is to show of an exchange. Looks, and must never change anything.
 */
#include <stdlib.h>

#include "fcgi/params.h"
#include "sidecar/relay/exchange_parts.h"

/* As much of a URI as is kept through a build: one byte more than is shown, so that a cut shows. */
#define LINE_URI_MAX ((size_t)SURVEY_URI_MAX + 1)
#define LINE_METHOD_MAX ((size_t)33)

struct request_line {
    size_t method_length;
    size_t uri_length;
    uint8_t bytes[];
};

static void read_line(struct span params, struct span *method, struct span *uri)
{
    struct span name;
    struct span value;
    struct span script = span_of(NULL, 0);

    *method = *uri = span_of(NULL, 0);
    while (params_next(&params, &name, &value) == PARAMS_PAIR) {
        if (span_is(name, "REQUEST_METHOD")) {
            *method = value;
        } else if (span_is(name, "REQUEST_URI")) {
            *uri = value;
        } else if (span_is(name, "SCRIPT_NAME")) {
            script = value;
        }
    }
    if (uri->len == 0) {
        *uri = script;
    }
}

struct request_line *request_line_keep(struct span params)
{
    struct request_line *line;
    struct span method;
    struct span uri;

    read_line(params, &method, &uri);
    method.len = method.len < LINE_METHOD_MAX ? method.len : LINE_METHOD_MAX;
    uri.len = uri.len < LINE_URI_MAX ? uri.len : LINE_URI_MAX;
    line = malloc(sizeof(*line) + method.len + uri.len);
    if (line != NULL) {
        line->method_length = method.len;
        line->uri_length = uri.len;
        if (method.len > 0) {
            memcpy(line->bytes, method.ptr, method.len);
        }
        if (uri.len > 0) {
            memcpy(line->bytes + method.len, uri.ptr, uri.len);
        }
    }
    return line;
}

static void look_at_request(const struct exchange *exchange, struct exchange_view *view)
{
    const struct request *request = exchange->request;

    if (request->line != NULL) {
        view->method = span_of(request->line->bytes, request->line->method_length);
        view->uri = span_of(request->line->bytes + request->line->method_length,
                            request->line->uri_length);
    } else {
        read_line(buf_span(&exchange->front.params), &view->method, &view->uri);
    }
    view->build = span_of_string(request->build_id);
}

static uint64_t age_ms(const struct exchange *exchange)
{
    uint64_t now_ms = loop_now_ms(exchange->relay->loop);

    if (exchange->state != EXCHANGE_PARAMS) {
        return now_ms - exchange->begun_ms;
    }
    /* The begin of a head is known by the clock that it has set going. */
    return exchange->is_timing_head && exchange->timer.armed
               ? now_ms + exchange->relay->options->header_timeout_ms - exchange->timer.due_ms
               : 0;
}

static uint64_t sent_bytes(const struct exchange *exchange)
{
    const struct delivery *delivery;

    if (exchange->state == EXCHANGE_PARAMS) {
        return 0;
    }
    if (exchange->state != EXCHANGE_DELIVER) {
        return exchange->front.out.sent_bytes - exchange->begun_bytes;
    }
    delivery = &exchange->request->delivery;
    return delivery->offset - delivery->first;
}

bool exchange_look(const struct exchange *exchange, struct exchange_view *view)
{
    if (exchange->state == EXCHANGE_PARAMS && !front_is_in_head(&exchange->front)) {
        return false;
    }
    *view = (struct exchange_view){
        .state = exchange_state_name(exchange->state),
        .age_ms = age_ms(exchange),
        .bytes = sent_bytes(exchange),
    };
    if (exchange->request != NULL) {
        look_at_request(exchange, view);
    }
    return true;
}
