/* SPDX-License-Identifier: MIT */
/* The status page's formats to the byte, and what may be in a row. */

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "sidecar/relay/status_page.h"

#define PAGE_MAX ((size_t)64 * 1024)

/* Every field has a number of its own: 100 and its place. */
static struct status_numbers numbers_of_test(void)
{
    struct status_numbers numbers = {
        .version = "1.2.3", .started_at = 1795572044, .uptime_s = 102, .workers_max = 106
    };

    for (unsigned i = 0; i < STATUS_FIELD_COUNT; i++) {
        if (status_fields[i].statistic != STAT_COUNT) {
            numbers.values[status_fields[i].statistic] = 100 + i;
        }
    }
    return numbers;
}

static const struct status_listing listing = { .shown = 2, .left_out = 1, .silent = 0 };

static struct status_row row_of_test(void)
{
    return (struct status_row){ .state = "build",
                                .age_ms = 61005,
                                .request = span_of_string("GET /a?b=<\"&'\\"),
                                .build = span_of_string("r-1"),
                                .bytes = 2048 };
}

/* The whole page; a full one has the row twice. */
static void write_page(enum status_format format, bool is_full, struct status_out *out)
{
    const struct status_writer *writer = status_writer(format);
    struct status_numbers numbers = numbers_of_test();
    struct status_row row = row_of_test();

    *out = (struct status_out){ .error = 0 };
    buf_init(&out->buf, PAGE_MAX);
    writer->begin(&numbers, is_full ? &listing : NULL, out);
    if (is_full) {
        writer->row(&row, true, out);
        writer->row(&row, false, out);
    }
    writer->end(is_full, out);
    assert_int_equal(out->error, 0);
}

static void assert_page(enum status_format format, bool is_full, const char *expected)
{
    struct status_out out;

    write_page(format, is_full, &out);
    assert_int_equal(buf_append(&out.buf, "", 1), 0);
    assert_string_equal((const char *)buf_span(&out.buf).ptr, expected);
    buf_deinit(&out.buf);
}

static void assert_holds(enum status_format format, bool is_full, const char *wanted)
{
    struct status_out out;
    struct span page;

    write_page(format, is_full, &out);
    page = buf_span(&out.buf);
    if (memmem(page.ptr, page.len, wanted, strlen(wanted)) == NULL) {
        fail_msg("%.*s\nlacks %s", (int)page.len, (const char *)page.ptr, wanted);
    }
    buf_deinit(&out.buf);
}

#define TEXT                                                                                       \
    "version:              1.2.3\n"                                                                \
    "start time:           25/Nov/2026:02:00:44 +0000\n"                                           \
    "start since:          102\n"                                                                  \
    "accepted conn:        103\n"                                                                  \
    "fronts active:        104\n"                                                                  \
    "workers active:       105\n"                                                                  \
    "max workers active:   106\n"                                                                  \
    "workers queued:       107\n"                                                                  \
    "requests relayed:     108\n"                                                                  \
    "requests built:       109\n"                                                                  \
    "builds active:        110\n"                                                                  \
    "builds queued:        111\n"                                                                  \
    "builds success:       112\n"                                                                  \
    "builds error:         113\n"                                                                  \
    "builds timeout:       114\n"                                                                  \
    "builds cancelled:     115\n"                                                                  \
    "builds coalesced:     116\n"                                                                  \
    "artifact bytes:       117\n"                                                                  \
    "cache hits:           118\n"                                                                  \
    "cache misses:         119\n"                                                                  \
    "cache entries:        120\n"                                                                  \
    "cache size:           121\n"
#define TEXT_ROW                                                                                   \
    "\n************************\n"                                                                 \
    "state:                build\n"                                                                \
    "age:                  61.005\n"                                                               \
    "request:              GET /a?b=<\"&'\\\n"                                                     \
    "build:                r-1\n"                                                                  \
    "bytes:                2048\n"

static void test_text(void **state)
{
    (void)state;
    assert_page(STATUS_TEXT, false, TEXT);
    assert_page(STATUS_TEXT, true,
                TEXT "exchanges shown:      2\nexchanges left out:   1\n"
                     "threads silent:       0\n" TEXT_ROW TEXT_ROW);
}

