/* SPDX-License-Identifier: MIT */

/* What goes first, what is too old, and the file of access times. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "sidecar/build/cache_access.h"
#include "sidecar/build/cache_index.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define DAY_MS ((uint64_t)86400 * 1000)

/* The key is made of one letter. */
static struct cache_facts facts_of(char letter, uint64_t size_bytes, uint64_t created_ms)
{
    struct cache_facts facts = { .size_bytes = size_bytes, .created_ms = created_ms };

    memset(facts.key, letter, sizeof(facts.key));
    return facts;
}

static struct cache_item *put(struct cache_index *index, char letter, uint64_t created_ms,
                              uint64_t used_ms, uint64_t uses)
{
    struct cache_facts facts = facts_of(letter, 10, created_ms);
    struct cache_item *item = cache_index_put(index, &facts);

    assert_non_null(item);
    item->used_ms = used_ms;
    item->uses = uses;
    return item;
}

/* The order in which everything goes. */
static void expect_order(enum eviction_policy policy, const char *expected)
{
    struct cache_index index;
    struct cache_item *victim;
    char order[16] = "";

    assert_int_equal(cache_index_init(&index), 0);
    put(&index, 'a', 100, 900, 0);
    put(&index, 'b', 200, 500, 7);
    put(&index, 'c', 300, 700, 2);
    put(&index, 'd', 400, 400, 2);
    while ((victim = cache_index_victim(&index, policy, NULL)) != NULL) {
        order[strlen(order)] = (char)victim->key[0];
        cache_index_remove(&index, victim);
    }
    assert_string_equal(order, expected);
    assert_int_equal(index.count, 0);
    assert_int_equal(index.size_bytes, 0);
    cache_index_deinit(&index);
}

static void test_policies(void **state)
{
    (void)state;
    expect_order(EVICTION_LRU, "dbca");
    expect_order(EVICTION_LFU, "adcb");
    expect_order(EVICTION_FIFO, "abcd");
}

static void test_the_spared_one(void **state)
{
    struct cache_index index;
    struct cache_item *item;

    (void)state;
    assert_int_equal(cache_index_init(&index), 0);
    item = put(&index, 'a', 1, 1, 0);
    assert_null(cache_index_victim(&index, EVICTION_LRU, item));
    assert_ptr_equal(cache_index_victim(&index, EVICTION_LRU, NULL), item);
    cache_index_deinit(&index);
}

static void test_put_again(void **state)
{
    struct cache_index index;
    struct cache_facts facts = facts_of('a', 7, 5000);
    struct cache_item *item;

    (void)state;
    assert_int_equal(cache_index_init(&index), 0);
    item = put(&index, 'a', 100, 200, 3);
    assert_ptr_equal(cache_index_put(&index, &facts), item);
    assert_int_equal(index.count, 1);
    assert_int_equal(index.size_bytes, 7);
    assert_int_equal(item->uses, 3);
    assert_int_equal(item->created_ms, 5000);
    assert_int_equal(item->used_ms, 5000);
    assert_null(cache_index_find(&index, facts_of('b', 0, 0).key));
    cache_index_deinit(&index);
}

static void test_many(void **state)
{
    struct cache_index index;
    struct cache_facts facts = { .size_bytes = 2 };

    (void)state;
    assert_int_equal(cache_index_init(&index), 0);
    for (uint32_t i = 0; i < 20000; i++) {
        memcpy(facts.key, &i, sizeof(i));
        facts.created_ms = 20000 - i;
        assert_non_null(cache_index_put(&index, &facts));
    }
    assert_int_equal(index.count, 20000);
    for (uint32_t i = 0; i < 20000; i++) {
        memcpy(facts.key, &i, sizeof(i));
        assert_int_equal(cache_index_find(&index, facts.key)->created_ms, 20000 - i);
    }
    assert_int_equal(cache_index_victim(&index, EVICTION_FIFO, NULL)->created_ms, 1);
    cache_index_deinit(&index);
}

static void test_expiry(void **state)
{
    static const struct {
        uint64_t days, mutable_ms, age_ms;
        bool is_mutable, expected;
    } cases[] = {
        { 0, 600000, UINT64_MAX / 2, false, false },
        { 0, 600000, 599999, true, false },
        { 0, 600000, 600000, true, true },
        { 0, 0, 0, true, true },
        { 0, 0, 5, false, false },
        { 1, 600000, DAY_MS - 1, false, false },
        { 1, 600000, DAY_MS, false, true },
        { 2, 600000, DAY_MS, false, false },
        { 1, 10 * DAY_MS, DAY_MS, true, true },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct cache_options options = {
            .max_age_days = cases[i].days,
            .max_age_mutable_ms = cases[i].mutable_ms,
        };

        if (cache_is_expired(&options, cases[i].is_mutable, 1000, 1000 + cases[i].age_ms) !=
            cases[i].expected) {
            fail_msg("case %zu", i);
        }
        /* The clock was set back. */
        assert_int_equal(cache_is_expired(&options, cases[i].is_mutable, 1000, 10),
                         cases[i].is_mutable && cases[i].mutable_ms == 0);
    }
}

