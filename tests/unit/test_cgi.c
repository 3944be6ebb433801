/* SPDX-License-Identifier: MIT */

/* CGI heads: where they end, what stands in them, and one header left out. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/unit/traces.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static const struct {
    const char *text;
    size_t head_length; /* 0: it does not end */
} scans[] = {
    { "", 0 },
    { "\n", 1 },
    { "\nbody", 1 },
    { "\r\n", 2 },
    { "\r", 0 },
    { "\r\r\n", 0 },
    { "\r\r\n\n", 4 },
    { "\rA\n\n", 4 },
    { "A: b", 0 },
    { "A: b\n", 0 },
    { "A: b\r\n", 0 },
    { "A: b\r\n\r", 0 },
    { "A: b\r\n\r\nbody", 8 },
    { "A: b\n\nbody", 6 },
    { "A: b\n\r\nbody", 7 },
    { "A: b\r\n\nbody", 7 },
    { "A: b\r\r", 0 },
    { "A: b\r\r\n\r\r\nC: d\r\n\r\n", 18 },
    { "A: b\n \n\n", 8 },
    { "A: b\r\n\r \r\n\r\n", 12 },
    { "no header\n\n", 11 },
};

static void test_end_of_the_head(void **state)
{
    (void)state;
    print_message("random cuts from seed %u\n", CUTS_SEED);
    for (size_t i = 0; i < COUNT(scans); i++) {
        struct span text = span_of_string(scans[i].text);
        struct cgi_scan scan;
        size_t length = 0;

        cgi_scan_init(&scan);
        assert_int_equal(cgi_scan_next(&scan, text, &length), scans[i].head_length > 0);
        assert_int_equal(length, scans[i].head_length);
        assert_int_equal(head_length_plainly(text), scans[i].head_length);
        cuts_compare_many(trace_scan, text, 30);
    }
}

static void test_end_of_a_long_head(void **state)
{
    struct trace head = { 0 };

    (void)state;
    for (unsigned i = 0; i < 2000; i++) {
        trace_line(&head, "X-Header-%u: %*s\r\n", i, (int)(i % 50), "");
    }
    trace_line(&head, "\r\nbody\n\n");
    assert_int_equal(head_length_plainly(trace_span(&head)), head.len - 6);
    cuts_compare_many(trace_scan, trace_span(&head), 20);
    trace_deinit(&head);
}

static const struct {
    const char *line;
    size_t line_length; /* 0: that of the string */
    const char *name;
    const char *value;
    bool valid;
} lines[] = {
    { "Status: 404\n", 0, "Status", "404", true },
    { "Status: 404 Not Found\r\n", 0, "Status", "404 Not Found", true },
    { "status:404\r\n", 0, "status", "404", true },
    { "A: \t b \t c\t \r\n", 0, "A", "b \t c", true },
    { "A:\n", 0, "A", "", true },
    { "A: \r\n", 0, "A", "", true },
    { "A: b:c\n", 0, "A", "b:c", true },
    { "Az09!#$%&'*+-.^_`|~: x\n", 0, "Az09!#$%&'*+-.^_`|~", "x", true },
    { "A: caf\xc3\xa9\n", 0, "A", "caf\xc3\xa9", true },
    { "A: b", 0, "A", "b", true },
    /* no headers */
    { "no colon\r\n", 0, "", "", false },
    { "A : b\r\n", 0, "", "", false },
    { " A: b\r\n", 0, "", "", false },
    { "\tA: b\r\n", 0, "", "", false },
    { " \n", 0, "", "", false },
    { ": b\n", 0, "", "", false },
    { "A b: c\n", 0, "", "", false },
    { "A(b): c\n", 0, "", "", false },
    { "\xef\xbb\xbf"
      "A: b\n",
      0, "", "", false },
    { "A\0: b\n", 6, "", "", false },
    { "A\r: b\n", 0, "", "", false },
    { "\r\r\n", 0, "", "", false },
    /* values that may not stand in a head of ours */
    { "A: b\0c\r\n", 8, "A", "b\0c", false },
    { "A: b\rc\r\n", 0, "A", "b\rc", false },
    { "A: b\r\r\n", 0, "A", "b\r", false },
};

