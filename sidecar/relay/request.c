/* SPDX-License-Identifier: MIT */
/*
 * A request's params: read once, and changed where PHP must see something else than the web server
 * sent. Every other pair stays as it is.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "fcgi/params.h"
#include "sidecar/base/memory.h"
#include "sidecar/relay/exchange_parts.h"

/* PHP-FPM resets the connection where one pair does not fit a record; this is the round figure
 * below that we promise to pass on. */
#define PAIR_MAX 65000
/* Longer ones may be ignored: RFC 9110 leaves it to the server whether it looks at them. */
#define CONDITIONS_MAX 8192

struct request *request_new(const struct relay *relay)
{
    struct request *request = memory_zeroed(sizeof(*request));

    if (request == NULL) {
        return NULL;
    }
    spool_init(&request->spool, relay->options->spool_directory, relay->options->max_spooled_body);
    cgi_scan_init(&request->scan);
    buf_init(&request->head, relay->options->max_response_head);
    buf_init(&request->conditions, CONDITIONS_MAX);
    list_init(&request->ticket_link);
    request->delivery.artifact.fd = -1;
    return request;
}

void request_free(struct request *request)
{
    if (request == NULL) {
        return;
    }
    list_remove(&request->ticket_link);
    spool_deinit(&request->spool);
    capture_deinit(&request->capture);
    buf_deinit(&request->head);
    buf_deinit(&request->conditions);
    deliver_stream_stop(&request->stream);
    deliver_stop(&request->delivery);
    bulk_close(&request->bulk);
    exchange_drop_page(request);
    free(request->line);
    free(request);
}

/* Digits only; a number that does not fit is as large as can be. */
static bool parse_length(struct span value, uint64_t *length)
{
    uint64_t number = 0;

    if (value.len == 0) {
        return false;
    }
    for (size_t i = 0; i < value.len; i++) {
        unsigned digit = value.ptr[i] - (unsigned)'0';

        if (digit > 9) {
            return false;
        }
        number = number > (UINT64_MAX - digit) / 10 ? UINT64_MAX : number * 10 + digit;
    }
    *length = number;
    return true;
}

/* An empty path is none. */
static enum own_kind find_own(const struct relay *relay, struct span script)
{
    if (script.len == 0) {
        return OWN_NONE;
    }
    if (span_is(script, relay->options->status_path) && relay->survey.board != NULL) {
        return OWN_STATUS;
    }
    return span_is(script, relay->options->ping_path) ? OWN_PING : OWN_NONE;
}

static_assert(sizeof("REQUEST_METHOD") == sizeof("CONTENT_LENGTH"), "one case for both");

static void read_pair(struct request *request, const struct relay *relay, struct span name,
                      struct span value)
{
    /* Of most pairs the length alone tells that they are not wanted. */
    switch (name.len) {
    case sizeof("REQUEST_METHOD") - 1:
        if (span_is(name, "REQUEST_METHOD")) {
            request->may_build = value.len > 0 && !span_is(value, "HEAD");
        } else if (span_is(name, "CONTENT_LENGTH")) {
            request->has_length = parse_length(value, &request->body_left);
        }
        break;
    case sizeof("SCRIPT_NAME") - 1:
        if (span_is(name, "SCRIPT_NAME")) {
            request->own = find_own(relay, value);
        }
        break;
    default:
        break;
    }
}

/* Takes the pair that ends where rest begins out of params. */
static void remove_pair(struct buf *params, size_t pair_size, struct span *rest)
{
    uint8_t *end = params->bytes + params->end - rest->len;

    memmove(end - pair_size, end, rest->len);
    params->end -= pair_size;
    rest->ptr -= pair_size;
}

static int append_pair(struct buf *params, const char *name, const char *value)
{
    struct span name_span = span_of_string(name);
    struct span value_span = span_of_string(value);
    size_t size = params_size(name_span.len, value_span.len);
    size_t max = params->max;
    uint8_t *room;
    int error;

    /* Ours do not count against the web server's maximum, which earlier ones may have passed. */
    params->max = buf_length(params) + size;
    error = buf_reserve(params, size, &room);
    if (error == 0) {
        buf_commit(params, params_write(room, name_span, value_span));
    }
    params->max = max;
    return error;
}

enum request_check request_read_params(struct request *request, struct buf *params,
                                       const struct relay *relay)
{
    struct span rest = buf_span(params);
    struct span name;
    struct span value;
    size_t before = rest.len;
    enum params_result result;

    while ((result = params_next(&rest, &name, &value)) == PARAMS_PAIR) {
        if (before - rest.len > PAIR_MAX) {
            return REQUEST_PAIR_TOO_LARGE;
        }
        if (span_is(name, "HTTP_PROXY")) {
            /* A client's Proxy header must not become a program's proxy (CVE-2016-5385). */
            remove_pair(params, before - rest.len, &rest);
        } else {
            read_pair(request, relay, name, value);
        }
        before = rest.len;
    }
    if (result == PARAMS_MALFORMED) {
        return REQUEST_MALFORMED;
    }
    if (relay->options->intercept && append_pair(params, "VELOX_SIDECAR", relay->version) != 0) {
        return REQUEST_NO_MEMORY;
    }
    return REQUEST_OK;
}

int request_set_length(struct buf *params, uint64_t length)
{
    struct span rest = buf_span(params);
    struct span name;
    struct span value;
    size_t before = rest.len;
    char digits[24];

    while (params_next(&rest, &name, &value) == PARAMS_PAIR) {
        if (span_is(name, "CONTENT_LENGTH")) {
            remove_pair(params, before - rest.len, &rest);
        }
        before = rest.len;
    }
    snprintf(digits, sizeof(digits), "%llu", (unsigned long long)length);
    return append_pair(params, "CONTENT_LENGTH", digits);
}
