/* SPDX-License-Identifier: MIT */

/* A build request is complete at the same byte however it comes, and never larger than allowed. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <zlib.h>

#include "sidecar/relay/capture.h"
#include "tests/unit/cuts.h"

#define JSON "{\"rr_version\":\"v2025.1.2\",\"plugins\":[{\"tag\":\"}\\\"]\"}]}"
#define JSON_SIZE (sizeof(JSON) - 1)
#define MAX_SIZE 1000
#define RANDOM_CUTS 40

enum coding { IDENTITY, GZIP, ZLIB, RAW };

static const char *const coding_heads[] = { "", "Content-Encoding: gzip\r\n",
                                            "Content-Encoding: deflate\r\n",
                                            "Content-Encoding: deflate\r\n" };

static struct span encode(enum coding coding, struct span text, uint8_t *room, size_t size)
{
    static const int windows[] = { 0, 16 + MAX_WBITS, MAX_WBITS, -MAX_WBITS };
    z_stream stream = { 0 };

    if (coding == IDENTITY) {
        assert_true(text.len <= size);
        memcpy(room, text.ptr, text.len);
        return span_of(room, text.len);
    }
    assert_int_equal(deflateInit2(&stream, 6, Z_DEFLATED, windows[coding], 8, Z_DEFAULT_STRATEGY),
                     Z_OK);
    stream.next_in = (Bytef *)(uintptr_t)text.ptr;
    stream.avail_in = (uInt)text.len;
    stream.next_out = room;
    stream.avail_out = (uInt)size;
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    assert_int_equal(deflateEnd(&stream), Z_OK);
    return span_of(room, size - stream.avail_out);
}

/* ---- one capture, as a trace ---- */

static const char *const result_names[] = {
    [CAPTURE_MORE] = "more",
    [CAPTURE_COMPLETE] = "complete",
    [CAPTURE_TOO_LARGE] = "too large",
    [CAPTURE_UNKNOWN_ENCODING] = "unknown encoding",
    [CAPTURE_UNDECODABLE] = "undecodable",
    [CAPTURE_NO_MEMORY] = "no memory",
};

/* The tracer's type has no room for these. Set by check. */
struct setting {
    struct span head;
    size_t max_size;
};

static struct setting setting;

static void trace_capture(struct trace *trace, struct span input, struct cuts cuts)
{
    struct capture capture = { 0 };
    enum capture_result result = capture_init(&capture, setting.head, setting.max_size);

    while (result == CAPTURE_MORE && input.len > 0) {
        struct span piece = cuts_take(&cuts, &input);

        result = capture_next(&capture, piece);
        cuts_give_back(piece.ptr);
    }
    if (result == CAPTURE_MORE) {
        trace_line(trace, "at the end: ");
        result = capture_end(&capture);
    }
    trace_line(trace, "%s", result_names[result]);
    CUTS_CHECK(buf_length(&capture.body) <= setting.max_size);
    if (result == CAPTURE_COMPLETE) {
        trace_line(trace, ": ");
        trace_add(trace, buf_span(&capture.body));
    }
    capture_deinit(&capture);
}

/* The trace of the whole input, and the same for any cutting. */
static void check(const char *head, size_t max_size, struct span input, const char *expected)
{
    struct trace trace = { 0 };

    setting = (struct setting){ .head = span_of_string(head), .max_size = max_size };
    trace_capture(&trace, input, cuts_whole());
    if (!span_is(trace_span(&trace), expected)) {
        fail_msg("got \"%.*s\"\ninstead of \"%s\"\nhead: %s", (int)trace.len,
                 (const char *)trace.bytes, expected, head);
    }
    trace_deinit(&trace);
    cuts_compare_many(trace_capture, input, RANDOM_CUTS);
}

static void check_text(const char *head, const char *body, const char *expected)
{
    check(head, MAX_SIZE, span_of_string(body), expected);
}

/* ---- where it ends ---- */

static void test_end_of_the_value(void **state)
{
    static const struct {
        const char *body;
        const char *expected;
    } cases[] = {
        { JSON, "complete: " JSON },
        { JSON "\n", "complete: " JSON },
        { JSON JSON, "complete: " JSON },
        { JSON "<br>\nWarning: something", "complete: " JSON },
        { " \r\n\t" JSON "}", "complete:  \r\n\t" JSON },
        { "{}", "complete: {}" },
        { "[1,[2],{}]x", "complete: [1,[2],{}]" },
        { "{\"a\":\"\\\\\"}x", "complete: {\"a\":\"\\\\\"}" },
        /* never ends as a value: at the end of the stream, for the check to judge */
        { "", "at the end: complete: " },
        { "{\"a\":", "at the end: complete: {\"a\":" },
        { "{\"a\":\"}", "at the end: complete: {\"a\":\"}" },
        { "null", "at the end: complete: null" },
        { "<b>Warning</b>" JSON, "at the end: complete: <b>Warning</b>" JSON },
        { "\xef\xbb\xbf" JSON, "at the end: complete: \xef\xbb\xbf" JSON },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        check_text("X-Velox-Build: 1\r\n\r\n", cases[i].body, cases[i].expected);
    }
}

