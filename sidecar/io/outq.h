/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_IO_OUTQ_H
#define SIDECAR_IO_OUTQ_H

/*
 * Bytes on their way to a nonblocking socket. In the common case they go straight from where they
 * lie (a thread's read buffer) to the socket in one sendmsg; only what the socket does not take is
 * copied and kept. A source must not be read while bytes are kept (outq_is_empty): that is the
 * backpressure.
 *
 * Pieces are added between gather_begin and gather_flush, within one callback. A struct gather is
 * scratch of one thread; a struct outq belongs to a connection and costs no memory while empty.
 */

#include <sys/uio.h>

#include "sidecar/base/buf.h"
#include "sidecar/io/loop.h"

#define GATHER_PIECES 32
#define GATHER_SMALL_SIZE 16

struct outq {
    struct watch *watch; /* borrowed; its WATCH_WRITE bit says whether sending may succeed */
    struct buf kept;
    uint64_t sent_bytes; /* since outq_init */
};

struct gather {
    struct outq *outq; /* the target of this round */
    int error;         /* the first one of this round */
    unsigned count;
    unsigned small_count;
    struct iovec pieces[GATHER_PIECES];
    uint8_t small[GATHER_PIECES][GATHER_SMALL_SIZE];
};

/* max: the most bytes that may be kept at once. */
void outq_init(struct outq *outq, struct watch *watch, size_t max);
void outq_deinit(struct outq *outq);

static inline bool outq_is_empty(const struct outq *outq)
{
    return buf_length(&outq->kept) == 0;
}

/* Sends what is kept as far as the socket takes it. 0 (all or part of it, or nothing is possible
 * now) or -errno: the connection is lost. */
int outq_send(struct outq *outq);

void gather_begin(struct gather *gather, struct outq *outq);
/* The bytes are borrowed until gather_flush. Adjacent pieces become one. */
void gather_add(struct gather *gather, const void *bytes, size_t len);
/* GATHER_SMALL_SIZE bytes of scratch, added as a piece of len bytes, for the caller to fill now. */
uint8_t *gather_add_small(struct gather *gather, size_t len);
/*
 * Sends the pieces and keeps the rest. 0 or the round's first error: -EPIPE and the like when the
 * connection is lost, -ENOMEM, -ENOBUFS when more would have to be kept than allowed.
 */
int gather_flush(struct gather *gather);
/* Keeps the pieces without sending them: for bytes that are to follow in outq->kept, so that all of
 * them go out together. Otherwise as gather_flush. */
int gather_keep(struct gather *gather);

#endif
