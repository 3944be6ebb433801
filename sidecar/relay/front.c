/* SPDX-License-Identifier: MIT */
/*
 * Reading from and writing to a web server's connection. Must never wait, and never hold more than
 * one read of input or what one turn could not send.
 */
#include "sidecar/relay/front.h"

#include <errno.h>
#include <unistd.h>

#include "fcgi/writer.h"
#include "sidecar/relay/relay.h"

/* More than a turn can leave unsent: one read of the worker, with headers, and an answer of ours
 * with PHP's headers in it. */
#define FRONT_KEPT_MAX (1024 * 1024)
/* Answers to management records that may wait at once; who asks for more does not read. */
#define FRONT_CONTROL_MAX 4096
/* Longest GET_VALUES that is understood: the three known names need under 60 bytes. */
#define FRONT_VALUES_MAX 1024

int front_init(struct front *front, struct relay *relay, int fd, bool is_unix,
               void (*on_ready)(struct watch *watch))
{
    int error;

    front->is_unix = is_unix;
    buf_init(&front->params, relay->options->max_params_size);
    buf_init(&front->values, FRONT_VALUES_MAX);
    buf_init(&front->control, FRONT_CONTROL_MAX);
    fcgi_reader_init(&front->reader);
    error = watch_start(&front->watch, relay->loop, fd, WATCH_READ | WATCH_WRITE, on_ready);
    if (error != 0) {
        return error;
    }
    front->fd = fd;
    outq_init(&front->out, &front->watch, FRONT_KEPT_MAX);
    return 0;
}

void front_deinit(struct front *front)
{
    watch_stop(&front->watch);
    close(front->fd);
    front->fd = -1;
    buf_deinit(&front->params);
    buf_deinit(&front->values);
    buf_deinit(&front->control);
    outq_deinit(&front->out);
}

int front_read(struct front *front, struct relay *relay, struct span *input)
{
    return front->is_input_ended ? 0
                                 : relay_receive(&front->watch, relay_read_buffer(relay), input);
}

void front_end_request(struct front *front)
{
    front->is_active = false;
    front->params_ended = false;
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

int front_queue_end(struct front *front, uint32_t app_status, uint8_t protocol_status)
{
    uint8_t record[FCGI_FIXED_RECORD_SIZE];

    fcgi_end_write(record, front->request_id, app_status, protocol_status);
    return buf_append(&front->out.kept, record, sizeof(record));
}
