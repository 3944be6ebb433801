/* SPDX-License-Identifier: MIT */
/*
 * The FastCGI side of a front: which records belong to the open request, which are answered by the
 * connection itself, which are dropped. Must never let a second request onto a busy connection, nor
 * take an old request's records for a new one's.
 */
#include <errno.h>

#include "fcgi/params.h"
#include "fcgi/writer.h"
#include "sidecar/relay/front.h"
#include "sidecar/relay/relay.h"

static bool is_of_request(const struct front *front)
{
    return front->is_active && front->reader.header.request_id == front->request_id;
}

static enum front_event queue_control(struct front *front, const void *record, size_t len)
{
    int error = buf_append(&front->control, record, len);

    if (error == -ENOMEM) {
        return FRONT_NO_MEMORY;
    }
    return error == 0 ? FRONT_NEED_DATA : FRONT_MALFORMED;
}

/* An answer to a BEGIN_REQUEST that does not become a request. */
static enum front_event refuse_request(struct front *front, uint8_t protocol_status)
{
    uint8_t record[FCGI_FIXED_RECORD_SIZE];

    fcgi_end_write(record, front->reader.header.request_id, 0, protocol_status);
    return queue_control(front, record, sizeof(record));
}

static enum front_event begin_request(struct front *front)
{
    struct fcgi_begin begin = fcgi_begin_read(front->fixed);

    if (front->is_active) {
        /* The same id again is no second request but a broken first one. */
        if (front->reader.header.request_id == front->request_id) {
            return FRONT_MALFORMED;
        }
        return refuse_request(front, FCGI_CANT_MPX_CONN);
    }
    if (begin.role != FCGI_RESPONDER) {
        enum front_event event = refuse_request(front, FCGI_UNKNOWN_ROLE);

        return event == FRONT_NEED_DATA && (begin.flags & FCGI_KEEP_CONN) == 0 ? FRONT_REFUSED
                                                                               : event;
    }
    front->is_active = true;
    front->is_kept = (begin.flags & FCGI_KEEP_CONN) != 0;
    front->request_id = front->reader.header.request_id;
    return FRONT_NEED_DATA;
}

static enum front_event answer_values(struct front *front, const struct relay *relay)
{
    uint8_t record[FCGI_HEADER_SIZE + PARAMS_VALUES_MAX];
    size_t len = params_values_answer(buf_span(&front->values), relay_front_limit(relay),
                                      record + FCGI_HEADER_SIZE);

    buf_clear(&front->values);
    fcgi_header_write(record, FCGI_GET_VALUES_RESULT, FCGI_NULL_REQUEST_ID, (uint16_t)len, 0);
    return queue_control(front, record, FCGI_HEADER_SIZE + len);
}

/* A record has begun. FRONT_NEED_DATA: go on. */
static enum front_event on_record(struct front *front)
{
    const struct fcgi_header *header = &front->reader.header;

    front->fixed_length = 0;
    if (header->request_id == FCGI_NULL_REQUEST_ID && header->type >= FCGI_BEGIN_REQUEST &&
        header->type <= FCGI_DATA) {
        return FRONT_MALFORMED; /* these belong to a request (section 3.3) */
    }
    switch (header->type) {
    case FCGI_BEGIN_REQUEST:
        if (header->content_length != FCGI_BODY_SIZE) {
            return FRONT_MALFORMED;
        }
        break;
    case FCGI_GET_VALUES:
        if (header->request_id != FCGI_NULL_REQUEST_ID ||
            header->content_length > front->values.max) {
            return FRONT_MALFORMED;
        }
        break;
    case FCGI_STDIN:
        /* A body before the end of its head. */
        if (is_of_request(front) && !front->params_ended) {
            return FRONT_MALFORMED;
        }
        break;
    case FCGI_PARAMS:
        if (is_of_request(front) && front->params_ended) {
            return FRONT_MALFORMED;
        }
        break;
    default:
        break;
    }
    return FRONT_NEED_DATA;
}

static enum front_event collect_params(struct front *front, struct span content)
{
    int error;

    error = buf_append_span(&front->params, content);
    if (error == -ENOBUFS) {
        return FRONT_PARAMS_TOO_LARGE;
    }
    return error == 0 ? FRONT_NEED_DATA : FRONT_NO_MEMORY;
}

static enum front_event on_content(struct front *front, struct span content, struct span *body)
{
    switch (front->reader.header.type) {
    case FCGI_BEGIN_REQUEST:
        memcpy(front->fixed + front->fixed_length, content.ptr, content.len);
        front->fixed_length += (uint8_t)content.len;
        return FRONT_NEED_DATA;
    case FCGI_PARAMS:
        return is_of_request(front) ? collect_params(front, content) : FRONT_NEED_DATA;
    case FCGI_STDIN:
        if (!is_of_request(front) || front->body_ended) {
            return FRONT_NEED_DATA;
        }
        *body = content;
        return FRONT_BODY;
    case FCGI_GET_VALUES:
        return buf_append_span(&front->values, content) == 0 ? FRONT_NEED_DATA : FRONT_NO_MEMORY;
    default:
        return FRONT_NEED_DATA;
    }
}

static enum front_event on_management_end(struct front *front, const struct relay *relay)
{
    uint8_t record[FCGI_FIXED_RECORD_SIZE];

    if (front->reader.header.type == FCGI_GET_VALUES) {
        return answer_values(front, relay);
    }
    fcgi_unknown_type_write(record, front->reader.header.type);
    return queue_control(front, record, sizeof(record));
}

static enum front_event on_stream_end(struct front *front)
{
    if (front->reader.header.content_length != 0) {
        return FRONT_NEED_DATA;
    }
    if (front->reader.header.type == FCGI_PARAMS) {
        front->params_ended = true;
        return FRONT_HEAD;
    }
    if (front->body_ended) {
        return FRONT_NEED_DATA;
    }
    front->body_ended = true;
    return FRONT_BODY_END;
}

static enum front_event on_record_end(struct front *front, const struct relay *relay)
{
    const struct fcgi_header *header = &front->reader.header;

    if (header->request_id == FCGI_NULL_REQUEST_ID) {
        return on_management_end(front, relay);
    }
    if (header->type == FCGI_BEGIN_REQUEST) {
        return begin_request(front);
    }
    if (!is_of_request(front)) {
        return FRONT_NEED_DATA; /* of a request that is over: section 3.3 says to ignore it */
    }
    switch (header->type) {
    case FCGI_PARAMS:
    case FCGI_STDIN:
        return on_stream_end(front);
    case FCGI_ABORT_REQUEST:
        return FRONT_ABORT;
    default:
        return FRONT_NEED_DATA;
    }
}

enum front_event front_fcgi_next(struct front *front, struct relay *relay, struct span *input,
                                 struct span *body)
{
    enum front_event event = FRONT_NEED_DATA;
    struct span content;

    while (event == FRONT_NEED_DATA) {
        switch (fcgi_reader_next(&front->reader, input, &content)) {
        case FCGI_NEED_DATA:
            return FRONT_NEED_DATA;
        case FCGI_MALFORMED:
            return FRONT_MALFORMED;
        case FCGI_RECORD:
            event = on_record(front);
            break;
        case FCGI_CONTENT:
            event = on_content(front, content, body);
            break;
        case FCGI_RECORD_END:
            event = on_record_end(front, relay);
            break;
        }
    }
    return event;
}
