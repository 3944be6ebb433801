/* SPDX-License-Identifier: MIT */
/*
 * Collecting a build request. Must never hold more than its maximum, and never wait for bytes
 * behind the end of the JSON value: shutdown functions of PHP may take their time.
 */
#include "sidecar/relay/capture.h"

#include <errno.h>

#include "fcgi/cgi.h"

/* A Content-Length of digits only; PHP scripts send wrong ones too, so nothing is believed beyond
 * what it is good for here. */
static bool parse_length(struct span value, uint64_t *length)
{
    uint64_t number = 0;

    if (value.len == 0 || value.len > 18) {
        return false;
    }
    for (size_t i = 0; i < value.len; i++) {
        if (value.ptr[i] < '0' || value.ptr[i] > '9') {
            return false;
        }
        number = number * 10 + (value.ptr[i] - '0');
    }
    *length = number;
    return true;
}

enum capture_result capture_init(struct capture *capture, struct span head, size_t max_size)
{
    enum body_encoding encoding = BODY_IDENTITY;
    struct cgi_header header;
    bool is_known = true;

    capture->has_length = false;
    while (cgi_next_header(&head, &header)) {
        if (span_is_nocase(header.name, "Content-Encoding") && header.value.len > 0) {
            is_known = is_known && encoding == BODY_IDENTITY &&
                       body_encoding_parse(header.value, &encoding) == 0;
        } else if (span_is_nocase(header.name, "Content-Length")) {
            capture->has_length = parse_length(header.value, &capture->length_left);
        }
    }
    buf_init(&capture->body, max_size);
    body_decode_init(&capture->decode, encoding);
    json_end_init(&capture->end);
    capture->is_started = true;
    if (!is_known) {
        return CAPTURE_UNKNOWN_ENCODING;
    }
    return capture->has_length && capture->length_left == 0 ? CAPTURE_COMPLETE : CAPTURE_MORE;
}

void capture_deinit(struct capture *capture)
{
    if (capture->is_started) {
        body_decode_deinit(&capture->decode);
        buf_deinit(&capture->body);
        capture->is_started = false;
    }
}

static enum capture_result of_error(int error)
{
    switch (error) {
    case -EFBIG:
    case -ENOBUFS:
        return CAPTURE_TOO_LARGE;
    case -ENOMEM:
        return CAPTURE_NO_MEMORY;
    default:
        return CAPTURE_UNDECODABLE;
    }
}

/* Looks for the value's end in what has been decoded since from. */
static bool find_end(struct capture *capture, size_t from)
{
    struct span decoded = buf_span(&capture->body);
    size_t length;

    if (decoded.len == from) {
        return false;
    }
    span_skip(&decoded, from);
    if (json_end_next(&capture->end, decoded, &length) != JSON_END_FOUND) {
        return false;
    }
    capture->body.end = capture->body.start + from + length;
    return true;
}

enum capture_result capture_next(struct capture *capture, struct span piece)
{
    size_t before = buf_length(&capture->body);
    int result;

    if (capture->has_length && piece.len > capture->length_left) {
        piece.len = capture->length_left;
    }
    capture->length_left -= capture->has_length ? piece.len : 0;
    result = body_decode_next(&capture->decode, &piece, &capture->body);
    if (find_end(capture, before)) {
        return CAPTURE_COMPLETE; /* even where the rest would have been too much */
    }
    if (result < 0) {
        return of_error(result);
    }
    /* The end of a gzip member is no end: another one may follow. */
    return capture->has_length && capture->length_left == 0 ? capture_end(capture) : CAPTURE_MORE;
}

enum capture_result capture_end(struct capture *capture)
{
    return body_decode_is_complete(&capture->decode) ? CAPTURE_COMPLETE : CAPTURE_UNDECODABLE;
}
