/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_CACHE_ACCESS_H
#define SIDECAR_BUILD_CACHE_ACCESS_H

/*
 * The file "access" in the cache's folder: when each entry was used last, and how often, written
 * every access_update_interval, as a whole. It helps to choose what goes first and nothing else, so
 * what is missing or damaged in it does no harm. Other processes write it too: what it says is
 * merged in before it is written, and later and more often wins.
 */

#include "sidecar/base/buf.h"
#include "sidecar/build/cache_folder.h"
#include "sidecar/build/cache_index.h"

struct cache_access {
    uint8_t key[CACHE_KEY_SIZE];
    uint64_t used_ms;
    uint64_t uses;
};

/* Takes lines off the text until one of them is right; false at the end. Pure. */
bool cache_access_next(struct span *text, struct cache_access *access);
/* 0 or as buf_append. */
int cache_access_append(const struct cache_access *access, struct buf *text);

/* Merges the file into the index, as far as it can be read. 0 or -errno; -ENOENT where there is
 * none yet. */
int cache_access_load(const struct cache_folder *folder, struct cache_index *index);
/* Loads and writes it. 0 or -errno. */
int cache_access_save(const struct cache_folder *folder, struct cache_index *index);

#endif
