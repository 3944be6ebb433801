/* SPDX-License-Identifier: MIT */

/* Percent-encoding of paths. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "sidecar/base/percent.h"

#include <errno.h>

static void assert_encoded(struct span path, const char *wanted)
{
    struct buf out;

    buf_init(&out, 1024);
    assert_int_equal(percent_append_path(&out, path), 0);
    if (!span_is(buf_span(&out), wanted)) {
        fail_msg("%.*s instead of %s", (int)buf_length(&out), (const char *)buf_span(&out).ptr,
                 wanted);
    }
    buf_deinit(&out);
}

static void test_paths(void **state)
{
    (void)state;
    assert_encoded(span_of_string(""), "");
    assert_encoded(span_of_string("/a-b_c.d~e/F0"), "/a-b_c.d~e/F0");
    assert_encoded(span_of_string(" %?#"), "%20%25%3F%23");
    assert_encoded(span_of_string("a\r\nX: y"), "a%0D%0AX%3A%20y");
    assert_encoded(span_of("\0\x01\x7f\x80\xff", 5), "%00%01%7F%80%FF");
    assert_encoded(span_of_string("\xc3\xbc"), "%C3%BC");
    assert_encoded(span_of_string("&;+=@:,$!'()*\"<>\\^`{|}[]"),
                   "%26%3B%2B%3D%40%3A%2C%24%21%27%28%29%2A%22%3C%3E%5C%5E%60%7B%7C%7D%5B%5D");
    assert_encoded(span_of_string("%2e%2e/"), "%252e%252e/");
}

static void test_what_does_not_fit(void **state)
{
    struct buf out;

    (void)state;
    buf_init(&out, 5);
    assert_int_equal(percent_append_path(&out, span_of_string("  ")), -ENOBUFS);
    buf_deinit(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_what_does_not_fit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
