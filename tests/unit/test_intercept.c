/* SPDX-License-Identifier: MIT */

/* Which responses are taken for build requests, and what is left of a head without the header. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>

#include "sidecar/relay/intercept.h"

#define HEAD_MAX 4096

static const char *const verdict_names[] = {
    [INTERCEPT_PASS] = "pass",
    [INTERCEPT_STRIP] = "strip",
    [INTERCEPT_BUILD] = "build",
    [INTERCEPT_UNSERVED] = "unserved",
};

static void assert_verdict(struct span head, bool may_build, bool is_enabled,
                           enum intercept_verdict expected)
{
    enum intercept_verdict verdict = intercept_judge(head, may_build, is_enabled);

    if (verdict != expected) {
        fail_msg("%s instead of %s for method %d, server %d:\n%.*s", verdict_names[verdict],
                 verdict_names[expected], may_build, is_enabled, (int)head.len,
                 (const char *)head.ptr);
    }
}

/* What the head alone says; the method and the server are tried in every combination below. */
static const struct {
    const char *head;
    enum intercept_verdict verdict;
} verdicts[] = {
    { "Content-Type: text/html\r\n\r\n", INTERCEPT_PASS },
    { "\r\n", INTERCEPT_PASS },
    { "", INTERCEPT_PASS },

    /* values that count */
    { "X-Velox-Build: 1\r\n\r\n", INTERCEPT_BUILD },
    { "X-Velox-Build:1\r\n\r\n", INTERCEPT_BUILD },
    { "X-Velox-Build: \t true \t\r\n\r\n", INTERCEPT_BUILD },
    { "X-Velox-Build: yes\n\n", INTERCEPT_BUILD },
    { "x-velox-build: on\r\n\r\n", INTERCEPT_BUILD },
    { "X-VELOX-BUILD: anything at all\r\n\r\n", INTERCEPT_BUILD },
    { "X-Velox-Build: 00\r\n\r\n", INTERCEPT_BUILD },
    { "X-Velox-Build: 0, 0\r\n\r\n", INTERCEPT_BUILD },
    { "X-Velox-Build: nope\r\n\r\n", INTERCEPT_BUILD },
    { "X-Velox-Build: \"0\"\r\n\r\n", INTERCEPT_BUILD },
    { "A: 1\r\nX-Velox-Build: 1\r\nB: 2\r\n\r\n", INTERCEPT_BUILD },
    { "X-Velox-Build: 1\r\n", INTERCEPT_BUILD }, /* without its empty line */
    { "X-Velox-Build: 1", INTERCEPT_BUILD },

    /* values that say no */
    { "X-Velox-Build:\r\n\r\n", INTERCEPT_STRIP },
    { "X-Velox-Build:  \t \r\n\r\n", INTERCEPT_STRIP },
    { "X-Velox-Build: 0\r\n\r\n", INTERCEPT_STRIP },
    { "X-Velox-Build:  0  \r\n\r\n", INTERCEPT_STRIP },
    { "X-Velox-Build: false\r\n\r\n", INTERCEPT_STRIP },
    { "X-Velox-Build: False\r\n\r\n", INTERCEPT_STRIP },
    { "X-Velox-Build: NO\r\n\r\n", INTERCEPT_STRIP },
    { "X-Velox-Build: oFf\n\n", INTERCEPT_STRIP },

    /* given twice: any that counts, counts */
    { "X-Velox-Build: 0\r\nX-Velox-Build: 1\r\n\r\n", INTERCEPT_BUILD },
    { "X-Velox-Build: 1\r\nx-velox-build: 0\r\n\r\n", INTERCEPT_BUILD },
    { "X-Velox-Build: no\r\nX-Velox-Build:\r\n\r\n", INTERCEPT_STRIP },

    /* values that are not whole, or hold what no header may: never a build, and taken out */
    { "X-Velox-Build: 1\r\n folded\r\n\r\n", INTERCEPT_STRIP },
    { "X-Velox-Build:\r\n\t1\r\n\r\n", INTERCEPT_STRIP },
    { "X-Velox-Build: 1\rSet-Cookie: a\r\n\r\n", INTERCEPT_STRIP },

    /* other headers */
    { "X-Velox-Build : 1\r\n\r\n", INTERCEPT_PASS },
    { " X-Velox-Build: 1\r\n\r\n", INTERCEPT_PASS },
    { "A: 1\r\n X-Velox-Build: 1\r\n\r\n", INTERCEPT_PASS }, /* a part of A's value */
    { "X-Velox-Build\r\n\r\n", INTERCEPT_PASS },
    { "X-Velox-Builds: 1\r\n\r\n", INTERCEPT_PASS },
    { "X-Velox-Buil: 1\r\n\r\n", INTERCEPT_PASS },
    { "XX-Velox-Build: 1\r\n\r\n", INTERCEPT_PASS },
    { "X_Velox_Build: 1\r\n\r\n", INTERCEPT_PASS },
    { "\r\nX-Velox-Build: 1\r\n\r\n", INTERCEPT_PASS }, /* in the body */
    { "A: 1\n\nX-Velox-Build: 1\n\n", INTERCEPT_PASS },

    /* statuses */
    { "Status: 200 OK\r\nX-Velox-Build: 1\r\n\r\n", INTERCEPT_BUILD },
    { "X-Velox-Build: 1\r\nStatus: 200\r\n\r\n", INTERCEPT_BUILD },
    { "status: 202 Accepted\nX-Velox-Build: 1\n\n", INTERCEPT_BUILD },
    { "Status: 299\r\nX-Velox-Build: 1\r\n\r\n", INTERCEPT_BUILD },
    { "Status: 199\r\nX-Velox-Build: 1\r\n\r\n", INTERCEPT_STRIP },
    { "Status: 300\r\nX-Velox-Build: 1\r\n\r\n", INTERCEPT_STRIP },
    { "Status: 304 Not Modified\r\nX-Velox-Build: 1\r\n\r\n", INTERCEPT_STRIP },
    { "Status: 404 Not Found\r\nX-Velox-Build: 1\r\n\r\n", INTERCEPT_STRIP },
    { "X-Velox-Build: 1\r\nStatus: 500 Internal Server Error\r\n\r\n", INTERCEPT_STRIP },
    /* that cannot be read: nothing is known of it, so it is no 2xx */
    { "Status:\r\nX-Velox-Build: 1\r\n\r\n", INTERCEPT_STRIP },
    { "Status: OK\r\nX-Velox-Build: 1\r\n\r\n", INTERCEPT_STRIP },
    { "Status: 20\r\nX-Velox-Build: 1\r\n\r\n", INTERCEPT_STRIP },
    { "Status: 2000\r\nX-Velox-Build: 1\r\n\r\n", INTERCEPT_STRIP },
    { "Status: 099\r\nX-Velox-Build: 1\r\n\r\n", INTERCEPT_STRIP },
    { "Status: -200\r\nX-Velox-Build: 1\r\n\r\n", INTERCEPT_STRIP },
    { "Status: HTTP/1.1 200 OK\r\nX-Velox-Build: 1\r\n\r\n", INTERCEPT_STRIP },

    /* no status: a Location makes it a 302 */
    { "Location: /elsewhere\r\nX-Velox-Build: 1\r\n\r\n", INTERCEPT_STRIP },
    { "X-Velox-Build: 1\r\nlocation: /elsewhere\r\n\r\n", INTERCEPT_STRIP },
    { "Status: 201 Created\r\nLocation: /new\r\nX-Velox-Build: 1\r\n\r\n", INTERCEPT_BUILD },
    { "Status: 302 Found\r\nLocation: /new\r\nX-Velox-Build: 1\r\n\r\n", INTERCEPT_STRIP },
    { "Content-Location: /new\r\nX-Velox-Build: 1\r\n\r\n", INTERCEPT_BUILD },
};

