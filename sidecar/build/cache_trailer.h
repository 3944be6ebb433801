/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_CACHE_TRAILER_H
#define SIDECAR_BUILD_CACHE_TRAILER_H

/*
 * What is known of a cached file stands behind its content, in the same file: so both come and go
 * in one step, whoever else uses the folder. The trailer is text of a fixed length, for `tail -c
 * 287`; its last line is a checksum of the others. Pure.
 */

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define CACHE_KEY_SIZE 32
#define CACHE_SHA256_SIZE 32
#define CACHE_TRAILER_SIZE 287

struct cache_facts {
    uint8_t key[CACHE_KEY_SIZE]; /* of the build request */
    uint8_t sha256[CACHE_SHA256_SIZE];
    uint64_t size_bytes;      /* of the content, without the trailer */
    struct timespec modified; /* of the built file, and of the cached one */
    uint64_t created_ms;      /* when it came into the cache, by the wall clock */
    bool is_mutable;          /* the request names something that moves: version.h */
};

void cache_trailer_print(const struct cache_facts *facts, char trailer[CACHE_TRAILER_SIZE]);

/* True with *facts where the bytes are exactly what cache_trailer_print makes of them. */
bool cache_trailer_parse(const char trailer[CACHE_TRAILER_SIZE], struct cache_facts *facts);

/* 2 * count lower-case digits and a NUL. */
void cache_hex_print(const uint8_t *bytes, size_t count, char *text);
/* True where text begins with 2 * count lower-case digits. */
bool cache_hex_parse(const char *text, size_t count, uint8_t *bytes);

#endif
