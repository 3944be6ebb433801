/* SPDX-License-Identifier: MIT */
/* Counters, gauges and histograms of one block. */

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "sidecar/base/stats.h"

static void test_counters_and_gauges(void **state)
{
    struct stats stats;

    (void)state;
    memset(&stats, 0, sizeof(stats));
    stats_count(&stats, STAT_FRONTS_ACCEPTED);
    stats_count(&stats, STAT_FRONTS_ACTIVE);
    stats_count(&stats, STAT_FRONTS_ACTIVE);
    stats_drop(&stats, STAT_FRONTS_ACTIVE);
    stats_add(&stats, STAT_ARTIFACT_BYTES, 5000000000u);
    stats_add(&stats, STAT_ARTIFACT_BYTES, 1);
    assert_int_equal(atomic_load(&stats.values[STAT_FRONTS_ACCEPTED]), 1);
    assert_int_equal(atomic_load(&stats.values[STAT_FRONTS_ACTIVE]), 1);
    assert_int_equal(atomic_load(&stats.values[STAT_ARTIFACT_BYTES]), 5000000001u);
    stats_count_failure(&stats, FAILURE_BUSY);
    stats_count_failure(&stats, FAILURE_BUSY);
    stats_count_failure(&stats, FAILURE_COUNT);
    assert_int_equal(atomic_load(&stats.errors[FAILURE_BUSY]), 2);
    assert_int_equal(atomic_load(&stats.errors[FAILURE_TIMEOUT]), 0);
}

static void test_bounds_grow_and_fit(void **state)
{
    (void)state;
    for (int histogram = 0; histogram < STAT_HISTOGRAM_COUNT; histogram++) {
        const double *bounds = NULL;
        unsigned count = stats_bounds((enum stat_histogram)histogram, &bounds);

        assert_in_range(count, 2, STAT_BUCKETS_MAX);
        for (unsigned i = 1; i < count; i++) {
            assert_true(bounds[i] > bounds[i - 1]);
        }
    }
}

static void assert_bounds(enum stat_histogram histogram, double first, double last)
{
    const double *bounds = NULL;
    unsigned count = stats_bounds(histogram, &bounds);

    assert_true(bounds[0] == first);
    assert_true(bounds[count - 1] == last);
}

static void test_bounds_are_the_documented_ones(void **state)
{
    (void)state;
    assert_bounds(STAT_BUILD_DURATION, 5, 600);
    assert_bounds(STAT_WORKER_RELEASE, 0.0001, 1);
}

static void test_durations_find_their_bucket(void **state)
{
    static const struct {
        uint64_t duration_ns;
        unsigned bucket;
    } cases[] = {
        { 0, 0 },
        { 5000000000u, 0 }, /* a bound belongs to its bucket, as le says */
        { 5000000001u, 1 },
        { 58000000000u, 5 },
        { 600000000000u, 11 },
        { 600000000001u, STAT_BUCKETS_MAX },
        { UINT64_MAX / 4, STAT_BUCKETS_MAX },
    };
    struct stats stats;
    uint64_t sum = 0;

    (void)state;
    memset(&stats, 0, sizeof(stats));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct stats_histogram *counts = &stats.histograms[STAT_BUILD_DURATION];
        uint64_t before = atomic_load(&counts->buckets[cases[i].bucket]);

        stats_observe_ns(&stats, STAT_BUILD_DURATION, cases[i].duration_ns);
        sum += cases[i].duration_ns;
        assert_int_equal(atomic_load(&counts->buckets[cases[i].bucket]), before + 1);
        assert_int_equal(atomic_load(&counts->sum_ns), sum);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counters_and_gauges),
        cmocka_unit_test(test_bounds_grow_and_fit),
        cmocka_unit_test(test_bounds_are_the_documented_ones),
        cmocka_unit_test(test_durations_find_their_bucket),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
