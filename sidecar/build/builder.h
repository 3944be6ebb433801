/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_BUILDER_H
#define SIDECAR_BUILD_BUILDER_H

/*
 * The builder: one thread that turns build requests into open artifacts with the help of a Velox
 * server. It never sees a front or a worker. Three messages join it to the relay threads:
 *
 *     submit   relay → builder   a build request and who waits for it (a ticket)
 *     cancel   relay → builder   that one has left
 *     result   builder → relay   exactly one for each ticket that was not cancelled
 *
 * A cancel may cross a result on its way: the relay then gets a result for a ticket it no longer
 * knows, and frees it, which closes the artifact.
 */

#include "sidecar/base/failure.h"
#include "sidecar/base/log.h"
#include "sidecar/base/stats.h"
#include "sidecar/build/artifact.h"
#include "sidecar/build/build_request.h"
#include "sidecar/io/mailbox.h"

struct builder;
struct cache;
struct velox_client;

/* Text from Velox or from us for the client; longer is cut. */
#define BUILD_MESSAGE_MAX 4096

struct build_result {
    struct mail mail; /* first */
    uint64_t ticket;
    enum failure failure;     /* FAILURE_NONE: the artifact is open */
    struct artifact artifact; /* may share its file offset with others who waited: read by offset */
    uint64_t duration_ms;     /* from the submit to the open artifact */
    bool from_cache;
    uint64_t cache_age_s;
    unsigned retry_after_s; /* with FAILURE_BUSY, at least 1 */
    struct buf message;     /* with a failure: plain UTF-8 text, not escaped */
};

/* Frees the result and all that is in it; closes the artifact if it is still there (fd >= 0). */
void build_result_free(struct build_result *result);

/* Borrows everything; log and options must outlive the builder. 0 or -errno (a CA or token file
 * that cannot be read is logged and -EINVAL). */
int builder_new(struct builder **builder, struct loop *loop, const struct build_options *options,
                struct log *log, struct stats *stats);
/* The same with another client than curl's; it is borrowed too. For tests. */
int builder_new_with_client(struct builder **builder, struct loop *loop,
                            const struct build_options *options, struct log *log,
                            struct stats *stats, struct velox_client *client);
/* Before the builder's thread runs: equal requests are answered from that cache, which is borrowed
 * and must outlive the builder's thread; its own thread must have ended before builder_free. */
int builder_use_cache(struct builder *builder, struct cache *cache);
/* In the builder's own thread, after builder_stop. Does nothing with NULL. */
void builder_free(struct builder *builder);

/*
 * From any thread. Takes *request's content (leaves it deinitialised) on success. ticket is the
 * caller's number for the one who waits, unique among all callers; the result is posted to
 * reply_to. 0 or -ENOMEM, -EPIPE when the builder has stopped.
 */
int builder_submit(struct builder *builder, uint64_t ticket, struct build_request *request,
                   struct mailbox *reply_to);
/* From any thread. -ENOMEM is answered by letting the build run to its end. */
void builder_cancel(struct builder *builder, uint64_t ticket);

/* In the builder's own thread: every build that runs is cancelled, every ticket gets
 * FAILURE_BUSY. No submit is accepted any more. */
void builder_stop(struct builder *builder);

#endif
