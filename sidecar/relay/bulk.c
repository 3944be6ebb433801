/* SPDX-License-Identifier: MIT */
/*
 * Moving long records without copying them. Must never take a byte out of the worker's socket that
 * it has not looked at the header of.
 */
#include "sidecar/relay/bulk.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sidecar/io/sock.h"

/* Below this a copy is cheaper than a pipe. PHP-FPM's long records are of 8184 or 65528 bytes. */
#define RECORD_MIN ((size_t)32 * 1024)
/* A response is long when it has relayed this much. */
#define RESPONSE_MIN ((uint64_t)256 * 1024)
#define PIPE_BYTES (512 * 1024)
/* How much is put into it before it is emptied: four long records. */
#define PIPE_FILL_BYTES ((size_t)256 * 1024)
#define SEND_BUFFER_BYTES (1024 * 1024)
/* So that one response does not hold up the other exchanges of the thread. */
#define RECORDS_PER_TURN 32

bool bulk_is_worth(const struct bulk *bulk, const struct front *front, uint64_t relayed_bytes,
                   size_t record_length)
{
    return !bulk->is_hopeless && relayed_bytes >= RESPONSE_MIN && record_length >= RECORD_MIN &&
           front->request_id == 1 && !front->is_scgi;
}

static bool open_pipe(struct bulk *bulk, struct front *front)
{
    if (bulk->is_open) {
        return true;
    }
    if (pipe2(bulk->pipe, O_CLOEXEC | O_NONBLOCK) != 0) {
        bulk->is_hopeless = true; /* no descriptors: the ordinary path needs none */
        return false;
    }
    (void)fcntl(bulk->pipe[1], F_SETPIPE_SZ, PIPE_BYTES);
    (void)sock_raise_send_buffer(front->fd, SEND_BUFFER_BYTES);
    bulk->is_open = true;
    return true;
}

void bulk_close(struct bulk *bulk)
{
    if (bulk->is_open) {
        close(bulk->pipe[0]);
        close(bulk->pipe[1]);
        bulk->is_open = false;
    }
}

