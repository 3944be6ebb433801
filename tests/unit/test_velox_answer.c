/* SPDX-License-Identifier: MIT */

/* What Velox's answers mean: one row for each case that the documented rules name. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "sidecar/build/velox_answer.h"

#include <stdio.h>
#include <stdlib.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

#define CODE(code) "{\"code\":\"" code "\",\"message\":\"words\"}"

static const struct {
    unsigned status;
    const char *body;
    enum velox_outcome outcome;
    enum velox_retry_reason reason;
    bool is_timeout;
    const char *text; /* the path, or a part of the message */
} rows[] = {
    /* both shapes of success */
    { 200, "{\"path\":\"/tmp/h/rr\",\"logs\":\"\"}", VELOX_BUILT, 0, false, "/tmp/h/rr" },
    { 200, " {\"path\":\"/tmp/h/rr\"}\n", VELOX_BUILT, 0, false, "/tmp/h/rr" },
    { 200,
      "{\"success\":true,\"path\":\"\\/tmp\\/\\u00e9\",\"build_id\":\"b1\",\"duration_ms\":58234}",
      VELOX_BUILT, 0, false, "/tmp/\xc3\xa9" },
    { 200, "{\"path\":\"/a\",\"code\":\"FINE\"}", VELOX_BUILT, 0, false, "/a" },
    { 200, "{\"path\":\"/a\",\"code\":null,\"error\":null}", VELOX_BUILT, 0, false, "/a" },
    { 200, "{\"path\":\"/a\",\"code\":7}", VELOX_BUILT, 0, false, "/a" },
    /* a failed build */
    { 200, "{\"success\":false,\"error\":\"words\",\"code\":\"BUILD_ERROR\"}", VELOX_BUILD_FAILED,
      0, false, "words" },
    { 500, "{\"success\":false,\"error\":\"words\"}", VELOX_BUILD_FAILED, 0, false, "words" },
    { 503, "{\"success\":false}", VELOX_BUILD_FAILED, 0, false, "gives no reason" },
    { 200, "{\"success\":false,\"path\":\"/a\"}", VELOX_BUILD_FAILED, 0, false, "" },
    { 200, "{\"success\":false,\"code\":\"unavailable\",\"error\":\"words\"}", VELOX_BUILD_FAILED,
      0, false, "words" },
    { 500, CODE("internal"), VELOX_BUILD_FAILED, 0, false, "words" },
    { 500, CODE("unknown"), VELOX_BUILD_FAILED, 0, false, "words" },
    { 400, CODE("failed_precondition"), VELOX_BUILD_FAILED, 0, false, "words" },
    { 404, CODE("not_found"), VELOX_BUILD_FAILED, 0, false, "words" },
    { 500, "{\"code\":\"internal\"}", VELOX_BUILD_FAILED, 0, false, "gives no reason" },
    { 200, "{\"code\":\"internal\",\"path\":\"/a\"}", VELOX_BUILD_FAILED, 0, false, "" },
    /* codes win over the status */
    { 400, CODE("invalid_argument"), VELOX_REQUEST_INVALID, 0, false, "words" },
    { 503, CODE("invalid_argument"), VELOX_REQUEST_INVALID, 0, false, "words" },
    { 409, CODE("already_exists"), VELOX_ALREADY_RUNS, 0, false, "words" },
    { 503, CODE("already_exists"), VELOX_ALREADY_RUNS, 0, false, "words" },
    { 503, CODE("unavailable"), VELOX_RETRY, VELOX_RETRY_CODE, false, "words" },
    { 400, CODE("unavailable"), VELOX_RETRY, VELOX_RETRY_CODE, false, "words" },
    { 409, CODE("aborted"), VELOX_RETRY, VELOX_RETRY_CODE, false, "words" },
    { 429, CODE("resource_exhausted"), VELOX_RETRY, VELOX_RETRY_CODE, false, "words" },
    { 504, CODE("deadline_exceeded"), VELOX_RETRY, VELOX_RETRY_CODE, true, "words" },
    { 408, CODE("deadline_exceeded"), VELOX_RETRY, VELOX_RETRY_CODE, true, "words" },
    { 503, CODE("internal"), VELOX_BUILD_FAILED, 0, false, "words" },
    /* any other code */
    { 499, CODE("canceled"), VELOX_UNUSABLE, 0, false, "words" },
    { 403, CODE("permission_denied"), VELOX_UNUSABLE, 0, false, "words" },
    { 401, CODE("unauthenticated"), VELOX_UNUSABLE, 0, false, "words" },
    { 501, CODE("unimplemented"), VELOX_UNUSABLE, 0, false, "words" },
    { 500, CODE("data_loss"), VELOX_UNUSABLE, 0, false, "words" },
    { 400, CODE("out_of_range"), VELOX_UNUSABLE, 0, false, "words" },
    { 503, CODE("unimplemented"), VELOX_UNUSABLE, 0, false, "words" },
    { 403, "{\"code\":\"permission_denied\"}", VELOX_UNUSABLE, 0, false, "refuses to build" },
    /* an unknown code leaves it to the status */
    { 503, CODE("UNAVAILABLE"), VELOX_RETRY, VELOX_RETRY_HTTP_STATUS, false, "words" },
    { 500, CODE("strange"), VELOX_UNUSABLE, 0, false, "words" },
    { 400, CODE("BUILD_ERROR"), VELOX_UNUSABLE, 0, false, "words" },
    { 500, "{\"error\":\"words\"}", VELOX_UNUSABLE, 0, false, "words" },
    { 500, "{}", VELOX_UNUSABLE, 0, false, "Velox answered HTTP 500 instead of a built file" },
    /* the status decides */
    { 429, "slow down", VELOX_RETRY, VELOX_RETRY_HTTP_STATUS, false, "HTTP 429" },
    { 502, "<html>", VELOX_RETRY, VELOX_RETRY_HTTP_STATUS, false, "HTTP 502" },
    { 503, "", VELOX_RETRY, VELOX_RETRY_HTTP_STATUS, false, "HTTP 503" },
    { 504, "{}", VELOX_RETRY, VELOX_RETRY_HTTP_STATUS, false, "HTTP 504" },
    { 503, "{\"path\":\"/a\"}", VELOX_RETRY, VELOX_RETRY_HTTP_STATUS, false, "HTTP 503" },
    { 500, "<html>", VELOX_RETRY, VELOX_RETRY_HTTP_STATUS, false, "HTTP 500" },
    { 500, "", VELOX_RETRY, VELOX_RETRY_HTTP_STATUS, false, "HTTP 500" },
    { 501, "html", VELOX_RETRY, VELOX_RETRY_HTTP_STATUS, false, "HTTP 501" },
    { 501, "[]", VELOX_UNUSABLE, 0, false, "HTTP 501" },
    { 500, " \"text\" ", VELOX_UNUSABLE, 0, false, "HTTP 500" },
    /* JSON that ends in the middle */
    { 200, "{\"path\":\"/tmp/h", VELOX_RETRY, VELOX_RETRY_CUT, false, "ends in the middle" },
    { 200, " {", VELOX_RETRY, VELOX_RETRY_CUT, false, "ends in the middle" },
    { 500, "{\"code\":\"internal\",\"mess", VELOX_RETRY, VELOX_RETRY_CUT, false, "in the middle" },
    { 400, "{\"code\":\"inv", VELOX_RETRY, VELOX_RETRY_CUT, false, "in the middle" },
    /* never tried again */
    { 200, "", VELOX_UNUSABLE, 0, false, "an empty body" },
    { 200, " \n", VELOX_UNUSABLE, 0, false, "an empty body" },
    { 200, "<html>", VELOX_UNUSABLE, 0, false, "no JSON" },
    { 200, "[]", VELOX_UNUSABLE, 0, false, "no JSON object" },
    { 200, "null", VELOX_UNUSABLE, 0, false, "no JSON object" },
    { 200, "\"/tmp", VELOX_UNUSABLE, 0, false, "no JSON" },
    { 200, "{}", VELOX_UNUSABLE, 0, false, "without the path" },
    { 200, "{\"path\":\"\"}", VELOX_UNUSABLE, 0, false, "without the path" },
    { 200, "{\"path\":7}", VELOX_UNUSABLE, 0, false, "without the path" },
    { 200, "{\"path\":null}", VELOX_UNUSABLE, 0, false, "without the path" },
    { 200, "{\"success\":true}", VELOX_UNUSABLE, 0, false, "without the path" },
    { 200, "{\"Path\":\"/a\"}", VELOX_UNUSABLE, 0, false, "without the path" },
    { 200, "{\"path\":\"/a\",\"path\":\"/b\"}", VELOX_UNUSABLE, 0, false, "no JSON" },
    { 200, "{\"path\":\"/a\"} x", VELOX_UNUSABLE, 0, false, "no JSON" },
    { 200, "{\"path\":\"/\xff\"}", VELOX_UNUSABLE, 0, false, "no JSON" },
    { 201, "{\"path\":\"/a\"}", VELOX_UNUSABLE, 0, false, "HTTP 201" },
    { 204, "", VELOX_UNUSABLE, 0, false, "HTTP 204" },
    { 301, "", VELOX_UNUSABLE, 0, false, "HTTP 301" },
    { 302, "{\"path\":\"/a\"}", VELOX_UNUSABLE, 0, false, "HTTP 302" },
    { 400, "bad", VELOX_UNUSABLE, 0, false, "HTTP 400" },
    { 404, "404 page not found\n", VELOX_UNUSABLE, 0, false, "HTTP 404" },
    { 415, "", VELOX_UNUSABLE, 0, false, "HTTP 415" },
};

