/* SPDX-License-Identifier: MIT */

/* What is JSON and what is not, and how values are found in it. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "sidecar/build/json_scan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static const struct {
    const char *text;
    enum json_fault fault;
} cases[] = {
    { "{}", JSON_FINE },
    { " \t\r\n[ ] \n", JSON_FINE },
    { "\"\"", JSON_FINE },
    { "0", JSON_FINE },
    { "-0", JSON_FINE },
    { "-12.50e+03", JSON_FINE },
    { "1E-9", JSON_FINE },
    { "123456789012345678901234567890", JSON_FINE },
    { "true", JSON_FINE },
    { "false", JSON_FINE },
    { "null", JSON_FINE },
    { "[1,[2,{\"a\":[]}],\"x\"]", JSON_FINE },
    { "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\uD83D\\uDE00\"", JSON_FINE },
    { "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"", JSON_FINE },
    { "{\"a\":1,\"A\":2,\"\":3}", JSON_FINE },
    { "{\"a\":{\"b\":1},\"b\":{\"b\":1}}", JSON_FINE },
    { "", JSON_TRUNCATED },
    { "  ", JSON_TRUNCATED },
    { "{", JSON_TRUNCATED },
    { "{\"a", JSON_TRUNCATED },
    { "{\"a\"", JSON_TRUNCATED },
    { "{\"a\":", JSON_TRUNCATED },
    { "{\"a\":1", JSON_TRUNCATED },
    { "{\"a\":1,", JSON_TRUNCATED },
    { "[1", JSON_TRUNCATED },
    { "tru", JSON_TRUNCATED },
    { "-", JSON_TRUNCATED },
    { "1.", JSON_TRUNCATED },
    { "1e", JSON_TRUNCATED },
    { "1e+", JSON_TRUNCATED },
    { "\"\\", JSON_TRUNCATED },
    { "\"\\u12", JSON_TRUNCATED },
    { "\"\\ud83d", JSON_TRUNCATED },
    { "\"\xe2\x82", JSON_TRUNCATED },
    { "{]", JSON_SYNTAX },
    { "[}", JSON_SYNTAX },
    { "{1:2}", JSON_SYNTAX },
    { "{\"a\" 1}", JSON_SYNTAX },
    { "{\"a\":1,}", JSON_SYNTAX },
    { "[1,]", JSON_SYNTAX },
    { "[,1]", JSON_SYNTAX },
    { "[1 2]", JSON_SYNTAX },
    { "[01]", JSON_SYNTAX },
    { "[-01]", JSON_SYNTAX },
    { "[+1]", JSON_SYNTAX },
    { "[.5]", JSON_SYNTAX },
    { "[1.e3]", JSON_SYNTAX },
    { "[0x10]", JSON_SYNTAX },
    { "[NaN]", JSON_SYNTAX },
    { "[nul]", JSON_SYNTAX },
    { "['a']", JSON_SYNTAX },
    { "// c\n{}", JSON_SYNTAX },
    { "\xef\xbb\xbf{}", JSON_SYNTAX },
    { "[\f1]", JSON_SYNTAX },
    { "{} {}", JSON_TRAILING },
    { "{}x", JSON_TRAILING },
    { "01", JSON_TRAILING },
    { "truex", JSON_TRAILING },
    { "\"a\nb\"", JSON_CONTROL },
    { "\"\x1f\"", JSON_CONTROL },
    { "\"\\x41\"", JSON_ESCAPE },
    { "\"\\u12g4\"", JSON_ESCAPE },
    { "\"\\'\"", JSON_ESCAPE },
    { "\"\\ud83d\"", JSON_SURROGATE },
    { "\"\\ud83dx\"", JSON_SURROGATE },
    { "\"\\ud83d\\n\"", JSON_SURROGATE },
    { "\"\\ud83d\\u0041\"", JSON_SURROGATE },
    { "\"\\ude00\"", JSON_SURROGATE },
    { "\"a\\u0000b\"", JSON_NUL },
    { "{\"\\u0000\":1}", JSON_NUL },
    { "\"\xff\"", JSON_UTF8 },
    { "\"\xc0\xaf\"", JSON_UTF8 },
    { "\"\xe0\x80\xaf\"", JSON_UTF8 },
    { "\"\xed\xa0\x80\"", JSON_UTF8 },
    { "\"\xf4\x90\x80\x80\"", JSON_UTF8 },
    { "\"\xe2\x28\xa1\"", JSON_UTF8 },
    { "\"\x80\"", JSON_UTF8 },
    { "{\"a\":1,\"a\":1}", JSON_DUPLICATE },
    { "{\"a\":1,\"\\u0061\":1}", JSON_DUPLICATE },
    { "{\"\xc3\xa9\":1,\"b\":2,\"\\u00E9\":1}", JSON_DUPLICATE },
    { "{\"\":1,\"\":1}", JSON_DUPLICATE },
    { "{\"x\":[{\"a\":1,\"b\":2,\"a\":3}]}", JSON_DUPLICATE },
};

/* In memory of exactly its size, so that a sanitizer sees a byte too far. */
static enum json_fault fault_of(const char *text, size_t len, unsigned options)
{
    struct json_value value;
    struct json_error error;
    uint8_t *copy = malloc(len + 1);
    int result;

