/* SPDX-License-Identifier: MIT */

/* Build requests: where the value ends, what is refused and why, that bytes stay as they are. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/unit/cuts.h"

#include "sidecar/build/build_request.h"

#include <errno.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* ---- the end of the value ---- */

static const struct {
    const char *text;
    int length; /* -1: no end */
} ends[] = {
    { "{}", 2 },
    { "{} trailing", 2 },
    { " \r\n\t{\"a\":[1,{}]}\n", 16 },
    { "[{\"}\":1}]{}", 9 },
    { "{\"a\\\"}\":\"\\\\\"}x", 13 },
    { "{\"a\":\"]}\"", -1 },
    { "{\"a\\", -1 },
    { "", -1 },
    { "  ", -1 },
    { "\"{}\"", -1 },
    { "17 {}", -1 },
    { "Warning: x {} in y\n{}", -1 },
    { "\xef\xbb\xbf{}", -1 },
    { "{]", 2 }, /* not judged here */
};

static void trace_end(struct trace *trace, struct span input, struct cuts cuts)
{
    struct json_end end;
    size_t length = 0;
    size_t before = 0;

    json_end_init(&end);
    while (input.len > 0) {
        struct span piece = cuts_take(&cuts, &input);
        enum json_end_result result = json_end_next(&end, piece, &length);

        cuts_give_back(piece.ptr);
        if (result == JSON_END_FOUND) {
            trace_line(trace, "%zu", before + length);
            return;
        }
        before += piece.len;
    }
    trace_line(trace, "-1");
}

static void test_end(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(ends); i++) {
        struct trace trace = { 0 };
        char wanted[20];

        (void)snprintf(wanted, sizeof(wanted), "%d", ends[i].length);
        trace_end(&trace, span_of_string(ends[i].text), cuts_whole());
        if (!span_is(trace_span(&trace), wanted)) {
            fail_msg("%s: %.*s", ends[i].text, (int)trace.len, (const char *)trace.bytes);
        }
        trace_deinit(&trace);
        cuts_compare_many(trace_end, span_of_string(ends[i].text), 20);
    }
}

/* ---- what is refused ---- */

#define HEAD "\"rr_version\":\"v2025.1.2\","

