/* SPDX-License-Identifier: MIT */

/*
 * Fuzzes the record reader: the first four bytes choose the cuts, the rest is the stream. Also
 * writes the rest as a stream of our own and reads it back.
 */

#include "fcgi/writer.h"
#include "tests/unit/traces.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void check_header(struct span input)
{
    struct fcgi_header header;
    struct fcgi_header again;
    uint8_t written[FCGI_HEADER_SIZE];

    if (input.len < FCGI_HEADER_SIZE || !fcgi_header_read(input.ptr, &header)) {
        return;
    }
    fcgi_header_write(written, header.type, header.request_id, header.content_length,
                      header.padding_length);
    CUTS_CHECK(memcmp(written, input.ptr, FCGI_HEADER_SIZE - 1) == 0 && written[7] == 0);
    CUTS_CHECK(fcgi_header_read(written, &again) && again.type == header.type);
}

/* The content of the stream that we write is the content that was put in. */
static void check_written(struct span content)
{
    size_t size = fcgi_stream_size(content.len);
    uint8_t *records = malloc(size + 1);
    struct fcgi_reader reader;
    struct span piece;

    CUTS_CHECK(records != NULL);
    CUTS_CHECK(fcgi_stream_write(records, FCGI_STDOUT, 1, content) == size);
    struct span input = span_of(records, size);

    fcgi_reader_init(&reader);
    for (enum fcgi_event event; (event = fcgi_reader_next(&reader, &input, &piece)) != 0;) {
        CUTS_CHECK(event != FCGI_MALFORMED && reader.header.padding_length == 0);
        CUTS_CHECK(reader.header.content_length > 0 &&
                   reader.header.content_length <= FCGI_CONTENT_MAX);
        if (event == FCGI_CONTENT) {
            CUTS_CHECK(span_equal(piece, span_take(&content, piece.len)));
        }
    }
    CUTS_CHECK(content.len == 0 && fcgi_reader_at_boundary(&reader));
    free(records);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct span input = span_of(bytes, size);
    struct cuts cuts = cuts_of_fuzz(&input);

    cuts_compare(trace_reader, input, cuts_whole(), cuts);
    cuts_compare(trace_reader, input, cuts_whole(), cuts_bytes());
    check_header(input);
    check_written(input);
    return 0;
}
