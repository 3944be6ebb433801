/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_VELOX_H
#define SIDECAR_BUILD_VELOX_H

/*
 * One POST to a Velox server, by curl's multi interface on our loop, and what its answer means.
 * A struct velox_client is the interface that the builder uses, so that scenario tests can put a
 * scripted server in its place.
 */

#include "sidecar/base/log.h"
#include "sidecar/build/options.h"
#include "sidecar/build/velox_answer.h"
#include "sidecar/io/loop.h"

struct velox_call; /* one POST under way */

struct velox_client {
    /*
     * Posts body (borrowed until on_answer or cancel) to server number server. The time limit is
     * also told to the server (Connect-Timeout-Ms). on_answer comes exactly once, never from within
     * start; the call is gone by then, so that a new one may be started from within it. The
     * answer's spans die with on_answer. 0 with *call, or -ENOMEM.
     */
    int (*start)(struct velox_client *client, size_t server, struct span body, uint64_t timeout_ms,
                 void (*on_answer)(void *waiter, const struct velox_answer *answer), void *waiter,
                 struct velox_call **call);
    /* Closes the HTTP request, which cancels the build at Velox. No on_answer comes any more. */
    void (*cancel)(struct velox_client *client, struct velox_call *call);
};

/*
 * The client by curl. Reads token_file and ca_file now, once. Borrows all; they must outlive it. 0,
 * -ENOMEM, or -EINVAL where a file cannot be read or holds nothing usable, which is logged.
 */
int velox_new(struct velox_client **client, struct loop *loop, const struct build_options *options,
              struct log *log);
/* All calls must have ended or been cancelled. Does nothing with NULL. */
void velox_free(struct velox_client *client);

#endif
