/* SPDX-License-Identifier: MIT */

/* What stands behind a cached file: printed and read again, and nothing else is taken for it. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "sidecar/build/cache_trailer.h"

#include <stdio.h>
#include <string.h>

static struct cache_facts some_facts(void)
{
    struct cache_facts facts = {
        .size_bytes = 300007,
        .modified = { .tv_sec = 1700000000, .tv_nsec = 123456789 },
        .created_ms = 1700000060123,
        .is_mutable = true,
    };

    for (unsigned i = 0; i < CACHE_KEY_SIZE; i++) {
        facts.key[i] = (uint8_t)(i * 7);
        facts.sha256[i] = (uint8_t)(255 - i);
    }
    return facts;
}

static void expect_same(const struct cache_facts *a, const struct cache_facts *b)
{
    assert_memory_equal(a->key, b->key, CACHE_KEY_SIZE);
    assert_memory_equal(a->sha256, b->sha256, CACHE_SHA256_SIZE);
    assert_int_equal(a->size_bytes, b->size_bytes);
    assert_int_equal(a->modified.tv_sec, b->modified.tv_sec);
    assert_int_equal(a->modified.tv_nsec, b->modified.tv_nsec);
    assert_int_equal(a->created_ms, b->created_ms);
    assert_int_equal(a->is_mutable, b->is_mutable);
}

/* It is on the disks of those who upgrade: another form needs another number in its first line. */
static void test_text(void **state)
{
    static const char expected[] =
        "\nvelox-sidecar cache entry 1\n"
        "key 00070e151c232a31383f464d545b626970777e858c939aa1a8afb6bdc4cbd2d9\n"
        "sha256 fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0efeeedecebeae9e8e7e6e5e4e3e2e1e0\n"
        "size 00000000000000300007\n"
        "mtime 00000000001700000000.123456789\n"
        "created 00000001700000060123\n"
        "mutable 1\n"
        "check ";
    struct cache_facts facts = some_facts();
    char trailer[CACHE_TRAILER_SIZE];

    (void)state;
    cache_trailer_print(&facts, trailer);
    assert_int_equal(sizeof(expected) - 1 + 9, CACHE_TRAILER_SIZE);
    assert_memory_equal(trailer, expected, sizeof(expected) - 1);
    assert_int_equal(trailer[CACHE_TRAILER_SIZE - 1], '\n');
}

static void test_there_and_back(void **state)
{
    static const struct {
        uint64_t size, created_ms;
        struct timespec modified;
        bool is_mutable;
    } cases[] = {
        { 0, 0, { 0, 0 }, false },
        { 1, 1, { 1, 1 }, true },
        { UINT64_MAX, UINT64_MAX, { INT64_MAX, 999999999 }, false },
        { 1, 2, { -1, 999999999 }, false }, /* before 1970 */
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct cache_facts facts = some_facts();
        struct cache_facts again;
        char trailer[CACHE_TRAILER_SIZE];

        facts.size_bytes = cases[i].size;
        facts.created_ms = cases[i].created_ms;
        facts.modified = cases[i].modified;
        facts.is_mutable = cases[i].is_mutable;
        cache_trailer_print(&facts, trailer);
        assert_true(cache_trailer_parse(trailer, &again));
        expect_same(&facts, &again);
    }
}

/* Any bit of it. */
static void test_any_change(void **state)
{
    struct cache_facts facts = some_facts();
    struct cache_facts untouched = { .size_bytes = 5 };
    char trailer[CACHE_TRAILER_SIZE];

    (void)state;
    cache_trailer_print(&facts, trailer);
    for (size_t i = 0; i < 8 * (size_t)CACHE_TRAILER_SIZE; i++) {
        trailer[i / 8] = (char)(trailer[i / 8] ^ 1 << i % 8);
        if (cache_trailer_parse(trailer, &untouched)) {
            fail_msg("bit %zu", i);
        }
        trailer[i / 8] = (char)(trailer[i / 8] ^ 1 << i % 8);
    }
    assert_int_equal(untouched.size_bytes, 5);
    assert_true(cache_trailer_parse(trailer, &untouched));
}

static void test_something_else(void **state)
{
    struct cache_facts facts;
    char trailer[CACHE_TRAILER_SIZE];

    (void)state;
    for (int byte = 0; byte < 256; byte++) {
        memset(trailer, byte, sizeof(trailer));
        assert_false(cache_trailer_parse(trailer, &facts));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_any_change),
        cmocka_unit_test(test_something_else),
    };

    return cmocka_run_group_tests_name("cache_trailer", tests, NULL, NULL);
}