    assert_non_null(copy);
    memcpy(copy + 1, text, len);
    result = json_scan(span_of(copy + 1, len), options, &value, &error);
    free(copy);
    assert_true(result == 0 || result == -EINVAL);
    return result == 0 ? JSON_FINE : error.fault;
}

static void test_faults(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        enum json_fault fault = fault_of(cases[i].text, strlen(cases[i].text), 0);

        if (fault != cases[i].fault) {
            fail_msg("%s: %s", cases[i].text, json_fault_text(fault));
        }
    }
    assert_int_equal(fault_of("\"a\0b\"", 5, 0), JSON_CONTROL);
    assert_int_equal(fault_of("\"a\\u0000\"", 9, JSON_ALLOW_NUL), JSON_FINE);
}

/* Whatever is right can be cut anywhere: then it is cut short, and nothing else. */
static void test_prefixes(void **state)
{
    static const char text[] =
        " {\"a\\u00e9\": [1.5e+3, -2, true, null, {\"b\":\"\xe2\x82\xac\\ud83d"
        "\\ude00\"}], \"c\": {} }";

    (void)state;
    assert_int_equal(fault_of(text, sizeof(text) - 1, 0), JSON_FINE);
    for (size_t len = 0; len < sizeof(text) - 1; len++) {
        assert_int_equal(fault_of(text, len, 0), JSON_TRUNCATED);
    }
}

