/* SPDX-License-Identifier: MIT */

/* The delays between attempts. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "sidecar/build/backoff.h"

static const struct retry_options defaults = {
    .max_attempts = 3,
    .initial_delay_ms = 1000,
    .max_delay_ms = 10000,
    .multiplier = 2.0,
    .jitter = 0.1,
};

static void test_doubles_up_to_the_maximum(void **state)
{
    (void)state;
    assert_int_equal(backoff_delay_ms(&defaults, 1, 0.5), 1000);
    assert_int_equal(backoff_delay_ms(&defaults, 2, 0.5), 2000);
    assert_int_equal(backoff_delay_ms(&defaults, 3, 0.5), 4000);
    assert_int_equal(backoff_delay_ms(&defaults, 4, 0.5), 8000);
    assert_int_equal(backoff_delay_ms(&defaults, 5, 0.5), 10000);
    assert_int_equal(backoff_delay_ms(&defaults, 100, 0.5), 10000);
    assert_int_equal(backoff_delay_ms(&defaults, UINT32_MAX, 0.5), 10000);
}

static void test_jitter(void **state)
{
    struct retry_options options = defaults;

    (void)state;
    assert_int_equal(backoff_delay_ms(&options, 1, 0.0), 900);
    assert_in_range(backoff_delay_ms(&options, 1, 0.999999), 1099, 1100);
    options.jitter = 1;
    assert_int_equal(backoff_delay_ms(&options, 1, 0.0), 0);
    options.jitter = 0;
    assert_int_equal(backoff_delay_ms(&options, 2, 0.0), 2000);
    assert_int_equal(backoff_delay_ms(&options, 2, 0.9), 2000);
}

static void test_edges(void **state)
{
    struct retry_options options = defaults;

    (void)state;
    options.multiplier = 1;
    assert_int_equal(backoff_delay_ms(&options, UINT32_MAX, 0.5), 1000);
    options.initial_delay_ms = 0;
    options.multiplier = 2;
    assert_int_equal(backoff_delay_ms(&options, 50, 0.5), 0);
    options.max_delay_ms = 0;
    assert_int_equal(backoff_delay_ms(&options, 2, 0.5), 0);
    options.initial_delay_ms = options.max_delay_ms = UINT64_C(365) * 86400000;
    options.multiplier = 100;
    assert_int_equal(backoff_delay_ms(&options, 9, 0.5), UINT64_C(365) * 86400000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_doubles_up_to_the_maximum),
        cmocka_unit_test(test_jitter),
        cmocka_unit_test(test_edges),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
