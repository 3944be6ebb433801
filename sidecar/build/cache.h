/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_CACHE_H
#define SIDECAR_BUILD_CACHE_H

/*
 * Built files that are kept, to answer equal requests without Velox. Two threads share it:
 *
 *     builder's   finds entries by opening them (cache_find), and orders what is to be kept
 *     cache's     copies and hashes files, chooses what goes when there is too much, checks stored
 *                 hashes: all that may take long
 *
 * They share the folder's descriptor, the options and a mailbox, and nothing that changes: a
 * look-up asks the folder itself, so it finds what another process has put there, and needs no
 * index that would have to be read first.
 */

#include "sidecar/base/log.h"
#include "sidecar/base/stats.h"
#include "sidecar/build/artifact.h"
#include "sidecar/build/build_request.h"
#include "sidecar/io/mailbox.h"

struct cache;

/* A built file on its way into the cache, and back. */
struct cache_order {
    struct mail mail; /* first */
    unsigned kind;    /* private */
    uint8_t key[BUILD_REQUEST_KEY_SIZE];
    bool is_mutable;
    uint64_t number; /* the sender's */
    struct mailbox *reply_to;
    /* There: the built file. Back: the cached copy with its hash, or none (fd -1). Owned. */
    struct artifact artifact;
    char request_id[BUILD_REQUEST_ID_MAX + 1];
};

/*
 * Opens the folder, makes it where it is missing, and begins to read it as soon as the loop runs.
 * Borrows everything. 0 or -errno, of which the caller tells.
 */
int cache_new(struct cache **cache, struct loop *loop, const struct cache_options *options,
              struct log *log, struct stats *stats);
/* In the cache's own thread: what is under way is dropped, access times are written. No order is
 * accepted any more. */
void cache_stop(struct cache *cache);
/* When its thread has ended, or never ran. Does nothing with NULL. */
void cache_free(struct cache *cache);

/* In the builder's thread. True: *artifact is open, and the caller's, and *age_s says how old. */
bool cache_find(struct cache *cache, const uint8_t key[BUILD_REQUEST_KEY_SIZE],
                struct artifact *artifact, uint64_t *age_s);

/* Whether the cache would keep such a result at all. */
bool cache_wants(const struct cache *cache, bool is_mutable);

/*
 * In the builder's thread: orders a copy of the artifact, which stays the caller's. The answer is
 * the order itself, posted to reply_to once, unless that mailbox is closed. 0; or -errno, and no
 * answer comes.
 */
int cache_keep(struct cache *cache, const struct build_request *request,
               const struct artifact *artifact, uint64_t number, struct mailbox *reply_to);
/* Closes what is still in it. */
void cache_order_free(struct cache_order *order);

#endif
