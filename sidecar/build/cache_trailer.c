/* SPDX-License-Identifier: MIT */
/*
 * The trailer of a cached file. It must never accept bytes that it would not have written: what is
 * read is printed again and compared.
 */
#include "sidecar/build/cache_trailer.h"

#include <stdio.h>
#include <string.h>
#include <zlib.h>

#define FORMAT                                                                                     \
    "\nvelox-sidecar cache entry 1\n"                                                              \
    "key %s\n"                                                                                     \
    "sha256 %s\n"                                                                                  \
    "size %020llu\n"                                                                               \
    "mtime %020llu.%09lu\n"                                                                        \
    "created %020llu\n"                                                                            \
    "mutable %d\n"
#define KEY_AT 33
#define SHA256_AT 105
#define SIZE_AT 175
#define MTIME_AT 202
#define NSEC_AT 223
#define CREATED_AT 241
#define MUTABLE_AT 270
#define CHECK_AT 272 /* where the checked part ends */
#define HEX_SIZE 65

void cache_hex_print(const uint8_t *bytes, size_t count, char *text)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < count; i++) {
        text[2 * i] = digits[bytes[i] >> 4];
        text[2 * i + 1] = digits[bytes[i] & 15];
    }
    text[2 * count] = '\0';
}

static int hex_value(char digit)
{
    if (digit >= '0' && digit <= '9') {
        return digit - '0';
    }
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

bool cache_hex_parse(const char *text, size_t count, uint8_t *bytes)
{
    for (size_t i = 0; i < count; i++) {
        int high = hex_value(text[2 * i]);
        int low = high < 0 ? -1 : hex_value(text[2 * i + 1]);

        if (low < 0) {
            return false;
        }
        bytes[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* What is no digit, or too large, makes a number that is printed otherwise. */
static uint64_t number_at(const char *text, size_t digits)
{
    uint64_t number = 0;

    for (size_t i = 0; i < digits; i++) {
        number = number * 10 + (uint64_t)(uint8_t)(text[i] - '0');
    }
    return number;
}

void cache_trailer_print(const struct cache_facts *facts, char trailer[CACHE_TRAILER_SIZE])
{
    char text[CACHE_TRAILER_SIZE + 1];
    char key[HEX_SIZE];
    char sha256[HEX_SIZE];

    cache_hex_print(facts->key, CACHE_KEY_SIZE, key);
    cache_hex_print(facts->sha256, CACHE_SHA256_SIZE, sha256);
    (void)snprintf(text, sizeof(text), FORMAT, key, sha256, (unsigned long long)facts->size_bytes,
                   (unsigned long long)facts->modified.tv_sec,
                   (unsigned long)facts->modified.tv_nsec % 1000000000u,
                   (unsigned long long)facts->created_ms, facts->is_mutable);
    (void)snprintf(text + CHECK_AT, sizeof(text) - CHECK_AT, "check %08lx\n",
                   crc32(0, (const Bytef *)text, CHECK_AT));
    memcpy(trailer, text, CACHE_TRAILER_SIZE);
}

bool cache_trailer_parse(const char trailer[CACHE_TRAILER_SIZE], struct cache_facts *facts)
{
    struct cache_facts found;
    char again[CACHE_TRAILER_SIZE];

    if (!cache_hex_parse(trailer + KEY_AT, CACHE_KEY_SIZE, found.key) ||
        !cache_hex_parse(trailer + SHA256_AT, CACHE_SHA256_SIZE, found.sha256)) {
        return false;
    }
    found.size_bytes = number_at(trailer + SIZE_AT, 20);
    found.modified.tv_sec = (time_t)number_at(trailer + MTIME_AT, 20);
    found.modified.tv_nsec = (long)(number_at(trailer + NSEC_AT, 9) % 1000000000u);
    found.created_ms = number_at(trailer + CREATED_AT, 20);
    found.is_mutable = trailer[MUTABLE_AT] == '1';
    cache_trailer_print(&found, again);
    if (memcmp(again, trailer, CACHE_TRAILER_SIZE) != 0) {
        return false;
    }
    *facts = found;
    return true;
}
