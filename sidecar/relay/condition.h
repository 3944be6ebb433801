/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_RELAY_CONDITION_H
#define SIDECAR_RELAY_CONDITION_H

/*
 * Conditional and range requests for a built file (RFC 9110 sections 13 and 14): whether the client
 * gets all of it, a part, or the news that it has it already. Pure.
 */

#include <time.h>

#include "sidecar/base/buf.h"

/* Room for an entity tag with its quotes and NUL. */
#define CONDITION_ETAG_SIZE 80

struct condition_entity {
    char etag[CONDITION_ETAG_SIZE]; /* strong, with its quotes; empty: none */
    time_t modified;
    bool lacks_time; /* modified means nothing */
    uint64_t size_bytes;
};

struct condition_verdict {
    unsigned status; /* 200, 206, 304 or 416 */
    uint64_t first;  /* byte to begin with */
    uint64_t end;    /* behind the last one; first == end: no content */
};

/*
 * Copies the request headers that matter here out of FastCGI params into headers, again as
 * name-value pairs; only a GET has any. 0, -ENOMEM, or -ENOBUFS where they are absurdly long (then
 * none is copied, which is allowed: a server may ignore them).
 */
int condition_collect(struct span params, struct buf *headers);

struct condition_verdict condition_judge(struct span headers,
                                         const struct condition_entity *entity);

#endif
