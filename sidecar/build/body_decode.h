/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_BODY_DECODE_H
#define SIDECAR_BUILD_BODY_DECODE_H

/*
 * Takes the Content-Encoding off a build request while it comes in pieces (PHP's
 * zlib.output_compression compresses it where the client accepts gzip).
 */

#include <zlib.h>

#include "sidecar/base/buf.h"

enum body_encoding { BODY_IDENTITY, BODY_GZIP, BODY_DEFLATE };

struct body_decode {
    enum body_encoding encoding;
    bool started;  /* the stream below is initialised */
    bool complete; /* what came so far is a whole stream */
    bool ended;    /* and something else came behind it, so all that follows is dropped */
    z_stream stream;
};

/* Reads the value of Content-Encoding: gzip, x-gzip, deflate, identity, none, in any case. 0 or
 * -EINVAL (any other coding, or more than one). */
int body_encoding_parse(struct span value, enum body_encoding *encoding);

/* Allocates nothing yet, so it cannot fail. */
void body_decode_init(struct body_decode *decode, enum body_encoding encoding);
void body_decode_deinit(struct body_decode *decode);

/*
 * Decodes input, taking off what it has read (all of it, except on an error or behind the end of
 * the stream), and appends the result to out, whose maximum is never passed. deflate means zlib's
 * format or raw deflate; gzip may consist of several members, so more input may follow a 1.
 *
 * 0: more input is needed (always, for identity); 1: the stream is complete, what follows is
 * dropped unless it is another gzip member; -EFBIG: the result does not fit into out, which then
 * holds as much of it as does; -EINVAL: the input is not what it says; -ENOMEM. After an error the
 * object may only be deinitialised.
 */
int body_decode_next(struct body_decode *decode, struct span *input, struct buf *out);

/* Whether the input may end here. */
static inline bool body_decode_is_complete(const struct body_decode *decode)
{
    return decode->encoding == BODY_IDENTITY || decode->complete;
}

#endif
