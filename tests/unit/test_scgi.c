/* SPDX-License-Identifier: MIT */

/* SCGI heads: the netstring as it comes, and the pairs in it. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/unit/traces.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

#define MAX 20

static const struct {
    const char *input;
    enum scgi_result result;
    const char *headers;
} heads[] = {
    { "", SCGI_NEED_DATA, NULL },
    { "3", SCGI_NEED_DATA, NULL },
    { "3:", SCGI_NEED_DATA, NULL },
    { "3:abc", SCGI_NEED_DATA, NULL },
    { "3:abc,", SCGI_COMPLETE, "abc" },
    { "3:abc,body", SCGI_COMPLETE, "abc" },
    { "3:a,b,", SCGI_COMPLETE, "a,b" },
    { "3:abc;", SCGI_MALFORMED, NULL },
    { "3:abcd,", SCGI_MALFORMED, NULL },
    { "20:abcdefghijklmnopqrst,", SCGI_COMPLETE, "abcdefghijklmnopqrst" },
    { "21:", SCGI_TOO_LARGE, NULL },
    { "21", SCGI_NEED_DATA, NULL },
    { "999999999:", SCGI_TOO_LARGE, NULL },
    { "999999999", SCGI_NEED_DATA, NULL },
    { "1234567890", SCGI_MALFORMED, NULL },
    { "1234567890:", SCGI_MALFORMED, NULL },
    { "99999999999999999999999:", SCGI_MALFORMED, NULL },
    { "0", SCGI_MALFORMED, NULL },
    { "0:,", SCGI_MALFORMED, NULL },
    { "03:abc,", SCGI_MALFORMED, NULL },
    { ":", SCGI_MALFORMED, NULL },
    { "-3:abc,", SCGI_MALFORMED, NULL },
    { "+3:abc,", SCGI_MALFORMED, NULL },
    { " 3:abc,", SCGI_MALFORMED, NULL },
    { "3 :abc,", SCGI_MALFORMED, NULL },
    { "3x", SCGI_MALFORMED, NULL },
    { "GET / HTTP/1.0\r\n\r\n", SCGI_MALFORMED, NULL },
    { "\1\1\0\1", SCGI_MALFORMED, NULL },
};

static void test_heads(void **state)
{
    (void)state;
    print_message("random cuts from seed %u\n", CUTS_SEED);
    for (size_t i = 0; i < COUNT(heads); i++) {
        struct span input = span_of_string(heads[i].input);
        struct span headers = { 0 };
        size_t head_length = 0;

        assert_int_equal(scgi_head_read(input, MAX, &headers, &head_length), heads[i].result);
        if (heads[i].result == SCGI_COMPLETE) {
            assert_true(span_is(headers, heads[i].headers));
            assert_int_equal(head_length, scgi_head_size(headers.len));
        } else {
            assert_null(headers.ptr);
            assert_int_equal(head_length, 0);
        }
        cuts_compare_many(trace_scgi, input, 30);
    }
}

static const struct {
    const char *headers;
    size_t length;
    bool is_good;
    uint64_t content_length;
} checks[] = {
#define CHECK(text, is_good, content_length)                                                       \
    {                                                                                              \
        text, sizeof(text) - 1, is_good, content_length                                            \
    }
    CHECK("CONTENT_LENGTH\0"
          "27\0"
          "SCGI\0"
          "1\0"
          "REQUEST_METHOD\0"
          "POST\0",
          true, 27),
    CHECK("CONTENT_LENGTH\0"
          "0\0"
          "A\0"
          "\0"
          "SCGI\0"
          "1\0",
          true, 0),
    CHECK("CONTENT_LENGTH\0"
          "007\0"
          "SCGI\0"
          "1\0",
          true, 7),
    CHECK("CONTENT_LENGTH\0"
          "18446744073709551615\0"
          "SCGI\0"
          "1\0",
          true, UINT64_MAX),
    CHECK("CONTENT_LENGTH\0"
          "18446744073709551616\0"
          "SCGI\0"
          "1\0",
          false, 0),
    CHECK("CONTENT_LENGTH\0"
          "99999999999999999999\0"
          "SCGI\0"
          "1\0",
          false, 0),
    CHECK("CONTENT_LENGTH\0"
          "\0"
          "SCGI\0"
          "1\0",
          false, 0),
    CHECK("CONTENT_LENGTH\0"
          "-1\0"
          "SCGI\0"
          "1\0",
          false, 0),
    CHECK("CONTENT_LENGTH\0"
          "1 \0"
          "SCGI\0"
          "1\0",
          false, 0),
    CHECK("CONTENT_LENGTH\0"
          "0\0",
          false, 0),
    CHECK("CONTENT_LENGTH\0"
          "0\0"
          "SCGI\0"
          "2\0",
          false, 0),
    CHECK("CONTENT_LENGTH\0"
          "0\0"
          "SCGI\0"
          "\0",
          false, 0),
    CHECK("CONTENT_LENGTH\0"
          "0\0"
          "scgi\0"
          "1\0",
          false, 0),
    CHECK("SCGI\0"
          "1\0"
          "CONTENT_LENGTH\0"
          "0\0",
          false, 0),
    CHECK("content_length\0"
          "0\0"
          "SCGI\0"
          "1\0",
          false, 0),
    CHECK("CONTENT_LENGTH\0"
          "0\0"
          "SCGI\0"
          "1\0"
          "CONTENT_LENGTH\0"
          "0\0",
          false, 0),
    CHECK("CONTENT_LENGTH\0"
          "0\0"
          "SCGI\0"
          "1\0"
          "SCGI\0"
          "1\0",
          false, 0),
    CHECK("CONTENT_LENGTH\0"
          "0\0"
          "SCGI\0"
          "1\0"
          "\0"
          "x\0",
          false, 0),
    CHECK("CONTENT_LENGTH\0"
          "0\0"
          "SCGI\0"
          "1\0"
          "A\0",
          false, 0),
    CHECK("CONTENT_LENGTH\0"
          "0\0"
          "SCGI\0"
          "1\0"
          "A",
          false, 0),
    CHECK("CONTENT_LENGTH\0"
          "0\0"
          "SCGI\0"
          "1",
          false, 0),
    CHECK("CONTENT_LENGTH\0"
          "0\0"
          "SCGI\0"
          "1\0"
          "\0",
          false, 0),
    CHECK("CONTENT_LENGTH\0"
          "0",
          false, 0),
    CHECK("\0", false, 0),
    CHECK("", false, 0),
#undef CHECK
};

static void test_checks(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(checks); i++) {
        struct span headers = span_of(checks[i].headers, checks[i].length);
        uint64_t content_length = 123456;

        assert_int_equal(scgi_headers_check(headers, &content_length), checks[i].is_good);
        assert_true(content_length == (checks[i].is_good ? checks[i].content_length : 123456));
    }
}

/* The example of the protocol's text, written, read in pieces and walked over. */
static void test_example(void **state)
{
    const char inside[] = "CONTENT_LENGTH\0"
                          "27\0"
                          "SCGI\0"
                          "1\0"
                          "REQUEST_METHOD\0"
                          "POST\0"
                          "REQUEST_URI\0"
                          "/deepthought";
    const char *const wanted[][2] = { { "CONTENT_LENGTH", "27" },
                                      { "SCGI", "1" },
                                      { "REQUEST_METHOD", "POST" },
                                      { "REQUEST_URI", "/deepthought" } };
    uint8_t head[100];
    struct span headers;
    struct span name;
    struct span value;
    size_t head_length;

    (void)state;
    size_t size = scgi_head_write(head, span_of(inside, sizeof(inside)));

    assert_int_equal(size, 74);
    assert_int_equal(size, scgi_head_size(sizeof(inside)));
    assert_memory_equal(head, "70:CONTENT_LENGTH", 17);
    cuts_compare_many(trace_scgi, span_of(head, size), 100);
    assert_int_equal(scgi_head_read(span_of(head, size), 70, &headers, &head_length),
                     SCGI_COMPLETE);
    for (size_t i = 0; i < COUNT(wanted); i++) {
        assert_true(scgi_next(&headers, &name, &value));
        assert_true(span_is(name, wanted[i][0]));
        assert_true(span_is(value, wanted[i][1]));
    }
    assert_false(scgi_next(&headers, &name, &value));
    assert_int_equal(headers.len, 0);
}

static void test_sizes(void **state)
{
    (void)state;
    assert_int_equal(scgi_head_size(9), 12);
    assert_int_equal(scgi_head_size(10), 14);
    assert_int_equal(scgi_head_size(999999999), 1000000010);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heads),
        cmocka_unit_test(test_checks),
        cmocka_unit_test(test_example),
        cmocka_unit_test(test_sizes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
