/* SPDX-License-Identifier: MIT */
/*
 * Content-Encoding. However the bytes come in, the same bytes come out, never more than the
 * maximum, and whether the stream is complete does not depend on it either.
 */
#include <errno.h>

#include "sidecar/build/body_decode.h"
#include "tests/unit/cuts.h"

#define OUT_MAX 20000

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void trace_with(enum body_encoding encoding, struct trace *trace, struct span input,
                       struct cuts cuts)
{
    struct body_decode decode;
    struct buf out;
    int result = 0;

    buf_init(&out, OUT_MAX);
    body_decode_init(&decode, encoding);
    while (input.len > 0 && result >= 0) {
        struct span piece = cuts_take(&cuts, &input);
        const uint8_t *begin = piece.ptr;

        result = body_decode_next(&decode, &piece, &out);
        CUTS_CHECK(result <= 1 && buf_length(&out) <= OUT_MAX);
        cuts_give_back(begin);
    }
    trace_line(trace, "%d %d", result < 0 ? result : 0,
               result < 0 ? -1 : body_decode_is_complete(&decode));
    /* Where the input is at fault, more of it may have been decoded in one piece than in many. */
    if (result != -EINVAL) {
        trace_add(trace, buf_span(&out));
    }
    body_decode_deinit(&decode);
    buf_deinit(&out);
}

static void trace_identity(struct trace *trace, struct span input, struct cuts cuts)
{
    trace_with(BODY_IDENTITY, trace, input, cuts);
}

static void trace_gzip(struct trace *trace, struct span input, struct cuts cuts)
{
    trace_with(BODY_GZIP, trace, input, cuts);
}

static void trace_deflate(struct trace *trace, struct span input, struct cuts cuts)
{
    trace_with(BODY_DEFLATE, trace, input, cuts);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct span input = span_of(bytes, size);
    struct cuts cuts = cuts_of_fuzz(&input);

    cuts_compare(trace_identity, input, cuts_whole(), cuts);
    cuts_compare(trace_gzip, input, cuts_whole(), cuts);
    cuts_compare(trace_deflate, input, cuts_whole(), cuts);
    return 0;
}