static const struct {
    const char *body;
    const char *message; /* a part of it; NULL: accepted */
} cases[] = {
    { "{" HEAD "\"plugins\":[]}", NULL },
    { "{" HEAD "\"plugins\":[{\"module_name\":\"m\",\"tag\":\"v1\",\"x\":{}}],\"unknown\":1e999}",
      NULL },
    { "{" HEAD "\"plugins\":[],\"request_id\":null,\"target_platform\":null}", NULL },
    { "{" HEAD "\"plugins\":[],\"request_id\":\"A.b_c-9\"}", NULL },
    { "{" HEAD "\"plugins\":[],\"target_platform\":{\"os\":\"linux\",\"arch\":\"amd64\"}}", NULL },
    { "{" HEAD "\"plugins\":[],\"moduleName\":1}", NULL }, /* not in that member's place */
    { "{" HEAD "\"plugins\":[{\"module_name\":\"\",\"tag\":\"\",\"rrVersion\":1}]}", NULL },
    { "{" HEAD
      "\"plugins\":[],\"x\":123456789012345678901234567890123456789012345678901234567890123"
      "45678901234567890}",
      NULL },
    { "", "empty" },
    { " \n", "empty" },
    { "\xef\xbb\xbf{}", "byte order mark" },
    { "Warning: foo\x1b[1m in bar",
      "no JSON, probably a PHP warning: Warning: foo\\x1b[1m in bar" },
    { "<br />\n<b>Notice", "no JSON, probably a PHP warning: <br />\\x0a<b>Notice" },
    { "[]", "must be a JSON object" },
    { "null", "must be a JSON object" },
    { "\"x\"", "must be a JSON object" },
    { "true or so", "not valid JSON" },
    { "{\"rr_version\":", "ends in the middle" },
    { "{" HEAD "\"plugins\":[],}", "a syntax error at byte 39" },
    { "{\"plugins\":[]}", "rr_version is missing; it must be a string" },
    { "{\"rr_version\":null,\"plugins\":[]}", "rr_version is missing" },
    { "{\"rr_version\":1,\"plugins\":[]}", "rr_version must be a string" },
    { "{\"rr_version\":\"v1\"}", "plugins is missing" },
    { "{\"rr_version\":\"v1\",\"plugins\":{}}", "plugins must be an array" },
    { "{" HEAD "\"plugins\":[1]}", "plugins[0] must be an object" },
    { "{" HEAD "\"plugins\":[{\"module_name\":\"m\",\"tag\":\"t\"},{\"module_name\":\"m\"}]}",
      "plugins[1].tag is missing; it must be a string" },
    { "{" HEAD "\"plugins\":[{\"module_name\":7,\"tag\":\"t\"}]}",
      "plugins[0].module_name must be a string" },
    { "{" HEAD "\"plugins\":[],\"request_id\":1}", "request_id must be a string" },
    { "{" HEAD "\"plugins\":[],\"request_id\":\"\"}", "request_id must be 1 to 64 characters" },
    { "{" HEAD "\"plugins\":[],\"request_id\":\"a b\"}", "request_id must be 1 to 64 characters" },
    { "{" HEAD "\"plugins\":[],\"request_id\":\"\xc3\xa9\"}", "request_id must be" },
    { "{" HEAD "\"plugins\":[],\"request_id\":\"12345678901234567890123456789012345678901234567890"
      "123456789012345\"}",
      "request_id must be 1 to 64 characters" },
    { "{" HEAD "\"plugins\":[],\"target_platform\":\"linux\"}",
      "target_platform must be an object" },
    { "{" HEAD "\"plugins\":[],\"target_platform\":{\"os\":\"linux\"}}",
      "target_platform.arch is missing" },
    { "{" HEAD "\"plugins\":[],\"target_platform\":{\"os\":null,\"arch\":\"amd64\"}}",
      "target_platform.os is missing" },
    { "{" HEAD "\"plugins\":[],\"target_platform\":{\"os\":\"Linux\",\"arch\":\"amd64\"}}",
      "target_platform.os must be 1 to 32 characters" },
    { "{" HEAD "\"plugins\":[],\"target_platform\":{\"os\":\"linux\",\"arch\":\"a/b\"}}",
      "target_platform.arch must be 1 to 32 characters" },
    { "{" HEAD "\"plugins\":[],\"target_platform\":{\"os\":\"linux\",\"arch\":"
      "\"123456789012345678901234567890123\"}}",
      "target_platform.arch must be" },
    { "{" HEAD "\"plugins\":[],\"requestId\":\"a\"}", "requestId is written request_id" },
    { "{\"rrVersion\":\"v1\",\"plugins\":[]}", "rrVersion is written rr_version" },
    { "{" HEAD "\"plugins\":[],\"forceRebuild\":true}", "forceRebuild is written force_rebuild" },
    { "{" HEAD "\"plugins\":[],\"target\\u0050latform\":null}",
      "targetPlatform is written target_platform" },
    { "{" HEAD "\"plugins\":[{\"module_name\":\"m\",\"tag\":\"t\",\"moduleName\":\"m\"}]}",
      "plugins[0].moduleName is written module_name" },
    { "{" HEAD "\"plugins\":[],\"plugins\":[]}", "given twice at byte 51, in plugins" },
    { "{" HEAD "\"plugins\":[{\"module_name\":\"m\",\"tag\":\"t\",\"t\\u0061g\":\"u\"}]}",
      "given twice" },
    { "{" HEAD "\"plugins\":[{\"module_name\":\"m\\u0000\",\"tag\":\"t\"}]}",
      "\\u0000 is not allowed at byte 60, in plugins[0].module_name" },
    { "{" HEAD "\"plugins\":[],\"x\":\"\xc3\"}", "invalid UTF-8 at byte 44, in x" },
    { "{" HEAD "\"plugins\":[],\"x\":\"a\tb\"}", "a control character that is not escaped" },
};

/* From memory of exactly its size. */
static int parse(struct span body, struct build_request *request, char *message)
{
    uint8_t *copy = malloc(body.len + 1);
    int result;

    assert_non_null(copy);
    memcpy(copy + 1, body.ptr, body.len);
    message[0] = '\0';
    result = build_request_parse(span_of(copy + 1, body.len), request, message);
    free(copy);
    return result;
}

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct build_request request;
        char message[BUILD_REQUEST_MESSAGE_SIZE];
        int result = parse(span_of_string(cases[i].body), &request, message);

        if (cases[i].message == NULL) {
            if (result != 0) {
                fail_msg("%s: %s", cases[i].body, message);
            }
            build_request_deinit(&request);
        } else if (result != -EINVAL || strstr(message, cases[i].message) == NULL) {
            fail_msg("%s: %d %s", cases[i].body, result, message);
        }
    }
}

