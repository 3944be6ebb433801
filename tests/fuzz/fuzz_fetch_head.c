/* SPDX-License-Identifier: MIT */
/*
 * Heads of a source: lines up to an empty line, then those of the answer that goes on. A tag is one
 * that may be sent to a client as it is, a range is one, and an answer that has no range for the
 * place never goes on with a file.
 */
#include "sidecar/build/fetch_head.h"

#include "tests/unit/cuts.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* Up to and with an empty line. */
static void read_head(struct fetch_head *head, struct span *input, unsigned status)
{
    fetch_head_init(head);
    while (input->len > 0 && !head->is_complete) {
        const uint8_t *end = memchr(input->ptr, '\n', input->len);

        fetch_head_line(
            head, span_take(input, end == NULL ? input->len : (size_t)(end - input->ptr) + 1));
    }
    head->status = status;
}

static void check_text(const char *text)
{
    for (; *text != '\0'; text++) {
        CUTS_CHECK(*text >= 0x20 && *text < 0x7f);
    }
}

static void check_head(const struct fetch_head *head)
{
    size_t length = strlen(head->etag);

    CUTS_CHECK(length == 0 || (length >= 2 && head->etag[0] == '"' &&
                               strchr(head->etag + 1, '"') == head->etag + length - 1));
    check_text(head->etag);
    check_text(head->last_modified);
    CUTS_CHECK(!head->has_range ||
               (head->range_first < head->range_end && head->range_end <= head->range_total));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct span input = span_of(bytes, size);
    struct fetch_head first, rest;

    read_head(&first, &input, 200);
    read_head(&rest, &input, 206);
    check_head(&first);
    check_head(&rest);
    if (fetch_head_check_rest(&first, &rest, 5, 10) == NULL) {
        CUTS_CHECK(rest.has_range && rest.range_first == 5 && rest.range_total == 10);
        CUTS_CHECK(first.etag[0] == '\0' || rest.etag[0] == '\0' ||
                   strcmp(first.etag, rest.etag) == 0);
    }
    rest.status = 200;
    CUTS_CHECK(fetch_head_check_rest(&first, &rest, 5, 10) != NULL);
    return 0;
}