static bool contains(struct span text, const char *part)
{
    size_t length = strlen(part);

    for (size_t i = 0; i + length <= text.len; i++) {
        if (length == 0 || memcmp(text.ptr + i, part, length) == 0) {
            return true;
        }
    }
    return length == 0;
}

static void check(size_t i, const struct velox_answer *answer)
{
    struct span text = answer->outcome == VELOX_BUILT ? answer->path : answer->message;
    bool good = answer->outcome == rows[i].outcome && answer->is_timeout == rows[i].is_timeout &&
                contains(text, rows[i].text) && text.len > 0;

    if (answer->outcome == VELOX_RETRY) {
        good = good && answer->reason == rows[i].reason;
    }
    if (answer->outcome == VELOX_BUILT) {
        good = good && span_is(text, rows[i].text);
    }
    if (!good) {
        fail_msg("%u %s: outcome %d, reason %d, %.*s", rows[i].status, rows[i].body,
                 (int)answer->outcome, (int)answer->reason, (int)text.len, (const char *)text.ptr);
    }
}

static void test_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct velox_reply reply = { .transport = VELOX_ANSWERED, .status = rows[i].status };
        size_t length = strlen(rows[i].body);
        uint8_t *copy = malloc(length + 1);
        struct velox_answer answer;
        struct buf text;

        assert_non_null(copy);
        memcpy(copy + 1, rows[i].body, length);
        reply.body = span_of(copy + 1, length);
        buf_init(&text, 0);
        velox_answer_decide(&reply, &text, &answer);
        free(copy); /* nothing points into the body */
        check(i, &answer);
        buf_deinit(&text);
    }
}

