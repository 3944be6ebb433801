/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_RELAY_CAPTURE_H
#define SIDECAR_RELAY_CAPTURE_H

/*
 * Collects the body of an intercepted response, decoded, until the build request in it is complete:
 * at its Content-Length, at the end of the JSON value, or at the end of the stream, whichever comes
 * first. Judges nothing in it.
 */

#include "sidecar/build/body_decode.h"
#include "sidecar/build/build_request.h"

enum capture_result {
    CAPTURE_MORE,
    CAPTURE_COMPLETE,
    CAPTURE_TOO_LARGE,
    CAPTURE_UNKNOWN_ENCODING,
    CAPTURE_UNDECODABLE,
    CAPTURE_NO_MEMORY,
};

struct capture {
    struct body_decode decode;
    struct json_end end;
    struct buf body; /* decoded; after CAPTURE_COMPLETE the build request and nothing else */
    bool has_length;
    uint64_t length_left; /* of the body as it comes, encoded */
    bool is_started;
};

/* head: PHP's response head. Results: MORE, UNKNOWN_ENCODING, or COMPLETE where Content-Length is
 * 0. */
enum capture_result capture_init(struct capture *capture, struct span head, size_t max_size);
void capture_deinit(struct capture *capture);

enum capture_result capture_next(struct capture *capture, struct span piece);
/* The stream has ended. COMPLETE or UNDECODABLE. */
enum capture_result capture_end(struct capture *capture);

#endif
