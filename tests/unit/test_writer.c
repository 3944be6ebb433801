/* SPDX-License-Identifier: MIT */

/* Records that we write: every byte of them, whatever lay in the memory before. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>

#include "fcgi/reader.h"
#include "fcgi/writer.h"

static void test_begin(void **state)
{
    const uint8_t wanted[] = { 1, 1, 0, 1, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0 };
    const uint8_t strange[] = { 1, 1, 0xff, 0xfe, 0, 8, 0, 0, 0x12, 0x34, 0xff, 0, 0, 0, 0, 0 };
    uint8_t record[FCGI_FIXED_RECORD_SIZE];

    (void)state;
    memset(record, 0xaa, sizeof(record));
    fcgi_begin_write(record, 1, FCGI_RESPONDER, 0);
    assert_memory_equal(record, wanted, sizeof(record));
    memset(record, 0xaa, sizeof(record));
    fcgi_begin_write(record, 0xfffe, 0x1234, 0xff);
    assert_memory_equal(record, strange, sizeof(record));
    assert_int_equal(fcgi_begin_read(record + FCGI_HEADER_SIZE).role, 0x1234);
    assert_int_equal(fcgi_begin_read(record + FCGI_HEADER_SIZE).flags, 0xff);
}

static void test_end(void **state)
{
    const uint8_t wanted[] = { 1, 3, 0x01, 0x02, 0, 8, 0, 0, 0xfe, 0xdc, 0xba, 0x98, 2, 0, 0, 0 };
    uint8_t record[FCGI_FIXED_RECORD_SIZE];

    (void)state;
    memset(record, 0xaa, sizeof(record));
    fcgi_end_write(record, 0x0102, 0xfedcba98u, FCGI_OVERLOADED);
    assert_memory_equal(record, wanted, sizeof(record));
    assert_true(fcgi_end_read(record + FCGI_HEADER_SIZE).app_status == 0xfedcba98u);
}

static void test_unknown_type(void **state)
{
    const uint8_t wanted[] = { 1, 11, 0, 0, 0, 8, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0 };
    uint8_t record[FCGI_FIXED_RECORD_SIZE];

    (void)state;
    memset(record, 0xaa, sizeof(record));
    fcgi_unknown_type_write(record, 99);
    assert_memory_equal(record, wanted, sizeof(record));
}

static const struct {
    size_t content_length;
    size_t records;
} streams[] = {
    { 0, 0 },
    { 1, 1 },
    { 7, 1 },
    { FCGI_CONTENT_MAX - 1, 1 },
    { FCGI_CONTENT_MAX, 1 },
    { FCGI_CONTENT_MAX + 1, 2 },
    { 65535, 2 },
    { 2 * FCGI_CONTENT_MAX, 2 },
    { 2 * FCGI_CONTENT_MAX + 1, 3 },
};

/* Reads the records again: the content whole and in order, no record empty, padded or too long. */
static size_t read_stream(struct span records, struct span content)
{
    struct fcgi_reader reader;
    struct span piece;
    size_t count = 0;
    enum fcgi_event event;

    fcgi_reader_init(&reader);
    while ((event = fcgi_reader_next(&reader, &records, &piece)) != FCGI_NEED_DATA) {
        assert_int_not_equal(event, FCGI_MALFORMED);
        if (event == FCGI_RECORD) {
            assert_int_equal(reader.header.type, FCGI_STDOUT);
            assert_int_equal(reader.header.request_id, 513);
            assert_int_equal(reader.header.padding_length, 0);
            assert_in_range(reader.header.content_length, 1, FCGI_CONTENT_MAX);
            count++;
        } else if (event == FCGI_CONTENT) {
            assert_true(span_equal(piece, span_take(&content, piece.len)));
        }
    }
    assert_int_equal(content.len, 0);
    assert_true(fcgi_reader_at_boundary(&reader));
    return count;
}

static void test_streams(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(streams) / sizeof(streams[0]); i++) {
        size_t length = streams[i].content_length;
        size_t size = length + streams[i].records * FCGI_HEADER_SIZE;
        uint8_t *content = malloc(length + 1);
        uint8_t *records = malloc(size + 1);

        assert_non_null(content);
        assert_non_null(records);
        for (size_t j = 0; j < length; j++) {
            content[j] = (uint8_t)(j * 31 >> 3);
        }
        records[size] = 0xaa;
        assert_int_equal(fcgi_stream_size(length), size);
        assert_int_equal(fcgi_stream_write(records, FCGI_STDOUT, 513, span_of(content, length)),
                         size);
        assert_int_equal(records[size], 0xaa);
        assert_int_equal(read_stream(span_of(records, size), span_of(content, length)),
                         streams[i].records);
        free(records);
        free(content);
    }
}

static void test_empty_content_writes_nothing(void **state)
{
    uint8_t record[FCGI_HEADER_SIZE] = { 0xaa };

    (void)state;
    assert_int_equal(fcgi_stream_write(record, FCGI_STDOUT, 1, span_of(NULL, 0)), 0);
    assert_int_equal(record[0], 0xaa);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_begin),
        cmocka_unit_test(test_end),
        cmocka_unit_test(test_unknown_type),
        cmocka_unit_test(test_streams),
        cmocka_unit_test(test_empty_content_writes_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
