/* SPDX-License-Identifier: MIT */
/*
 * Records by way of a buffer: one read, one send. Must never send of the buffer what the file did
 * not fill.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "sidecar/relay/deliver.h"

#define ROOM_BYTES ((size_t)1024 * 1024)
#define ROOM_BYTES_MIN ((size_t)128 * 1024)
#define RECORDS_MAX 32

/* Records as they lie in the buffer, each behind a gap for its header. */
struct batch {
    size_t size; /* gaps included */
    unsigned count;
    bool begins_within; /* the first piece is the rest of a record: it has no gap */
    struct iovec contents[RECORDS_MAX];
};

static void lay_out(struct batch *batch, struct carrier *carrier, const struct delivery *delivery,
                    const struct front *front, uint64_t stop)
{
    uint64_t at = delivery->offset;
    size_t gap = front->is_scgi ? 0 : FCGI_HEADER_SIZE;
    size_t room = delivery->room < ROOM_BYTES ? (size_t)delivery->room : ROOM_BYTES;

    if (room < ROOM_BYTES_MIN) {
        room = ROOM_BYTES_MIN;
    }
    *batch = (struct batch){ .begins_within = front->owed_bytes > 0 };
    do {
        bool is_rest = batch->count == 0 && batch->begins_within;
        size_t length = is_rest ? front->owed_bytes : carrier_record_length(delivery, at);
        size_t before = is_rest ? 0 : gap;

        if (batch->size + before + length > room) {
            break;
        }
        batch->contents[batch->count++] = (struct iovec){
            .iov_base = carrier->room + batch->size + before,
            .iov_len = length,
        };
        batch->size += before + length;
        at += length;
    } while (batch->count < RECORDS_MAX && at < stop && at < delivery->end &&
             buf_length(&front->control) == 0);
}

/* Cuts the batch down to the whole pieces among the first got bytes of content. */
static void keep_whole(struct batch *batch, const uint8_t *room, size_t got)
{
    unsigned whole = 0;

    while (whole < batch->count && got >= batch->contents[whole].iov_len) {
        got -= batch->contents[whole].iov_len;
        whole++;
    }
    batch->count = whole;
    batch->size = whole == 0 ? 0
                             : (size_t)((uint8_t *)batch->contents[whole - 1].iov_base - room) +
                                   batch->contents[whole - 1].iov_len;
}

static void write_headers(const struct batch *batch, const struct front *front)
{
    for (unsigned i = batch->begins_within ? 1 : 0; i < batch->count && !front->is_scgi; i++) {
        const struct iovec *content = &batch->contents[i];

        fcgi_header_write((uint8_t *)content->iov_base - FCGI_HEADER_SIZE, FCGI_STDOUT,
                          front->request_id, (uint16_t)content->iov_len, 0);
    }
}

static enum deliver_result read_batch(struct batch *batch, struct carrier *carrier,
                                      struct delivery *delivery, const struct front *front)
{
    ssize_t got;

    do {
        got = preadv(delivery->artifact.fd, batch->contents, (int)batch->count,
                     (off_t)delivery->offset);
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
        delivery->error = errno;
        return DELIVER_TRUNCATED;
    }
    keep_whole(batch, carrier->room, (size_t)got);
    if (batch->count == 0) {
        return DELIVER_TRUNCATED;
    }
    write_headers(batch, front);
    return DELIVER_PAUSED;
}

/* Until the socket is full: only an attempt that fails makes the loop tell of room again. */
static enum deliver_result send_batch(const struct batch *batch, const struct carrier *carrier,
                                      struct delivery *delivery, struct front *front)
{
    size_t done = 0;

    while (done < batch->size) {
        ssize_t sent = send(front->fd, carrier->room + done, batch->size - done,
                            MSG_NOSIGNAL | MSG_DONTWAIT);

        if (sent < 0 && errno == EINTR) {
            continue;
        }
        if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            watch_clear(&front->watch, WATCH_WRITE);
            break;
        }
        if (sent < 0) {
            return DELIVER_LOST;
        }
        done += (size_t)sent;
    }
    /* What does not fit is read in vain. */
    if (done < batch->size) {
        delivery->room = done > ROOM_BYTES_MIN ? done : ROOM_BYTES_MIN;
    } else if (delivery->room < ROOM_BYTES) {
        delivery->room *= 2;
    }
    if (carrier_advance(delivery, front, done) != 0) {
        return DELIVER_LOST;
    }
    return done < batch->size ? DELIVER_BLOCKED : DELIVER_PAUSED;
}

enum deliver_result carrier_copy_send(struct carrier *carrier, struct delivery *delivery,
                                      struct front *front, uint64_t stop)
{
    enum deliver_result result;
    struct batch batch;

    if (carrier->room == NULL) {
        carrier->room = malloc(ROOM_BYTES);
    }
    if (carrier->room == NULL) {
        return DELIVER_LOST;
    }
    lay_out(&batch, carrier, delivery, front, stop);
    result = read_batch(&batch, carrier, delivery, front);
    return result == DELIVER_PAUSED ? send_batch(&batch, carrier, delivery, front) : result;
}
