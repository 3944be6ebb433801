/* SPDX-License-Identifier: MIT */

/* Record headers and the bodies of fixed size, as bytes. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "fcgi/record.h"

static const struct {
    struct fcgi_header header;
    uint8_t bytes[FCGI_HEADER_SIZE];
} headers[] = {
    { { .type = FCGI_BEGIN_REQUEST, .request_id = 1, .content_length = 8 },
      { 1, 1, 0, 1, 0, 8, 0, 0 } },
    { { .type = FCGI_STDIN, .request_id = 1 }, { 1, 5, 0, 1, 0, 0, 0, 0 } },
    { { .type = FCGI_GET_VALUES, .request_id = 0, .content_length = 1, .padding_length = 7 },
      { 1, 9, 0, 0, 0, 1, 7, 0 } },
    { { .type = FCGI_STDOUT, .request_id = 0x1234, .content_length = 0xabcd, .padding_length = 1 },
      { 1, 6, 0x12, 0x34, 0xab, 0xcd, 1, 0 } },
    { { .type = 255, .request_id = 65535, .content_length = 65535, .padding_length = 255 },
      { 1, 255, 0xff, 0xff, 0xff, 0xff, 255, 0 } },
    { { .type = 0, .request_id = 256, .content_length = FCGI_CONTENT_MAX },
      { 1, 0, 1, 0, 0xff, 0xf8, 0, 0 } },
};

static void assert_header_equal(struct fcgi_header a, struct fcgi_header b)
{
    assert_int_equal(a.type, b.type);
    assert_int_equal(a.request_id, b.request_id);
    assert_int_equal(a.content_length, b.content_length);
    assert_int_equal(a.padding_length, b.padding_length);
}

static void test_headers_are_read_and_written(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
        struct fcgi_header wanted = headers[i].header;
        struct fcgi_header header;
        uint8_t bytes[FCGI_HEADER_SIZE];

        assert_true(fcgi_header_read(headers[i].bytes, &header));
        assert_header_equal(header, wanted);
        memset(bytes, 0xaa, sizeof(bytes));
        fcgi_header_write(bytes, wanted.type, wanted.request_id, wanted.content_length,
                          wanted.padding_length);
        assert_memory_equal(bytes, headers[i].bytes, sizeof(bytes));
    }
}

static void test_reserved_byte_is_not_judged(void **state)
{
    const uint8_t bytes[FCGI_HEADER_SIZE] = { 1, 6, 0, 1, 0, 2, 3, 0xff };
    struct fcgi_header header;

    (void)state;
    assert_true(fcgi_header_read(bytes, &header));
    assert_int_equal(header.content_length, 2);
}

static void test_only_version_1_is_read(void **state)
{
    (void)state;
    for (unsigned version = 0; version < 256; version++) {
        const uint8_t bytes[FCGI_HEADER_SIZE] = { (uint8_t)version, 6, 0, 1, 0, 2, 3, 0 };
        struct fcgi_header header = { .type = 77 };

        assert_int_equal(fcgi_header_read(bytes, &header), version == 1);
        assert_int_equal(header.type, version == 1 ? 6 : 77);
    }
}

static void test_begin_body(void **state)
{
    const uint8_t responder[FCGI_BODY_SIZE] = { 0, 1, 1, 0, 0, 0, 0, 0 };
    const uint8_t strange[FCGI_BODY_SIZE] = { 0xff, 0xfe, 0x80, 9, 9, 9, 9, 9 };

    (void)state;
    assert_int_equal(fcgi_begin_read(responder).role, FCGI_RESPONDER);
    assert_int_equal(fcgi_begin_read(responder).flags, FCGI_KEEP_CONN);
    assert_int_equal(fcgi_begin_read(strange).role, 0xfffe);
    assert_int_equal(fcgi_begin_read(strange).flags, 0x80);
}

static void test_end_body(void **state)
{
    const uint8_t good[FCGI_BODY_SIZE] = { 0, 0, 0, 0, FCGI_REQUEST_COMPLETE, 0, 0, 0 };
    const uint8_t strange[FCGI_BODY_SIZE] = { 0xff, 0xfe, 0xfd, 0xfc, FCGI_OVERLOADED, 9, 9, 9 };

    (void)state;
    assert_int_equal(fcgi_end_read(good).app_status, 0);
    assert_int_equal(fcgi_end_read(good).protocol_status, FCGI_REQUEST_COMPLETE);
    assert_true(fcgi_end_read(strange).app_status == 0xfffefdfcu);
    assert_int_equal(fcgi_end_read(strange).protocol_status, FCGI_OVERLOADED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_headers_are_read_and_written),
        cmocka_unit_test(test_reserved_byte_is_not_judged),
        cmocka_unit_test(test_only_version_1_is_read),
        cmocka_unit_test(test_begin_body),
        cmocka_unit_test(test_end_body),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
