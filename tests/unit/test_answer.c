/* SPDX-License-Identifier: MIT */

/* Heads and bodies of our own answers, byte for byte, with whatever PHP and Velox put into them. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <cjson/cJSON.h>
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>

#include "fcgi/cgi.h"
#include "sidecar/relay/answer.h"

#define ANSWER_MAX 65536
#define ADDED_MAX 800

/* Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110. */
#define MODIFIED_S 784111777
#define ENTITY(size_text, etag)                                                                    \
    "Status: 200 OK\r\n"                                                                           \
    "Content-Type: application/octet-stream\r\n"                                                   \
    "Content-Length: " size_text "\r\n"                                                            \
    "ETag: \"" etag "\"\r\n"                                                                       \
    "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n"                                             \
    "Accept-Ranges: bytes\r\n"
/* 784111777 s and 5 ns, 1000 bytes. */
#define ETAG "ae1b981bc490a05-3e8"
#define LINUX_NAME "Content-Disposition: attachment; filename=\"roadrunner-linux-amd64\"\r\n"
#define FACTS "X-Build-Request-ID: id-1\r\nX-Cache-Status: MISS\r\nX-Build-Time: 61.5\r\n"
#define EXPOSED                                                                                    \
    "Content-Disposition, Content-Length, ETag, Accept-Ranges, Content-Range, "                    \
    "X-Build-Request-ID, X-Cache-Status, X-Build-Time, X-Cache-Age\r\n"

static struct artifact artifact_of(uint64_t size_bytes)
{
    return (struct artifact){ .fd = -1,
                              .size_bytes = size_bytes,
                              .modified = { .tv_sec = MODIFIED_S, .tv_nsec = 5 } };
}

static struct answer_artifact usual(const struct artifact *artifact, const char *php_head)
{
    return (struct answer_artifact){ .artifact = artifact,
                                     .php_head = span_of_string(php_head),
                                     .request_id = "id-1",
                                     .os = "linux",
                                     .arch = "amd64",
                                     .duration_ms = 61500 };
}

static void assert_text(const struct buf *out, const char *expected)
{
    if (!span_is(buf_span(out), expected)) {
        fail_msg("got:\n%.*s\ninstead of:\n%s", (int)buf_length(out),
                 (const char *)buf_span(out).ptr, expected);
    }
}

static void check_head(const struct answer_artifact *answer, const char *expected)
{
    struct buf out;

    buf_init(&out, ANSWER_MAX);
    assert_int_equal(answer_artifact_head(answer, &out), 0);
    assert_text(&out, expected);
    buf_deinit(&out);
}

/* ---- the head in front of a file ---- */

