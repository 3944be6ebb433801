/* SPDX-License-Identifier: MIT */
/* The byte queue: order, maximum, and memory that is given back. */

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>

#include "sidecar/base/buf.h"

static void assert_holds(const struct buf *buf, const char *expected)
{
    struct span held = buf_span(buf);

    assert_int_equal(buf_length(buf), strlen(expected));
    assert_int_equal(held.len, strlen(expected));
    assert_memory_equal(held.ptr, expected, held.len);
}

static void test_bytes_come_out_in_order(void **state)
{
    struct buf buf;

    (void)state;
    buf_init(&buf, 100);
    assert_int_equal(buf_append_string(&buf, "one "), 0);
    assert_int_equal(buf_append(&buf, "two ", 4), 0);
    assert_int_equal(buf_append_span(&buf, span_of_string("three")), 0);
    assert_holds(&buf, "one two three");
    buf_consume(&buf, 4);
    assert_holds(&buf, "two three");
    assert_int_equal(buf_printf(&buf, " %d%s", 4, "!"), 0);
    assert_holds(&buf, "two three 4!");
    buf_consume(&buf, buf_length(&buf));
    assert_int_equal(buf_length(&buf), 0);
    buf_deinit(&buf);
}

static void test_an_empty_buf_holds_no_memory(void **state)
{
    struct buf buf;

    (void)state;
    buf_init(&buf, 100);
    assert_null(buf.bytes);
    assert_int_equal(buf_append(&buf, "", 0), 0);
    assert_int_equal(buf_printf(&buf, "%s", ""), 0);
    assert_null(buf.bytes);
    assert_int_equal(buf_append_string(&buf, "abc"), 0);
    buf_consume(&buf, 3);
    assert_null(buf.bytes);
    assert_int_equal(buf_append_string(&buf, "abc"), 0);
    buf_clear(&buf);
    assert_null(buf.bytes);
    assert_int_equal(buf_length(&buf), 0);
    /* The maximum stays. */
    assert_int_equal(buf.max, 100);
}

static void test_the_maximum_holds(void **state)
{
    struct buf buf;
    uint8_t *room = NULL;

    (void)state;
    buf_init(&buf, 8);
    assert_int_equal(buf_append_string(&buf, "12345"), 0);
    assert_int_equal(buf_append_string(&buf, "6789"), -ENOBUFS);
    assert_int_equal(buf_printf(&buf, "%d", 6789), -ENOBUFS);
    assert_int_equal(buf_reserve(&buf, SIZE_MAX, &room), -ENOBUFS);
    assert_null(room);
    assert_holds(&buf, "12345");
    assert_int_equal(buf_append_string(&buf, "678"), 0);
    assert_holds(&buf, "12345678");
    assert_true(buf.size <= 8);
    /* What is consumed makes room again, without more memory. */
    buf_consume(&buf, 6);
    assert_int_equal(buf_append_string(&buf, "abcdef"), 0);
    assert_holds(&buf, "78abcdef");
    assert_true(buf.size <= 8);
    buf_deinit(&buf);
}

static void test_reserve_and_commit(void **state)
{
    struct buf buf;
    uint8_t *room = NULL;

    (void)state;
    buf_init(&buf, 10000);
    assert_int_equal(buf_reserve(&buf, 5000, &room), 0);
    assert_non_null(room);
    memcpy(room, "written", 7);
    assert_int_equal(buf_length(&buf), 0);
    buf_commit(&buf, 7);
    assert_holds(&buf, "written");
    assert_int_equal(buf_reserve(&buf, 9993, &room), 0);
    assert_ptr_equal(room, buf_span(&buf).ptr + 7);
    assert_int_equal(buf_reserve(&buf, 9994, &room), -ENOBUFS);
    buf_deinit(&buf);
}

static void test_long_use_keeps_the_bytes(void **state)
{
    struct buf buf;
    unsigned in = 0;
    unsigned out = 0;

    (void)state;
    buf_init(&buf, 4096);
    for (unsigned round = 0; round < 3000; round++) {
        for (unsigned i = 0; i < round % 97; i++) {
            uint8_t byte = (uint8_t)(in * 7 + in / 256);

            in += buf_append(&buf, &byte, 1) == 0 ? 1 : 0;
        }
        for (size_t i = round % 89; i > 0 && buf_length(&buf) > 0; i--) {
            assert_int_equal(buf_span(&buf).ptr[0], (uint8_t)(out * 7 + out / 256));
            buf_consume(&buf, 1);
            out++;
        }
        assert_int_equal(buf_length(&buf), in - out);
    }
    assert_true(out > 10000);
    buf_deinit(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_come_out_in_order),
        cmocka_unit_test(test_an_empty_buf_holds_no_memory),
        cmocka_unit_test(test_the_maximum_holds),
        cmocka_unit_test(test_reserve_and_commit),
        cmocka_unit_test(test_long_use_keeps_the_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
