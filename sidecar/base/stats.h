/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BASE_STATS_H
#define SIDECAR_BASE_STATS_H

/*
 * What is counted. Each thread has one block of its own and is its only writer; readers (status
 * page) add the blocks up. Counters only grow; gauges go up and down.
 */

#include <stdatomic.h>
#include <stdint.h>

#include "sidecar/base/failure.h"

enum statistic {
    STAT_FRONTS_ACCEPTED,
    STAT_FRONTS_ACTIVE,  /* gauge */
    STAT_WORKERS_ACTIVE, /* gauge */
    STAT_WORKERS_QUEUED, /* gauge */
    STAT_REQUESTS_RELAYED,
    STAT_REQUESTS_BUILT, /* every interception */
    STAT_REQUESTS_OWN,   /* answered by the sidecar itself: status, ping */
    STAT_BUILDS_ACTIVE,  /* gauge */
    STAT_BUILDS_QUEUED,  /* gauge */
    STAT_BUILDS_SUCCESS,
    STAT_BUILDS_ERROR,
    STAT_BUILDS_TIMEOUT,
    STAT_BUILDS_CANCELLED,
    STAT_BUILDS_COALESCED,
    STAT_RETRIES_CONNECT,
    STAT_RETRIES_CUT,
    STAT_RETRIES_TIMEOUT,
    STAT_RETRIES_HTTP_STATUS,
    STAT_RETRIES_CODE,
    STAT_CLIENTS_LEFT_QUEUE,
    STAT_CLIENTS_LEFT_BUILD,
    STAT_CLIENTS_LEFT_STREAM,
    STAT_WORKER_ERRORS_CONNECT,
    STAT_WORKER_ERRORS_BACKLOG,
    STAT_WORKER_ERRORS_DIED,
    STAT_WORKER_ERRORS_RESPONSE_TIMEOUT,
    STAT_ARTIFACT_BYTES,
    STAT_CACHE_HITS,
    STAT_CACHE_MISSES,
    STAT_CACHE_EVICTIONS_SIZE,
    STAT_CACHE_EVICTIONS_ENTRIES,
    STAT_CACHE_EVICTIONS_AGE,
    STAT_CACHE_EVICTIONS_CORRUPT,
    STAT_CACHE_ENTRIES,    /* gauge */
    STAT_CACHE_SIZE_BYTES, /* gauge */
    STAT_DOWNLOADS_ACTIVE, /* gauge: files that are going out */
    STAT_COUNT,
};

/* Histograms by fixed upper bounds in seconds (the bounds are in stats.c). */
enum stat_histogram {
    STAT_BUILD_DURATION, /* 5 … 600 s */
    STAT_STREAM_TTFB,    /* from the open artifact to its first byte at the front */
    STAT_WORKER_RELEASE, /* from END_REQUEST to our close; 0.0001 … 1 s */
    STAT_HISTOGRAM_COUNT,
};

#define STAT_BUCKETS_MAX 12

struct stats_histogram {
    atomic_uint_fast64_t buckets[STAT_BUCKETS_MAX + 1]; /* the last one: above every bound */
    atomic_uint_fast64_t sum_ns;
};

struct stats {
    atomic_uint_fast64_t values[STAT_COUNT];
    atomic_uint_fast64_t errors[FAILURE_COUNT];
    struct stats_histogram histograms[STAT_HISTOGRAM_COUNT];
};

/* Only the block's own thread writes, so a plain load and store are enough and no bus is locked. */
static inline void stats_add(struct stats *stats, enum statistic stat, uint64_t amount)
{
    atomic_store_explicit(&stats->values[stat],
                          atomic_load_explicit(&stats->values[stat], memory_order_relaxed) + amount,
                          memory_order_relaxed);
}

static inline void stats_count(struct stats *stats, enum statistic stat)
{
    stats_add(stats, stat, 1);
}

/* For gauges. */
static inline void stats_drop(struct stats *stats, enum statistic stat)
{
    stats_add(stats, stat, (uint64_t)-1);
}

void stats_count_failure(struct stats *stats, enum failure failure);
void stats_observe_ns(struct stats *stats, enum stat_histogram histogram, uint64_t duration_ns);

/* The upper bounds of a histogram in seconds; returns how many. */
unsigned stats_bounds(enum stat_histogram histogram, const double **bounds);

#endif
