/* SPDX-License-Identifier: MIT */

/* What heads say, and which answers go on with the same file. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "sidecar/build/fetch_head.h"

static struct fetch_head read_head(unsigned status, const char *text)
{
    struct fetch_head head;

    fetch_head_init(&head);
    while (*text != '\0') {
        size_t length = strcspn(text, "\n") + 1;

        fetch_head_line(&head, span_of(text, length));
        text += length;
    }
    head.status = status;
    return head;
}

static void test_tags(void **state)
{
    static const struct {
        const char *line;
        const char *etag;
    } cases[] = {
        { "ETag: \"a\"\r\n", "\"a\"" },
        { "etag:\"\"\n", "\"\"" },
        { "ETAG:  \"a-b\" \r\n", "\"a-b\"" },
        { "ETag: W/\"a\"\r\n", "" },
        { "ETag: a\r\n", "" },
        { "ETag: \"\r\n", "" },
        { "ETag: \"a\"b\"\r\n", "" },
        { "ETag: \"a b\"\r\n", "" },
        { "ETag: \"a\x01\"\r\n", "" },
        { "ETag: \"a\xff\"\r\n", "" },
        { "ETag:\r\n", "" },
        { "X-ETag: \"a\"\r\n", "" },
    };

    char line[FETCH_TAG_SIZE + 20];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_string_equal(read_head(200, cases[i].line).etag, cases[i].etag);
    }
    memset(line, 'x', sizeof(line));
    memcpy(line, "ETag: \"", 7);
    memcpy(line + sizeof(line) - 3, "\"\n", 3);
    assert_string_equal(read_head(200, line).etag, ""); /* too long to be kept */
}

static void test_ranges(void **state)
{
    static const struct {
        const char *value;
        bool good;
    } cases[] = {
        { "bytes 5-9/10", true },   { "BYTES 5-9/10", true },
        { "bytes  5-9/10", true },  { "bytes 5-10/10", false },
        { "bytes 6-5/10", false },  { "bytes 5-9/*", false },
        { "bytes */10", false },    { "items 5-9/10", false },
        { "bytes 5-9/10x", false }, { "bytes=5-9/10", false },
        { "bytes 5-9", false },     { "", false },
        { "bytes -5-9/10", false }, { "bytes 5-9/9999999999999999999", false },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char line[80] = "Content-Range: ";
        struct fetch_head head;

        strcat(line, cases[i].value);
        strcat(line, "\r\n");
        head = read_head(206, line);
        assert_int_equal(head.has_range, cases[i].good);
        if (cases[i].good) {
            assert_int_equal(head.range_first, 5);
            assert_int_equal(head.range_end, 10);
            assert_int_equal(head.range_total, 10);
        }
    }
}

static void test_interim_answers_are_forgotten(void **state)
{
    struct fetch_head head = read_head(200, "HTTP/1.1 103 Early Hints\r\nETag: \"a\"\r\n\r\n"
                                            "HTTP/1.1 200 OK\r\nLast-Modified: then\r\n");

    (void)state;
    assert_string_equal(head.etag, "");
    assert_string_equal(head.last_modified, "then");
    assert_false(head.is_complete);
    fetch_head_line(&head, span_of_string("\r\n"));
    assert_true(head.is_complete);
}

static void test_what_a_file_may_begin_with(void **state)
{
    struct fetch_head head = read_head(200, "Content-Encoding: identity\r\n");

    (void)state;
    assert_null(fetch_head_check_first(&head));
    head = read_head(200, "Content-Encoding: br\r\n");
    assert_non_null(fetch_head_check_first(&head));
    for (unsigned status = 100; status < 600; status++) {
        head = read_head(status, "");
        assert_int_equal(fetch_head_check_first(&head) == NULL, status == 200);
    }
}

#define TAGGED "ETag: \"a\"\r\nLast-Modified: then\r\n"
#define RANGE "Content-Range: bytes 5-9/10\r\n"

static void test_what_goes_on_with_a_file(void **state)
{
    static const struct {
        const char *first;
        unsigned status;
        const char *rest;
        bool good;
    } cases[] = {
        { TAGGED, 206, TAGGED RANGE, true },
        { TAGGED, 206, RANGE, true },
        { "", 206, RANGE, true },
        { "", 206, TAGGED RANGE, true },
        { TAGGED, 206, "ETag: \"a\"\r\nLast-Modified: now\r\n" RANGE, true },
        { TAGGED, 206, "ETag: \"b\"\r\n" RANGE, false },
        { "Last-Modified: then\r\n", 206, "Last-Modified: now\r\n" RANGE, false },
        { "Last-Modified: then\r\n", 206, TAGGED RANGE, true },
        { TAGGED, 200, TAGGED, false },
        { TAGGED, 206, TAGGED, false },
        { TAGGED, 206, TAGGED "Content-Range: bytes 4-9/10\r\n", false },
        { TAGGED, 206, TAGGED "Content-Range: bytes 5-9/11\r\n", false },
        { TAGGED, 206, TAGGED "Content-Encoding: gzip\r\n" RANGE, false },
        { TAGGED, 416, "", false },
        { TAGGED, 404, RANGE, false },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fetch_head first = read_head(200, cases[i].first);
        struct fetch_head rest = read_head(cases[i].status, cases[i].rest);

        assert_int_equal(fetch_head_check_rest(&first, &rest, 5, 10) == NULL, cases[i].good);
    }
}

static void test_what_may_be_better_later(void **state)
{
    (void)state;
    for (unsigned status = 100; status < 600; status++) {
        struct fetch_head head = read_head(status, "");

        assert_int_equal(fetch_head_may_retry(&head), status == 429 || status == 500 ||
                                                          status == 502 || status == 503 ||
                                                          status == 504);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tags),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_interim_answers_are_forgotten),
        cmocka_unit_test(test_what_a_file_may_begin_with),
        cmocka_unit_test(test_what_goes_on_with_a_file),
        cmocka_unit_test(test_what_may_be_better_later),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
