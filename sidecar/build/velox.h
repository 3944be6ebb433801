/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_VELOX_H
#define SIDECAR_BUILD_VELOX_H

/*
 * One POST to a Velox server, by curl's multi interface on our loop, and what its answer means.
 * A struct velox_client is the interface that the builder uses, so that scenario tests can put a
 * scripted server in its place.
 */

#include "sidecar/base/buf.h"
#include "sidecar/base/log.h"
#include "sidecar/build/options.h"
#include "sidecar/io/loop.h"

enum velox_outcome {
    VELOX_BUILT,          /* path holds the file's path as Velox names it */
    VELOX_ALREADY_RUNS,   /* already_exists: somebody else has the same build running */
    VELOX_RETRY,          /* may be tried again; reason says why */
    VELOX_BUILD_FAILED,   /* 500 build_failed */
    VELOX_REQUEST_INVALID,/* 400 invalid_request */
    VELOX_UNUSABLE,       /* 502 velox_unavailable, never tried again */
};

enum velox_retry_reason {
    VELOX_RETRY_CONNECT,
    VELOX_RETRY_CUT,
    VELOX_RETRY_TIMEOUT,
    VELOX_RETRY_HTTP_STATUS,
    VELOX_RETRY_CODE,
};

struct velox_answer {
    enum velox_outcome outcome;
    enum velox_retry_reason reason; /* with VELOX_RETRY */
    bool is_timeout;                /* with VELOX_RETRY: request_timeout or deadline_exceeded */
    uint64_t retry_after_ms;        /* 0: not told */
    struct span path;               /* with VELOX_BUILT; as all spans here borrowed for the call */
    struct span build_id;           /* may be empty */
    struct span message;            /* what the server or curl says, or ours; may be empty */
};

struct velox_call; /* one POST under way */

struct velox_client {
    /*
     * Posts body (borrowed until on_answer or cancel) to server number server. The time limit
     * is also told to the server (Connect-Timeout-Ms). on_answer comes exactly once, never from within start; the call is gone afterwards.
     * 0 with *call, or -ENOMEM.
     */
    int (*start)(struct velox_client *client, size_t server, struct span body, uint64_t timeout_ms,
                 void (*on_answer)(void *waiter, const struct velox_answer *answer), void *waiter,
                 struct velox_call **call);
    /* Closes the HTTP request, which cancels the build at Velox. No on_answer comes any more. */
    void (*cancel)(struct velox_client *client, struct velox_call *call);
};

#endif
