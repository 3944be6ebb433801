/* SPDX-License-Identifier: MIT */

/*
 * Fuzzes the SCGI head: the first four bytes choose the cuts, the rest is the netstring and maybe
 * a body. What stands inside is also checked, walked over, and put into a netstring again.
 */

#include "tests/unit/traces.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void check_headers(struct span headers)
{
    struct span rest = headers;
    struct span name;
    struct span value;
    uint64_t content_length = 0;
    size_t pairs = 0;
    bool is_good = scgi_headers_check(headers, &content_length);

    while (scgi_next(&rest, &name, &value)) {
        CUTS_CHECK(span_is_within(name, headers) && span_is_within(value, headers));
        CUTS_CHECK(name.ptr[name.len] == '\0' && value.ptr == name.ptr + name.len + 1);
        CUTS_CHECK(value.ptr[value.len] == '\0' && rest.ptr == value.ptr + value.len + 1);
        CUTS_CHECK(!is_good || name.len > 0);
        pairs++;
    }
    CUTS_CHECK(!is_good || (rest.len == 0 && pairs >= 2));
}

static void check_written(struct span headers)
{
    size_t size = scgi_head_size(headers.len);
    uint8_t *head = malloc(size);
    struct span again;
    size_t head_length;

    CUTS_CHECK(head != NULL && scgi_head_write(head, headers) == size);
    if (headers.len > 0) {
        CUTS_CHECK(scgi_head_read(span_of(head, size), size, &again, &head_length) ==
                   SCGI_COMPLETE);
        CUTS_CHECK(head_length == size && span_equal(again, headers));
    }
    free(head);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct span input = span_of(bytes, size);
    struct cuts cuts = cuts_of_fuzz(&input);
    struct span headers;
    size_t head_length;

    cuts_compare(trace_scgi, input, cuts_whole(), cuts);
    if (input.len < 600) {
        cuts_compare(trace_scgi, input, cuts_whole(), cuts_bytes());
    }
    if (scgi_head_read(input, input.len, &headers, &head_length) == SCGI_COMPLETE) {
        check_headers(headers);
    }
    check_headers(input);
    check_written(input);
    return 0;
}
