/* SPDX-License-Identifier: MIT */
/* The lines of an ini file, ordinary and hostile ones. */

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "sidecar/config_lines.h"

/* Everything that was found, one line each: "1 [section]", "2 name=value", "3 +more", "4 !problem"
 * (the problem's first word). */
struct transcript {
    char text[4096];
    int answer; /* what the callbacks give */
};

static void note(struct transcript *transcript, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void note(struct transcript *transcript, const char *format, ...)
{
    size_t length = strlen(transcript->text);
    va_list args;

    va_start(args, format);
    vsnprintf(transcript->text + length, sizeof(transcript->text) - length, format, args);
    va_end(args);
}

static int on_section(void *owner, unsigned line, const char *section)
{
    struct transcript *transcript = owner;

    note(transcript, "%u [%s]\n", line, section == NULL ? "?" : section);
    return transcript->answer;
}

static int on_value(void *owner, unsigned line, const char *name, const char *value)
{
    struct transcript *transcript = owner;

    note(transcript, "%u %s=%s\n", line, name, value);
    return transcript->answer;
}

static int on_continuation(void *owner, unsigned line, const char *value)
{
    struct transcript *transcript = owner;

    note(transcript, "%u +%s\n", line, value);
    return transcript->answer;
}

static void on_problem(void *owner, unsigned line, const char *problem)
{
    note(owner, "%u !%.*s\n", line, (int)strcspn(problem, ";"), problem);
}

static const struct config_lines_events events = {
    .on_section = on_section,
    .on_value = on_value,
    .on_continuation = on_continuation,
    .on_problem = on_problem,
};

static void read_and_expect(struct span bytes, const char *expected)
{
    struct transcript transcript = { .answer = 0 };
    /* A copy of the exact size lets a memory checker see every byte read past the end. */
    uint8_t *copy = malloc(bytes.len == 0 ? 1 : bytes.len);

    assert_non_null(copy);
    memcpy(copy, bytes.ptr, bytes.len);
    assert_int_equal(config_lines_read(span_of(copy, bytes.len), &events, &transcript), 0);
    free(copy);
    assert_string_equal(transcript.text, expected);
}

static void test_ordinary_lines(void **state)
{
    static const struct {
        const char *bytes;
        const char *expected;
    } cases[] = {
        { "", "" },
        { "\n\n", "" },
        { "[a]\nx = 1\ny=2\n", "1 [a]\n2 x=1\n3 y=2\n" },
        { "[a]\nx = 1", "1 [a]\n2 x=1\n" },
        { "[a]\r\nx = 1\r\n\r\n", "1 [a]\n2 x=1\n" },
        { "\xef\xbb\xbf[a]\nx: 1\n", "1 [a]\n2 x=1\n" },
        { "[a]\n[b]\n", "1 [a]\n2 [b]\n" },
        { "  [a]\n  x = 1\n", "1 [a]\n2 x=1\n" },
        { "x = 1\n", "1 x=1\n" },
        { "[a]\nx =\ny = \n", "1 [a]\n2 x=\n3 y=\n" },
        { "[a]\nx = b c  \n", "1 [a]\n2 x=b c\n" },
        { "[a]\nx = u=v:w\n", "1 [a]\n2 x=u=v:w\n" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        read_and_expect(span_of_string(cases[i].bytes), cases[i].expected);
    }
}

static void test_comments(void **state)
{
    static const struct {
        const char *bytes;
        const char *expected;
    } cases[] = {
        { "; a\n# b\n  ; c\n\t# d\n[a] ; e\nx = 1 ; f\n", "5 [a]\n6 x=1\n" },
        { "[a]\nx = 1;2 # 3\n", "1 [a]\n2 x=1;2 # 3\n" },
        { "[a]\nx =;1\n", "1 [a]\n2 x=;1\n" },
        { "[a]\nx = ;1\n", "1 [a]\n2 x=\n" },
        { "[a]\nx = 1\t;2\n", "1 [a]\n2 x=1\n" },
        { "[a]\nx = 1\n;y = 2\n", "1 [a]\n2 x=1\n" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        read_and_expect(span_of_string(cases[i].bytes), cases[i].expected);
    }
}

static void test_continuations(void **state)
{
    static const struct {
        const char *bytes;
        const char *expected;
    } cases[] = {
        { "[a]\nx = 1,\n  2,\n\t3\ny = 4\n", "1 [a]\n2 x=1,\n3 +2,\n4 +3\n5 y=4\n" },
        { "[a]\nx = 1, ; one\n  ; between\n\n  2 ; two\n", "1 [a]\n2 x=1,\n5 +2\n" },
        { "[a]\nx = 1\n  y = 2\n", "1 [a]\n2 x=1\n3 +y = 2\n" },
        { "[a]\nx = 1\n  [b]\n", "1 [a]\n2 x=1\n3 +[b]\n" },
        { "[a]\nx = 1\n[b]\n  y = 2\n", "1 [a]\n2 x=1\n3 [b]\n4 y=2\n" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        read_and_expect(span_of_string(cases[i].bytes), cases[i].expected);
    }
}

static void test_lines_that_are_nothing(void **state)
{
    static const char neither[] = "neither a section nor a key with its value";
    static const char control[] = "a control character";
    static const struct {
        const char *bytes;
        size_t length;
        unsigned line;
        const char *problem;
    } cases[] = {
        { "[a]\nword\n", 9, 2, neither },
        { "[a\n", 3, 1, "a section without ]" },
        { "[a] x = 1\n", 10, 1, "text behind a section" },
        { "[a]]\n", 5, 1, "text behind a section" },
        { "= 1\n", 4, 1, "no key before the value" },
        { "  : 1\n", 6, 1, "no key before the value" },
        { "x\0y = 1\n", 8, 1, control },
        { "x = 1\0\n", 7, 1, control },
        { "x = \033[31m\n", 10, 1, control },
        { "x = 1\r2\n", 8, 1, control },
        { "x = 1\x7f\n", 7, 1, control },
        { "\0", 1, 1, control },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char expected[128];

        snprintf(expected, sizeof(expected), "%s%u !%s\n",
                 cases[i].line == 2         ? "1 [a]\n"
                 : cases[i].bytes[0] == '[' ? "1 [?]\n"
                                            : "",
                 cases[i].line, cases[i].problem);
        read_and_expect(span_of(cases[i].bytes, cases[i].length), expected);
    }
}

/* What would continue a line that was refused is not taken for something else. */
static void test_problems_take_their_continuation_along(void **state)
{
    (void)state;
    read_and_expect(span_of_string("[a]\nx = 1\nword\n  2\n  3\ny = 4\n  5\n"),
                    "1 [a]\n2 x=1\n3 !neither a section nor a key with its value\n6 y=4\n7 +5\n");
    read_and_expect(span_of_string("[a]\nx = 1\n  \033\n  3\ny = 4\n"),
                    "1 [a]\n2 x=1\n3 !a control character\n5 y=4\n");
}

static void test_long_lines(void **state)
{
    /* 198 bytes pass, as inih of Debian takes them (INI_MAX_LINE 200). */
    char bytes[600] = "[a]\nx = ";
    char expected[600];

    (void)state;
    memset(bytes + 8, 'v', 194);
    strcpy(bytes + 202, "\ny = 1\n");
    snprintf(expected, sizeof(expected), "1 [a]\n2 x=%.194s\n3 y=1\n", bytes + 8);
    read_and_expect(span_of_string(bytes), expected);
    memset(bytes + 8, 'v', 195);
    strcpy(bytes + 203, "\n  cut\ny = 1\n");
    read_and_expect(span_of_string(bytes),
                    "1 [a]\n2 !the line would be cut, it is longer than 198 bytes\n4 y=1\n");
    /* A comment may be as long as it likes. */
    memset(bytes + 8, ' ', 1);
    memset(bytes + 9, ';', 400);
    strcpy(bytes + 409, "\ny = 1\n");
    read_and_expect(span_of_string(bytes), "1 [a]\n2 x=\n3 y=1\n");
}

static void test_a_line_of_a_megabyte(void **state)
{
    size_t length = 1 << 20;
    char *bytes = malloc(length);

    (void)state;
    assert_non_null(bytes);
    memset(bytes, 'x', length);
    read_and_expect(span_of(bytes, length),
                    "1 !the line would be cut, it is longer than 198 bytes\n");
    memset(bytes, ' ', length);
    read_and_expect(span_of(bytes, length), "");
    memset(bytes, '\n', length);
    memcpy(bytes + length - 3, "x=1", 3);
    read_and_expect(span_of(bytes, length), "1048574 x=1\n");
    free(bytes);
}

static void test_an_error_ends_the_reading(void **state)
{
    struct transcript transcript = { .answer = -ENOMEM };

    (void)state;
    assert_int_equal(config_lines_read(span_of_string("[a]\nx = 1\n"), &events, &transcript),
                     -ENOMEM);
    assert_string_equal(transcript.text, "1 [a]\n");
    transcript.text[0] = '\0';
    assert_int_equal(config_lines_read(span_of_string("x = 1\n 2\n"), &events, &transcript),
                     -ENOMEM);
    assert_string_equal(transcript.text, "1 x=1\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ordinary_lines),
        cmocka_unit_test(test_comments),
        cmocka_unit_test(test_continuations),
        cmocka_unit_test(test_lines_that_are_nothing),
        cmocka_unit_test(test_problems_take_their_continuation_along),
        cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_a_line_of_a_megabyte),
        cmocka_unit_test(test_an_error_ends_the_reading),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