static void test_verdicts(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(verdicts) / sizeof(verdicts[0]); i++) {
        struct span head = span_of_string(verdicts[i].head);
        enum intercept_verdict verdict = verdicts[i].verdict;

        assert_verdict(head, true, true, verdict);
        /* Without a server it is told apart, for the warning in the log. */
        assert_verdict(head, true, false,
                       verdict == INTERCEPT_BUILD ? INTERCEPT_UNSERVED : verdict);
        /* A HEAD request is not built for, but the header still goes. */
        assert_verdict(head, false, true, verdict == INTERCEPT_BUILD ? INTERCEPT_STRIP : verdict);
        assert_verdict(head, false, false, verdict == INTERCEPT_BUILD ? INTERCEPT_STRIP : verdict);
    }
}

static void test_nul_in_the_value_is_no_build(void **state)
{
    static const char head[] = "X-Velox-Build: 1\0\r\n\r\n";

    (void)state;
    assert_verdict(span_of(head, sizeof(head) - 1), true, true, INTERCEPT_STRIP);
}

/* ---- the stripped head ---- */

static const struct {
    const char *head;
    const char *stripped;
} strips[] = {
    { "", "" },
    { "\r\n", "\r\n" },
    { "A: 1\r\nB: 2\n\n", "A: 1\r\nB: 2\n\n" },
    { "X-Velox-Build: 1\r\n\r\n", "\r\n" },
    { "X-Velox-Build: 1\n\n", "\n" },
    { "X-Velox-Build:\r\n\r\n", "\r\n" },
    { "x-velox-build: 1\r\nA: 1\r\n\r\n", "A: 1\r\n\r\n" },
    { "A: 1\r\nX-VELOX-BUILD:1\r\nB: 2\r\n\r\n", "A: 1\r\nB: 2\r\n\r\n" },
    { "A: 1\nX-Velox-Build: 1\nB: 2\n\n", "A: 1\nB: 2\n\n" },
    { "A: 1\r\nX-Velox-Build: 1\nB: 2\r\n\n", "A: 1\r\nB: 2\r\n\n" },
    { "A: 1\r\nX-Velox-Build: 1\r\n\r\n", "A: 1\r\n\r\n" },
    /* duplicates, apart and in a row */
    { "X-Velox-Build: 1\r\nX-Velox-Build: 0\r\nA: 1\r\nX-Velox-Build: 1\r\n\r\n", "A: 1\r\n\r\n" },
    /* the lines folded into it go with it, those of others stay */
    { "X-Velox-Build: 1\r\n more\r\n\tand more\r\nA: 1\r\n\r\n", "A: 1\r\n\r\n" },
    { "A: 1\r\n X-Velox-Build: 1\r\nB: 2\r\n\r\n", "A: 1\r\n X-Velox-Build: 1\r\nB: 2\r\n\r\n" },
    { "X-Velox-Build: 1\n \n\n", "\n" },
    /* other names, and lines that are no headers, stay byte for byte */
    { "X-Velox-Builds: 1\r\nX-Velox-Buil: 1\r\n\r\n",
      "X-Velox-Builds: 1\r\nX-Velox-Buil: 1\r\n\r\n" },
    { "X-Velox-Build : 1\r\n\r\n", "X-Velox-Build : 1\r\n\r\n" },
    { "X-Velox-Build\r\n\r\n", "X-Velox-Build\r\n\r\n" },
    { "nonsense\r\n: 1\r\nX-Velox-Build: 1\r\n\r\n", "nonsense\r\n: 1\r\n\r\n" },
    { "Set-Cookie: a=X-Velox-Build: 1\r\n\r\n", "Set-Cookie: a=X-Velox-Build: 1\r\n\r\n" },
    { "A: 1\rX-Velox-Build: 1\r\n\r\n", "A: 1\rX-Velox-Build: 1\r\n\r\n" },
    /* a CR within the value ends no line */
    { "X-Velox-Build: 1\rA: 1\r\nB: 2\r\n\r\n", "B: 2\r\n\r\n" },
    /* heads without their end */
    { "A: 1\r\nX-Velox-Build: 1", "A: 1\r\n" },
    { "A: 1\r\nX-Velox-Bu", "A: 1\r\nX-Velox-Bu" },
    { "A: 1\r\nX-Velox-Build", "A: 1\r\nX-Velox-Build" },
    { "A: 1", "A: 1" },
};

