/* SPDX-License-Identifier: MIT */

/* How long failures are remembered, and how many. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "sidecar/build/failed_builds.h"

#include <stdio.h>

#define TTL_MS 1000

struct key {
    uint8_t bytes[BUILD_REQUEST_KEY_SIZE];
};

/* Keys that differ in their last bytes only. */
static struct key key_of(unsigned number)
{
    struct key key = { .bytes = { 7 } };

    memcpy(key.bytes + BUILD_REQUEST_KEY_SIZE - sizeof(number), &number, sizeof(number));
    return key;
}

static void add(struct failed_builds *failed, unsigned number, const char *message, uint64_t now_ms)
{
    failed_builds_add(failed, key_of(number).bytes, span_of_string(message), now_ms);
}

/* The message is expected, or NULL: it is not remembered. */
static void expect(struct failed_builds *failed, unsigned number, uint64_t now_ms,
                   const char *expected)
{
    struct span message = span_of("untouched", 9);
    bool found = failed_builds_find(failed, key_of(number).bytes, now_ms, &message);

    assert_int_equal(found, expected != NULL);
    assert_true(span_is(message, expected == NULL ? "untouched" : expected));
}

static void test_for_a_while(void **state)
{
    struct failed_builds failed;

    (void)state;
    failed_builds_init(&failed, TTL_MS);
    expect(&failed, 1, 0, NULL);
    add(&failed, 1, "why", 5000);
    expect(&failed, 1, 5000, "why");
    expect(&failed, 1, 5000 + TTL_MS - 1, "why");
    expect(&failed, 2, 5000, NULL);
    expect(&failed, 1, 5000 + TTL_MS, NULL);
    assert_int_equal(failed.count, 0); /* its memory is free, too */
    failed_builds_deinit(&failed);
}

static void test_off(void **state)
{
    struct failed_builds failed;

    (void)state;
    failed_builds_init(&failed, 0);
    add(&failed, 1, "why", 5000);
    expect(&failed, 1, 5000, NULL);
    assert_int_equal(failed.count, 0);
    failed_builds_deinit(&failed);
}

/* A forced build that fails again replaces what was known, and its time begins anew. */
static void test_again(void **state)
{
    struct failed_builds failed;

    (void)state;
    failed_builds_init(&failed, TTL_MS);
    add(&failed, 1, "first", 0);
    add(&failed, 2, "other", 100);
    add(&failed, 1, "a longer second", 500);
    assert_int_equal(failed.count, 2);
    expect(&failed, 1, 500, "a longer second");
    expect(&failed, 2, 100 + TTL_MS, NULL);
    expect(&failed, 1, 500 + TTL_MS - 1, "a longer second");
    expect(&failed, 1, 500 + TTL_MS, NULL);
    failed_builds_deinit(&failed);
}

static void test_success_is_the_end_of_it(void **state)
{
    struct failed_builds failed;

    (void)state;
    failed_builds_init(&failed, TTL_MS);
    add(&failed, 1, "why", 0);
    add(&failed, 2, "other", 0);
    failed_builds_forget(&failed, key_of(1).bytes);
    failed_builds_forget(&failed, key_of(3).bytes);
    expect(&failed, 1, 1, NULL);
    expect(&failed, 2, 1, "other");
    failed_builds_deinit(&failed);
}

static void test_empty_message(void **state)
{
    struct failed_builds failed;

    (void)state;
    failed_builds_init(&failed, TTL_MS);
    failed_builds_add(&failed, key_of(1).bytes, span_of(NULL, 0), 0);
    expect(&failed, 1, 0, "");
    failed_builds_deinit(&failed);
}

static void test_bounded(void **state)
{
    struct failed_builds failed;

    (void)state;
    failed_builds_init(&failed, TTL_MS);
    for (unsigned i = 0; i < FAILED_BUILDS_MAX; i++) {
        add(&failed, i, "why", 0);
    }
    expect(&failed, 0, 0, "why");
    assert_int_equal(failed.count, FAILED_BUILDS_MAX);
    add(&failed, FAILED_BUILDS_MAX, "newest", 1);
    assert_int_equal(failed.count, FAILED_BUILDS_MAX);
    expect(&failed, 0, 1, NULL); /* the oldest went */
    expect(&failed, 1, 1, "why");
    expect(&failed, FAILED_BUILDS_MAX, 1, "newest");
    failed_builds_deinit(&failed);
    assert_int_equal(failed.count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_for_a_while), cmocka_unit_test(test_off),
        cmocka_unit_test(test_again),       cmocka_unit_test(test_empty_message),
        cmocka_unit_test(test_bounded),     cmocka_unit_test(test_success_is_the_end_of_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