/* ---- what is taken and what is passed on ---- */

static void must_parse(const char *body, struct build_request *request)
{
    char message[BUILD_REQUEST_MESSAGE_SIZE];

    if (parse(span_of_string(body), request, message) != 0) {
        fail_msg("%s: %s", body, message);
    }
}

static void test_bytes_stay(void **state)
{
    static const char body[] =
        "\n{ \"request_id\":\"id-1\",\"big\":123456789012345678901234567890.10,"
        "\"rr_version\" : \"v1\\u002e2\", \"plugins\":[ ],\"esc\":\"\\/\" }\t";
    struct build_request request;

    (void)state;
    must_parse(body, &request);
    assert_true(span_is(buf_span(&request.body), body));
    assert_string_equal(request.id, "id-1");
    assert_string_equal(request.os, "");
    assert_false(request.force_rebuild);
    build_request_deinit(&request);
}

static void test_members_are_taken(void **state)
{
    struct build_request request;

    (void)state;
    must_parse("{" HEAD "\"plugins\":[],\"force_rebuild\":true,\"request_id\":\"\\u0041\","
               "\"target_platform\":{\"arch\":\"arm64\",\"os\":\"windows\"}}",
               &request);
    assert_string_equal(request.id, "A");
    assert_string_equal(request.os, "windows");
    assert_string_equal(request.arch, "arm64");
    assert_true(request.force_rebuild);
    build_request_deinit(&request);
    must_parse("{" HEAD "\"plugins\":[],\"force_rebuild\":\"true\"}", &request);
    assert_false(request.force_rebuild);
    build_request_deinit(&request);
}

static void assert_uuid(const char *id)
{
    assert_int_equal(strlen(id), 36);
    assert_int_equal(strspn(id, "0123456789abcdef-"), 36);
    assert_int_equal(id[14], '4');
    assert_non_null(strchr("89ab", id[19]));
    assert_int_equal(id[8], '-');
    assert_int_equal(id[23], '-');
}

static void assert_made(const char *body, const char *before, const char *after)
{
    struct build_request request;
    char wanted[400];

    must_parse(body, &request);
    assert_uuid(request.id);
    (void)snprintf(wanted, sizeof(wanted), "%s%s%s", before, request.id, after);
    if (!span_is(buf_span(&request.body), wanted)) {
        fail_msg("%.*s", (int)buf_length(&request.body), (const char *)buf_span(&request.body).ptr);
    }
    build_request_deinit(&request);
}

static void test_id_is_put_in(void **state)
{
    (void)state;
    assert_made(" { " HEAD "\"plugins\":[]}", " {\"request_id\":\"", "\", " HEAD "\"plugins\":[]}");
    assert_made("{" HEAD "\"request_id\" : null , \"plugins\":[]}", "{" HEAD "\"request_id\" : \"",
                "\" , \"plugins\":[]}");
    assert_made("{" HEAD "\"x\":null,\"request\\u005fid\":null,\"plugins\":[{\"module_name\":\"m\","
                "\"tag\":\"t\",\"request_id\":null}]}",
                "{" HEAD "\"x\":null,\"request\\u005fid\":\"",
                "\",\"plugins\":[{\"module_name\":\"m\",\"tag\":\"t\",\"request_id\":null}]}");
}

static void test_ids_differ(void **state)
{
    struct build_request a, b;

    (void)state;
    must_parse("{" HEAD "\"plugins\":[]}", &a);
    must_parse("{" HEAD "\"plugins\":[]}", &b);
    assert_string_not_equal(a.id, b.id);
    assert_memory_equal(a.key, b.key, sizeof(a.key));
    build_request_deinit(&a);
    build_request_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_end),          cmocka_unit_test(test_cases),
        cmocka_unit_test(test_bytes_stay),   cmocka_unit_test(test_members_are_taken),
        cmocka_unit_test(test_id_is_put_in), cmocka_unit_test(test_ids_differ),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
