/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_CACHE_COPY_H
#define SIDECAR_BUILD_CACHE_COPY_H

/*
 * Reads a file piece by piece, hashes it, and may write a copy of it at the same time. The hash is
 * that of the bytes in the copy, whatever happens to the original meanwhile.
 */

#include <openssl/evp.h>

#include "sidecar/build/cache_trailer.h"

/* What one step moves, and the room that it needs. */
#define CACHE_COPY_STEP ((size_t)256 * 1024)

struct cache_copy {
    int from_fd; /* borrowed, as is the next */
    int to_fd;   /* -1: only hashed */
    EVP_MD_CTX *hash;
    uint64_t size_bytes;
    uint64_t done_bytes;
};

/*
 * to_fd must be empty. Where the file system can share the blocks of both files (FICLONE), nothing
 * is written. 0 or -ENOMEM; the copy is then freed by cache_copy_deinit.
 */
int cache_copy_init(struct cache_copy *copy, int from_fd, int to_fd, uint64_t size_bytes);
/* Does nothing to a zeroed one. */
void cache_copy_deinit(struct cache_copy *copy);

/* One step, with room for CACHE_COPY_STEP bytes; waits for the disk. 1: there is more; 0: all is
 * done; -EPIPE: the file is shorter than size_bytes; else -errno. */
int cache_copy_step(struct cache_copy *copy, uint8_t *room);
/* After the last step. 0 or -ENOMEM. */
int cache_copy_finish(struct cache_copy *copy, uint8_t sha256[CACHE_SHA256_SIZE]);

#endif