static void test_transport(void **state)
{
    static const struct {
        enum velox_transport transport;
        enum velox_outcome outcome;
        enum velox_retry_reason reason;
        bool is_timeout;
    } cases[] = {
        { VELOX_NOT_CONNECTED, VELOX_RETRY, VELOX_RETRY_CONNECT, false },
        { VELOX_CUT, VELOX_RETRY, VELOX_RETRY_CUT, false },
        { VELOX_TIMED_OUT, VELOX_RETRY, VELOX_RETRY_TIMEOUT, true },
        { VELOX_TOO_LARGE, VELOX_UNUSABLE, 0, false },
        { VELOX_NOT_HTTP, VELOX_UNUSABLE, 0, false },
        { VELOX_OUT_OF_MEMORY, VELOX_NO_MEMORY, 0, false },
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct velox_reply reply = {
            .transport = cases[i].transport,
            .status = 200,
            .body = span_of_string("{\"path\":\"/a\"}"),
            .detail = span_of_string("Failed to connect to /run/velox.sock"),
        };
        struct velox_answer answer;
        struct buf text;

        buf_init(&text, 0);
        velox_answer_decide(&reply, &text, &answer);
        assert_int_equal(answer.outcome, cases[i].outcome);
        assert_int_equal(answer.is_timeout, cases[i].is_timeout);
        if (answer.outcome == VELOX_RETRY) {
            assert_int_equal(answer.reason, cases[i].reason);
        }
        assert_true(answer.message.len > 0);
        /* curl's words name sockets of this machine: for the log alone. */
        assert_false(contains(answer.message, "velox.sock"));
        assert_true(contains(answer.detail, "velox.sock"));
        buf_deinit(&text);
    }
}

static void test_members(void **state)
{
    struct velox_reply reply = {
        .transport = VELOX_ANSWERED,
        .status = 200,
        .retry_after_ms = 3000,
        .body = span_of_string("{\"success\":true,\"path\":\"/a\\u0000b\",\"build_id\":\"b\\n1\"}"),
    };
    struct velox_answer answer;
    struct buf text;

    (void)state;
    buf_init(&text, 0);
    velox_answer_decide(&reply, &text, &answer);
    assert_int_equal(answer.outcome, VELOX_BUILT);
    assert_int_equal(answer.path.len, 4);
    assert_memory_equal(answer.path.ptr, "/a\0b", 4); /* whole: opening it is refused later */
    assert_true(span_is(answer.build_id, "b\n1"));
    assert_int_equal(answer.retry_after_ms, 3000);
    assert_int_equal(answer.status, 200);
    buf_deinit(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_transport),
        cmocka_unit_test(test_members),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
