/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_BUILD_H
#define SIDECAR_BUILD_BUILD_H

/*
 * One build: from a checked build request to an open artifact or a failure, whoever waits for it.
 * It knows attempts, waits and its deadline; it knows nothing of tickets, queues or other builds.
 *
 *     QUEUED ──start──► ATTEMPT ──200 with a path──► OPEN ──► READY
 *                        │    ▲                      │  │         ▲ first byte, or all
 *           may be tried │    │ timer                │  └──► FETCH
 *                        ▼    │       not allowed, … ▼         │ not there either, …
 *                       BACKOFF ──no attempt left──► FAILED ◄──┘
 *
 *     With a cache, KEEP comes before READY: it lasts until the copy is there, or cannot be made.
 *     any state before the end ──build_cancel──► CANCELLED
 */

#include "sidecar/base/failure.h"
#include "sidecar/base/log.h"
#include "sidecar/base/stats.h"
#include "sidecar/build/artifact.h"
#include "sidecar/build/build_request.h"
#include "sidecar/build/cache.h"
#include "sidecar/build/fetch.h"
#include "sidecar/build/velox.h"

enum build_state {
    BUILD_QUEUED,
    BUILD_ATTEMPT, /* a POST is under way */
    BUILD_BACKOFF, /* waits for the next one */
    BUILD_OPEN,    /* Velox has named a file */
    BUILD_FETCH,   /* it is not on this machine, and is being fetched */
    BUILD_KEEP,    /* the cache copies it */
    BUILD_READY,
    BUILD_FAILED,
    BUILD_CANCELLED,
    BUILD_STATE_COUNT,
};

/* What builds work with; borrowed by all of them, one for each builder. */
struct build_services {
    struct loop *loop;
    const struct build_options *options;
    struct velox_client *client;
    struct fetcher *fetcher; /* NULL: nothing is fetched */
    struct cache *cache;     /* NULL: nothing is kept */
    struct mailbox *kept_to; /* where the cache answers, with the number of the order */
    uint64_t orders;         /* to the cache so far */
    struct log *log;
    struct stats *stats;
    uint64_t random_state; /* for jitter; any number to begin with */
};

struct build {
    struct build_services *services;
    struct list link;       /* the owner's: in a queue or among those that run */
    struct list table_link; /* the owner's */
    struct list tickets;    /* the owner's; initialised empty */
    enum build_state state;
    bool was_started; /* it has left QUEUED by build_start */
    struct build_request request;
    struct velox_call *call; /* in ATTEMPT only */
    struct fetch *fetch;     /* in FETCH only */
    bool is_stream;          /* what is fetched goes to the one who waits while it comes */
    struct buf path;         /* as Velox named it; from FETCH on */
    struct buf velox_id;     /* its build_id, likewise */
    struct timer deadline;
    struct timer retry;
    struct task end;
    uint64_t submitted_ms; /* loop time */
    uint64_t started_ms;   /* likewise; with was_started */
    unsigned attempts;
    unsigned timeouts; /* of these attempts, how many timed out */
    size_t server;
    uint64_t order; /* in KEEP only, else 0 */
    void (*on_end)(struct build *build);
    /* The result, from READY or FAILED on. */
    enum failure failure;
    struct artifact artifact; /* the owner may take it: fd = -1 then */
    struct buf message;
    uint64_t duration_ms; /* until the built file was open, or the failure */
};

/*
 * A build in QUEUED whose deadline (build_timeout) runs from now on. Takes *request's content, on
 * success only. on_end comes once, from the loop, in READY or FAILED: never from within a call to
 * one of these functions, and not after build_cancel or build_free. It may free the build. 0 or
 * -ENOMEM.
 */
int build_new(struct build **build, struct build_services *services, struct build_request *request,
              void (*on_end)(struct build *build));
/* In any state; what is still under way is cancelled without a word. */
void build_free(struct build *build);

/* From QUEUED only: posts the request to Velox. */
void build_start(struct build *build);
/* Before the end only: closes the HTTP request, which cancels the build at Velox. */
void build_cancel(struct build *build);

/* In KEEP: takes the copy out of the answer to its order, if there is one, and ends in READY. */
void build_on_kept(struct build *build, struct artifact *copy);

/* Any state before the end. */
bool build_is_under_way(const struct build *build);
/* Under way, and its result can be shared. */
bool build_may_be_joined(const struct build *build);

#endif