static ssize_t move(int from, int to, size_t len)
{
    ssize_t moved;

    do {
        moved = splice(from, NULL, to, NULL, len, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    } while (moved < 0 && errno == EINTR);
    return moved < 0 ? -errno : moved;
}

/* The pipe's content to the front. BULK_PAUSED: it is empty. */
static enum bulk_result empty_pipe(struct bulk *bulk, struct front *front)
{
    while (bulk->in_pipe > 0) {
        ssize_t moved = move(bulk->pipe[0], front->fd, bulk->in_pipe);

        if (moved == -EAGAIN) {
            watch_clear(&front->watch, WATCH_WRITE);
            return BULK_BLOCKED;
        }
        if (moved <= 0) {
            return BULK_LOST;
        }
        bulk->in_pipe -= (size_t)moved;
        front->out.sent_bytes += (uint64_t)moved;
    }
    return BULK_PAUSED;
}

/* Looks at the next record's header and leaves it where it is. */
static enum bulk_result begin_record(struct bulk *bulk, struct worker *worker)
{
    struct fcgi_header header;
    ssize_t got = recv(worker->fd, bulk->header, FCGI_HEADER_SIZE, MSG_PEEK | MSG_DONTWAIT);

    if (got < 0 && errno == EAGAIN) {
        watch_clear(&worker->watch, WATCH_READ);
        return BULK_BLOCKED;
    }
    /* The last byte is reserved: what it holds is not ours to pass on. */
    if (got != FCGI_HEADER_SIZE || !fcgi_header_read(bulk->header, &header) ||
        bulk->header[FCGI_HEADER_SIZE - 1] != 0 || header.type != FCGI_STDOUT ||
        header.request_id != 1 || header.content_length < RECORD_MIN) {
        return BULK_UNFIT;
    }
    bulk->has_begun = false;
    bulk->record_size = FCGI_HEADER_SIZE + (size_t)header.content_length + header.padding_length;
    bulk->record_left = bulk->record_size;
    return BULK_PAUSED;
}

/* From the worker into the pipe. BULK_PAUSED: there may be more. */
static enum bulk_result fill_pipe(struct bulk *bulk, struct worker *worker)
{
    ssize_t moved = move(worker->fd, bulk->pipe[1], bulk->record_left);

    if (moved == -EAGAIN && bulk->in_pipe > 0) {
        return BULK_BLOCKED; /* perhaps it is only the pipe that takes no more */
    }
    if (moved == -EAGAIN) {
        watch_clear(&worker->watch, WATCH_READ);
        return BULK_BLOCKED;
    }
    if (moved == 0) {
        return BULK_UNFIT; /* the worker's end, which the ordinary path reads again */
    }
    if (moved < 0) {
        /* The system cannot splice here, or the worker's connection is lost. */
        bulk->is_hopeless = true;
        if (!bulk->has_begun) {
            bulk->record_left = 0;
        }
        return bulk->has_begun ? BULK_LOST : BULK_UNFIT;
    }
    bulk->has_begun = true;
    bulk->in_pipe += (size_t)moved;
    bulk->record_left -= (size_t)moved;
    return BULK_PAUSED;
}

/* Some records at a time into the pipe, since each way out of it costs a call. */
static enum bulk_result fetch(struct bulk *bulk, struct worker *worker, const struct front *front)
{
    enum bulk_result result = BULK_PAUSED;

    while (result == BULK_PAUSED && bulk->in_pipe < PIPE_FILL_BYTES) {
        if (bulk->record_left == 0) {
            if (buf_length(&front->control) > 0) {
                return BULK_UNFIT; /* records of ours wait for this boundary */
            }
            result = begin_record(bulk, worker);
        }
        if (result == BULK_PAUSED) {
            result = fill_pipe(bulk, worker);
        }
    }
    return result;
}

static enum bulk_result move_some(struct bulk *bulk, struct worker *worker, struct front *front)
{
    enum bulk_result fetched = fetch(bulk, worker, front);
    bool had_some = bulk->in_pipe > 0;
    enum bulk_result sent;

    if (fetched == BULK_LOST) {
        return BULK_LOST;
    }
    sent = empty_pipe(bulk, front);
    if (sent != BULK_PAUSED) {
        return sent;
    }
    /* With the pipe empty again, what stopped the fetching may be over. */
    return fetched == BULK_BLOCKED && had_some ? BULK_PAUSED : fetched;
}

enum bulk_result bulk_move(struct bulk *bulk, struct worker *worker, struct front *front)
{
    enum bulk_result result = BULK_UNFIT;

    if (!open_pipe(bulk, front)) {
        return BULK_UNFIT;
    }
    for (unsigned steps = 0; steps < RECORDS_PER_TURN / 4; steps++) {
        result = move_some(bulk, worker, front);
        if (result != BULK_PAUSED) {
            break;
        }
    }
    front->owed_bytes = bulk->in_pipe + (bulk->has_begun ? bulk->record_left : 0);
    return result;
}

static int take_out_of_pipe(struct bulk *bulk, struct front *front)
{
    while (bulk->in_pipe > 0) {
        uint8_t *room;
        int error = buf_reserve(&front->out.kept, bulk->in_pipe, &room);
        ssize_t got;

        if (error != 0) {
            return error;
        }
        got = read(bulk->pipe[0], room, bulk->in_pipe);
        if (got <= 0) {
            return got == 0 ? -EPIPE : -errno;
        }
        buf_commit(&front->out.kept, (size_t)got);
        bulk->in_pipe -= (size_t)got;
    }
    return 0;
}

int bulk_abandon(struct bulk *bulk, struct front *front)
{
    size_t gone = bulk->record_size - bulk->record_left;
    int error = take_out_of_pipe(bulk, front);

    front->owed_bytes = bulk->has_begun ? bulk->record_left : 0;
    if (error == 0 && front->owed_bytes > 0 && gone < FCGI_HEADER_SIZE) {
        error = buf_append(&front->out.kept, bulk->header + gone, FCGI_HEADER_SIZE - gone);
        front->owed_bytes -= FCGI_HEADER_SIZE - gone;
    }
    bulk->record_left = 0;
    return error;
}
