/* SPDX-License-Identifier: MIT */
/*
 * The SCGI side of a front: one request a connection, a netstring and a body in, a CGI response
 * out, and the close is the end. Must never take the body's bytes for the head's.
 */
#include <errno.h>

#include "fcgi/params.h"
#include "fcgi/scgi.h"
#include "sidecar/relay/front.h"
#include "sidecar/relay/relay.h"

/* Digits, colon and comma around the head, and a read that has the begin of the body in it. */
#define HEAD_EXTRA (RELAY_READ_SIZE + 16)
/* The most that a pair grows by the longer lengths of FastCGI, for each of its NULs. */
#define PAIR_EXTRA 4

void front_scgi_init(struct front *front, const struct relay *relay)
{
    front->params.max = relay->options->max_params_size + HEAD_EXTRA;
}

static int append_pair(struct buf *params, struct span name, struct span value)
{
    uint8_t *room;
    int error = buf_reserve(params, params_size(name.len, value.len), &room);

    if (error == 0) {
        buf_commit(params, params_write(room, name, value));
    }
    return error;
}

/* The pairs as PHP-FPM wants them. SCGI itself is the protocol's mark, not the request's. */
static enum front_event convert(struct front *front, struct span headers)
{
    struct buf params;
    struct span name;
    struct span value;
    int error = 0;

    buf_init(&params, headers.len * PAIR_EXTRA);
    while (error == 0 && scgi_next(&headers, &name, &value)) {
        if (!span_is(name, "SCGI")) {
            error = append_pair(&params, name, value);
        }
    }
    if (error != 0) {
        buf_deinit(&params);
        return FRONT_NO_MEMORY;
    }
    buf_deinit(&front->params);
    front->params = params;
    front->params_ended = true;
    return FRONT_HEAD;
}

static enum front_event read_head(struct front *front, const struct relay *relay,
                                  struct span *input)
{
    struct span all;
    struct span headers;
    size_t length;
    int error = buf_append_span(&front->params, *input);

    front->is_active = true;
    if (error != 0) {
        return error == -ENOMEM ? FRONT_NO_MEMORY : FRONT_PARAMS_TOO_LARGE;
    }
    all = buf_span(&front->params);
    switch (scgi_head_read(all, relay->options->max_params_size, &headers, &length)) {
    case SCGI_NEED_DATA:
        span_skip(input, input->len);
        return FRONT_NEED_DATA;
    case SCGI_TOO_LARGE:
        span_skip(input, input->len);
        return FRONT_PARAMS_TOO_LARGE;
    case SCGI_MALFORMED:
        return FRONT_MALFORMED;
    case SCGI_COMPLETE:
        break;
    }
    if (!scgi_headers_check(headers, &front->body_left)) {
        return FRONT_MALFORMED;
    }
    /* What is behind the comma came with this read, since it was not complete before. */
    span_skip(input, input->len - (all.len - length));
    return convert(front, headers);
}

enum front_event front_scgi_next(struct front *front, struct relay *relay, struct span *input,
                                 struct span *body)
{
    if (front->body_ended || (!front->is_active && front->params_ended)) {
        span_skip(input, input->len); /* behind the request */
        return FRONT_NEED_DATA;
    }
    if (!front->params_ended) {
        return input->len == 0 ? FRONT_NEED_DATA : read_head(front, relay, input);
    }
    if (front->body_left == 0) {
        front->body_ended = true;
        return FRONT_BODY_END;
    }
    if (input->len == 0) {
        return FRONT_NEED_DATA;
    }
    *body = span_take(input, front->body_left < input->len ? (size_t)front->body_left : input->len);
    front->body_left -= body->len;
    return FRONT_BODY;
}
