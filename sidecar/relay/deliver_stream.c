/* SPDX-License-Identifier: MIT */
/*
 * Sending what comes through a pipe. It must never announce a record whose content is not in the
 * pipe already: the source may end or stop at any byte.
 */
#include "sidecar/relay/deliver_stream.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fcgi/record.h"

int deliver_stream_start(struct deliver_stream *stream, const struct delivery *delivery,
                         struct loop *loop, void (*on_ready)(struct watch *watch))
{
    stream->skip_bytes = delivery->first;
    return watch_start(&stream->watch, loop, delivery->artifact.fd, WATCH_READ | WATCH_WRITE,
                       on_ready);
}

void deliver_stream_stop(struct deliver_stream *stream)
{
    watch_stop(&stream->watch);
}

/* Bytes in the pipe. 0: none now (the READ bit is cleared); -EPIPE: none any more. */
static int look_into_pipe(struct deliver_stream *stream)
{
    struct pollfd pipe = { .fd = stream->watch.fd, .events = POLLIN };
    int bytes = 0;

    if (ioctl(pipe.fd, FIONREAD, &bytes) != 0) {
        return -errno;
    }
    if (bytes > 0) {
        return bytes;
    }
    if (poll(&pipe, 1, 0) > 0) {
        /* The last bytes may have come since, and the end behind them. */
        return (pipe.revents & POLLIN) != 0 ? look_into_pipe(stream) : -EPIPE;
    }
    watch_clear(&stream->watch, WATCH_READ);
    return 0;
}

/* Counts against the turn's share: a source may be as fast as we are. */
static enum deliver_result skip(struct deliver_stream *stream, uint8_t *scratch, size_t size,
                                uint64_t budget)
{
    uint64_t stop = stream->skip_bytes > budget ? stream->skip_bytes - budget : 0;

    while (stream->skip_bytes > 0) {
        uint64_t left = stream->skip_bytes - stop;
        size_t wanted = left < size ? (size_t)left : size;
        ssize_t got;

        if (left == 0) {
            return DELIVER_PAUSED;
        }
        got = read(stream->watch.fd, scratch, wanted);
        if (got > 0) {
            stream->skip_bytes -= (uint64_t)got;
        } else if (got < 0 && errno == EAGAIN) {
            watch_clear(&stream->watch, WATCH_READ);
            return DELIVER_BLOCKED;
        } else if (got == 0 || errno != EINTR) {
            return DELIVER_TRUNCATED;
        }
    }
    return DELIVER_DONE;
}

static enum deliver_result announce(struct front *front, size_t len)
{
    uint8_t header[FCGI_HEADER_SIZE];
    ssize_t sent;

    if (front->is_scgi) {
        front->owed_bytes = len;
        return DELIVER_PAUSED;
    }
    fcgi_header_write(header, FCGI_STDOUT, front->request_id, (uint16_t)len, 0);
    sent = send(front->fd, header, sizeof(header), MSG_MORE | MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EAGAIN) {
        watch_clear(&front->watch, WATCH_WRITE);
        return DELIVER_BLOCKED;
    }
    if (sent < 0) {
        return DELIVER_LOST;
    }
    front->owed_bytes = len;
    return buf_append(&front->out.kept, header + sent, sizeof(header) - (size_t)sent) == 0
               ? DELIVER_PAUSED
               : DELIVER_LOST;
}

static enum deliver_result next_record(struct deliver_stream *stream,
                                       const struct delivery *delivery, struct front *front)
{
    uint64_t len = delivery->end - delivery->offset;
    int available = look_into_pipe(stream);

    if (available < 0) {
        return DELIVER_TRUNCATED;
    }
    if (available == 0) {
        return DELIVER_BLOCKED;
    }
    len = len < (uint64_t)available ? len : (uint64_t)available;
    return announce(front, len < delivery->record_size ? (size_t)len : delivery->record_size);
}

/* All that is owed is in the pipe, so EAGAIN speaks of the socket. */
static enum deliver_result move(struct deliver_stream *stream, struct delivery *delivery,
                                struct front *front)
{
    ssize_t moved;

    do {
        moved = splice(stream->watch.fd, NULL, front->fd, NULL, front->owed_bytes,
                       SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    } while (moved < 0 && errno == EINTR);
    if (moved > 0) {
        delivery->offset += (uint64_t)moved;
        front->owed_bytes -= (size_t)moved;
        return DELIVER_PAUSED;
    }
    if (moved < 0 && errno == EAGAIN) {
        watch_clear(&front->watch, WATCH_WRITE);
        return DELIVER_BLOCKED;
    }
    return DELIVER_LOST;
}

enum deliver_result deliver_stream_send(struct deliver_stream *stream, struct delivery *delivery,
                                        struct front *front, uint8_t *scratch, size_t size,
                                        uint64_t budget)
{
    uint64_t begun = delivery->offset;
    uint64_t stop = delivery->offset + (budget > 0 ? budget : 1);
    enum deliver_result result = DELIVER_DONE;

    if (delivery->offset < delivery->end && stream->skip_bytes > 0) {
        result = skip(stream, scratch, size, budget > 0 ? budget : 1);
        if (result != DELIVER_DONE) {
            return result;
        }
    }
    while (delivery->offset < delivery->end) {
        if (!deliver_may_go_on(delivery, front, begun, stop, &result)) {
            return result;
        }
        result = front->owed_bytes > 0 ? move(stream, delivery, front)
                                       : next_record(stream, delivery, front);
        if (result != DELIVER_PAUSED) {
            return result;
        }
    }
    return DELIVER_DONE;
}
