/* SPDX-License-Identifier: MIT */
/*
 * Counting failures and durations. Only the thread that owns a block may call this for it.
 */

#include "sidecar/base/stats.h"

struct stats_bucket_bounds {
    unsigned count;
    double seconds[STAT_BUCKETS_MAX];
};

static const struct stats_bucket_bounds stats_bound_table[STAT_HISTOGRAM_COUNT] = {
    [STAT_BUILD_DURATION] = { 12, { 5, 10, 20, 30, 45, 60, 90, 120, 180, 300, 450, 600 } },
    [STAT_STREAM_TTFB] = { 12,
                           { 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1,
                             5 } },
    [STAT_WORKER_RELEASE] = { 12,
                              { 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                                0.1, 0.5, 1 } },
};

static void stats_increase(atomic_uint_fast64_t *value, uint64_t amount)
{
    atomic_store_explicit(value, atomic_load_explicit(value, memory_order_relaxed) + amount,
                          memory_order_relaxed);
}

void stats_count_failure(struct stats *stats, enum failure failure)
{
    if ((unsigned)failure < FAILURE_COUNT) {
        stats_increase(&stats->errors[failure], 1);
    }
}

void stats_observe_ns(struct stats *stats, enum stat_histogram histogram, uint64_t duration_ns)
{
    const struct stats_bucket_bounds *bounds = &stats_bound_table[histogram];
    struct stats_histogram *counts = &stats->histograms[histogram];
    double seconds = (double)duration_ns / 1e9;
    unsigned bucket = 0;

    while (bucket < bounds->count && seconds > bounds->seconds[bucket]) {
        bucket++;
    }
    /* What is above every bound goes into the last bucket, wherever the bounds end. */
    stats_increase(&counts->buckets[bucket < bounds->count ? bucket : STAT_BUCKETS_MAX], 1);
    stats_increase(&counts->sum_ns, duration_ns);
}

unsigned stats_bounds(enum stat_histogram histogram, const double **bounds)
{
    *bounds = stats_bound_table[histogram].seconds;
    return stats_bound_table[histogram].count;
}
