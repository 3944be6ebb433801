/* SPDX-License-Identifier: MIT */
/*
 * Content-Encoding of build requests, by zlib. It must never write more than the buffer's maximum,
 * however much a small input expands to.
 */
#include "sidecar/build/body_decode.h"

#include <errno.h>
#include <limits.h>

#define DECODE_PIECE_BYTES 4096

int body_encoding_parse(struct span value, enum body_encoding *encoding)
{
    struct span name = span_trim(value);

    if (name.len == 0 || span_is_nocase(name, "identity")) {
        *encoding = BODY_IDENTITY;
    } else if (span_is_nocase(name, "gzip") || span_is_nocase(name, "x-gzip")) {
        *encoding = BODY_GZIP;
    } else if (span_is_nocase(name, "deflate")) {
        *encoding = BODY_DEFLATE;
    } else {
        return -EINVAL;
    }
    return 0;
}

void body_decode_init(struct body_decode *decode, enum body_encoding encoding)
{
    memset(decode, 0, sizeof(*decode));
    decode->encoding = encoding;
}

void body_decode_deinit(struct body_decode *decode)
{
    if (decode->started) {
        inflateEnd(&decode->stream);
        decode->started = false;
    }
}

/*
 * "deflate" is zlib's format by RFC 9110, but some senders leave its header out. The low four bits
 * of that header's first byte are 8. A raw stream that begins so would be a stored block with a bit
 * set in its padding, which no compressor writes.
 */
static int window_bits(const struct body_decode *decode, uint8_t first)
{
    if (decode->encoding == BODY_GZIP) {
        return 16 + MAX_WBITS;
    }
    return (first & 0x0f) == Z_DEFLATED ? MAX_WBITS : -MAX_WBITS;
}

static int decode_start(struct body_decode *decode, uint8_t first)
{
    int result = inflateInit2(&decode->stream, window_bits(decode, first));

    if (result != Z_OK) {
        return result == Z_MEM_ERROR ? -ENOMEM : -EINVAL;
    }
    decode->started = true;
    return 0;
}

/* One call to inflate. 0 to go on, 1 at the end of a stream, or an error. */
static int decode_piece(struct body_decode *decode, struct buf *out)
{
    z_stream *stream = &decode->stream;
    size_t left = out->max - buf_length(out);
    size_t piece = left < DECODE_PIECE_BYTES ? left : DECODE_PIECE_BYTES;
    uint8_t probe; /* tells whether anything more would come when out is full */
    uint8_t *room = &probe;
    size_t size = 1;
    int result;

    if (piece > 0) {
        result = buf_reserve(out, piece, &room);
        if (result < 0) {
            return result == -ENOBUFS ? -EFBIG : result;
        }
        size = piece;
    }
    stream->next_out = room;
    stream->avail_out = (uInt)size;
    result = inflate(stream, Z_NO_FLUSH);
    if (stream->avail_out < size) {
        if (piece == 0) {
            return -EFBIG;
        }
        buf_commit(out, size - stream->avail_out);
    }
    switch (result) {
    case Z_OK:
    case Z_BUF_ERROR: /* nothing to do with what there is */
        return 0;
    case Z_STREAM_END:
        return 1;
    case Z_MEM_ERROR:
        return -ENOMEM;
    default:
        return -EINVAL;
    }
}

/* Inflates until the input is used up and nothing is left inside, or the stream ends. */
static int decode_stream(struct body_decode *decode, struct span *input, struct buf *out)
{
    z_stream *stream = &decode->stream;
    int result;

    do {
        size_t size = input->len < UINT_MAX ? input->len : UINT_MAX;

        /* zlib's next_in is not const unless ZLIB_CONST is defined by everyone who includes it. */
        stream->next_in = (Bytef *)(uintptr_t)input->ptr;
        stream->avail_in = (uInt)size;
        result = decode_piece(decode, out);
        span_skip(input, size - stream->avail_in);
    } while (result == 0 && (input->len > 0 || stream->avail_out == 0));
    return result;
}

int body_decode_next(struct body_decode *decode, struct span *input, struct buf *out)
{
    int result = 0;

    if (decode->encoding == BODY_IDENTITY) {
        result = buf_append_span(out, span_take(input, out->max - buf_length(out)));
        return result == 0 && input->len > 0 ? -EFBIG : result;
    }
    while (input->len > 0 && result >= 0 && !decode->ended) {
        if (decode->complete) {
            if (decode->encoding != BODY_GZIP || input->ptr[0] != 0x1f) {
                decode->ended = true; /* padding, as some writers leave it */
                break;
            }
            inflateReset(&decode->stream);
            decode->complete = false;
        } else if (!decode->started) {
            result = decode_start(decode, input->ptr[0]);
            if (result < 0) {
                return result;
            }
        }
        result = decode_stream(decode, input, out);
        decode->complete = result == 1;
    }
    return result < 0 ? result : decode->complete;
}