#define JSON                                                                                       \
    "{\"version\":\"1.2.3\",\"start time\":1795572044,\"start since\":102,\"accepted conn\":103,"  \
    "\"fronts active\":104,\"workers active\":105,\"max workers active\":106,"                     \
    "\"workers queued\":107,\"requests relayed\":108,\"requests built\":109,"                      \
    "\"builds active\":110,\"builds queued\":111,\"builds success\":112,\"builds error\":113,"     \
    "\"builds timeout\":114,\"builds cancelled\":115,\"builds coalesced\":116,"                    \
    "\"artifact bytes\":117,\"cache hits\":118,\"cache misses\":119,\"cache entries\":120,"        \
    "\"cache size\":121"
#define JSON_ROW                                                                                   \
    "{\"state\":\"build\",\"age\":61.005,\"request\":\"GET /a?b=<\\\"&'\\\\\",\"build\":\"r-1\","  \
    "\"bytes\":2048}"

static void test_json(void **state)
{
    (void)state;
    assert_page(STATUS_JSON, false, JSON "}");
    assert_page(STATUS_JSON, true,
                JSON ",\"exchanges shown\":2,\"exchanges left out\":1,\"threads silent\":0,"
                     "\"exchanges\":[" JSON_ROW "," JSON_ROW "]}");
}

#define XML_ROW                                                                                    \
    "<exchange><state>build</state><age>61.005</age>"                                              \
    "<request>GET /a?b=&lt;&quot;&amp;&#39;\\</request><build>r-1</build><bytes>2048</bytes>"      \
    "</exchange>\n"

static void test_xml(void **state)
{
    (void)state;
    assert_holds(STATUS_XML, false,
                 "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<status>\n"
                 "<version>1.2.3</version>\n<start-time>1795572044</start-time>\n"
                 "<start-since>102</start-since>\n<accepted-conn>103</accepted-conn>\n");
    assert_holds(STATUS_XML, false, "<max-workers-active>106</max-workers-active>\n");
    assert_holds(STATUS_XML, false, "<cache-size>121</cache-size>\n</status>\n");
    assert_holds(STATUS_XML, true,
                 "<cache-size>121</cache-size>\n<exchanges-shown>2</exchanges-shown>\n"
                 "<exchanges-left-out>1</exchanges-left-out>\n"
                 "<threads-silent>0</threads-silent>\n<exchanges>\n" XML_ROW XML_ROW
                 "</exchanges>\n</status>\n");
}

static void test_html(void **state)
{
    (void)state;
    assert_holds(STATUS_HTML, false, "<td class=\"n\">102<small>1 min 42 s</small></td>");
    assert_holds(STATUS_HTML, false, "<th scope=\"row\">cache size</th><td class=\"n\">121</td>");
    assert_holds(STATUS_HTML, false, ">25/Nov/2026:<wbr>02:00:44 +0000</td>");
    assert_holds(STATUS_HTML, true, "<caption>Exchanges: 2 shown, 1 left out</caption>");
    assert_holds(STATUS_HTML, true,
                 "<tr><td>build</td><td class=\"n\">61.005</td><td class=\"r\"><bdi>GET "
                 "/a?b=&lt;&quot;&amp;&#39;\\</bdi></td><td class=\"b\">r-1</td>"
                 "<td class=\"n\">2048<small>2.0 KiB</small></td></tr>\n");
}

