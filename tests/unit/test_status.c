/* SPDX-License-Identifier: MIT */
/* What the page's figures are made of. */

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "sidecar/base/clock.h"
#include "sidecar/relay/status.h"

static void test_blocks_are_added_up(void **state)
{
    static struct stats first;
    static struct stats second;
    const struct stats *blocks[] = { &first, &second };
    struct status_board board = { .version = "1.2.3", .blocks = blocks, .block_count = 2 };
    struct status_numbers numbers;

    (void)state;
    board.started_ns = clock_monotonic_ns() - 5500000000u;
    board.started_at = 1000;
    stats_count(&first, STAT_FRONTS_ACTIVE);
    stats_add(&second, STAT_FRONTS_ACTIVE, 4);
    stats_count_failure(&first, FAILURE_BUSY);
    stats_count_failure(&second, FAILURE_BUSY);
    stats_observe_ns(&first, STAT_BUILD_DURATION, 6000000000u);
    stats_observe_ns(&second, STAT_BUILD_DURATION, 7000000000u);
    status_collect(&board, &numbers);
    assert_string_equal(numbers.version, "1.2.3");
    assert_int_equal(numbers.started_at, 1000);
    assert_in_range(numbers.uptime_s, 5, 1000);
    assert_int_equal(numbers.values[STAT_FRONTS_ACTIVE], 5);
    assert_int_equal(numbers.values[STAT_BUILDS_ACTIVE], 0);
    assert_int_equal(numbers.errors[FAILURE_BUSY], 2);
    assert_int_equal(numbers.histograms[STAT_BUILD_DURATION].buckets[1], 2);
    assert_int_equal(numbers.histograms[STAT_BUILD_DURATION].sum_ns, 13000000000u);
}

static void test_most_workers_at_once(void **state)
{
    static struct stats stats;
    const struct stats *blocks[] = { &stats };
    struct limit limit;
    struct status_board board = {
        .version = "", .blocks = blocks, .block_count = 1, .workers = &limit
    };
    struct status_numbers numbers;

    (void)state;
    limit_init(&limit, 10);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(limit_take(&limit));
    }
    limit_release(&limit);
    assert_true(limit_take(&limit));
    limit_release(&limit);
    status_collect(&board, &numbers);
    assert_int_equal(numbers.workers_max, 3);
    /* Never less than there are now. */
    stats_add(&stats, STAT_WORKERS_ACTIVE, 7);
    status_collect(&board, &numbers);
    assert_int_equal(numbers.workers_max, 7);
    limit_deinit(&limit);
}

static void test_fields(void **state)
{
    struct status_numbers numbers = { .started_at = 11, .uptime_s = 12, .workers_max = 13 };

    (void)state;
    numbers.values[STAT_CACHE_SIZE_BYTES] = 14;
    numbers.values[STAT_FRONTS_ACCEPTED] = 15;
    for (unsigned i = 0; i < STATUS_FIELD_COUNT; i++) {
        const struct status_field *field = &status_fields[i];
        uint64_t expected = field->kind == STATUS_TIME                  ? 11
                            : field->kind == STATUS_SECONDS             ? 12
                            : field->kind == STATUS_WORKERS_MAX         ? 13
                            : strcmp(field->name, "cache size") == 0    ? 14
                            : strcmp(field->name, "accepted conn") == 0 ? 15
                                                                        : 0;

        assert_int_equal(status_value(field, &numbers), expected);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks_are_added_up),
        cmocka_unit_test(test_most_workers_at_once),
        cmocka_unit_test(test_fields),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