static void test_heads(void **state)
{
    const struct artifact artifact = artifact_of(1000);
    static const struct {
        const char *php_head;
        const char *expected;
    } cases[] = {
        { "", ENTITY("1000", ETAG) LINUX_NAME FACTS "\r\n" },
        { "\r\n", ENTITY("1000", ETAG) LINUX_NAME FACTS "\r\n" },
        { "Content-Type: application/json\r\nX-Velox-Build: 1\r\nX-Powered-By: PHP\r\n\r\n",
          ENTITY("1000", ETAG) LINUX_NAME FACTS "X-Powered-By: PHP\r\n\r\n" },
        /* line ends and spaces are ours, names and values PHP's */
        { "x-a:1\nX-B:  2 \t\r\nX-C:\r\n\n",
          ENTITY("1000", ETAG) LINUX_NAME FACTS "x-a: 1\r\nX-B: 2\r\nX-C: \r\n\r\n" },
        { "Set-Cookie: a=1; Path=/\r\nSet-Cookie: b=\xc3\xa4\r\n\r\n",
          ENTITY("1000", ETAG) LINUX_NAME FACTS
          "Set-Cookie: a=1; Path=/\r\nSet-Cookie: b=\xc3\xa4\r\n\r\n" },
        { "Content-Disposition: attachment; filename=\"rr\"\r\n\r\n",
          ENTITY("1000", ETAG) FACTS "Content-Disposition: attachment; filename=\"rr\"\r\n\r\n" },
        { "content-disposition: inline\r\n\r\n",
          ENTITY("1000", ETAG) FACTS "content-disposition: inline\r\n\r\n" },
        /* one that cannot be passed on does not count as PHP's */
        { "Content-Disposition: inline;\r\n filename=x\r\n\r\n",
          ENTITY("1000", ETAG) LINUX_NAME FACTS "\r\n" },
        { "Cache-Control: private\r\nExpires: 0\r\nVary: Cookie\r\n\r\n",
          ENTITY("1000", ETAG) LINUX_NAME FACTS
          "Cache-Control: private\r\nExpires: 0\r\nVary: Cookie\r\n\r\n" },
        /* the head ends at its empty line */
        { "A: 1\r\n\r\nB: 2\r\n", ENTITY("1000", ETAG) LINUX_NAME FACTS "A: 1\r\n\r\n" },
        { "A: 1", ENTITY("1000", ETAG) LINUX_NAME FACTS "A: 1\r\n\r\n" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct answer_artifact answer = usual(&artifact, cases[i].php_head);

        check_head(&answer, cases[i].expected);
    }
}

static void test_sizes(void **state)
{
    static const struct {
        uint64_t size_bytes;
        const char *expected;
    } cases[] = {
        { 0, ENTITY("0", "ae1b981bc490a05-0") },
        { 1, ENTITY("1", "ae1b981bc490a05-1") },
        { UINT64_C(5000000000), ENTITY("5000000000", "ae1b981bc490a05-12a05f200") },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct artifact artifact = artifact_of(cases[i].size_bytes);
        struct answer_artifact answer = usual(&artifact, "");
        char expected[1024];

        (void)snprintf(expected, sizeof(expected), "%s%s%s\r\n", cases[i].expected, LINUX_NAME,
                       FACTS);
        check_head(&answer, expected);
    }
}

static void test_file_names(void **state)
{
    const struct artifact artifact = artifact_of(1000);
    static const struct {
        const char *os;
        const char *arch;
        const char *name;
    } cases[] = {
        { "linux", "arm64", "roadrunner-linux-arm64" },
        { "darwin", "arm64", "roadrunner-darwin-arm64" },
        { "windows", "amd64", "roadrunner-windows-amd64.exe" },
        { "windows2", "amd64", "roadrunner-windows2-amd64" },
        { "", "", "roadrunner" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct answer_artifact answer = usual(&artifact, "");
        char expected[1024];

        answer.os = cases[i].os;
        answer.arch = cases[i].arch;
        (void)snprintf(
            expected, sizeof(expected),
            ENTITY("1000", ETAG) "Content-Disposition: attachment; filename=\"%s\"\r\n" FACTS
                                 "\r\n",
            cases[i].name);
        check_head(&answer, expected);
    }
}

static void test_build_time_is_rounded(void **state)
{
    const struct artifact artifact = artifact_of(1000);
    static const struct {
        uint64_t duration_ms;
        const char *text;
    } cases[] = {
        { 0, "0.0" },      { 49, "0.0" },     { 50, "0.1" },       { 149, "0.1" },
        { 150, "0.2" },    { 949, "0.9" },    { 950, "1.0" },      { 999, "1.0" },
        { 1000, "1.0" },   { 1049, "1.0" },   { 1050, "1.1" },     { 59949, "59.9" },
        { 59950, "60.0" }, { 61500, "61.5" }, { 300000, "300.0" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct answer_artifact answer = usual(&artifact, "");
        char expected[1024];

        answer.duration_ms = cases[i].duration_ms;
        (void)snprintf(expected, sizeof(expected),
                       ENTITY("1000", ETAG) LINUX_NAME
                       "X-Build-Request-ID: id-1\r\n"
                       "X-Cache-Status: MISS\r\nX-Build-Time: %s\r\n\r\n",
                       cases[i].text);
        check_head(&answer, expected);
    }
}

static void test_hit(void **state)
{
    const struct artifact artifact = artifact_of(1000);
    struct answer_artifact answer = usual(&artifact, "");

    (void)state;
    answer.from_cache = true;
    answer.cache_age_s = 12345;
    check_head(&answer, ENTITY("1000", ETAG) LINUX_NAME
               "X-Build-Request-ID: id-1\r\nX-Cache-Status: HIT\r\nX-Cache-Age: 12345\r\n\r\n");
}

static void test_dates(void **state)
{
    static const struct {
        time_t when;
        const char *text;
    } cases[] = {
        { 0, "Thu, 01 Jan 1970 00:00:00 GMT" },
        { MODIFIED_S, "Sun, 06 Nov 1994 08:49:37 GMT" },
        { 1709164799, "Wed, 28 Feb 2024 23:59:59 GMT" },
        { 1709164800, "Thu, 29 Feb 2024 00:00:00 GMT" },
        { 2147483648, "Tue, 19 Jan 2038 03:14:08 GMT" },
    };

    (void)state;
    /* Neither the zone nor the language of the machine may get in. */
    assert_int_equal(setenv("TZ", "America/New_York", 1), 0);
    tzset();
    (void)setlocale(LC_ALL, "de_DE.UTF-8");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct artifact artifact = artifact_of(1);
        struct answer_artifact answer = usual(&artifact, "");
        char expected[100];
        struct buf out;

        artifact.modified.tv_sec = cases[i].when;
        buf_init(&out, ANSWER_MAX);
        assert_int_equal(answer_artifact_head(&answer, &out), 0);
        (void)snprintf(expected, sizeof(expected), "\r\nLast-Modified: %s\r\n", cases[i].text);
        assert_non_null(memmem(buf_span(&out).ptr, buf_length(&out), expected, strlen(expected)));
        buf_deinit(&out);
    }
    (void)setlocale(LC_ALL, "C");
    assert_int_equal(unsetenv("TZ"), 0);
    tzset();
}

/* ---- the filter ---- */

static const char *const dropped[] = {
    "Content-Type",
    "Content-Length",
    "Content-Encoding",
    "Content-Range",
    "Content-Language",
    "Content-Location",
    "Content-MD5",
    "Digest",
    "ETag",
    "Last-Modified",
    "Accept-Ranges",
    "Transfer-Encoding",
    "Connection",
    "Keep-Alive",
    "TE",
    "Trailer",
    "Upgrade",
    "Status",
    "X-Velox-Build",
    "X-Accel-Redirect",
    "X-Sendfile",
    "X-LIGHTTPD-send-file",
};

static void check_dropped(const char *name)
{
    const struct artifact artifact = artifact_of(1000);
    char php_head[300];
    char expected[1024];

    (void)snprintf(php_head, sizeof(php_head), "A: 1\r\n%s: v\r\n%s2: kept\r\nX%s: kept\r\n\r\n",
                   name, name, name);
    struct answer_artifact answer = usual(&artifact, php_head);

    (void)snprintf(expected, sizeof(expected),
                   ENTITY("1000", ETAG) LINUX_NAME FACTS "A: 1\r\n%s2: kept\r\nX%s: kept\r\n\r\n",
                   name, name);
    check_head(&answer, expected);
}

static void test_filter(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(dropped) / sizeof(dropped[0]); i++) {
        char name[40];

        check_dropped(dropped[i]);
        (void)snprintf(name, sizeof(name), "%s", dropped[i]);
        for (char *c = name; *c != '\0'; c++) {
            *c = (char)tolower((unsigned char)*c);
        }
        check_dropped(name);
        for (char *c = name; *c != '\0'; c++) {
            *c = (char)toupper((unsigned char)*c);
        }
        check_dropped(name);
    }
}

/* Nothing gets in that a front could take for another header, or for the end of the head. */
static void test_lines_that_are_no_whole_header_are_left_out(void **state)
{
    const struct artifact artifact = artifact_of(1000);
#define BYTES(text)                                                                                \
    {                                                                                              \
        text, sizeof(text) - 1                                                                     \
    }
    static const struct span_text {
        const char *ptr;
        size_t len;
    } cases[] = {
        BYTES("nonsense\r\n"),
        BYTES(": no name\r\n"),
        BYTES("X Y: 1\r\n"),
        BYTES("X-A : 1\r\n"),
        BYTES("X-\xc3\xa4: 1\r\n"),
        BYTES("X-A\0: 1\r\n"),
        BYTES("X-A: 1\0 2\r\n"),
        BYTES("X-A: 1\rSet-Cookie: evil\r\n"),
        BYTES("X-A: 1\r\r\n"),
        BYTES("X-A: 1\r\n folded\r\n"),
        BYTES("X-A: 1\r\n\tfolded\r\n"),
        BYTES("X-A: 1\n \r\n"),
        BYTES("HTTP/1.1 200 OK\r\n"),
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct answer_artifact answer = usual(&artifact, "");
        struct buf php_head;

        buf_init(&php_head, ANSWER_MAX);
        assert_int_equal(buf_append_string(&php_head, "B: 1\r\n"), 0);
        assert_int_equal(buf_append(&php_head, cases[i].ptr, cases[i].len), 0);
        assert_int_equal(buf_append_string(&php_head, "C: 2\r\n\r\n"), 0);
        answer.php_head = buf_span(&php_head);
        check_head(&answer, ENTITY("1000", ETAG) LINUX_NAME FACTS "B: 1\r\nC: 2\r\n\r\n");
        buf_deinit(&php_head);
    }
}

static void test_exposed_headers(void **state)
{
    const struct artifact artifact = artifact_of(1000);
    static const struct {
        const char *php_head;
        const char *expected; /* what PHP's head makes of it */
    } cases[] = {
        /* other origins are not allowed: nothing is added */
        { "Access-Control-Expose-Headers: X-A\r\n\r\n", "Access-Control-Expose-Headers: X-A\r\n" },
        { "Access-Control-Allow-Methods: GET\r\n\r\n", "Access-Control-Allow-Methods: GET\r\n" },
        { "Access-Control-Allow-Origin: *\r\n\r\n",
          "Access-Control-Allow-Origin: *\r\nAccess-Control-Expose-Headers: " EXPOSED },
        { "access-control-allow-origin: https://a.example\r\nA: 1\r\n\r\n",
          "access-control-allow-origin: https://a.example\r\nA: 1\r\n"
          "Access-Control-Expose-Headers: " EXPOSED },
        { "Access-Control-Allow-Origin: *\r\nAccess-Control-Expose-Headers: X-A, X-B\r\n\r\n",
          "Access-Control-Allow-Origin: *\r\nAccess-Control-Expose-Headers: X-A, X-B, " EXPOSED },
        { "access-control-expose-headers: X-A\r\nAccess-Control-Allow-Origin: *\r\n"
          "Access-Control-Expose-Headers:\r\nAccess-Control-Expose-Headers: X-B\r\n\r\n",
          "Access-Control-Allow-Origin: *\r\nAccess-Control-Expose-Headers: X-A, X-B, " EXPOSED },
        /* what cannot be passed on gives nothing */
        { "Access-Control-Allow-Origin: *\r\nAccess-Control-Expose-Headers: X-A,\r\n X-B\r\n\r\n",
          "Access-Control-Allow-Origin: *\r\nAccess-Control-Expose-Headers: " EXPOSED },
        { "Access-Control-Allow-Origin:\r\n *\r\n\r\n", "" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct answer_artifact answer = usual(&artifact, cases[i].php_head);
        char expected[2048];

        (void)snprintf(expected, sizeof(expected), "%s%s\r\n",
                       ENTITY("1000", ETAG) LINUX_NAME FACTS, cases[i].expected);
        check_head(&answer, expected);
    }
}

/* A head that does not fit fastcgi_buffer_size is a 502 in nginx. */
static void test_added_bytes_are_few(void **state)
{
    struct artifact artifact = artifact_of(INT64_MAX);
    static const char origin[] = "Access-Control-Allow-Origin: *\r\n";
    char id[65];
    char name[33];
    struct buf out;

    (void)state;
    memset(id, 'i', sizeof(id) - 1);
    id[sizeof(id) - 1] = '\0';
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    memset(artifact.etag, 'e', 66);         /* a SHA-256 with its quotes */
    artifact.modified.tv_sec = 18446744072; /* the most that nanoseconds in 64 bits can tell */
    for (int from_cache = 0; from_cache < 2; from_cache++) {
        struct answer_artifact answer = {
            .artifact = &artifact,
            .php_head = span_of_string(origin),
            .request_id = id,
            .os = name,
            .arch = name,
            .from_cache = from_cache != 0,
            .duration_ms = UINT64_MAX / 2,
            .cache_age_s = UINT64_MAX,
            .part = { .status = 206, .first = INT64_MAX - 2, .end = INT64_MAX - 1 },
        };

        buf_init(&out, ANSWER_MAX);
        assert_int_equal(answer_artifact_head(&answer, &out), 0);
        assert_true(buf_length(&out) - strlen(origin) < ADDED_MAX);
        buf_deinit(&out);
    }
}

/* What the source of a fetched file says stands for what we do not know of it. */
static void test_fetched_files(void **state)
{
    struct artifact artifact = artifact_of(1000);
    struct answer_artifact answer = usual(&artifact, "");

    (void)state;
    artifact.is_fetched = true;
    memcpy(artifact.etag, "\"abc\"", 6);
    check_head(&answer, ENTITY("1000", "abc") LINUX_NAME FACTS "\r\n");
    artifact.lacks_time = true;
    artifact.modified = (struct timespec){ .tv_sec = 0 };
    check_head(&answer,
               "Status: 200 OK\r\nContent-Type: application/octet-stream\r\n"
               "Content-Length: 1000\r\nETag: \"abc\"\r\nAccept-Ranges: bytes\r\n" LINUX_NAME FACTS
               "\r\n");
    artifact.etag[0] = '\0';
    check_head(&answer, "Status: 200 OK\r\nContent-Type: application/octet-stream\r\n"
                        "Content-Length: 1000\r\nAccept-Ranges: bytes\r\n" LINUX_NAME FACTS "\r\n");
}

/* nginx keeps Accept-Ranges over X-Accel-Redirect, and adds its own. */
static void test_handed_over(void **state)
{
    const struct artifact artifact = artifact_of(1000);
    struct answer_artifact answer = usual(&artifact, "X-Accel-Redirect: /evil\r\nA: 1\r\n\r\n");

    (void)state;
    answer.accel_redirect = span_of_string("/files/rr");
    check_head(&answer, "Status: 200 OK\r\nContent-Type: application/octet-stream\r\n"
                        "Content-Length: 1000\r\nETag: \"" ETAG "\"\r\n"
                        "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n" LINUX_NAME FACTS
                        "X-Accel-Redirect: /files/rr\r\nA: 1\r\n\r\n");
}

/* Each status with what it must and what it must not say. */
static void test_parts(void **state)
{
    const struct artifact artifact = artifact_of(1000);
    struct answer_artifact answer = usual(&artifact, "Cache-Control: private\r\n\r\n");

    (void)state;
#define REST                                                                                       \
    "ETag: \"" ETAG "\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nAccept-Ranges: bytes\r\n"
#define PRIVATE "Cache-Control: private\r\n\r\n"
    answer.part = (struct condition_verdict){ .status = 206, .first = 5, .end = 10 };
    check_head(
        &answer,
        "Status: 206 Partial Content\r\nContent-Type: application/octet-stream\r\n"
        "Content-Length: 5\r\nContent-Range: bytes 5-9/1000\r\n" REST LINUX_NAME FACTS PRIVATE);
    answer.part = (struct condition_verdict){ .status = 304 };
    check_head(&answer, "Status: 304 Not Modified\r\n" REST FACTS PRIVATE);
    answer.part = (struct condition_verdict){ .status = 416 };
    check_head(&answer, "Status: 416 Range Not Satisfiable\r\nContent-Length: 0\r\n"
                        "Content-Range: bytes */1000\r\n" REST FACTS PRIVATE);
}

static void test_head_that_does_not_fit(void **state)
{
    const struct artifact artifact = artifact_of(1000);
    struct answer_artifact answer = usual(&artifact, "Access-Control-Allow-Origin: *\r\n\r\n");
    struct buf out;

    (void)state;
    buf_init(&out, ANSWER_MAX);
    assert_int_equal(answer_artifact_head(&answer, &out), 0);
    size_t length = buf_length(&out);

    buf_deinit(&out);
    for (size_t max = 0; max <= length; max++) {
        buf_init(&out, max);
        assert_int_equal(answer_artifact_head(&answer, &out), max < length ? -ENOBUFS : 0);
        buf_deinit(&out);
    }
}

/* ---- failures ---- */

/* The body of a failure, parsed; its head is checked for the length. */
static cJSON *parse_failure(const struct answer_failure *answer, struct buf *out)
{
    char length[64];
    struct cgi_scan scan;
    size_t head_length = 0;

    buf_init(out, ANSWER_MAX);
    assert_int_equal(answer_failure(answer, out), 0);
    cgi_scan_init(&scan);
    assert_true(cgi_scan_next(&scan, buf_span(out), &head_length));
    (void)snprintf(length, sizeof(length), "\r\nContent-Length: %zu\r\n",
                   buf_length(out) - head_length);
    assert_non_null(memmem(buf_span(out).ptr, head_length, length, strlen(length)));
    cJSON *json = cJSON_ParseWithLength((const char *)buf_span(out).ptr + head_length,
                                        buf_length(out) - head_length);

    assert_non_null(json);
    assert_true(cJSON_IsObject(json));
    return json;
}

static const char *member(const cJSON *json, const char *name)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, name));
}

