/* SPDX-License-Identifier: MIT */
/*
 * Reading from and writing to a web server's connection. Must never wait, and never hold more than
 * one read of input or what one turn could not send.
 */
#include "sidecar/relay/front.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "fcgi/params.h"
#include "fcgi/writer.h"
#include "sidecar/relay/relay.h"

/* More than a turn can leave unsent: one read of the worker, with headers, and an answer of ours
 * with PHP's headers in it. */
#define FRONT_KEPT_EXTRA ((size_t)1024 * 1024)
/* Answers to one read full of management records: an empty one of an unknown type, 8 bytes, gets
 * the longest answer for its length, 16. Nothing more is read before they are gone. */
#define FRONT_CONTROL_MAX ((size_t)RELAY_READ_SIZE * 2 + PARAMS_VALUES_MAX + FCGI_HEADER_SIZE)
/* HAProxy 2.6.12 crashed on error output of 60 kB in one record. */
#define STDERR_RECORD_MAX 4096
/* And on a record without padding that is the last in its buffer: to log it,
 * fcgi_strm_handle_stderr of its mux_fcgi.c then takes the whole buffer away (b_force_xfer).
 * PHP-FPM pads to 8. */
#define STDERR_PADDING 8
/* Longest GET_VALUES that is understood: the three known names need under 60 bytes. */
#define FRONT_VALUES_MAX 1024

void front_init(struct front *front, struct relay *relay, int fd, bool is_unix, bool is_scgi)
{
    front->fd = fd;
    front->watch.fd = fd;
    front->watch.ready = WATCH_READ | WATCH_WRITE;
    front->is_unix = is_unix;
    front->is_scgi = is_scgi;
    buf_init(&front->params, relay->options->max_params_size);
    buf_init(&front->values, FRONT_VALUES_MAX);
    buf_init(&front->control, FRONT_CONTROL_MAX);
    outq_init(&front->out, &front->watch, FRONT_KEPT_EXTRA + relay->options->max_response_head * 3);
    fcgi_reader_init(&front->reader);
    if (is_scgi) {
        front_scgi_init(front, relay);
    }
}

int front_watch(struct front *front, struct relay *relay, void (*on_ready)(struct watch *watch))
{
    if (watch_is_started(&front->watch)) {
        return 0;
    }
    return watch_start(&front->watch, relay->loop, front->fd, front->watch.ready, on_ready);
}

void front_deinit(struct front *front)
{
    watch_close(&front->watch);
    front->fd = -1;
    buf_deinit(&front->params);
    buf_deinit(&front->values);
    buf_deinit(&front->control);
    outq_deinit(&front->out);
}

int front_read(struct front *front, struct relay *relay, struct span *input)
{
    int result;

    if (front->is_input_ended) {
        return 0;
    }
    result = relay_receive(&front->watch, relay_read_buffer(relay), RELAY_READ_SIZE, input);
    if (result > 0) {
        front->received_bytes += input->len;
    }
    return result;
}

enum front_event front_next(struct front *front, struct relay *relay, struct span *input,
                            struct span *body)
{
    return front->is_scgi ? front_scgi_next(front, relay, input, body)
                          : front_fcgi_next(front, relay, input, body);
}

bool front_is_in_head(const struct front *front)
{
    const struct fcgi_reader *reader = &front->reader;

    if (front->is_active) {
        return !front->params_ended;
    }
    /* The begin of a request's first record; the rest of an old request that is still coming is
     * none. */
    return reader->partial_length > 0 ||
           (!fcgi_reader_at_boundary(reader) && reader->header.type == FCGI_BEGIN_REQUEST);
}

void front_end_request(struct front *front)
{
    front->is_active = false;
    front->params_ended = front->is_scgi; /* which has no second request to begin */
    front->body_ended = false;
    buf_clear(&front->params);
}

bool front_is_gone(const struct front *front)
{
    return sock_is_hung_up(front->fd);
}

void front_add_control(struct front *front, struct gather *gather)
{
    if (front->owed_bytes > 0 || buf_length(&front->control) == 0) {
        return;
    }
    gather_add(gather, buf_span(&front->control).ptr, buf_length(&front->control));
    if (gather_flush(gather) == 0) {
        buf_clear(&front->control);
    }
}

void front_add_begin(struct front *front, struct gather *gather, uint8_t *place, size_t total)
{
    if (front->is_scgi) {
        return;
    }
    if (place != NULL) {
        gather_add(gather, place, FCGI_HEADER_SIZE);
    } else {
        place = gather_add_small(gather, FCGI_HEADER_SIZE);
    }
    fcgi_header_write(place, FCGI_STDOUT, front->request_id, (uint16_t)total, 0);
}

void front_add_stderr(struct front *front, struct gather *gather, struct span content)
{
    while (content.len > 0 && !front->is_scgi) {
        struct span part = span_take(&content, STDERR_RECORD_MAX);

        fcgi_header_write(gather_add_small(gather, FCGI_HEADER_SIZE), FCGI_STDERR,
                          front->request_id, (uint16_t)part.len, STDERR_PADDING);
        gather_add(gather, part.ptr, part.len);
        memset(gather_add_small(gather, STDERR_PADDING), 0, STDERR_PADDING);
    }
}

void front_add_end(struct front *front, struct gather *gather, struct fcgi_end end)
{
    if (!front->is_scgi) {
        fcgi_end_write(gather_add_small(gather, FCGI_FIXED_RECORD_SIZE), front->request_id,
                       end.app_status, end.protocol_status);
    }
}

int front_queue_stdout(struct front *front, struct span content)
{
    int error = 0;

    while (error == 0 && content.len > 0) {
        struct span part = span_take(&content, FCGI_CONTENT_MAX);
        uint8_t header[FCGI_HEADER_SIZE];

        if (!front->is_scgi) {
            fcgi_header_write(header, FCGI_STDOUT, front->request_id, (uint16_t)part.len, 0);
            error = buf_append(&front->out.kept, header, sizeof(header));
        }
        if (error == 0) {
            error = buf_append_span(&front->out.kept, part);
        }
    }
    return error;
}

int front_queue_end(struct front *front, uint32_t app_status, uint8_t protocol_status)
{
    uint8_t record[FCGI_FIXED_RECORD_SIZE];

    if (front->is_scgi) {
        return 0;
    }
    fcgi_end_write(record, front->request_id, app_status, protocol_status);
    return buf_append(&front->out.kept, record, sizeof(record));
}
