/* SPDX-License-Identifier: MIT */
/* Log lines as a reader of the log meets them: read from the other end of a pipe. */

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "sidecar/base/log.h"

struct reader {
    int fds[2];
    struct log log;
    char bytes[65536];
};

static int set_up(void **state)
{
    struct reader *reader = calloc(1, sizeof(*reader));

    *state = reader;
    if (reader == NULL || pipe2(reader->fds, O_NONBLOCK | O_CLOEXEC) != 0) {
        return -1;
    }
    log_init(&reader->log, reader->fds[1], LOG_INFO, LOG_TEXT);
    return 0;
}

static int tear_down(void **state)
{
    struct reader *reader = *state;

    close(reader->fds[0]);
    close(reader->fds[1]);
    free(reader);
    return 0;
}

/* All that was logged since the last call, as a string. */
static const char *read_log(struct reader *reader)
{
    ssize_t length = read(reader->fds[0], reader->bytes, sizeof(reader->bytes) - 1);

    reader->bytes[length < 0 ? 0 : length] = '\0';
    return reader->bytes;
}

/* What follows the time, whose form is checked. */
static const char *read_after_time(struct reader *reader)
{
    static const char form[] = "time=0000-00-00T00:00:00.000Z ";
    const char *line = read_log(reader);

    for (size_t i = 0; form[i] != '\0'; i++) {
        if (form[i] == '0') {
            assert_in_range(line[i], '0', '9');
        } else {
            assert_int_equal(line[i], form[i]);
        }
    }
    return line + sizeof(form) - 1;
}

static void log_value(struct reader *reader, const char *bytes, size_t length)
{
    log_info(&reader->log, "event", log_span("value", span_of(bytes, length)));
}

static void test_a_text_line(void **state)
{
    struct reader *reader = *state;

    log_info(&reader->log, "build started", log_str("request_id", "b66d"), log_uint("attempt", 1),
             log_int("left", -5), log_errno("error", ECONNREFUSED), log_errno("again", -ENOENT));
    assert_string_equal(read_after_time(reader),
                        "level=info msg=\"build started\" request_id=b66d attempt=1 left=-5 "
                        "error=\"Connection refused\" again=\"No such file or directory\"\n");
    log_error(&reader->log, "x", log_uint("n", UINT64_MAX), log_int("m", INT64_MIN),
              log_str("none", NULL), log_errno("error", 99999));
    assert_string_equal(read_after_time(reader),
                        "level=error msg=x n=18446744073709551615 m=-9223372036854775808 none=\"\" "
                        "error=\"error 99999\"\n");
}

static void test_text_values(void **state)
{
    static const struct {
        const char *value;
        size_t length;
        const char *shown;
    } cases[] = {
        { "plain/path.php?x", 16, "plain/path.php?x" },
        { "", 0, "\"\"" },
        { "two words", 9, "\"two words\"" },
        { "a=b", 3, "\"a=b\"" },
        { "say \"hi\"", 8, "\"say \\\"hi\\\"\"" },
        { "C:\\x", 4, "\"C:\\\\x\"" },
        { "a\nb\r\t", 5, "\"a\\nb\\r\\t\"" },
        { "\033[31m", 5, "\"\\x1b[31m\"" },
        { "nul\0nul", 7, "\"nul\\x00nul\"" },
        { "\x7f", 1, "\"\\x7f\"" },
        { "gr\xc3\xbc\xc3\x9f", 6, "\"gr\xc3\xbc\xc3\x9f\"" },
        { "\xc2\x9b"
          "31m",
          5, "\"\\u009b31m\"" },
        { "\xff\xc3", 2, "\"\\xff\\xc3\"" },
        { "\xc0\xaf", 2, "\"\\xc0\\xaf\"" },                   /* overlong */
        { "\xed\xa0\x80", 3, "\"\\xed\\xa0\\x80\"" },          /* a surrogate */
        { "\xf4\x90\x80\x80", 4, "\"\\xf4\\x90\\x80\\x80\"" }, /* over U+10FFFF */
        { "\xf0\x9f\x98\x80", 4, "\"\xf0\x9f\x98\x80\"" },
        { "\xe2\x80\xae", 3, "\"\\u202e\"" }, /* right-to-left override */
    };
    struct reader *reader = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char expected[200];

        log_value(reader, cases[i].value, cases[i].length);
        snprintf(expected, sizeof(expected), "level=info msg=event value=%s\n", cases[i].shown);
        assert_string_equal(read_after_time(reader), expected);
    }
}

static void test_json_values(void **state)
{
    static const struct {
        const char *value;
        size_t length;
        const char *parsed;
    } cases[] = {
        { "plain", 5, "plain" },
        { "", 0, "" },
        { "say \"hi\" \\", 10, "say \"hi\" \\" },
        { "a\nb\r\t\033\x7f", 7, "a\nb\r\t\033\x7f" },
        { "\xc2\x9b", 2, "\xc2\x9b" },
        { "gr\xc3\xbc\xc3\x9f", 6, "gr\xc3\xbc\xc3\x9f" },
        { "\xff", 1, "\xef\xbf\xbd" },
        { "\xf0\x9f\x98\x80", 4, "\xf0\x9f\x98\x80" },
    };
    struct reader *reader = *state;

    reader->log.format = LOG_JSON;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *line;
        cJSON *json;

        log_value(reader, cases[i].value, cases[i].length);
        line = read_log(reader);
        for (const char *byte = line; byte[1] != '\0'; byte++) {
            assert_true((unsigned char)*byte >= 0x20 && *byte != 0x7f);
        }
        json = cJSON_Parse(line);
        assert_non_null(json);
        assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(json, "value")),
                            cases[i].parsed);
        cJSON_Delete(json);
    }
}

