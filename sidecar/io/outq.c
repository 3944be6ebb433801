/* SPDX-License-Identifier: MIT */
/*
 * Sending with as few copies and system calls as there can be. It never blocks, and never sends a
 * byte before one that was added earlier.
 */
#include "sidecar/io/outq.h"

#include <errno.h>
#include <sys/socket.h>

void outq_init(struct outq *outq, struct watch *watch, size_t max)
{
    outq->watch = watch;
    outq->sent_bytes = 0;
    buf_init(&outq->kept, max);
}

void outq_deinit(struct outq *outq)
{
    buf_deinit(&outq->kept);
}

/* Bytes sent, 0 where the socket takes none now, or -errno. */
static ssize_t send_pieces(struct outq *outq, const struct iovec *pieces, size_t count)
{
    struct msghdr message = { .msg_iov = (struct iovec *)(uintptr_t)pieces, .msg_iovlen = count };
    ssize_t sent;

    if ((outq->watch->ready & WATCH_WRITE) == 0) {
        return 0;
    }
    do {
        sent = count == 1 ? send(outq->watch->fd, pieces->iov_base, pieces->iov_len,
                                 MSG_NOSIGNAL | MSG_DONTWAIT)
                          : sendmsg(outq->watch->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    if (sent >= 0) {
        outq->sent_bytes += (uint64_t)sent;
        return sent;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
        watch_clear(outq->watch, WATCH_WRITE);
        return 0;
    }
    return -errno;
}

int outq_send(struct outq *outq)
{
    while (!outq_is_empty(outq)) {
        struct span kept = buf_span(&outq->kept);
        struct iovec piece = { .iov_base = (void *)(uintptr_t)kept.ptr, .iov_len = kept.len };
        ssize_t sent = send_pieces(outq, &piece, 1);

        if (sent <= 0) {
            return (int)sent;
        }
        buf_consume(&outq->kept, (size_t)sent);
    }
    return 0;
}

void gather_begin(struct gather *gather, struct outq *outq)
{
    gather->outq = outq;
    gather->error = 0;
    gather->count = 0;
    gather->small_count = 0;
}

/* Keeps the pieces from number first on, of which the first skip bytes are sent already. */
static int keep_rest(struct gather *gather, size_t skip)
{
    for (unsigned i = 0; i < gather->count; i++) {
        const struct iovec *piece = &gather->pieces[i];
        size_t gone = skip < piece->iov_len ? skip : piece->iov_len;
        int error;

        skip -= gone;
        if (gone == piece->iov_len) {
            continue;
        }
        error = buf_append(&gather->outq->kept, (const uint8_t *)piece->iov_base + gone,
                           piece->iov_len - gone);
        if (error != 0) {
            return error;
        }
    }
    return 0;
}

static int send_round(struct gather *gather)
{
    ssize_t sent = 0;
    int error;

    if (!outq_is_empty(gather->outq)) {
        error = keep_rest(gather, 0);
        return error != 0 ? error : outq_send(gather->outq);
    }
    if (gather->count > 0) {
        sent = send_pieces(gather->outq, gather->pieces, gather->count);
    }
    error = sent < 0 ? (int)sent : keep_rest(gather, (size_t)sent);
    /* Only an attempt that fails makes the loop tell of room again. */
    return error != 0 || outq_is_empty(gather->outq) ? error : outq_send(gather->outq);
}

static int end_round(struct gather *gather, int error)
{
    if (gather->error == 0) {
        gather->error = error;
    }
    gather->count = 0;
    gather->small_count = 0;
    return gather->error;
}

int gather_flush(struct gather *gather)
{
    bool is_idle = gather->error != 0 || gather->count == 0;

    return end_round(gather, is_idle ? 0 : send_round(gather));
}

int gather_keep(struct gather *gather)
{
    return end_round(gather, gather->error != 0 ? 0 : keep_rest(gather, 0));
}

void gather_add(struct gather *gather, const void *bytes, size_t len)
{
    struct iovec *last;

    if (len == 0) {
        return;
    }
    last = gather->count == 0 ? NULL : &gather->pieces[gather->count - 1];
    if (last != NULL && (const uint8_t *)last->iov_base + last->iov_len == bytes) {
        last->iov_len += len;
        return;
    }
    if (gather->count == GATHER_PIECES) {
        gather_flush(gather);
    }
    gather->pieces[gather->count++] = (struct iovec){ .iov_base = (void *)(uintptr_t)bytes,
                                                      .iov_len = len };
}

uint8_t *gather_add_small(struct gather *gather, size_t len)
{
    uint8_t *small;

    if (gather->small_count == GATHER_PIECES || gather->count == GATHER_PIECES) {
        gather_flush(gather);
    }
    small = gather->small[gather->small_count++];
    gather_add(gather, small, len);
    return small;
}
