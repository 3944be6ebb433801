/* SPDX-License-Identifier: MIT */
/* Conditional and range requests, by table (RFC 9110 sections 13 and 14). */
#include "sidecar/relay/condition.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
/* cmocka.h wants the four above. */
#include <cmocka.h>

#include "fcgi/params.h"

#define ETAG "\"17f-3e8\""
#define DATE "Tue, 24 Nov 2026 22:40:02 GMT"
#define DATE_BEFORE "Tue, 24 Nov 2026 22:40:01 GMT"
#define DATE_AFTER "Tue, 24 Nov 2026 22:40:03 GMT"
#define MODIFIED 1795560002
#define SIZE 1000

struct pair {
    const char *name;
    const char *value;
};

struct row {
    struct pair pairs[4];
    unsigned status;
    uint64_t first;
    uint64_t end;
};

static void append(struct buf *params, const char *name, const char *value)
{
    struct span name_span = span_of_string(name);
    struct span value_span = span_of_string(value);
    uint8_t *room;

    assert_int_equal(buf_reserve(params, params_size(name_span.len, value_span.len), &room), 0);
    buf_commit(params, params_write(room, name_span, value_span));
}

static struct condition_verdict judge(const char *method, const struct pair *pairs, uint64_t size)
{
    struct condition_entity entity = { .etag = ETAG, .modified = MODIFIED, .size_bytes = size };
    struct condition_verdict verdict;
    struct buf params;
    struct buf headers;

    buf_init(&params, 100000);
    buf_init(&headers, 1000);
    append(&params, "REQUEST_METHOD", method);
    append(&params, "HTTP_RANGES", "bytes=5-6");
    for (unsigned i = 0; i < 4 && pairs[i].name != NULL; i++) {
        append(&params, pairs[i].name, pairs[i].value);
    }
    (void)condition_collect(buf_span(&params), &headers);
    verdict = condition_judge(buf_span(&headers), &entity);
    buf_deinit(&params);
    buf_deinit(&headers);
    return verdict;
}

#define RANGE(text, status, first, end)                                                            \
    {                                                                                              \
        { { "HTTP_RANGE", text } }, status, first, end                                             \
    }
#define NONE_MATCH(text, status)                                                                   \
    {                                                                                              \
        { { "HTTP_IF_NONE_MATCH", text } }, status, 0, (status) == 200 ? SIZE : 0                  \
    }
#define SINCE(text, status)                                                                        \
    {                                                                                              \
        { { "HTTP_IF_MODIFIED_SINCE", text } }, status, 0, (status) == 200 ? SIZE : 0              \
    }
#define IF_RANGE(text, status, first, end)                                                         \
    {                                                                                              \
        { { "HTTP_RANGE", "bytes=10-19" }, { "HTTP_IF_RANGE", text } }, status, first, end         \
    }

static const struct row rows[] = {
    { { { NULL, NULL } }, 200, 0, SIZE },
    RANGE("bytes=0-0", 206, 0, 1),
    RANGE("bytes=0-", 206, 0, SIZE),
    RANGE("bytes=10-19", 206, 10, 20),
    RANGE("Bytes=10-19", 206, 10, 20),
    RANGE(" bytes= 10-19 ", 206, 10, 20),
    RANGE("bytes=999-", 206, 999, SIZE),
    RANGE("bytes=990-2000", 206, 990, SIZE),
    RANGE("bytes=990-999999999999999999", 206, 990, SIZE),
    RANGE("bytes=-1", 206, 999, SIZE),
    RANGE("bytes=-1000", 206, 0, SIZE),
    RANGE("bytes=-5000", 206, 0, SIZE),
    RANGE("bytes=1000-", 416, 0, 0),
    RANGE("bytes=1000-1001", 416, 0, 0),
    RANGE("bytes=-0", 416, 0, 0),
    /* What is no single range of bytes is ignored. */
    RANGE("", 200, 0, SIZE),
    RANGE("bytes", 200, 0, SIZE),
    RANGE("bytes=", 200, 0, SIZE),
    RANGE("bytes=-", 200, 0, SIZE),
    RANGE("bytes=x-1", 200, 0, SIZE),
    RANGE("bytes=1-x", 200, 0, SIZE),
    RANGE("bytes=19-10", 200, 0, SIZE),
    RANGE("bytes=1-2,4-5", 200, 0, SIZE),
    RANGE("bytes=1-2-3", 200, 0, SIZE),
    RANGE("bytes=--1", 200, 0, SIZE),
    RANGE("items=1-2", 200, 0, SIZE),
    RANGE("bytes=99999999999999999999-", 200, 0, SIZE),
    RANGE("bytes=1 - 2", 200, 0, SIZE),
    NONE_MATCH(ETAG, 304),
    NONE_MATCH("W/" ETAG, 304),
    NONE_MATCH("*", 304),
    NONE_MATCH("\"a\", " ETAG, 304),
    NONE_MATCH("\"a\",,W/" ETAG " , \"b\"", 304),
    NONE_MATCH("\"a\"", 200),
    NONE_MATCH("17f-3e8", 200),
    NONE_MATCH("\"17f-3e8", 200),
    NONE_MATCH("", 200),
    SINCE(DATE, 304),
    SINCE(DATE_AFTER, 304),
    SINCE(DATE_BEFORE, 200),
    SINCE("Tuesday, 24-Nov-26 22:40:02 GMT", 304),
    SINCE("Tue Nov 24 22:40:02 2026", 304),
    SINCE("yesterday", 200),
    SINCE("", 200),
    SINCE(DATE " and more", 200),
    IF_RANGE(ETAG, 206, 10, 20),
    IF_RANGE("W/" ETAG, 200, 0, SIZE),
    IF_RANGE("\"other\"", 200, 0, SIZE),
    IF_RANGE(ETAG ", " ETAG, 200, 0, SIZE),
    IF_RANGE(DATE, 206, 10, 20),
    IF_RANGE(DATE_AFTER, 200, 0, SIZE),
    IF_RANGE(DATE_BEFORE, 200, 0, SIZE),
    IF_RANGE("", 200, 0, SIZE),
    /* An entity tag makes the date not count; what the client has beats the range. */
    { { { "HTTP_IF_NONE_MATCH", "\"a\"" }, { "HTTP_IF_MODIFIED_SINCE", DATE } }, 200, 0, SIZE },
    { { { "HTTP_IF_NONE_MATCH", ETAG }, { "HTTP_RANGE", "bytes=0-1" } }, 304, 0, 0 },
    { { { "HTTP_IF_NONE_MATCH", "\"a\"" }, { "HTTP_RANGE", "bytes=0-1" } }, 206, 0, 2 },
};