static void test_a_json_line(void **state)
{
    struct reader *reader = *state;
    const char *line;

    reader->log.format = LOG_JSON;
    log_warn(&reader->log, "client left", log_str("stage", "build"), log_uint("bytes", 17));
    line = read_log(reader);
    assert_memory_equal(line, "{\"time\":\"2", 10);
    assert_string_equal(line + 33,
                        "\",\"level\":\"warn\",\"msg\":\"client left\",\"stage\":\"build\","
                        "\"bytes\":17}\n");
}

static void test_levels(void **state)
{
    struct reader *reader = *state;
    enum log_level level = LOG_DEBUG;
    enum log_format format = LOG_TEXT;

    log_debug(&reader->log, "no", log_int("n", 1));
    log_event(&reader->log, LOG_DEBUG, "no", NULL, 0);
    assert_string_equal(read_log(reader), "");
    reader->log.level = LOG_DEBUG;
    log_event(&reader->log, LOG_DEBUG, "yes", NULL, 0);
    assert_string_equal(read_after_time(reader), "level=debug msg=yes\n");
    assert_true(log_level_parse("warn", &level));
    assert_int_equal(level, LOG_WARN);
    assert_false(log_level_parse("warning", &level));
    assert_false(log_level_parse("", &level));
    assert_int_equal(level, LOG_WARN);
    assert_true(log_format_parse("json", &format));
    assert_int_equal(format, LOG_JSON);
    assert_false(log_format_parse("xml", &format));
    assert_string_equal(log_level_name(LOG_ERROR), "error");
}

static void test_a_long_value_is_cut(void **state)
{
    struct reader *reader = *state;
    char value[LOG_VALUE_MAX + 2];
    const char *line;

    memset(value, 'a', sizeof(value));
    log_value(reader, value, LOG_VALUE_MAX);
    line = read_after_time(reader);
    assert_int_equal(strlen(line), strlen("level=info msg=event value=\n") + LOG_VALUE_MAX);
    log_value(reader, value, LOG_VALUE_MAX + 1);
    line = read_after_time(reader);
    assert_int_equal(strlen(line), strlen("level=info msg=event value=\"...\"\n") + LOG_VALUE_MAX);
    assert_string_equal(line + strlen(line) - 6, "a...\"\n");
    /* Never in the middle of a character. */
    memcpy(value + LOG_VALUE_MAX - 1, "\xe2\x82\xac", 3);
    log_value(reader, value, sizeof(value));
    line = read_after_time(reader);
    assert_string_equal(line + strlen(line) - 6, "a...\"\n");
    assert_null(strchr(line, '\\'));
}

/* Every kind of content, in many lengths, as the last field and followed by a short one. */
static void test_a_line_is_cut_whole(void **state)
{
    static const char *const fills[] = { "a", "\n", "\xff", "\xc2\x80", "\"", "\xe2\x82\xac", " " };
    struct reader *reader = *state;
    char value[LOG_VALUE_MAX + 4];

    for (unsigned round = 0; round < 2 * 7 * 60; round++) {
        const char *fill = fills[round / 2 % 7];
        size_t length = LOG_VALUE_MAX - round / 14 * strlen(fill);
        const char *line;

        for (size_t i = 0; i < length; i += strlen(fill)) {
            memcpy(value + i, fill, strlen(fill));
        }
        reader->log.format = round % 2 == 0 ? LOG_JSON : LOG_TEXT;
        log_info(&reader->log, "e", log_span("a", span_of(value, length)),
                 log_span("b", span_of(value, length)), log_span("c", span_of(value, length)),
                 log_span("d", span_of(value, length)), log_span("e", span_of(value, length)),
                 log_uint("n", 7));
        line = read_log(reader);
        assert_in_range(strlen(line), 1000, LOG_LINE_MAX);
        assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
        if (reader->log.format == LOG_JSON) {
            cJSON *json = cJSON_Parse(line);

            assert_non_null(json);
            assert_non_null(cJSON_GetObjectItem(json, "a"));
            cJSON_Delete(json);
        }
    }
}

static void test_lost_lines_are_told(void **state)
{
    static const char told[] = "level=warn msg=\"log lines lost\" lines_lost=2\n";
    struct reader *reader = *state;
    const char *line;

    /* Fill the pipe until a line is refused. */
    while (atomic_load(&reader->log.lost) == 0) {
        log_value(reader, "filling the pipe", 16);
    }
    log_value(reader, "lost too", 8);
    assert_int_equal(atomic_load(&reader->log.lost), 2);
    while (read(reader->fds[0], reader->bytes, sizeof(reader->bytes)) > 0) {}
    log_value(reader, "passes", 6);
    assert_int_equal(atomic_load(&reader->log.lost), 0);
    line = read_after_time(reader);
    assert_memory_equal(line, told, strlen(told));
    assert_non_null(strstr(line + strlen(told), "level=info msg=event value=passes\n"));
    log_value(reader, "again", 5);
    assert_string_equal(read_after_time(reader), "level=info msg=event value=again\n");
}

static void test_errno_is_kept(void **state)
{
    struct reader *reader = *state;

    errno = ENOTTY;
    reader->log.fd = -1;
    log_value(reader, "x", 1);
    assert_int_equal(errno, ENOTTY);
    assert_int_equal(atomic_load(&reader->log.lost), 1);
}

#define log_test(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        log_test(test_a_text_line),
        log_test(test_text_values),
        log_test(test_json_values),
        log_test(test_a_json_line),
        log_test(test_levels),
        log_test(test_a_long_value_is_cut),
        log_test(test_a_line_is_cut_whole),
        log_test(test_lost_lines_are_told),
        log_test(test_errno_is_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
