/* SPDX-License-Identifier: MIT */
#ifndef TESTS_UNIT_CUTS_H
#define TESTS_UNIT_CUTS_H

/*
 * Ways to cut an input into pieces, and a trace of what a parser made of them. A parser that is fed
 * in pieces must leave the same trace for every way. Shared by unit tests and fuzz targets, so a
 * broken promise aborts.
 */

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "fcgi/span.h"

#define CUTS_CHECK(condition)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__, #condition);          \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct cuts {
    size_t every;    /* bytes a piece; 0: by chance */
    uint64_t random; /* state of the chance, never 0 */
};

static inline struct cuts cuts_whole(void)
{
    return (struct cuts){ .every = SIZE_MAX };
}

static inline struct cuts cuts_bytes(void)
{
    return (struct cuts){ .every = 1 };
}

static inline struct cuts cuts_random(uint64_t seed)
{
    return (struct cuts){ .random = (seed + 1) * 0x9e3779b97f4a7c15u | 1 };
}

/* xorshift64* by Marsaglia and Vigna: the same numbers on every machine. */
static inline uint64_t cuts_number(struct cuts *cuts)
{
    cuts->random ^= cuts->random >> 12;
    cuts->random ^= cuts->random << 25;
    cuts->random ^= cuts->random >> 27;
    return cuts->random * 0x2545f4914f6cdd1du >> 32;
}

/* Takes the next piece off rest, which is not empty, into memory of exactly its size: a sanitizer
 * then sees a byte too far, and a piece that is still used after cuts_give_back. */
static inline struct span cuts_take(struct cuts *cuts, struct span *rest)
{
    size_t size = cuts->every;

    if (size == 0) {
        size_t most = cuts_number(cuts) % 4 == 0 ? rest->len : 12;

        size = 1 + cuts_number(cuts) % most;
    }
    struct span piece = span_take(rest, size);
    uint8_t *copy = malloc(piece.len);

    CUTS_CHECK(copy != NULL);
    memcpy(copy, piece.ptr, piece.len);
    return span_of(copy, piece.len);
}

static inline void cuts_give_back(const uint8_t *piece)
{
    free((void *)(uintptr_t)piece);
}

struct trace {
    uint8_t *bytes;
    size_t len;
    size_t size;
};

static inline void trace_add(struct trace *trace, struct span span)
{
    if (trace->size - trace->len < span.len) {
        trace->size = (trace->size + span.len) * 2;
        trace->bytes = realloc(trace->bytes, trace->size);
        CUTS_CHECK(trace->bytes != NULL);
    }
    if (span.len > 0) {
        memcpy(trace->bytes + trace->len, span.ptr, span.len);
        trace->len += span.len;
    }
}

__attribute__((format(printf, 2, 3))) static inline void trace_line(struct trace *trace,
                                                                    const char *format, ...)
{
    char line[160];
    va_list arguments;

    va_start(arguments, format);
    int length = vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    CUTS_CHECK(length >= 0 && (size_t)length < sizeof(line));
    trace_add(trace, span_of(line, (size_t)length));
}

static inline struct span trace_span(const struct trace *trace)
{
    return span_of(trace->bytes, trace->len);
}

static inline void trace_deinit(struct trace *trace)
{
    free(trace->bytes);
    *trace = (struct trace){ 0 };
}

/* What a parser says about input, cut in this way. */
typedef void cuts_tracer(struct trace *trace, struct span input, struct cuts cuts);

/* Aborts unless both ways to cut leave the same trace. */
static inline void cuts_compare(cuts_tracer *tracer, struct span input, struct cuts a,
                                struct cuts b)
{
    struct trace trace_a = { 0 };
    struct trace trace_b = { 0 };

    tracer(&trace_a, input, a);
    tracer(&trace_b, input, b);
    if (!span_equal(trace_span(&trace_a), trace_span(&trace_b))) {
        (void)fprintf(stderr, "--- first way:\n%.*s\n--- second way:\n%.*s\n", (int)trace_a.len,
                      (const char *)trace_a.bytes, (int)trace_b.len, (const char *)trace_b.bytes);
        abort();
    }
    trace_deinit(&trace_a);
    trace_deinit(&trace_b);
}

/* The whole input against single bytes and against this many random cuts. */
#define CUTS_SEED 20260101u

static inline void cuts_compare_many(cuts_tracer *tracer, struct span input, unsigned count)
{
    cuts_compare(tracer, input, cuts_whole(), cuts_bytes());
    for (unsigned i = 0; i < count; i++) {
        cuts_compare(tracer, input, cuts_whole(), cuts_random(CUTS_SEED + i));
    }
}

/* For a fuzz target: takes the first four bytes off the input as the seed of the cuts. */
#define CUTS_FUZZ_PREFIX 4

static inline struct cuts cuts_of_fuzz(struct span *input)
{
    uint32_t seed = 0;
    struct span prefix = span_take(input, CUTS_FUZZ_PREFIX);

    for (size_t i = 0; i < prefix.len; i++) {
        seed = seed << 8 | prefix.ptr[i];
    }
    return cuts_random(seed);
}

#endif