static void test_content_length(void **state)
{
    static const struct {
        const char *head;
        const char *body;
        const char *expected;
    } cases[] = {
        { "Content-Length: 2\r\n\r\n", "{}", "complete: {}" },
        { "content-length: 2\n\n", "{}more", "complete: {}" },
        { "Content-Length: 100\r\n\r\n", "{}", "complete: {}" }, /* the value ends before it */
        { "Content-Length: 5\r\n\r\n", "{\"a\":1}",
          "complete: {\"a\":" }, /* too short: to be judged */
        { "Content-Length: 0\r\n\r\n", "{}", "complete: " },
        { "Content-Length: 4\r\n\r\n", "null and more", "complete: null" },
        { "Content-Length: 5\r\n\r\n", "null", "at the end: complete: null" },
        { "Content-Length: 000000002\r\n\r\n", "{}", "complete: {}" },
        /* none that can be read: as if there were none */
        { "Content-Length:\r\n\r\n", "{\"a\":1}", "complete: {\"a\":1}" },
        { "Content-Length: -1\r\n\r\n", "{\"a\":1}", "complete: {\"a\":1}" },
        { "Content-Length: 2x\r\n\r\n", "{\"a\":1}", "complete: {\"a\":1}" },
        { "Content-Length: 2, 2\r\n\r\n", "{\"a\":1}", "complete: {\"a\":1}" },
        { "Content-Length: 99999999999999999999999\r\n\r\n", "{\"a\":1}", "complete: {\"a\":1}" },
        /* the last one counts */
        { "Content-Length: 1\r\nContent-Length: 4\r\n\r\n", "null!", "complete: null" },
        { "Content-Length : 1\r\n\r\n", "null", "at the end: complete: null" },
        { "\r\nContent-Length: 1\r\n", "null", "at the end: complete: null" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        check_text(cases[i].head, cases[i].body, cases[i].expected);
    }
}

/* ---- codings ---- */

static void test_codings(void **state)
{
    uint8_t room[4096];

    (void)state;
    for (enum coding coding = IDENTITY; coding <= RAW; coding++) {
        struct span body = encode(coding, span_of_string(JSON "\n"), room, sizeof(room));

        check(coding_heads[coding], MAX_SIZE, body, "complete: " JSON);
    }
}

/* Garbage behind the stream is not even looked at: the value has ended. */
static void test_coded_body_with_more_behind_it(void **state)
{
    uint8_t room[4096];

    (void)state;
    for (enum coding coding = GZIP; coding <= RAW; coding++) {
        struct span body = encode(coding, span_of_string(JSON), room, sizeof(room) - 100);

        memset(room + body.len, 'x', 100);
        check(coding_heads[coding], MAX_SIZE, span_of(room, body.len + 100), "complete: " JSON);
    }
}

/* A value in several gzip members is one value, also where a member ends with a piece. */
static void test_gzip_members(void **state)
{
    uint8_t room[4096];
    size_t len = 0;

    (void)state;
    for (size_t at = 0; at < JSON_SIZE; at += 10) {
        size_t size = JSON_SIZE - at < 10 ? JSON_SIZE - at : 10;

        len += encode(GZIP, span_of(&JSON[at], size), room + len, sizeof(room) - len).len;
    }
    check(coding_heads[GZIP], MAX_SIZE, span_of(room, len), "complete: " JSON);
    /* Without its last member it is cut short, which the check of the JSON will find. */
    len = encode(GZIP, span_of_string("{\"a\":"), room, sizeof(room)).len;
    check(coding_heads[GZIP], MAX_SIZE, span_of(room, len), "at the end: complete: {\"a\":");
}

/* The value is complete before the stream is: PHP's shutdown functions need not be waited for. */
static void test_value_ends_before_the_coded_stream(void **state)
{
    uint8_t room[4096];
    struct capture capture = { 0 };
    enum capture_result result;
    size_t fed = 0;

    (void)state;
    struct span body = encode(GZIP, span_of_string(JSON), room, sizeof(room));

    result = capture_init(&capture, span_of_string(coding_heads[GZIP]), MAX_SIZE);
    while (result == CAPTURE_MORE && fed < body.len) {
        result = capture_next(&capture, span_of(body.ptr + fed++, 1));
    }
    assert_int_equal(result, CAPTURE_COMPLETE);
    assert_true(fed <= body.len - 8); /* gzip's checksum and length */
    assert_true(span_is(buf_span(&capture.body), JSON));
    capture_deinit(&capture);
}

static void test_coded_body_that_is_cut(void **state)
{
    uint8_t room[4096];

    (void)state;
    for (enum coding coding = GZIP; coding <= RAW; coding++) {
        struct span body = encode(coding, span_of_string(JSON), room, sizeof(room));

        for (size_t len = 0; len < 12; len++) {
            check(coding_heads[coding], MAX_SIZE, span_of(body.ptr, len),
                  "at the end: undecodable");
        }
    }
}

static void test_content_length_of_a_coded_body(void **state)
{
    uint8_t room[4096];
    struct span body = encode(GZIP, span_of_string(JSON), room, sizeof(room));
    char head[100];

    (void)state;
    /* It counts the bytes as they come. Too short: the rest is not there. */
    (void)snprintf(head, sizeof(head), "Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\n");
    check(head, MAX_SIZE, body, "undecodable");
    (void)snprintf(head, sizeof(head), "Content-Length: %zu\r\ncontent-encoding: x-gzip\r\n\r\n",
                   body.len);
    check(head, MAX_SIZE, body, "complete: " JSON);
}

static void test_body_that_is_not_what_it_says(void **state)
{
    (void)state;
    check_text("Content-Encoding: gzip\r\n\r\n", JSON, "undecodable");
    check_text("Content-Encoding: deflate\r\n\r\n", "\x07garbage", "undecodable");
    check_text("Content-Encoding: identity\r\n\r\n", JSON, "complete: " JSON);
    check_text("Content-Encoding:\r\n\r\n", JSON, "complete: " JSON);
    check_text("Content-Encoding: GZIP\r\n\r\n", "", "at the end: undecodable");
}

static void test_unknown_encodings(void **state)
{
    static const char *const values[] = { "br",         "zstd",     "compress",
                                          "gzip, gzip", "gzip;q=1", "\"gzip\"" };
    char head[100];

    (void)state;
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        (void)snprintf(head, sizeof(head), "Content-Encoding: %s\r\n\r\n", values[i]);
        check_text(head, JSON, "unknown encoding");
    }
    check_text("Content-Encoding: gzip\r\nContent-Encoding: gzip\r\n\r\n", "", "unknown encoding");
    check_text("Content-Encoding: br\r\nContent-Length: 0\r\n\r\n", "", "unknown encoding");
}