static void test_lines(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(lines); i++) {
        struct span text = span_of(lines[i].line, lines[i].line_length > 0 ? lines[i].line_length
                                                                           : strlen(lines[i].line));
        struct span head = text;
        struct cgi_header header;

        assert_true(cgi_next_header(&head, &header));
        assert_true(span_equal(header.line, text));
        assert_true(span_is(header.name, lines[i].name));
        assert_int_equal(header.valid, lines[i].valid);
        if (memchr(text.ptr, '\0', text.len) == NULL) {
            assert_true(span_is(header.value, lines[i].value));
        }
        assert_int_equal(head.len, 0);
        assert_false(cgi_next_header(&head, &header));
    }
}

/* A header that is folded is not whole in its first line, so both lines are left out. */
static void test_folded_header(void **state)
{
    struct span head = span_of_string("A: b\r\nSet-Cookie: c=d;\r\n\tHttpOnly\r\nE: f\r\n\r\nbody");
    const struct {
        const char *name;
        bool valid;
    } wanted[] = { { "A", true }, { "Set-Cookie", false }, { "", false }, { "E", true } };
    struct cgi_header header;

    (void)state;
    for (size_t i = 0; i < COUNT(wanted); i++) {
        assert_true(cgi_next_header(&head, &header));
        assert_true(span_is(header.name, wanted[i].name));
        assert_int_equal(header.valid, wanted[i].valid);
    }
    struct cgi_header untouched = header;

    assert_false(cgi_next_header(&head, &header));
    assert_true(span_is(head, "\r\nbody"));
    assert_memory_equal(&header, &untouched, sizeof(header));
}

static void test_walk_ends_at_the_empty_line(void **state)
{
    const char *const ends[] = { "", "\n", "\r\n", "\nA: b\n", "\r\nA: b\n" };

    (void)state;
    for (size_t i = 0; i < COUNT(ends); i++) {
        struct span head = span_of_string(ends[i]);
        struct cgi_header header;

        assert_false(cgi_next_header(&head, &header));
        assert_true(span_is(head, ends[i]));
    }
}

static void test_status(void **state)
{
    const struct {
        const char *value;
        unsigned status;
    } statuses[] = {
        { "200", 200 },  { "200 OK", 200 },   { "404 Not Found", 404 },
        { "100", 100 },  { "999", 999 },      { "201\tX", 201 },
        { "200 ", 200 }, { "299 1000", 299 }, { "", 0 },
        { "20", 0 },     { "20 0", 0 },       { "99", 0 },
        { "099", 0 },    { "000", 0 },        { "1000", 0 },
        { "2000", 0 },   { "200OK", 200 },    { "-200", 0 },
        { "+20", 0 },    { "2x0", 0 },        { "0x200", 0 },
        { "OK 200", 0 }, { " 200", 0 },       { "200,404", 200 },
    };

    (void)state;
    for (size_t i = 0; i < COUNT(statuses); i++) {
        assert_int_equal(cgi_status(span_of_string(statuses[i].value)), statuses[i].status);
    }
}

static const struct {
    const char *text;
    const char *trace;
} strips[] = {
    { "", "" },
    { "\nbody", "\nend at 1\n" },
    { "\r\nbody", "\r\nend at 2\n" },
    { "A: b\r\n\r\nbody", "A: b\r\n\r\nend at 8\n" },
    { "X-Velox-Build: 1\r\n\r\n", "\r\nend at 20\n" },
    { "X-Velox-Build:\n\n", "\nend at 16\n" },
    { "x-VELOX-build:1\nA: b\n\n", "A: b\n\nend at 22\n" },
    { "A: b\nX-Velox-Build: 1\nC: d\n\n", "A: b\nC: d\n\nend at 28\n" },
    { "X-Velox-Build: 1\r\nX-Velox-Build: 0\r\nA: b\r\n\r\n", "A: b\r\n\r\nend at 44\n" },
    /* continuation lines go with it, and only with it; they are no end of the head */
    { "X-Velox-Build: 1\n 2\n\t3\nA: b\n\n", "A: b\n\nend at 29\n" },
    { "X-Velox-Build: 1\n \n\n", "\nend at 20\n" },
    { "A: b\n c\nX-Velox-Build: 1\n\n", "A: b\n c\n\nend at 26\n" },
    { "X-Velox-Build: 1\nA: b\n c\n\n", "A: b\n c\n\nend at 26\n" },
    /* other names */
    { "X-Velox-Builder: 1\n\n", "X-Velox-Builder: 1\n\nend at 20\n" },
    { "X-Velox-Buil: 1\n\n", "X-Velox-Buil: 1\n\nend at 17\n" },
    { "X-Velox-Build : 1\n\n", "X-Velox-Build : 1\n\nend at 19\n" },
    { "X-Velox-Build\n: 1\n\n", "X-Velox-Build\n: 1\n\nend at 19\n" },
    { " X-Velox-Build: 1\n\n", " X-Velox-Build: 1\n\nend at 19\n" },
    { "A: X-Velox-Build: 1\n\n", "A: X-Velox-Build: 1\n\nend at 21\n" },
    { "A: b\rX-Velox-Build: 1\n\n", "A: b\rX-Velox-Build: 1\n\nend at 23\n" },
    { "X-X-Velox-Build: 1\n\n", "X-X-Velox-Build: 1\n\nend at 20\n" },
    /* a head that does not end: what is held back is given out */
    { "A: b\r\nX-Velox-Bui", "A: b\r\nX-Velox-Bui" },
    { "A: b\r\nX-Velox-Build", "A: b\r\nX-Velox-Build" },
    { "A: b\r\nX-Velox-Build:", "A: b\r\n" },
    { "A: b\r\nX-Velox-Build: 1\r\n", "A: b\r\n" },
    { "A: b\r\nX-Velox-Build: 1\r\n\r", "A: b\r\n\r" },
    /* odd bytes stay as they are */
    { "\r\r\nA\n\r\rB\n\r\n", "\r\r\nA\n\r\rB\n\r\nend at 11\n" },
    { "no colon\xff\xfe\n: x\n\n", "no colon\xff\xfe\n: x\n\nend at 16\n" },
};

