/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_FETCH_TARGET_H
#define SIDECAR_BUILD_FETCH_TARGET_H

/*
 * Where the bytes of a fetched file go: into a pipe, of which a reader takes them, or into a file
 * without a name.
 */

#include "sidecar/base/buf.h"
#include "sidecar/io/loop.h"

struct fetch_target {
    bool is_file;
    int out;            /* what is written to; -1: nothing is open */
    int in;             /* the pipe's other end; -1: there is none, or it has been taken */
    struct buf held;    /* what the pipe has not taken yet */
    struct watch watch; /* of a pipe's out */
};

void fetch_target_init(struct fetch_target *target);
/* Closes what is open; may be opened again then. */
void fetch_target_close(struct fetch_target *target);

/* on_ready: there is room in the pipe, or its other end has been closed. 0 or -errno. */
int fetch_target_open_pipe(struct fetch_target *target, struct loop *loop,
                           void (*on_ready)(struct watch *watch));
int fetch_target_open_file(struct fetch_target *target, const char *directory);

/* Takes all of the piece. Only when nothing is held. 0 or -errno: -EPIPE when the pipe's reader has
 * left, -ENOMEM, or what the file system says. */
int fetch_target_write(struct fetch_target *target, struct span piece);
/* Puts what is held into the pipe, as far as it goes. 0, or -EPIPE as above. */
int fetch_target_flush(struct fetch_target *target);

static inline bool fetch_target_is_full(const struct fetch_target *target)
{
    return buf_length(&target->held) > 0;
}

/* The descriptor that the file is read from; it belongs to the caller then. */
int fetch_target_take(struct fetch_target *target);

#endif
