/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_RELAY_DELIVER_STREAM_H
#define SIDECAR_RELAY_DELIVER_STREAM_H

/*
 * A built file that is still being fetched, on its way to the web server: what is in the pipe
 * becomes records and moves from there to the socket (splice). No memory is taken for it; a web
 * server that does not read leaves the pipe full, and that holds up the source.
 */

#include "sidecar/relay/deliver.h"

struct deliver_stream {
    struct watch watch;  /* of the pipe */
    uint64_t skip_bytes; /* in front of the part that the client wants, still to come */
};

/* The delivery has begun (deliver_start) with an artifact that is a stream. on_ready: bytes may
 * have come. 0 or -ENOMEM. */
int deliver_stream_start(struct deliver_stream *stream, const struct delivery *delivery,
                         struct loop *loop, void (*on_ready)(struct watch *watch));
/* Must come before deliver_stop. Does nothing where there is no stream. */
void deliver_stream_stop(struct deliver_stream *stream);

/*
 * As deliver_send. DELIVER_BLOCKED: either side must move first. scratch is for bytes that are to
 * be skipped. A source that ended early is DELIVER_TRUNCATED.
 */
enum deliver_result deliver_stream_send(struct deliver_stream *stream, struct delivery *delivery,
                                        struct front *front, uint8_t *scratch, size_t size,
                                        uint64_t budget);

#endif
