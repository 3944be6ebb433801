/* SPDX-License-Identifier: MIT */

/*
 * Fuzzes the leaving out of X-Velox-Build: the first four bytes choose the cuts, the rest is the
 * head and maybe a body. What stays is compared with a walk over whole lines.
 */

#include "tests/unit/traces.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct span input = span_of(bytes, size);
    struct cuts cuts = cuts_of_fuzz(&input);
    struct trace plain = { 0 };
    struct trace whole = { 0 };

    cuts_compare(trace_strip, input, cuts_whole(), cuts);
    cuts_compare(trace_strip, input, cuts_whole(), cuts_bytes());
    trace_strip(&whole, input, cuts_whole());
    trace_strip_plainly(&plain, input);
    CUTS_CHECK(span_equal(trace_span(&whole), trace_span(&plain)));
    trace_deinit(&whole);
    trace_deinit(&plain);
    return 0;
}
