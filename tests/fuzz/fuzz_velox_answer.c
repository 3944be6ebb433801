/* SPDX-License-Identifier: MIT */
/*
 * Answers of Velox: the first three bytes are the HTTP status and how the exchange ended, the rest
 * is the body. Whatever comes, there is a decision; only HTTP 200 with a path is a built file; and
 * nothing is said in invalid UTF-8.
 */
#include "sidecar/build/json_text.h"
#include "sidecar/build/velox_answer.h"
#include "tests/unit/cuts.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void check_utf8(struct span text)
{
    while (text.len > 0) {
        int length = utf8_length(text);

        CUTS_CHECK(length > 0);
        span_skip(&text, (size_t)length);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct span input = span_of(bytes, size);
    struct span prefix = span_take(&input, 3);
    struct velox_reply reply = { .transport = VELOX_ANSWERED, .body = input };
    struct velox_answer answer;
    struct buf text;

    if (prefix.len < 3) {
        return 0;
    }
    reply.status = (unsigned)prefix.ptr[0] << 8 | prefix.ptr[1];
    reply.transport = (enum velox_transport)(prefix.ptr[2] % (VELOX_OUT_OF_MEMORY + 1));
    buf_init(&text, 0);
    velox_answer_decide(&reply, &text, &answer);
    if (answer.outcome == VELOX_BUILT) {
        CUTS_CHECK(reply.status == 200 && reply.transport == VELOX_ANSWERED);
        CUTS_CHECK(answer.path.len > 0 && answer.path.len <= input.len);
    } else {
        CUTS_CHECK(answer.message.len > 0);
    }
    check_utf8(answer.path);
    check_utf8(answer.build_id);
    check_utf8(answer.message);
    buf_deinit(&text);
    return 0;
}