static void test_strip(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(strips); i++) {
        struct span text = span_of_string(strips[i].text);
        struct trace whole = { 0 };
        struct trace plain = { 0 };

        trace_strip(&whole, text, cuts_whole());
        assert_true(span_is(trace_span(&whole), strips[i].trace));
        trace_strip_plainly(&plain, text);
        assert_true(span_is(trace_span(&plain), strips[i].trace));
        trace_deinit(&plain);
        trace_deinit(&whole);
        cuts_compare_many(trace_strip, text, 50);
    }
}

/* What strip is for: a head of any length in constant memory. */
static void test_strip_of_a_long_head(void **state)
{
    struct trace head = { 0 };

    (void)state;
    for (unsigned i = 0; i < 1000; i++) {
        trace_line(&head, "X-Velox-Buil%s: %u\r\n", i % 3 == 0 ? "d" : "t", i);
        trace_line(&head, i % 5 == 0 ? "\tfolded %u\r\n" : "A: %u\r\n", i);
    }
    trace_line(&head, "\r\nX-Velox-Build: body\r\n");
    cuts_compare_many(trace_strip, trace_span(&head), 50);
    struct trace whole = { 0 };
    struct trace plain = { 0 };

    trace_strip(&whole, trace_span(&head), cuts_whole());
    trace_strip_plainly(&plain, trace_span(&head));
    assert_true(span_equal(trace_span(&whole), trace_span(&plain)));
    trace_deinit(&plain);
    trace_deinit(&whole);
    trace_deinit(&head);
}

static void test_strip_of_the_longest_name(void **state)
{
    char text[160];
    char name[CGI_STRIP_NAME_MAX + 1];
    struct cgi_strip strip;
    struct span keep;

    (void)state;
    memset(name, 'n', CGI_STRIP_NAME_MAX);
    name[CGI_STRIP_NAME_MAX] = '\0';
    (void)snprintf(text, sizeof(text), "%s: 1\n%sn: 2\n\n", name, name);
    struct span input = span_of_string(text);
    struct span first = span_take(&input, CGI_STRIP_NAME_MAX);

    cgi_strip_init(&strip, name);
    assert_int_equal(cgi_strip_next(&strip, &first, &keep), CGI_STRIP_NEED_DATA);
    assert_int_equal(cgi_strip_next(&strip, &input, &keep), CGI_STRIP_KEEP);
    assert_true(span_equal(keep, span_of_string(text + CGI_STRIP_NAME_MAX + 4)));
    assert_int_equal(cgi_strip_next(&strip, &input, &keep), CGI_STRIP_END);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_end_of_the_head),
        cmocka_unit_test(test_end_of_a_long_head),
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_folded_header),
        cmocka_unit_test(test_walk_ends_at_the_empty_line),
        cmocka_unit_test(test_status),
        cmocka_unit_test(test_strip),
        cmocka_unit_test(test_strip_of_a_long_head),
        cmocka_unit_test(test_strip_of_the_longest_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