/* What a person reads beside a number. */
static void test_human_units(void **state)
{
    static const struct {
        uint64_t uptime_s;
        uint64_t bytes;
        const char *seconds;
        const char *size;
    } cases[] = {
        { 59, 1023, ">59</td>", ">1023</td>" },
        { 60, 1024, "<small>1 min 0 s</small>", "<small>1.0 KiB</small>" },
        { 3599, 1048575, "<small>59 min 59 s</small>", "<small>1.0 MiB</small>" },
        { 3600, 1048576, "<small>1 h 0 min</small>", "<small>1.0 MiB</small>" },
        { 86399, 5368709120u, "<small>23 h 59 min</small>", "<small>5.0 GiB</small>" },
        { 31536000, UINT64_MAX, "<small>365 d 0 h</small>", "<small>16.0 EiB</small>" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct status_numbers numbers = numbers_of_test();
        struct status_out out = { .error = 0 };
        char *page;

        numbers.uptime_s = cases[i].uptime_s;
        numbers.values[STAT_ARTIFACT_BYTES] = cases[i].bytes;
        buf_init(&out.buf, PAGE_MAX);
        status_writer_html.begin(&numbers, NULL, &out);
        assert_int_equal(buf_append(&out.buf, "", 1), 0);
        page = (char *)(uintptr_t)buf_span(&out.buf).ptr;
        assert_non_null(strstr(page, cases[i].seconds));
        assert_non_null(strstr(page, cases[i].size));
        buf_deinit(&out.buf);
    }
}

static void test_openmetrics(void **state)
{
    (void)state;
    assert_holds(STATUS_OPENMETRICS, false,
                 "# TYPE velox_build info\n# HELP velox_build The sidecar that is running.\n"
                 "velox_build_info{version=\"1.2.3\"} 1\n");
    assert_holds(STATUS_OPENMETRICS, false,
                 "velox_builds_total{status=\"success\"} 112\n"
                 "velox_builds_total{status=\"error\"} 113\n"
                 "velox_builds_total{status=\"timeout\"} 114\n"
                 "velox_builds_total{status=\"cancelled\"} 115\n");
    assert_holds(STATUS_OPENMETRICS, false,
                 "# TYPE velox_cache_size_bytes gauge\n# UNIT velox_cache_size_bytes bytes\n"
                 "# HELP velox_cache_size_bytes What they hold together.\n"
                 "velox_cache_size_bytes 121\n");
    assert_holds(STATUS_OPENMETRICS, false, "\n# EOF\n");
    assert_null(status_writer(STATUS_OPENMETRICS)->row);
}

static void test_failures_with_one_code_are_one_metric(void **state)
{
    struct status_numbers numbers = numbers_of_test();
    struct status_out out = { .error = 0 };
    const char *page;

    (void)state;
    numbers.errors[FAILURE_REQUEST_INVALID] = 3;
    numbers.errors[FAILURE_BODY_SHORT] = 4;
    numbers.histograms[STAT_WORKER_RELEASE].buckets[0] = 5;
    numbers.histograms[STAT_WORKER_RELEASE].buckets[2] = 6;
    numbers.histograms[STAT_WORKER_RELEASE].buckets[STAT_BUCKETS_MAX] = 7;
    numbers.histograms[STAT_WORKER_RELEASE].sum_ns = 12000000034u;
    buf_init(&out.buf, PAGE_MAX);
    status_writer_openmetrics.begin(&numbers, NULL, &out);
    assert_int_equal(buf_append(&out.buf, "", 1), 0);
    page = (const char *)buf_span(&out.buf).ptr;
    assert_non_null(strstr(page, "velox_errors_total{type=\"invalid_request\"} 7\n"
                                 "velox_errors_total{type=\"forbidden\"} 0\n"));
    assert_non_null(strstr(page, "_release_seconds_bucket{le=\"0.0001\"} 5\n"
                                 "velox_worker_release_seconds_bucket{le=\"0.00025\"} 5\n"
                                 "velox_worker_release_seconds_bucket{le=\"0.0005\"} 11\n"));
    assert_non_null(strstr(page, "_release_seconds_bucket{le=\"1.0\"} 11\n"
                                 "velox_worker_release_seconds_bucket{le=\"+Inf\"} 18\n"
                                 "velox_worker_release_seconds_sum 12.000000034\n"
                                 "velox_worker_release_seconds_count 18\n"));
    buf_deinit(&out.buf);
}

static void test_wishes(void **state)
{
    static const struct {
        const char *query;
        enum status_format format;
        bool is_full;
    } cases[] = {
        { "", STATUS_TEXT, false },
        { "json", STATUS_JSON, false },
        { "full", STATUS_TEXT, true },
        { "json&full", STATUS_JSON, true },
        { "full&json", STATUS_JSON, true },
        { "xml=", STATUS_XML, false },
        { "html=1&full=0", STATUS_HTML, true },
        { "openmetrics", STATUS_OPENMETRICS, false },
        { "json&html", STATUS_HTML, false },
        { "html&json&xml&openmetrics", STATUS_HTML, false },
        { "openmetrics&json", STATUS_JSON, false },
        { "&&json&", STATUS_JSON, false },
        { "=json&x=full", STATUS_TEXT, false },
        { "jso&fulll&JSON", STATUS_TEXT, false },
        { "&", STATUS_TEXT, false },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct status_wish wish = status_wish_parse(span_of_string(cases[i].query));

        assert_int_equal(wish.format, cases[i].format);
        assert_int_equal(wish.is_full, cases[i].is_full);
    }
}

static void test_visible(void **state)
{
    static const struct {
        const char *text;
        size_t max;
        const char *expected;
    } cases[] = {
        { "", 10, "" },
        { "/plain?<&\"'\\", 100, "/plain?<&\"'\\" },
        { "/k\xc3\xa4se/\xf0\x9f\x98\x80", 100, "/k\xc3\xa4se/\xf0\x9f\x98\x80" },
        { "\r\n\t\x1b[31m\x7f", 100, "\\x0d\\x0a\\x09\\x1b[31m\\x7f" },
        { "\xff\xc3(\xed\xa0\x80\xc0\xaf", 100, "\\xff\\xc3(\\xed\\xa0\\x80\\xc0\\xaf" },
        { "\xe2\x80\xae\xe2\x80\xa8\xc2\x85\xef\xbf\xbf\xef\xbf\xbe", 100,
          "\\u202e\\u2028\\u0085\\uffff\\ufffe" },
        { "12345", 5, "12345" },
        { "123456", 5, "12345..." },
        { "1234\xc3\xa4", 5, "1234..." },
        { "1234\xc3\xa4", 6, "1234\xc3\xa4" },
        { "123\xe2\x82\xac", 5, "123..." },
        { "1234\xc3", 5, "1234\\xc3" }, /* cut by its sender */
        { "12\x80\x80\x80\x80", 5, "12\\x80\\x80\\x80..." },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buf out;

        buf_init(&out, 1000);
        assert_int_equal(status_visible(span_of_string(cases[i].text), cases[i].max, &out), 0);
        assert_int_equal(buf_append(&out, "", 1), 0);
        assert_string_equal((const char *)buf_span(&out).ptr, cases[i].expected);
        buf_deinit(&out);
    }
}

/* Whatever the bytes, what comes out is UTF-8 without a control character. */
static void test_visible_any_byte(void **state)
{
    (void)state;
    for (unsigned byte = 0; byte < 256; byte++) {
        uint8_t text[3] = { 'a', (uint8_t)byte, 'b' };
        struct buf out;
        struct span shown;

        buf_init(&out, 100);
        assert_int_equal(status_visible(span_of(text, 3), 3, &out), 0);
        shown = buf_span(&out);
        for (size_t i = 0; i < shown.len; i++) {
            assert_in_range(shown.ptr[i], ' ', '~');
        }
        buf_deinit(&out);
    }
}

static void test_the_first_error_stays(void **state)
{
    struct status_out out = { .error = 0 };

    (void)state;
    buf_init(&out.buf, 4);
    status_put(&out, "1234");
    assert_int_equal(out.error, 0);
    status_put(&out, "5");
    assert_int_equal(out.error, -ENOBUFS);
    buf_consume(&out.buf, 4);
    status_printf(&out, "%u", 6);
    status_put_markup(&out, span_of_string("<"));
    assert_int_equal(out.error, -ENOBUFS);
    assert_int_equal(buf_length(&out.buf), 0);
    buf_deinit(&out.buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_xml),
        cmocka_unit_test(test_html),
        cmocka_unit_test(test_human_units),
        cmocka_unit_test(test_openmetrics),
        cmocka_unit_test(test_failures_with_one_code_are_one_metric),
        cmocka_unit_test(test_wishes),
        cmocka_unit_test(test_visible),
        cmocka_unit_test(test_visible_any_byte),
        cmocka_unit_test(test_the_first_error_stays),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