static void test_depth(void **state)
{
    char text[2 * (JSON_DEPTH_MAX + 1)];

    (void)state;
    memset(text, '[', sizeof(text));
    memset(text + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
    assert_int_equal(fault_of(text, 2 * JSON_DEPTH_MAX, 0), JSON_FINE);
    memset(text, '[', sizeof(text));
    memset(text + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
    assert_int_equal(fault_of(text, sizeof(text), 0), JSON_DEPTH);
}

static void assert_place(const char *text, const char *place)
{
    struct json_value value;
    struct json_error error;

    assert_int_equal(json_scan(span_of_string(text), 0, &value, &error), -EINVAL);
    assert_string_equal(error.place, place);
}

static void test_place(void **state)
{
    (void)state;
    assert_place("x", "");
    assert_place("{\"plugins\":[{},{},{\"tag\":\"\xff\"}]}", "plugins[2].tag");
    assert_place("{\"plugins\":[1,2,3,nul]}", "plugins[3]");
    assert_place("{\"a\":{\"b\":1,\"b\":2}}", "a.b");
    assert_place("{\"a\":1,\"b\xff\":2}", "b");
    assert_place("{\"\\u001b[31m\":01}", "\\x5cu001b[31m");
}

/* A million members take a moment, not minutes. */
static void test_many_members(void **state)
{
    struct buf text;
    struct json_value value;
    struct json_error error;

    (void)state;
    buf_init(&text, 16u << 20);
    assert_int_equal(buf_append_string(&text, "{"), 0);
    for (unsigned i = 0; i < 200000; i++) {
        assert_int_equal(buf_printf(&text, "\"%u\":0,", i), 0);
    }
    assert_int_equal(buf_append_string(&text, "\"7\":0}"), 0);
    assert_int_equal(json_scan(buf_span(&text), 0, &value, &error), -EINVAL);
    assert_int_equal(error.fault, JSON_DUPLICATE);
    assert_string_equal(error.place, "7");
    buf_deinit(&text);
}

static void assert_span(struct span span, const char *text)
{
    assert_int_equal(span.len, strlen(text));
    assert_memory_equal(span.ptr, text, span.len);
}

static void test_walk(void **state)
{
    static const char text[] =
        " { \"a\" : [1 , \"x,]\" ,{\"b\":null}, [ ] ] , \"q\\\"\":\"}\" ,\"n\":-1.5}";
    static const char *const names[] = { "a", "q\\\"", "n" };
    static const char *const values[] = { "[1 , \"x,]\" ,{\"b\":null}, [ ] ]", "\"}\"", "-1.5" };
    static const char *const elements[] = { "1", "\"x,]\"", "{\"b\":null}", "[ ]" };
    struct json_value object, value, element;
    struct json_error error;
    struct json_cursor cursor, inner;
    struct span name;
    size_t i = 0;

    (void)state;
    assert_int_equal(json_scan(span_of_string(text), 0, &object, &error), 0);
    json_cursor_init(&cursor, object);
    while (json_cursor_next(&cursor, &name, &value)) {
        assert_true(i < COUNT(names));
        assert_span(name, names[i]);
        assert_span(value.text, values[i]);
        i++;
    }
    assert_int_equal(i, COUNT(names));
    assert_true(json_member(object, "a", &value));
    assert_int_equal(value.type, JSON_ARRAY);
    json_cursor_init(&inner, value);
    for (i = 0; json_cursor_next(&inner, &name, &element); i++) {
        assert_true(i < COUNT(elements));
        assert_int_equal(name.len, 0);
        assert_span(element.text, elements[i]);
    }
    assert_int_equal(i, COUNT(elements));
    assert_true(json_member(object, "q\"", &value));
    assert_false(json_member(object, "b", &value));
}

static void test_decode(void **state)
{
    struct buf out;

    (void)state;
    buf_init(&out, 100);
    assert_int_equal(
        json_text_decode(span_of_string("a\\u00e9\\u20AC\\ud83d\\ude00\\n\\/\\\\\xc3\xa9"), &out),
        0);
    assert_span(buf_span(&out), "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\n/\\\xc3\xa9");
    buf_clear(&out);
    assert_int_equal(json_text_decode(span_of_string("x\\u0000y"), &out), 0);
    assert_int_equal(buf_length(&out), 3);
    assert_memory_equal(buf_span(&out).ptr, "x\0y", 3);
    buf_deinit(&out);
}

static void test_names(void **state)
{
    (void)state;
    assert_true(json_name_is(span_of_string("t\\u0061g"), "tag"));
    assert_false(json_name_is(span_of_string("tags"), "tag"));
    assert_false(json_name_is(span_of_string("ta"), "tag"));
    assert_true(json_name_compare(span_of_string("a"), span_of_string("b")) < 0);
    assert_true(json_name_compare(span_of_string("ab"), span_of_string("a")) > 0);
    assert_int_equal(json_name_compare(span_of_string("\\u00e9"), span_of_string("\xc3\xa9")), 0);
}

static void test_long_numbers(void **state)
{
    char text[400];
    char digits[101];
    struct span number;
    size_t offset = 0;

    (void)state;
    memset(digits, '7', 100);
    digits[100] = '\0';
    (void)snprintf(text, sizeof(text), "{\"%s\":12,\"a\":[-%s,1],\"b\":%.63s,\"c\":0.%s}", digits,
                   digits, digits, digits);
    assert_true(json_long_number(span_of_string(text), &offset, &number));
    assert_int_equal(number.len, 101);
    assert_int_equal(number.ptr[0], '-');
    assert_true(json_long_number(span_of_string(text), &offset, &number));
    assert_int_equal(number.len, 102);
    assert_false(json_long_number(span_of_string(text), &offset, &number));
}

static void test_escaped(void **state)
{
    char text[16];

    (void)state;
    json_print_escaped(text, sizeof(text), span_of("a\x1b\\\xc3\xa9", 5));
    assert_string_equal(text, "a\\x1b\\x5c\xc3\xa9");
    json_print_escaped(text, sizeof(text), span_of("\xc2\x9b\x7f\xff", 4));
    assert_string_equal(text, "\\xc2\\x9b\\x7f");
    json_print_escaped(text, 4, span_of_string("ab\xc3\xa9"));
    assert_string_equal(text, "ab");
}

static void test_cut(void **state)
{
    struct span euro = span_of_string("a\xe2\x82\xac"
                                      "b");

    (void)state;
    assert_int_equal(json_utf8_cut(euro, 9).len, 5);
    assert_int_equal(json_utf8_cut(euro, 4).len, 4);
    assert_int_equal(json_utf8_cut(euro, 3).len, 1);
    assert_int_equal(json_utf8_cut(euro, 2).len, 1);
    assert_int_equal(json_utf8_cut(euro, 0).len, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_faults),       cmocka_unit_test(test_prefixes),
        cmocka_unit_test(test_depth),        cmocka_unit_test(test_place),
        cmocka_unit_test(test_many_members), cmocka_unit_test(test_walk),
        cmocka_unit_test(test_decode),       cmocka_unit_test(test_names),
        cmocka_unit_test(test_long_numbers), cmocka_unit_test(test_escaped),
        cmocka_unit_test(test_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
