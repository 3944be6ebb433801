/* SPDX-License-Identifier: MIT */

/*
 * Fuzzes the search for the end of a CGI head and the walk over its headers: the first four bytes
 * choose the cuts, the rest is the head and maybe a body.
 */

#include "tests/unit/traces.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static size_t check_scan(struct span input)
{
    struct cgi_scan scan;
    size_t length = 0;

    cgi_scan_init(&scan);
    CUTS_CHECK(cgi_scan_next(&scan, input, &length) == (length > 0));
    CUTS_CHECK(length == head_length_plainly(input));
    return length;
}

/* A value that may stand in a head that we build. */
static void check_valid(const struct cgi_header *header)
{
    struct span text = header->line;
    struct span value = header->value;

    CUTS_CHECK(header->name.len > 0 && text.ptr[header->name.len] == ':');
    CUTS_CHECK(value.len == 0 || (memchr(value.ptr, '\n', value.len) == NULL &&
                                  memchr(value.ptr, '\r', value.len) == NULL &&
                                  memchr(value.ptr, '\0', value.len) == NULL));
    CUTS_CHECK(memchr(header->name.ptr, ' ', header->name.len) == NULL);
}

/* The lines are the head without its empty line, none lost and none twice. */
static void check_headers(struct span head)
{
    struct span rest = head;
    struct cgi_header header;
    size_t length = 0;

    while (cgi_next_header(&rest, &header)) {
        CUTS_CHECK(header.line.ptr == head.ptr + length && header.line.len > 0);
        length += header.line.len;
        CUTS_CHECK(rest.ptr == head.ptr + length && rest.len == head.len - length);
        CUTS_CHECK(span_is_within(header.name, header.line));
        CUTS_CHECK(span_is_within(header.value, header.line));
        CUTS_CHECK(span_equal(header.value, span_trim(header.value)));
        if (header.valid) {
            check_valid(&header);
        }
        unsigned status = cgi_status(header.value);

        CUTS_CHECK(status == 0 || (status >= 100 && status <= 999));
    }
    CUTS_CHECK(rest.len == 0 || rest.ptr[0] == '\n' || (rest.ptr[0] == '\r' && rest.len >= 2));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct span input = span_of(bytes, size);
    struct cuts cuts = cuts_of_fuzz(&input);

    cuts_compare(trace_scan, input, cuts_whole(), cuts);
    cuts_compare(trace_scan, input, cuts_whole(), cuts_bytes());
    size_t length = check_scan(input);

    check_headers(input);
    check_headers(span_of(input.ptr, length));
    return 0;
}
