/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_BUILD_REQUEST_H
#define SIDECAR_BUILD_BUILD_REQUEST_H

/*
 * The JSON that PHP sends: found, checked, and kept as the bytes that came. Nothing is printed
 * again from a parsed tree; only a missing or null request_id is put into a copy of the bytes.
 */

#include "sidecar/base/buf.h"

#define BUILD_REQUEST_ID_MAX 64
#define BUILD_REQUEST_NAME_MAX 32
#define BUILD_REQUEST_KEY_SIZE 32
/* Room for any message of build_request_parse, with its NUL. */
#define BUILD_REQUEST_MESSAGE_SIZE 256

struct build_request {
    struct buf body; /* owned: what Velox gets, request_id included */
    char id[BUILD_REQUEST_ID_MAX + 1];
    char os[BUILD_REQUEST_NAME_MAX + 1];   /* empty without target_platform */
    char arch[BUILD_REQUEST_NAME_MAX + 1]; /* likewise */
    bool force_rebuild;
    bool is_mutable;                     /* rr_version or a tag names what may move: version.h */
    uint8_t key[BUILD_REQUEST_KEY_SIZE]; /* SHA-256 of what makes builds equal: build_key.h */
};

enum json_end_result { JSON_END_NEED_DATA, JSON_END_FOUND };

/*
 * Finds where a JSON value ends while it comes in pieces, without judging it: counts braces and
 * brackets outside of strings. Bytes in front of the value other than white space count as the
 * value's begin, so that what PHP printed before the JSON is seen by the check, not lost here.
 */
struct json_end {
    uint8_t state; /* private */
    uint32_t depth;
};

void json_end_init(struct json_end *end);
/* On FOUND *length is how many bytes of this piece belong to the value. A value that is no object
 * or array never ends before the stream does. */
enum json_end_result json_end_next(struct json_end *end, struct span piece, size_t *length);

/*
 * Checks the decoded body and takes a copy. 0, -EINVAL with *message telling a developer which
 * member is wrong and what is allowed (control characters escaped), or -ENOMEM. On success *request
 * belongs to the caller (build_request_deinit). Otherwise only request->id is written: the
 * request_id where a valid one was found, else empty.
 */
int build_request_parse(struct span body, struct build_request *request,
                        char message[BUILD_REQUEST_MESSAGE_SIZE]);
void build_request_deinit(struct build_request *request);

#endif
