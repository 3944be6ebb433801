/* SPDX-License-Identifier: MIT */

/* Which build requests are the same build. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "sidecar/build/build_key.h"
#include "sidecar/build/json_scan.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static struct json_value scanned(const char *text)
{
    struct json_value value;
    struct json_error error;

    if (json_scan(span_of_string(text), 0, &value, &error) < 0) {
        fail_msg("%s: %s", text, json_fault_text(error.fault));
    }
    return value;
}

static void test_canonical(void **state)
{
    static const char *const cases[][2] = {
        { "{}", "{}" },
        { "{ \"b\" : 1 , \"a\" : [ 2 , 1 ] }", "{\"a\":[2,1],\"b\":1}" },
        { "{\"request_id\":\"x\",\"a\":1,\"force_rebuild\":true}", "{\"a\":1}" },
        { "{\"request\\u005fid\":\"x\"}", "{}" },
        { "{\"a\":{\"request_id\":1,\"force_rebuild\":2}}",
          "{\"a\":{\"force_rebuild\":2,\"request_id\":1}}" },
        { "{\"plugins\":[{\"tag\":\"b\",\"module_name\":\"m\"},"
          "{\"module_name\":\"m\",\"tag\":\"a\"}]}",
          "{\"plugins\":[{\"module_name\":\"m\",\"tag\":\"a\"},"
          "{\"module_name\":\"m\",\"tag\":\"b\"}]}" },
        { "{\"replaces\":[2,10,1,\"a\"],\"excludes\":[[2,1],[1]],\"other\":[2,1]}",
          "{\"excludes\":[[1],[2,1]],\"other\":[2,1],\"replaces\":[\"a\",1,10,2]}" },
        { "{\"a\":{\"plugins\":[2,1]}}", "{\"a\":{\"plugins\":[2,1]}}" },
        { "{\"plugins\":null,\"x\":1.0,\"y\":\"\\u0041 \\/\"}",
          "{\"plugins\":null,\"x\":1.0,\"y\":\"\\u0041 \\/\"}" },
        { "{\"plugins\":[]}", "{\"plugins\":[]}" },
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct buf out;

        buf_init(&out, strlen(cases[i][0]));
        assert_int_equal(build_key_canonical(scanned(cases[i][0]), &out), 0);
        if (!span_is(buf_span(&out), cases[i][1])) {
            fail_msg("%s: %.*s", cases[i][0], (int)buf_length(&out),
                     (const char *)buf_span(&out).ptr);
        }
        buf_deinit(&out);
    }
}

static bool same(const char *a, const char *b)
{
    uint8_t key_a[BUILD_KEY_SIZE];
    uint8_t key_b[BUILD_KEY_SIZE];

    assert_int_equal(build_key_compute(scanned(a), key_a), 0);
    assert_int_equal(build_key_compute(scanned(b), key_b), 0);
    return memcmp(key_a, key_b, sizeof(key_a)) == 0;
}

static void test_same(void **state)
{
    (void)state;
    assert_true(same("{\"a\":1,\"b\":[2]}", "{ \"b\":[ 2 ], \"a\":1 }"));
    assert_true(same("{\"a\":1,\"request_id\":\"x\"}", "{\"force_rebuild\":true,\"a\":1}"));
    assert_true(same("{\"plugins\":[{\"a\":1},{\"b\":2}]}", "{\"plugins\":[{\"b\":2},{\"a\":1}]}"));
}

static void test_different(void **state)
{
    (void)state;
    assert_false(same("{\"a\":1}", "{\"a\":1.0}"));
    assert_false(same("{\"race\":null}", "{}"));
    assert_false(same("{\"a\":\"b\"}", "{\"a\":\"\\u0062\"}"));
    assert_false(same("{\"a\":[1,2]}", "{\"a\":[2,1]}"));
    assert_false(same("{\"plugins\":[1]}", "{\"plugins\":[1,1]}"));
}

/* SHA-256 of "{}", so that keys stay the same from release to release. */
static void test_known_key(void **state)
{
    static const uint8_t wanted[BUILD_KEY_SIZE] = {
        0x44, 0x13, 0x6f, 0xa3, 0x55, 0xb3, 0x67, 0x8a, 0x11, 0x46, 0xad,
        0x16, 0xf7, 0xe8, 0x64, 0x9e, 0x94, 0xfb, 0x4f, 0xc2, 0x1f, 0xe7,
        0x7e, 0x83, 0x10, 0xc0, 0x60, 0xf6, 0x1c, 0xaa, 0xff, 0x8a,
    };
    uint8_t key[BUILD_KEY_SIZE];

    (void)state;
    assert_int_equal(build_key_compute(scanned("{\"request_id\":\"a\"}"), key), 0);
    assert_memory_equal(key, wanted, sizeof(key));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_canonical),
        cmocka_unit_test(test_same),
        cmocka_unit_test(test_different),
        cmocka_unit_test(test_known_key),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
