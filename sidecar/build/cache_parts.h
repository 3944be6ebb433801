/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_CACHE_PARTS_H
#define SIDECAR_BUILD_CACHE_PARTS_H

/* What the files of the cache's thread share: cache.c, cache_store.c, cache_scan.c, cache_scrub.c.
 * Nobody else includes it. */

#include <dirent.h>

#include "sidecar/base/clock.h"
#include "sidecar/build/cache.h"
#include "sidecar/build/cache_copy.h"
#include "sidecar/build/cache_folder.h"
#include "sidecar/build/cache_index.h"

enum cache_order_kind {
    CACHE_ORDER_KEEP,
    CACHE_ORDER_USED,  /* an entry has answered a request */
    CACHE_ORDER_DOUBT, /* an entry is too old, or not what it should be */
};

/* Copies under way. All of them go on by turns, so that a small file is not held up by a large. */
struct cache_stores {
    struct list list; /* struct cache_store, cache_store.c */
    struct task task;
    uint64_t count;
    uint64_t size_bytes; /* that they will have */
};

/* A look through the folder; dir is NULL when none is under way. */
struct cache_scan {
    struct task task;
    struct timer timer; /* cleanup_interval */
    DIR *dir;
    unsigned number;
    uint64_t began_ns;
};

/* A pass over all entries that reads their contents; fd is -1 between two entries. */
struct cache_scrub {
    struct timer timer;
    unsigned pass;
    bool is_passing;
    int fd;
    struct cache_facts facts;
    struct cache_copy copy;
};

struct cache {
    struct loop *loop;
    const struct cache_options *options;
    struct log *log;
    struct stats *stats;
    struct cache_folder folder; /* read by the builder's thread too */
    struct mailbox mailbox;
    struct cache_index index;
    struct cache_stores stores;
    struct cache_scan scan;
    struct cache_scrub scrub;
    bool is_stopped;
    bool is_known;          /* the folder has been read once */
    struct timer access;    /* access_update_interval */
    bool has_new_access;    /* what the file "access" does not say yet */
    uint64_t shown_entries; /* in the gauges */
    uint64_t shown_bytes;
    uint8_t room[CACHE_COPY_STEP];
};

static inline uint64_t cache_now_ms(void)
{
    struct timespec now = clock_wall();

    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

enum cache_drop_reason {
    CACHE_DROP_SIZE,
    CACHE_DROP_ENTRIES,
    CACHE_DROP_AGE,
    CACHE_DROP_CORRUPT,
};

/* Takes fd, of an entry that cache_folder_open_entry has opened. */
void cache_take_entry(int fd, const struct cache_facts *facts, struct artifact *artifact);
/* Removes the entry from folder and index, counts and logs it. The index may not have it. */
void cache_drop(struct cache *cache, const uint8_t key[CACHE_KEY_SIZE],
                enum cache_drop_reason reason);
/* The index has changed: the gauges follow. */
void cache_show(struct cache *cache);

/* Lets entries go until one of size_bytes more would fit beside those that are being copied; the
 * one of that key is replaced by it. False where it is larger than max_size alone. */
bool cache_make_room(struct cache *cache, const uint8_t *key, uint64_t size_bytes);
/* The same for what is there: two that were copied at once may be too much together. */
void cache_keep_limits(struct cache *cache);

void cache_store_init(struct cache *cache);
void cache_store_add(struct cache *cache, struct cache_order *order);
void cache_store_stop(struct cache *cache);

/* Begins the first look. */
void cache_scan_init(struct cache *cache);
void cache_scan_stop(struct cache *cache);

void cache_scrub_init(struct cache *cache);
void cache_scrub_stop(struct cache *cache);

#endif
