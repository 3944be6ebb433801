/* SPDX-License-Identifier: MIT */
#ifndef FCGI_SPAN_H
#define FCGI_SPAN_H

/*
 * A span is a view of bytes that somebody else owns. It is passed by value, never freed, and is
 * valid only as long as its owner says: spans handed to a callback die with the callback.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

struct span {
    const uint8_t *ptr;
    size_t len;
};

static inline struct span span_of(const void *bytes, size_t len)
{
    return (struct span){ .ptr = bytes, .len = len };
}

static inline struct span span_of_string(const char *string)
{
    return span_of(string, strlen(string));
}

static inline bool span_equal(struct span a, struct span b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static inline bool span_is(struct span a, const char *string)
{
    return span_equal(a, span_of_string(string));
}

/* ASCII case only, as in header names (RFC 9110 section 5.1). */
static inline bool span_is_nocase(struct span a, const char *string)
{
    size_t len = strlen(string);

    return a.len == len && (len == 0 || strncasecmp((const char *)a.ptr, string, len) == 0);
}

/* Removes the first len bytes; len must not exceed the span's length. */
static inline void span_skip(struct span *span, size_t len)
{
    span->ptr += len;
    span->len -= len;
}

/* Takes the first min(len, span->len) bytes off the span and returns them. */
static inline struct span span_take(struct span *span, size_t len)
{
    struct span taken = { .ptr = span->ptr, .len = len < span->len ? len : span->len };

    if (taken.len > 0) {
        span_skip(span, taken.len);
    }
    return taken;
}

/* Takes the byte off the front, where it is there. */
static inline bool span_take_byte(struct span *span, uint8_t byte)
{
    if (span->len == 0 || span->ptr[0] != byte) {
        return false;
    }
    span_skip(span, 1);
    return true;
}

/* Takes the decimal digits at the front; false where there are none, or more than 18. */
static inline bool span_take_number(struct span *span, uint64_t *number)
{
    size_t digits = 0;

    *number = 0;
    while (span->len > 0 && span->ptr[0] >= '0' && span->ptr[0] <= '9') {
        if (++digits > 18) {
            return false;
        }
        *number = *number * 10 + (uint64_t)(span->ptr[0] - '0');
        span_skip(span, 1);
    }
    return digits > 0;
}

/* Without spaces and tabs at both ends. */
static inline struct span span_trim(struct span span)
{
    while (span.len > 0 && (span.ptr[0] == ' ' || span.ptr[0] == '\t')) {
        span_skip(&span, 1);
    }
    while (span.len > 0 && (span.ptr[span.len - 1] == ' ' || span.ptr[span.len - 1] == '\t')) {
        span.len--;
    }
    return span;
}

#endif