/* ---- access times ---------------------------------------------------------------------------- */

#define KEY "6161616161616161616161616161616161616161616161616161616161616161"

static void test_access_lines(void **state)
{
    static const char text[] = "velox-sidecar cache access 1\n"
                               "\n" KEY "\n" KEY " 1\n" KEY " 1 2 3\n" KEY " 1 2 \n" KEY
                               "  1 2\n" KEY " -1 2\n" KEY "6 1 2\n"
                               "6161 1 2\n"
                               "x161616161616161616161616161616161616161616161616161616161616161 "
                               "1 2\n" KEY " 10000000000000000000 2\n" KEY " 17 4\n"
                               "\xff\n" KEY " 9999999999999999999 0\n" KEY " 5 6";
    static const struct {
        uint64_t used_ms, uses;
    } expected[] = { { 17, 4 }, { 9999999999999999999u, 0 }, { 5, 6 } };
    struct span rest = span_of(text, sizeof(text) - 1);
    struct cache_access access;

    (void)state;
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        assert_true(cache_access_next(&rest, &access));
        assert_int_equal(access.key[31], 'a');
        assert_int_equal(access.used_ms, expected[i].used_ms);
        assert_int_equal(access.uses, expected[i].uses);
    }
    assert_false(cache_access_next(&rest, &access));
}

/* However the file is cut, what is left of it is read. */
static void test_access_cuts(void **state)
{
    struct buf text;
    struct cache_access access = { .used_ms = 123456, .uses = 78 };

    (void)state;
    buf_init(&text, 4096);
    for (unsigned i = 0; i < 5; i++) {
        memset(access.key, 'a' + (int)i, sizeof(access.key));
        assert_int_equal(cache_access_append(&access, &text), 0);
    }
    for (size_t length = 0; length <= buf_length(&text); length++) {
        struct span rest = span_of(buf_span(&text).ptr, length);
        unsigned count = 0;

        while (cache_access_next(&rest, &access)) {
            assert_int_equal(access.used_ms, 123456);
            count++;
        }
        assert_in_range(count, length * 5 / buf_length(&text), 5);
    }
    buf_deinit(&text);
}

static void test_access_file(void **state)
{
    char path[] = "/tmp/velox-unit-XXXXXX";
    char file[64];
    struct cache_folder folder;
    struct cache_index index, other;
    struct stat status;

    (void)state;
    assert_non_null(mkdtemp(path));
    assert_int_equal(cache_folder_open(&folder, path), 0);
    assert_int_equal(cache_index_init(&index), 0);
    assert_int_equal(cache_index_init(&other), 0);
    assert_int_equal(cache_access_load(&folder, &index), -ENOENT);
    put(&index, 'a', 100, 900, 3);
    put(&index, 'b', 100, 950, 1);
    assert_int_equal(cache_access_save(&folder, &index), 0);
    /* Another process knows one of them better, and one not at all. */
    put(&other, 'a', 100, 400, 5);
    assert_int_equal(cache_access_save(&folder, &other), 0);
    assert_int_equal(cache_access_load(&folder, &index), 0);
    assert_int_equal(cache_index_find(&index, facts_of('a', 0, 0).key)->uses, 5);
    assert_int_equal(cache_index_find(&index, facts_of('a', 0, 0).key)->used_ms, 900);
    assert_int_equal(cache_index_find(&index, facts_of('b', 0, 0).key)->uses, 1);
    snprintf(file, sizeof(file), "%s/access", path);
    assert_int_equal(stat(file, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    /* A link is not followed, but replaced. */
    assert_int_equal(unlink(file), 0);
    assert_int_equal(symlink("/dev/zero", file), 0);
    assert_true(cache_access_load(&folder, &index) < 0);
    assert_int_equal(cache_access_save(&folder, &index), 0);
    assert_int_equal(lstat(file, &status), 0);
    assert_true(S_ISREG(status.st_mode));
    assert_int_equal(unlink(file), 0);
    assert_int_equal(rmdir(path), 0);
    cache_index_deinit(&index);
    cache_index_deinit(&other);
    cache_folder_close(&folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_policies),    cmocka_unit_test(test_the_spared_one),
        cmocka_unit_test(test_put_again),   cmocka_unit_test(test_many),
        cmocka_unit_test(test_expiry),      cmocka_unit_test(test_access_lines),
        cmocka_unit_test(test_access_cuts), cmocka_unit_test(test_access_file),
    };

    return cmocka_run_group_tests_name("cache_index", tests, NULL, NULL);
}
