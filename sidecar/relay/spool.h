/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_RELAY_SPOOL_H
#define SIDECAR_RELAY_SPOOL_H

/*
 * A request body whose length nobody announced, collected before PHP sees it (PHP-FPM reads no body
 * without CONTENT_LENGTH): the first bytes in memory, the rest in a file without a name.
 */

#include <sys/types.h>

#include "sidecar/base/buf.h"

struct spool {
    struct buf memory;
    int fd; /* -1: all of it is in memory */
    uint64_t length;
    uint64_t max;
    const char *directory; /* borrowed */
};

void spool_init(struct spool *spool, const char *directory, uint64_t max);
void spool_deinit(struct spool *spool);

/* 0, -EFBIG over max, -ENOMEM, or another -errno of the file system. */
int spool_append(struct spool *spool, struct span piece);

/* Reads up to size bytes from offset on. The bytes read, 0 at the end, or -errno. */
ssize_t spool_read(const struct spool *spool, uint64_t offset, uint8_t *bytes, size_t size);

#endif
