/* SPDX-License-Identifier: MIT */

/* Content-Encoding: the same result however the input is cut, and never more than the maximum. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/unit/cuts.h"

#include "sidecar/build/body_decode.h"

#include <errno.h>

#define WINDOW_GZIP (16 + MAX_WBITS)
#define WINDOW_ZLIB MAX_WBITS
#define WINDOW_RAW (-MAX_WBITS)

static size_t compress_into(struct buf *out, struct span plain, int window)
{
    z_stream stream = { .next_in = (Bytef *)(uintptr_t)plain.ptr, .avail_in = (uInt)plain.len };
    size_t before = buf_length(out);
    uint8_t *room;

    assert_int_equal(deflateInit2(&stream, 9, Z_DEFLATED, window, 8, Z_DEFAULT_STRATEGY), Z_OK);
    size_t size = deflateBound(&stream, plain.len);
    assert_int_equal(buf_reserve(out, size, &room), 0);
    stream.next_out = room;
    stream.avail_out = (uInt)size;
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    buf_commit(out, size - stream.avail_out);
    deflateEnd(&stream);
    return buf_length(out) - before;
}

/* The first byte of the input says how it is encoded, the second how large the result may be. */
static void trace_decode(struct trace *trace, struct span input, struct cuts cuts)
{
    struct body_decode decode;
    struct buf out;
    int result = 0;
    struct span prefix = span_take(&input, 2);

    body_decode_init(&decode, (enum body_encoding)prefix.ptr[0]);
    buf_init(&out, (size_t)prefix.ptr[1] << 10);
    while (input.len > 0 && result >= 0) {
        struct span piece = cuts_take(&cuts, &input);
        struct span rest = piece;

        result = body_decode_next(&decode, &rest, &out);
        CUTS_CHECK(result < 0 || rest.len == 0 || result == 1);
        CUTS_CHECK(result < 0 || result == (decode.encoding != BODY_IDENTITY && decode.complete));
        cuts_give_back(piece.ptr);
    }
    CUTS_CHECK(buf_length(&out) <= out.max);
    if (result < 0) {
        trace_line(trace, "error %d", result);
    } else {
        trace_line(trace, "%s\n", body_decode_is_complete(&decode) ? "complete" : "open");
        trace_add(trace, buf_span(&out));
    }
    buf_deinit(&out);
    body_decode_deinit(&decode);
}

static void check(enum body_encoding encoding, unsigned max_kib, struct span input,
                  const char *verdict, struct span plain)
{
    struct trace trace = { 0 };
    struct buf whole, wanted;
    uint8_t prefix[2] = { (uint8_t)encoding, (uint8_t)max_kib };

    buf_init(&whole, 1u << 20);
    buf_init(&wanted, 1u << 20);
    assert_int_equal(buf_append(&whole, prefix, 2), 0);
    assert_int_equal(buf_append_span(&whole, input), 0);
    assert_int_equal(buf_append_string(&wanted, verdict), 0);
    assert_int_equal(buf_append_span(&wanted, plain), 0);
    trace_decode(&trace, buf_span(&whole), cuts_whole());
    if (!span_equal(trace_span(&trace), buf_span(&wanted))) {
        fail_msg("%.*s", trace.len < 200 ? (int)trace.len : 200, (const char *)trace.bytes);
    }
    cuts_compare_many(trace_decode, buf_span(&whole), 10);
    trace_deinit(&trace);
    buf_deinit(&whole);
    buf_deinit(&wanted);
}

static const char json[] = "{\"rr_version\":\"v1\",\"plugins\":[]}";
#define JSON span_of_string(json)
#define EMPTY span_of("", 0)

static void test_formats(void **state)
{
    static const struct {
        enum body_encoding encoding;
        int window;
    } formats[] = {
        { BODY_GZIP, WINDOW_GZIP },
        { BODY_DEFLATE, WINDOW_ZLIB },
        { BODY_DEFLATE, WINDOW_RAW },
    };

    (void)state;
    check(BODY_IDENTITY, 1, JSON, "complete\n", JSON);
    for (size_t i = 0; i < 3; i++) {
        struct buf packed;

        buf_init(&packed, 2u << 20);
        size_t length = compress_into(&packed, JSON, formats[i].window);
        check(formats[i].encoding, 1, buf_span(&packed), "complete\n", JSON);
        /* Cut short it is incomplete, however much of the text came already. */
        struct span part = span_of(buf_span(&packed).ptr, length - 1);
        struct body_decode decode;
        struct buf out;
        body_decode_init(&decode, formats[i].encoding);
        buf_init(&out, 1000);
        assert_true(body_decode_next(&decode, &part, &out) >= 0);
        assert_int_equal(body_decode_is_complete(&decode), formats[i].window == WINDOW_RAW &&
                                                               buf_length(&out) == JSON.len &&
                                                               decode.complete);
        body_decode_deinit(&decode);
        buf_deinit(&out);
        buf_deinit(&packed);
    }
}