static void test_stripped_heads(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(strips) / sizeof(strips[0]); i++) {
        struct span expected = span_of_string(strips[i].stripped);
        struct buf out;

        buf_init(&out, HEAD_MAX);
        assert_int_equal(intercept_strip(span_of_string(strips[i].head), &out), 0);
        if (!span_equal(buf_span(&out), expected)) {
            fail_msg("got:\n%.*s\nof:\n%s", (int)buf_length(&out), (const char *)buf_span(&out).ptr,
                     strips[i].head);
        }
        buf_deinit(&out);
    }
}

static void test_nul_bytes_stay(void **state)
{
    static const char head[] = "A: \0\r\nX-Velox-Build: \0\r\nB: \0 2\r\n\r\n";
    static const char expected[] = "A: \0\r\nB: \0 2\r\n\r\n";
    struct buf out;

    (void)state;
    buf_init(&out, HEAD_MAX);
    assert_int_equal(intercept_strip(span_of(head, sizeof(head) - 1), &out), 0);
    assert_true(span_equal(buf_span(&out), span_of(expected, sizeof(expected) - 1)));
    buf_deinit(&out);
}

static void test_strip_appends_and_keeps_the_maximum(void **state)
{
    struct span head = span_of_string("A: 1\r\nX-Velox-Build: 1\r\nB: 2\r\n\r\n");
    struct buf out;

    (void)state;
    buf_init(&out, 6 + 14);
    assert_int_equal(buf_append_string(&out, "before"), 0);
    assert_int_equal(intercept_strip(head, &out), 0);
    assert_true(span_is(buf_span(&out), "beforeA: 1\r\nB: 2\r\n\r\n"));
    buf_deinit(&out);
    buf_init(&out, 13);
    assert_int_equal(intercept_strip(head, &out), -ENOBUFS);
    buf_deinit(&out);
}

/* Whatever is judged to be there is not there any more, and nothing else is gone. */
static void test_strip_leaves_nothing_to_judge(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(verdicts) / sizeof(verdicts[0]); i++) {
        struct span head = span_of_string(verdicts[i].head);
        struct buf out;

        buf_init(&out, HEAD_MAX);
        assert_int_equal(intercept_strip(head, &out), 0);
        assert_verdict(buf_span(&out), true, true, INTERCEPT_PASS);
        assert_true((verdicts[i].verdict == INTERCEPT_PASS) == span_equal(buf_span(&out), head) ||
                    strncmp(verdicts[i].head, "\r\n", 2) == 0 || head.len == 0 ||
                    strstr(verdicts[i].head, "\n\nX-V") != NULL);
        buf_deinit(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verdicts),
        cmocka_unit_test(test_nul_in_the_value_is_no_build),
        cmocka_unit_test(test_stripped_heads),
        cmocka_unit_test(test_nul_bytes_stay),
        cmocka_unit_test(test_strip_appends_and_keeps_the_maximum),
        cmocka_unit_test(test_strip_leaves_nothing_to_judge),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
