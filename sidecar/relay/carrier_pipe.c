/* SPDX-License-Identifier: MIT */
/*
 * Records by way of a pipe (tee, splice). Must never leave bytes in the pipe that do not follow
 * those that have been sent.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "sidecar/relay/deliver.h"

/* Each call that empties the pipe costs something; yet what is in it when the socket is full was in
 * vain where another download comes next. */
#define RECORDS_AT_ONCE 6
/* Each record takes a place of the pipe for each page, one for its header, and one where it does
 * not begin with a page. */
#define PIPE_BYTES (RECORDS_AT_ONCE * 2 * 64 * 1024)
#define PIPE_BYTES_MIN (64 * 1024)

static void close_pair(int pair[2])
{
    close(pair[0]);
    close(pair[1]);
}

static bool open_pipes(struct carrier *carrier)
{
    int size;

    if (pipe2(carrier->pipe, O_CLOEXEC | O_NONBLOCK) != 0) {
        return false;
    }
    if (pipe2(carrier->pattern, O_CLOEXEC | O_NONBLOCK) != 0) {
        close_pair(carrier->pipe);
        return false;
    }
    /* A user's pipes together are limited; beyond that they get two pages. */
    size = fcntl(carrier->pipe[1], F_SETPIPE_SZ, PIPE_BYTES);
    if (size < 0) {
        size = fcntl(carrier->pipe[1], F_GETPIPE_SZ);
    }
    if (size < PIPE_BYTES_MIN) {
        close_pair(carrier->pipe);
        close_pair(carrier->pattern);
        return false;
    }
    carrier->records_at_once = size < PIPE_BYTES ? 1 : RECORDS_AT_ONCE;
    memset(carrier->pattern_header, 0, sizeof(carrier->pattern_header));
    return true;
}

static bool is_usable(struct carrier *carrier)
{
    if (!carrier->is_open && !carrier->is_hopeless) {
        carrier->is_open = open_pipes(carrier);
        carrier->is_hopeless = !carrier->is_open;
        carrier->in_pipe = 0;
    }
    return carrier->is_open;
}

void carrier_pipe_close(struct carrier *carrier)
{
    if (carrier->is_open) {
        close_pair(carrier->pipe);
        close_pair(carrier->pattern);
        carrier->is_open = false;
    }
    carrier->in_pipe = 0;
    carrier->pipe_of = NULL;
}

void carrier_pipe_drop(struct carrier *carrier)
{
    carrier->pipe_of = NULL;
    while (carrier->in_pipe > 0) {
        ssize_t gone = carrier->nowhere < 0 ? -1
                                            : splice(carrier->pipe[0], NULL, carrier->nowhere, NULL,
                                                     carrier->in_pipe, SPLICE_F_NONBLOCK);

        if (gone <= 0) {
            carrier_pipe_close(carrier); /* a new one is made when it is needed */
            return;
        }
        carrier->in_pipe -= (size_t)gone;
    }
}

/* Another header in front of the full records than last time: another front's request id. */
static bool set_pattern(struct carrier *carrier, const uint8_t header[FCGI_HEADER_SIZE])
{
    uint8_t old[FCGI_HEADER_SIZE];
    ssize_t got = read(carrier->pattern[0], old, sizeof(old));

    (void)got; /* there was none, the first time */
    if (write(carrier->pattern[1], header, FCGI_HEADER_SIZE) != FCGI_HEADER_SIZE) {
        return false;
    }
    memcpy(carrier->pattern_header, header, FCGI_HEADER_SIZE);
    return true;
}

/* A duplicated header is a reference to its page, as cheap as a page of the file. */
static bool put_header(struct carrier *carrier, const struct delivery *delivery,
                       const struct front *front, size_t length)
{
    uint8_t header[FCGI_HEADER_SIZE];
    ssize_t put;

    fcgi_header_write(header, FCGI_STDOUT, front->request_id, (uint16_t)length, 0);
    if (length == delivery->record_size &&
        (memcmp(header, carrier->pattern_header, sizeof(header)) == 0 ||
         set_pattern(carrier, header))) {
        put = tee(carrier->pattern[0], carrier->pipe[1], sizeof(header), SPLICE_F_NONBLOCK);
    } else {
        put = write(carrier->pipe[1], header, sizeof(header));
    }
    carrier->in_pipe += put > 0 ? (size_t)put : 0;
    return put == sizeof(header);
}

/* 0: all of it is in the pipe; -errno where the file cannot be read; -EMSGSIZE where some is
 * missing. */
static int put_content(struct carrier *carrier, const struct delivery *delivery, uint64_t offset,
                       size_t length)
{
    off_t at = (off_t)offset;
    ssize_t put;

    do {
        put = splice(delivery->artifact.fd, &at, carrier->pipe[1], NULL, length, SPLICE_F_NONBLOCK);
    } while (put < 0 && errno == EINTR);
    if (put < 0) {
        return -errno;
    }
    carrier->in_pipe += (size_t)put;
    return (size_t)put == length ? 0 : -EMSGSIZE;
}