static void test_gzip_members(void **state)
{
    struct buf packed;

    (void)state;
    buf_init(&packed, 2u << 20);
    compress_into(&packed, span_of(json, 10), WINDOW_GZIP);
    compress_into(&packed, EMPTY, WINDOW_GZIP);
    compress_into(&packed, span_of(json + 10, sizeof(json) - 11), WINDOW_GZIP);
    check(BODY_GZIP, 1, buf_span(&packed), "complete\n", JSON);
    assert_int_equal(buf_append(&packed, "\0\0padding", 9), 0);
    check(BODY_GZIP, 1, buf_span(&packed), "complete\n", JSON);
    compress_into(&packed, JSON, WINDOW_GZIP); /* behind padding there is nothing any more */
    check(BODY_GZIP, 1, buf_span(&packed), "complete\n", JSON);
    buf_deinit(&packed);
}

static void test_not_what_it_says(void **state)
{
    char error[20];
    struct buf packed;

    (void)state;
    (void)snprintf(error, sizeof(error), "error %d", -EINVAL);
    check(BODY_GZIP, 1, JSON, error, EMPTY);
    check(BODY_DEFLATE, 1, span_of_string("\x78\x9cgarbage"), error, EMPTY);
    check(BODY_DEFLATE, 1, span_of_string("\xff\xff\xff"), error, EMPTY);
    buf_init(&packed, 2u << 20);
    compress_into(&packed, JSON, WINDOW_GZIP);
    packed.bytes[packed.end - 5] ^= 1; /* the CRC */
    check(BODY_GZIP, 1, buf_span(&packed), error, EMPTY);
    buf_deinit(&packed);
}

/* A megabyte of zeros packs into a kilobyte. */
static void test_bomb(void **state)
{
    char error[20];
    struct buf packed, zeros;
    uint8_t *room;
    const size_t sizes[] = { 3 * 1024, 3 * 1024 + 1, 1u << 20 };

    (void)state;
    (void)snprintf(error, sizeof(error), "error %d", -EFBIG);
    buf_init(&zeros, 1u << 20);
    assert_int_equal(buf_reserve(&zeros, 1u << 20, &room), 0);
    memset(room, 0, 1u << 20);
    buf_commit(&zeros, 1u << 20);
    for (size_t i = 0; i < 3; i++) {
        struct span plain = span_of(buf_span(&zeros).ptr, sizes[i]);

        buf_init(&packed, 2u << 20);
        compress_into(&packed, plain, WINDOW_GZIP);
        check(BODY_GZIP, 3, buf_span(&packed), i == 0 ? "complete\n" : error,
              i == 0 ? plain : EMPTY);
        buf_deinit(&packed);
    }
    check(BODY_IDENTITY, 3, span_of(buf_span(&zeros).ptr, 3 * 1024 + 1), error, EMPTY);
    buf_deinit(&zeros);
}

static void assert_encoding(const char *value, int result, enum body_encoding wanted)
{
    enum body_encoding encoding = BODY_IDENTITY;

    assert_int_equal(body_encoding_parse(span_of_string(value), &encoding), result);
    assert_int_equal(encoding, wanted);
}

static void test_names(void **state)
{
    (void)state;
    assert_encoding("", 0, BODY_IDENTITY);
    assert_encoding(" Identity ", 0, BODY_IDENTITY);
    assert_encoding("gzip", 0, BODY_GZIP);
    assert_encoding("X-GZip", 0, BODY_GZIP);
    assert_encoding("deflate\t", 0, BODY_DEFLATE);
    assert_encoding("br", -EINVAL, BODY_IDENTITY);
    assert_encoding("gzip, gzip", -EINVAL, BODY_IDENTITY);
    assert_encoding("gzipx", -EINVAL, BODY_IDENTITY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_gzip_members),
        cmocka_unit_test(test_not_what_it_says),
        cmocka_unit_test(test_bomb),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
