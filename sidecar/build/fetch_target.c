/* SPDX-License-Identifier: MIT */
/* It must never wait for a reader, and never lose a byte that it has taken. */
#include "sidecar/build/fetch_target.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

/* What curl gives us at once is less (CURLOPT_BUFFERSIZE of the fetch). */
#define HELD_MAX_BYTES (512u * 1024u)
/* The kernel lets a user without privileges have 64 MB of pipes: so many streams of this size. */
#define PIPE_BYTES (256 * 1024)

void fetch_target_init(struct fetch_target *target)
{
    *target = (struct fetch_target){ .out = -1, .in = -1 };
    buf_init(&target->held, HELD_MAX_BYTES);
}

void fetch_target_close(struct fetch_target *target)
{
    watch_stop(&target->watch);
    if (target->out >= 0) {
        close(target->out);
    }
    if (target->in >= 0) {
        close(target->in);
    }
    target->out = -1;
    target->in = -1;
    buf_clear(&target->held);
}

int fetch_target_open_pipe(struct fetch_target *target, struct loop *loop,
                           void (*on_ready)(struct watch *watch))
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
        return -errno;
    }
    target->is_file = false;
    target->in = ends[0];
    target->out = ends[1];
    (void)fcntl(target->out, F_SETPIPE_SZ, PIPE_BYTES); /* a smaller one is only slower */
    return watch_start(&target->watch, loop, target->out, 0, on_ready);
}

int fetch_target_open_file(struct fetch_target *target, const char *directory)
{
    target->is_file = true;
    target->out = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    return target->out < 0 ? -errno : 0;
}

/* Writes what there is room for and skips it in *piece. 0 or -errno. */
static int write_some(struct fetch_target *target, struct span *piece)
{
    while (piece->len > 0) {
        ssize_t written = write(target->out, piece->ptr, piece->len);

        if (written > 0) {
            span_skip(piece, (size_t)written);
        } else if (written < 0 && errno == EAGAIN) {
            watch_clear(&target->watch, WATCH_WRITE);
            return 0;
        } else if (written < 0 && errno != EINTR) {
            return -errno;
        }
    }
    return 0;
}

int fetch_target_write(struct fetch_target *target, struct span piece)
{
    int error = write_some(target, &piece);

    return error != 0 ? error : buf_append_span(&target->held, piece);
}

static bool reader_has_left(const struct fetch_target *target)
{
    struct pollfd out = { .fd = target->out, .events = POLLOUT };

    return poll(&out, 1, 0) > 0 && (out.revents & POLLERR) != 0;
}

int fetch_target_flush(struct fetch_target *target)
{
    struct span held = buf_span(&target->held);
    size_t before = held.len;
    int error = reader_has_left(target) ? -EPIPE : write_some(target, &held);

    buf_consume(&target->held, before - held.len);
    return error;
}

int fetch_target_take(struct fetch_target *target)
{
    int fd = target->is_file ? target->out : target->in;

    if (target->is_file) {
        target->out = -1;
    } else {
        target->in = -1;
    }
    return fd;
}