/* ---- limits ---- */

static void test_limit(void **state)
{
    uint8_t room[4096];
    const char *text = JSON " \n\n and more, behind the value";

    (void)state;
    for (enum coding coding = IDENTITY; coding <= RAW; coding++) {
        struct span body = encode(coding, span_of_string(JSON), room, sizeof(room));

        check(coding_heads[coding], JSON_SIZE - 1, body, "too large");
        check(coding_heads[coding], JSON_SIZE, body, "complete: " JSON);
        check(coding_heads[coding], JSON_SIZE + 1, body, "complete: " JSON);
        /* What follows the value does not count, in whichever piece it comes. */
        body = encode(coding, span_of_string(text), room, sizeof(room));
        check(coding_heads[coding], JSON_SIZE - 1, body, "too large");
        check(coding_heads[coding], JSON_SIZE, body, "complete: " JSON);
        check(coding_heads[coding], JSON_SIZE + 1, body, "complete: " JSON);
    }
}

/* A small body that expands to much: the memory stays bounded (trace_capture checks it). */
static void test_bomb(void **state)
{
    static uint8_t zeros[1024 * 1024];
    static uint8_t room[16 * 1024];

    (void)state;
    memset(zeros, ' ', sizeof(zeros));
    for (enum coding coding = GZIP; coding <= RAW; coding++) {
        struct span body = encode(coding, span_of(zeros, sizeof(zeros)), room, sizeof(room));

        check(coding_heads[coding], MAX_SIZE, body, "too large");
        check(coding_heads[coding], sizeof(zeros) - 1, body, "too large");
    }
}

static void test_deinit_of_nothing(void **state)
{
    struct capture capture = { 0 };

    (void)state;
    capture_deinit(&capture);
    assert_int_equal(capture_init(&capture, span_of_string("\r\n"), MAX_SIZE), CAPTURE_MORE);
    capture_deinit(&capture);
    capture_deinit(&capture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_end_of_the_value),
        cmocka_unit_test(test_content_length),
        cmocka_unit_test(test_codings),
        cmocka_unit_test(test_coded_body_with_more_behind_it),
        cmocka_unit_test(test_gzip_members),
        cmocka_unit_test(test_value_ends_before_the_coded_stream),
        cmocka_unit_test(test_coded_body_that_is_cut),
        cmocka_unit_test(test_content_length_of_a_coded_body),
        cmocka_unit_test(test_body_that_is_not_what_it_says),
        cmocka_unit_test(test_unknown_encodings),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_bomb),
        cmocka_unit_test(test_deinit_of_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