static void test_every_failure(void **state)
{
    static const struct {
        enum failure failure;
        const char *status;
        const char *error;
        bool retry_after;
    } cases[] = {
        { FAILURE_REQUEST_INVALID, "400 Bad Request", "invalid_request", false },
        { FAILURE_BODY_SHORT, "400 Bad Request", "invalid_request", false },
        { FAILURE_FORBIDDEN, "403 Forbidden", "forbidden", false },
        { FAILURE_BODY_TOO_LARGE, "413 Content Too Large", "too_large", false },
        { FAILURE_PARAMS_TOO_LARGE, "431 Request Header Fields Too Large", "too_large", false },
        { FAILURE_BUILD_FAILED, "500 Internal Server Error", "build_failed", false },
        { FAILURE_ARTIFACT_UNAVAILABLE, "500 Internal Server Error", "artifact_unavailable",
          false },
        { FAILURE_VELOX_UNAVAILABLE, "502 Bad Gateway", "velox_unavailable", false },
        { FAILURE_WORKER_FAILED, "502 Bad Gateway", "worker_failed", false },
        { FAILURE_BUSY, "503 Service Unavailable", "busy", true },
        { FAILURE_TIMEOUT, "504 Gateway Timeout", "timeout", false },
    };

    (void)state;
    assert_int_equal(sizeof(cases) / sizeof(cases[0]), FAILURE_COUNT - 1);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct answer_failure answer = { .failure = cases[i].failure,
                                         .message = span_of_string("what happened"),
                                         .request_id = "id-1",
                                         .retry_after_s = 7 };
        char body[200];
        char expected[1024];
        struct buf out;
        cJSON *json = parse_failure(&answer, &out);

        assert_string_equal(member(json, "error"), cases[i].error);
        assert_string_equal(member(json, "message"), "what happened");
        assert_string_equal(member(json, "request_id"), "id-1");
        assert_int_equal(cJSON_GetArraySize(json), 3);
        (void)snprintf(body, sizeof(body),
                       "{\"error\": \"%s\", \"message\": \"what happened\", "
                       "\"request_id\": \"id-1\"}\n",
                       cases[i].error);
        (void)snprintf(expected, sizeof(expected),
                       "Status: %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
                       "Cache-Control: no-store\r\n%s\r\n%s",
                       cases[i].status, strlen(body),
                       cases[i].retry_after ? "Retry-After: 7\r\n" : "", body);
        assert_text(&out, expected);
        cJSON_Delete(json);
        buf_deinit(&out);
    }
}