static void test_verdicts(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct condition_verdict verdict = judge("GET", rows[i].pairs, SIZE);

        if (verdict.status != rows[i].status || verdict.first != rows[i].first ||
            verdict.end != rows[i].end) {
            fail_msg("row %zu (%s): %u %llu-%llu", i, rows[i].pairs[0].value, verdict.status,
                     (unsigned long long)verdict.first, (unsigned long long)verdict.end);
        }
    }
}

static void test_other_methods_get_all(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(judge("POST", rows[i].pairs, SIZE).status, 200);
        assert_int_equal(judge("get", rows[i].pairs, SIZE).status, 200);
    }
}

static void test_an_empty_file_has_no_ranges(void **state)
{
    static const struct pair from_start[4] = { { "HTTP_RANGE", "bytes=0-" } };
    static const struct pair suffix[4] = { { "HTTP_RANGE", "bytes=-5" } };

    (void)state;
    assert_int_equal(judge("GET", from_start, 0).status, 416);
    assert_int_equal(judge("GET", suffix, 0).status, 416);
}

static void test_absurdly_long_headers_are_ignored(void **state)
{
    char value[3000];
    struct pair pairs[4] = { { "HTTP_RANGE", "bytes=0-1" }, { "HTTP_IF_NONE_MATCH", value } };

    (void)state;
    memset(value, 'x', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    assert_int_equal(judge("GET", pairs, SIZE).status, 200);
}

/* A fetched file of which the source tells neither a tag nor a time is never taken for a known
 * one. */
static void test_nothing_is_known_of_the_file(void **state)
{
    static const struct {
        const char *name;
        const char *value;
        unsigned status;
    } cases[] = {
        { "HTTP_IF_NONE_MATCH", "\"\"", 206 },
        { "HTTP_IF_NONE_MATCH", "", 206 },
        { "HTTP_IF_NONE_MATCH", "*", 304 },
        { "HTTP_IF_MODIFIED_SINCE", DATE_AFTER, 206 },
        { "HTTP_IF_RANGE", "\"\"", 200 },
        { "HTTP_IF_RANGE", "", 200 },
        { "HTTP_IF_RANGE", "Thu, 01 Jan 1970 00:00:00 GMT", 200 },
        { "HTTP_X", "", 206 },
    };
    struct condition_entity entity = { .lacks_time = true, .size_bytes = SIZE };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buf headers;

        buf_init(&headers, 1000);
        append(&headers, "HTTP_RANGE", "bytes=1-2");
        append(&headers, cases[i].name, cases[i].value);
        assert_int_equal(condition_judge(buf_span(&headers), &entity).status, cases[i].status);
        buf_deinit(&headers);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verdicts),
        cmocka_unit_test(test_other_methods_get_all),
        cmocka_unit_test(test_an_empty_file_has_no_ranges),
        cmocka_unit_test(test_absurdly_long_headers_are_ignored),
        cmocka_unit_test(test_nothing_is_known_of_the_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
