/* SPDX-License-Identifier: MIT */

/* The record reader: the same events for every way to cut the input. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/unit/traces.h"

/* A record of this type for request 1; its content counts up from the type. */
static void put_record(struct trace *stream, uint8_t type, uint16_t content_length,
                       uint8_t padding_length)
{
    uint8_t header[FCGI_HEADER_SIZE];
    const uint8_t padding[255] = { 0 };

    fcgi_header_write(header, type, 1, content_length, padding_length);
    trace_add(stream, span_of(header, sizeof(header)));
    for (size_t i = 0; i < content_length; i++) {
        uint8_t byte = (uint8_t)(type + i);

        trace_add(stream, span_of(&byte, 1));
    }
    trace_add(stream, span_of(padding, padding_length));
}

static void assert_trace(struct span input, const char *wanted)
{
    struct trace trace = { 0 };

    trace_reader(&trace, input, cuts_whole());
    trace_add(&trace, span_of("", 1));
    assert_string_equal((const char *)trace.bytes, wanted);
    trace_deinit(&trace);
}

static const struct {
    const char *input;
    size_t length;
    const char *trace;
} streams[] = {
    { "", 0, "\nboundary 1, left 0 + 0\n" },
    { "\1\5\0\1\0\0\0\0", 8,
      "record type 5 id 1 length 0 padding 0\n\nend\n\nboundary 1, left 0 + 0\n" },
    { "\1\5\0\1\0\0\0", 7, "\nboundary 0, left 0 + 0\n" },
    { "\1\6\0\1\0\2\1\0ab", 10,
      "record type 6 id 1 length 2 padding 1\nab\nboundary 0, left 0 + 1\n" },
    { "\1\6\0\1\0\2\1\0a", 9,
      "record type 6 id 1 length 2 padding 1\na\nboundary 0, left 1 + 1\n" },
    { "\1\6\0\1\0\2\1\0abx\1", 12,
      "record type 6 id 1 length 2 padding 1\nab\nend\n\nboundary 0, left 0 + 0\n" },
    { "\1\7\0\0\0\0\2\0xx\1\6\xff\xff\0\1\0\xffz", 19,
      "record type 7 id 0 length 0 padding 2\n\nend\n"
      "record type 6 id 65535 length 1 padding 0\nz\nend\n\nboundary 1, left 0 + 0\n" },
    { "GET / HTTP/1.0\r\n\r\n", 18, "malformed at 0\n\nboundary 0, left 0 + 0\n" },
    { "\0", 1, "malformed at 0\n\nboundary 0, left 0 + 0\n" },
    { "\2", 1, "malformed at 0\n\nboundary 0, left 0 + 0\n" },
    { "\1\6\0\1\0\1\0\0x\2", 10,
      "record type 6 id 1 length 1 padding 0\nx\nend\nmalformed at 9\n"
      "\nboundary 0, left 0 + 0\n" },
};

static void test_events(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(streams) / sizeof(streams[0]); i++) {
        struct span input = span_of(streams[i].input, streams[i].length);

        assert_trace(input, streams[i].trace);
        cuts_compare_many(trace_reader, input, 50);
    }
}

/* All lengths and paddings that are at an edge, one after the other. */
static void test_every_cut_gives_the_same_events(void **state)
{
    const uint16_t lengths[] = { 0, 1, 7, 8, 65527, 65528, 65535 };
    const uint8_t paddings[] = { 0, 1, 7, 8, 255 };
    struct trace stream = { 0 };

    (void)state;
    print_message("random cuts from seed %u\n", CUTS_SEED);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        for (size_t j = 0; j < sizeof(paddings); j++) {
            put_record(&stream, (uint8_t)(i * 8 + j), lengths[i], paddings[j]);
        }
    }
    cuts_compare_many(trace_reader, trace_span(&stream), 8);
    trace_deinit(&stream);
}

/* A stream that ends anywhere is at a boundary only where a record has ended. */
static void test_end_of_input_within_a_record(void **state)
{
    struct trace stream = { 0 };

    (void)state;
    put_record(&stream, FCGI_STDOUT, 5, 3);
    for (size_t length = 0; length <= stream.len; length++) {
        struct fcgi_reader reader;
        struct span input = span_of(stream.bytes, length);
        struct span content;

        fcgi_reader_init(&reader);
        while (fcgi_reader_next(&reader, &input, &content) != FCGI_NEED_DATA) {}
        assert_int_equal(fcgi_reader_at_boundary(&reader), length == 0 || length == stream.len);
    }
    trace_deinit(&stream);
}

/* What a front's codec builds on: the header, and where the input goes on. */
static void test_input_continues_behind_the_header(void **state)
{
    struct trace stream = { 0 };
    struct fcgi_reader reader;
    struct span content;

    (void)state;
    put_record(&stream, FCGI_PARAMS, 3, 2);
    struct span input = trace_span(&stream);

    fcgi_reader_init(&reader);
    assert_int_equal(fcgi_reader_next(&reader, &input, &content), FCGI_RECORD);
    assert_ptr_equal(input.ptr, stream.bytes + FCGI_HEADER_SIZE);
    assert_int_equal(reader.content_left, 3);
    assert_int_equal(reader.padding_left, 2);
    assert_int_equal(fcgi_reader_next(&reader, &input, &content), FCGI_CONTENT);
    assert_ptr_equal(content.ptr, stream.bytes + FCGI_HEADER_SIZE);
    assert_int_equal(content.len, 3);
    assert_int_equal(reader.content_left, 0);
    assert_int_equal(fcgi_reader_next(&reader, &input, &content), FCGI_RECORD_END);
    assert_int_equal(reader.header.type, FCGI_PARAMS);
    assert_int_equal(input.len, 0);
    assert_int_equal(fcgi_reader_next(&reader, &input, &content), FCGI_NEED_DATA);
    trace_deinit(&stream);
}

/* An empty record is over with its header: nobody waits for bytes that never come. */
static void test_empty_record_ends_without_more_input(void **state)
{
    struct trace stream = { 0 };
    struct fcgi_reader reader;
    struct span content = { 0 };
    struct span nothing = { 0 };

    (void)state;
    put_record(&stream, FCGI_STDIN, 0, 0);
    struct span input = trace_span(&stream);

    fcgi_reader_init(&reader);
    assert_int_equal(fcgi_reader_next(&reader, &input, &content), FCGI_RECORD);
    assert_int_equal(fcgi_reader_next(&reader, &nothing, &content), FCGI_RECORD_END);
    assert_int_equal(fcgi_reader_next(&reader, &nothing, &content), FCGI_NEED_DATA);
    assert_null(content.ptr);
    trace_deinit(&stream);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_events),
        cmocka_unit_test(test_every_cut_gives_the_same_events),
        cmocka_unit_test(test_end_of_input_within_a_record),
        cmocka_unit_test(test_input_continues_behind_the_header),
        cmocka_unit_test(test_empty_record_ends_without_more_input),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
