/* SPDX-License-Identifier: MIT */

/*
 * Fuzzes name-value pairs: the first two bytes are the most that a record may hold, the rest are
 * the pairs. They are also written again, cut into records and answered as GET_VALUES.
 */

#include "fcgi/params.h"
#include "tests/unit/traces.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* Reads all pairs and writes them again: never longer, and the same pairs. Gives the rewriting. */
static struct trace check_pairs(struct span input)
{
    struct trace written = { 0 };
    struct span pairs = input;
    struct span name;
    struct span value;
    enum params_result result;

    while ((result = params_next(&pairs, &name, &value)) == PARAMS_PAIR) {
        CUTS_CHECK(span_is_within(name, input) && span_is_within(value, input));
        CUTS_CHECK(value.ptr == name.ptr + name.len && pairs.ptr == value.ptr + value.len);
        size_t size = params_size(name.len, value.len);
        uint8_t *pair = malloc(size);
        struct span again = span_of(pair, size);
        struct span name_again;
        struct span value_again;

        CUTS_CHECK(pair != NULL && params_write(pair, name, value) == size);
        CUTS_CHECK(params_next(&again, &name_again, &value_again) == PARAMS_PAIR);
        CUTS_CHECK(again.len == 0 && span_equal(name, name_again));
        CUTS_CHECK(span_equal(value, value_again));
        trace_add(&written, span_of(pair, size));
        free(pair);
    }
    CUTS_CHECK((result == PARAMS_END) == (pairs.len == 0));
    CUTS_CHECK(written.len <= input.len - pairs.len);
    return written;
}

/* Records hold whole pairs, as many as fit. */
static void check_cut(struct span pairs, size_t max)
{
    struct span name;
    struct span value;

    while (pairs.len > 0) {
        size_t cut = params_cut(pairs, max);
        struct span record = span_take(&pairs, cut);
        struct span rest = pairs;

        CUTS_CHECK(cut <= max && record.len == cut);
        while (params_next(&record, &name, &value) == PARAMS_PAIR) {}
        CUTS_CHECK(record.len == 0);
        if (rest.len > 0) {
            CUTS_CHECK(params_next(&rest, &name, &value) == PARAMS_PAIR);
            CUTS_CHECK(cut + (pairs.len - rest.len) > max);
        }
        if (cut == 0) {
            return;
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct span input = span_of(bytes, size);
    struct span prefix = span_take(&input, 2);
    size_t max = prefix.len < 2 ? 0 : (size_t)prefix.ptr[0] << 8 | prefix.ptr[1];
    struct trace written = check_pairs(input);
    uint8_t answer[PARAMS_VALUES_MAX];
    struct span answered = span_of(answer, params_values_answer(input, (unsigned)max, answer));

    check_cut(trace_span(&written), max);
    (void)params_cut(input, max);
    CUTS_CHECK(answered.len <= sizeof(answer));
    struct trace answer_again = check_pairs(answered);

    CUTS_CHECK(span_equal(trace_span(&answer_again), answered));
    trace_deinit(&answer_again);
    trace_deinit(&written);
    return 0;
}