static void test_retry_after(void **state)
{
    static const struct {
        unsigned seconds;
        const char *line;
    } cases[] = {
        { 0, "\r\nRetry-After: 1\r\n" },
        { 1, "\r\nRetry-After: 1\r\n" },
        { 2, "\r\nRetry-After: 2\r\n" },
        { UINT_MAX, "\r\nRetry-After: 4294967295\r\n" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct answer_failure answer = { .failure = FAILURE_BUSY,
                                         .message = span_of_string("busy"),
                                         .retry_after_s = cases[i].seconds };
        struct buf out;
        cJSON *json = parse_failure(&answer, &out);

        assert_non_null(
            memmem(buf_span(&out).ptr, buf_length(&out), cases[i].line, strlen(cases[i].line)));
        cJSON_Delete(json);
        buf_deinit(&out);
    }
}

static void test_outside_of_builds_there_is_no_request_id(void **state)
{
    struct answer_failure answer = { .failure = FAILURE_BUSY, .message = span_of_string("full") };
    struct buf out;
    cJSON *json = parse_failure(&answer, &out);

    (void)state;
    assert_null(member(json, "request_id"));
    assert_int_equal(cJSON_GetArraySize(json), 2);
    cJSON_Delete(json);
    buf_deinit(&out);
}

/* What the client's JSON parser gives back for what Velox said. */
static const struct {
    const char *message;
    size_t len; /* 0: up to the NUL */
    const char *decoded;
} messages[] = {
    { "", 0, "" },
    { "plain / text", 0, "plain / text" },
    { "\"quoted\" and \\", 0, "\"quoted\" and \\" },
    { "two\nlines\tand a tab", 0, "two\nlines\tand a tab" },
    { "\"}, {\"error\": \"mine\"", 0, "\"}, {\"error\": \"mine\"" },
    { "</script><b>&amp;", 0, "</script><b>&amp;" },
    /* control characters become visible, whatever decodes the JSON onto a terminal */
    { "\x1b[31mred\x1b[0m", 0, "\\x1b[31mred\\x1b[0m" },
    { "a\rb\bc\x01"
      "d\x7f"
      "e\x1f",
      0,
      "a\\x0db\\x08c\\x01"
      "d\\x7f"
      "e\\x1f" },
    { "a\0b", 3, "a\\x00b" },
    { "\xc2\x9b"
      "31m \xc2\x80 \xc2\x9f",
      0, "\\x9b31m \\x80 \\x9f" },
    /* UTF-8 of every length, and its first and last characters */
    { "\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80", 0, "\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80" },
    { "\xc2\xa0 \xdf\xbf \xe0\xa0\x80 \xef\xbf\xbf \xf0\x90\x80\x80 \xf4\x8f\xbf\xbf", 0,
      "\xc2\xa0 \xdf\xbf \xe0\xa0\x80 \xef\xbf\xbf \xf0\x90\x80\x80 \xf4\x8f\xbf\xbf" },
    { "\xed\x9f\xbf \xee\x80\x80", 0, "\xed\x9f\xbf \xee\x80\x80" },
    /* what is no UTF-8 becomes the replacement character */
    { "a\xff"
      "b",
      0,
      "a\xef\xbf\xbd"
      "b" },
    { "\x80", 0, "\xef\xbf\xbd" },
    { "\xc0\x80", 0, "\xef\xbf\xbd\xef\xbf\xbd" }, /* overlong */
    { "\xc1\xbf", 0, "\xef\xbf\xbd\xef\xbf\xbd" }, /* overlong */
    { "\xe0\x9f\xbf", 0, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" },
    { "\xed\xa0\x80", 0, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" }, /* a surrogate */
    { "\xf4\x90\x80\x80", 0, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" },
    { "\xf5", 0, "\xef\xbf\xbd" },
    /* cut in mid-character, as a message of limited length may be */
    { "a\xc3", 0, "a\xef\xbf\xbd" },
    { "a\xe2\x82", 0, "a\xef\xbf\xbd\xef\xbf\xbd" },
    { "a\xf0\x9f\x98", 0, "a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" },
    { "\xc3(", 0, "\xef\xbf\xbd(" },
    { "\xc3\"", 0, "\xef\xbf\xbd\"" }, /* the quote is not swallowed */
};

static void test_messages(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(messages) / sizeof(messages[0]); i++) {
        size_t len = messages[i].len > 0 ? messages[i].len : strlen(messages[i].message);
        uint8_t *copy = malloc(len + 1); /* of its exact size, for the sanitizer */

        assert_non_null(copy);
        copy = realloc(copy, len > 0 ? len : 1);
        assert_non_null(copy);
        memcpy(copy, messages[i].message, len);
        struct answer_failure answer = { .failure = FAILURE_BUILD_FAILED,
                                         .message = span_of(copy, len) };
        struct buf out;
        cJSON *json = parse_failure(&answer, &out);

        assert_string_equal(member(json, "message"), messages[i].decoded);
        assert_string_equal(member(json, "error"), "build_failed");
        assert_int_equal(cJSON_GetArraySize(json), 2);
        cJSON_Delete(json);
        buf_deinit(&out);
        free(copy);
    }
}

/* Any bytes at all: the answer stays JSON, without a byte that drives a terminal. */
static void test_random_messages(void **state)
{
    unsigned seed = 20260101;

    (void)state;
    for (unsigned round = 0; round < 500; round++) {
        uint8_t bytes[100];
        struct buf out;

        for (size_t i = 0; i < sizeof(bytes); i++) {
            bytes[i] = (uint8_t)rand_r(&seed);
        }
        struct answer_failure answer = { .failure = FAILURE_BUILD_FAILED,
                                         .message = span_of(bytes, round % sizeof(bytes)) };
        cJSON *json = parse_failure(&answer, &out);
        struct span rest = buf_span(&out);

        while (rest.len > 0) {
            assert_true(rest.ptr[0] == '\r' || rest.ptr[0] == '\n' ||
                        (rest.ptr[0] >= 0x20 && rest.ptr[0] != 0x7f));
            span_skip(&rest, 1);
        }
        cJSON_Delete(json);
        buf_deinit(&out);
    }
}

/* Behind an interception: PHP's headers by the same filter, without Content-Disposition. */
static void test_failure_carries_headers_of_php(void **state)
{
    struct answer_failure answer = {
        .failure = FAILURE_FORBIDDEN,
        .message = span_of_string("no"),
        .php_head = span_of_string("Status: 200 OK\r\nContent-Type: text/html\r\n"
                                   "Content-Length: 99\r\nX-Velox-Build: 1\r\n"
                                   "Content-Disposition: attachment\r\nSet-Cookie: a=1\r\n"
                                   "Access-Control-Allow-Origin: *\r\n"
                                   "X-Evil: 1\rStatus: 200\r\n"
                                   "Access-Control-Expose-Headers: X-A\r\n\r\n"),
    };
    struct buf out;
    cJSON *json = parse_failure(&answer, &out);

    (void)state;
    assert_text(&out, "Status: 403 Forbidden\r\nContent-Type: application/json\r\n"
                      "Content-Length: 40\r\nCache-Control: no-store\r\nSet-Cookie: a=1\r\n"
                      "Access-Control-Allow-Origin: *\r\n"
                      "Access-Control-Expose-Headers: X-A, " EXPOSED "\r\n"
                      "{\"error\": \"forbidden\", \"message\": \"no\"}\n");
    cJSON_Delete(json);
    buf_deinit(&out);
}

static void test_failure_that_does_not_fit(void **state)
{
    struct answer_failure answer = { .failure = FAILURE_BUSY,
                                     .message = span_of_string("a \"message\"\x01\xff\n"),
                                     .request_id = "id-1",
                                     .php_head = span_of_string("A: 1\r\n\r\n") };
    struct buf out;

    (void)state;
    cJSON_Delete(parse_failure(&answer, &out));
    size_t length = buf_length(&out);

    buf_deinit(&out);
    for (size_t max = 0; max <= length; max++) {
        buf_init(&out, max);
        assert_int_equal(answer_failure(&answer, &out), max < length ? -ENOBUFS : 0);
        buf_deinit(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heads),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_file_names),
        cmocka_unit_test(test_build_time_is_rounded),
        cmocka_unit_test(test_hit),
        cmocka_unit_test(test_dates),
        cmocka_unit_test(test_filter),
        cmocka_unit_test(test_lines_that_are_no_whole_header_are_left_out),
        cmocka_unit_test(test_exposed_headers),
        cmocka_unit_test(test_added_bytes_are_few),
        cmocka_unit_test(test_fetched_files),
        cmocka_unit_test(test_handed_over),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_head_that_does_not_fit),
        cmocka_unit_test(test_every_failure),
        cmocka_unit_test(test_retry_after),
        cmocka_unit_test(test_outside_of_builds_there_is_no_request_id),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_random_messages),
        cmocka_unit_test(test_failure_carries_headers_of_php),
        cmocka_unit_test(test_failure_that_does_not_fit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
