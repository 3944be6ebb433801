/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_CACHE_INDEX_H
#define SIDECAR_BUILD_CACHE_INDEX_H

/*
 * What is remembered of the cache's folder, to choose what goes first when it is full, and how
 * large it is. Memory only, one thread only; the folder itself is the truth. Times in milliseconds
 * of the wall clock.
 */

#include "sidecar/base/list.h"
#include "sidecar/build/cache_trailer.h"
#include "sidecar/build/options.h"

struct cache_item {
    struct list link;       /* all of them; what was checked last comes last */
    struct list table_link; /* those with about the same key */
    uint8_t key[CACHE_KEY_SIZE];
    uint64_t size_bytes;
    uint64_t created_ms;
    uint64_t used_ms; /* at first when it was made */
    uint64_t uses;    /* answers from the cache */
    bool is_mutable;
    unsigned seen;    /* number of the look through the folder that has found it last */
    unsigned checked; /* number of the pass of checking that has read it last */
};

struct cache_index {
    struct list items;
    struct list *table;
    size_t count;
    uint64_t size_bytes; /* of the contents */
};

/* 0 or -ENOMEM. */
int cache_index_init(struct cache_index *index);
void cache_index_deinit(struct cache_index *index);

/* NULL if there is none. */
struct cache_item *cache_index_find(const struct cache_index *index,
                                    const uint8_t key[CACHE_KEY_SIZE]);
/* What the facts say about their key is true from now on; uses are kept. NULL without memory. */
struct cache_item *cache_index_put(struct cache_index *index, const struct cache_facts *facts);
void cache_index_remove(struct cache_index *index, struct cache_item *item);

/* What the policy lets go first; never spared, which may be NULL. NULL if there is nothing else. */
struct cache_item *cache_index_victim(const struct cache_index *index, enum eviction_policy policy,
                                      const struct cache_item *spared);

/* Whether something of that age is too old; a clock that was set back makes nothing old. */
bool cache_is_expired(const struct cache_options *options, bool is_mutable, uint64_t created_ms,
                      uint64_t now_ms);

#endif