/* The pipe holds what must not be sent. */
static enum deliver_result give_up(struct carrier *carrier, struct delivery *delivery, int error,
                                   uint64_t missing_from)
{
    carrier_pipe_drop(carrier);
    if (error == -EMSGSIZE && carrier_file_rest(delivery) < missing_from - delivery->offset) {
        return DELIVER_TRUNCATED; /* it became shorter this very moment */
    }
    if (error == -EMSGSIZE || error == -EINVAL || error == -EAGAIN) {
        delivery->is_copied = true; /* not with this file system, or not with this pipe */
        return DELIVER_PAUSED;
    }
    delivery->error = -error;
    return DELIVER_TRUNCATED;
}

/* The pipe is empty; puts records into it. DELIVER_PAUSED: there is something to be sent. */
static enum deliver_result fill(struct carrier *carrier, struct delivery *delivery,
                                const struct front *front, uint64_t stop)
{
    uint64_t there = delivery->offset + carrier_file_rest(delivery);
    uint64_t at = delivery->offset;
    size_t owed = front->owed_bytes;
    unsigned count = 0;
    bool is_alone = carrier->deliveries == 1;
    unsigned max = is_alone || delivery->room >= carrier->records_at_once * delivery->record_size
                       ? carrier->records_at_once
                       : 1;

    do {
        size_t length = owed > 0 ? owed : carrier_record_length(delivery, at);
        int error;

        if (at + length > there) {
            break; /* a record is only announced when its bytes are there */
        }
        error = owed == 0 && !front->is_scgi && !put_header(carrier, delivery, front, length)
                    ? -EAGAIN
                    : put_content(carrier, delivery, at, length);
        if (error != 0) {
            return give_up(carrier, delivery, error, at + length);
        }
        owed = 0;
        at += length;
        count++;
    } while (count < max && at < stop && at < delivery->end && buf_length(&front->control) == 0);
    carrier->pipe_of = delivery;
    carrier->pipe_end = at;
    return count > 0 ? DELIVER_PAUSED : DELIVER_TRUNCATED;
}

/* DELIVER_PAUSED: the pipe holds what comes next, or another way must be taken. */
static enum deliver_result prepare(struct carrier *carrier, struct delivery *delivery,
                                   const struct front *front, uint64_t stop)
{
    /* A file that is cut off has zeros behind its new end, in the pipe as well. */
    if (carrier->pipe_of != delivery ||
        (carrier->in_pipe > 0 &&
         delivery->offset + carrier_file_rest(delivery) < carrier->pipe_end)) {
        carrier_pipe_drop(carrier);
    }
    if (!is_usable(carrier)) {
        delivery->is_copied = true;
        return DELIVER_PAUSED;
    }
    return carrier->in_pipe > 0 ? DELIVER_PAUSED : fill(carrier, delivery, front, stop);
}

static ssize_t empty_some(const struct carrier *carrier, const struct delivery *delivery,
                          const struct front *front)
{
    size_t record = delivery->record_size + FCGI_HEADER_SIZE;
    size_t length = delivery->is_cautious && record < carrier->in_pipe ? record : carrier->in_pipe;
    ssize_t moved;

    do {
        moved = splice(carrier->pipe[0], NULL, front->fd, NULL, length, SPLICE_F_NONBLOCK);
    } while (moved < 0 && errno == EINTR);
    return moved;
}

enum deliver_result carrier_pipe_send(struct carrier *carrier, struct delivery *delivery,
                                      struct front *front, uint64_t stop)
{
    enum deliver_result result = prepare(carrier, delivery, front, stop);
    ssize_t moved;

    if (result != DELIVER_PAUSED || delivery->is_copied) {
        return result;
    }
    moved = empty_some(carrier, delivery, front);
    if (moved < 0 && errno == EAGAIN) {
        watch_clear(&front->watch, WATCH_WRITE);
        /* A unix socket is told to be writable when a quarter of its buffer is in use. */
        delivery->room = delivery->send_buffer / 4 * 3;
        return DELIVER_BLOCKED;
    }
    if (moved <= 0) {
        return DELIVER_LOST;
    }
    carrier->in_pipe -= (size_t)moved;
    delivery->room -= (uint64_t)moved < delivery->room ? (uint64_t)moved : delivery->room;
    if (carrier_advance(delivery, front, (size_t)moved) != 0) {
        return DELIVER_LOST;
    }
    if (!outq_is_empty(&front->out)) {
        carrier_pipe_drop(carrier); /* the rest of a header goes out another way */
    }
    return DELIVER_PAUSED;
}
