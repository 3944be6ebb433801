/* SPDX-License-Identifier: MIT */
/*
 * What the cache reads from its folder: the first bytes as a trailer, all of them as the file of
 * access times. A trailer is accepted only if it is what would be printed; a line, only as what it
 * says.
 */
#include "sidecar/build/cache_access.h"
#include "sidecar/build/cache_trailer.h"
#include "tests/unit/cuts.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void check_trailer(const uint8_t *bytes)
{
    struct cache_facts facts;
    char again[CACHE_TRAILER_SIZE];

    if (cache_trailer_parse((const char *)bytes, &facts)) {
        cache_trailer_print(&facts, again);
        CUTS_CHECK(memcmp(again, bytes, CACHE_TRAILER_SIZE) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct span rest = span_of(bytes, size);
    struct cache_access access;
    struct cache_access again;

    if (size >= CACHE_TRAILER_SIZE) {
        check_trailer(bytes);
    }
    while (cache_access_next(&rest, &access)) {
        struct buf line;
        struct span text;

        buf_init(&line, 4096);
        if (cache_access_append(&access, &line) == 0) {
            text = buf_span(&line);
            CUTS_CHECK(cache_access_next(&text, &again) && text.len == 0);
            CUTS_CHECK(again.used_ms == access.used_ms && again.uses == access.uses);
        }
        buf_deinit(&line);
    }
    return 0;
}
