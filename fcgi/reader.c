/* SPDX-License-Identifier: MIT */

/*
 * Cuts a stream of bytes into FastCGI records. It never copies content and never looks ahead: what
 * it says depends on the bytes alone, not on how they were cut.
 */

#include "fcgi/reader.h"

enum reader_state {
    READER_HEADER,
    READER_BODY, /* content, then padding */
    READER_MALFORMED,
};

void fcgi_reader_init(struct fcgi_reader *reader)
{
    memset(reader, 0, sizeof(*reader));
}

static enum fcgi_event record_begin(struct fcgi_reader *reader)
{
    reader->content_left = reader->header.content_length;
    reader->padding_left = reader->header.padding_length;
    reader->partial_length = 0;
    reader->state = READER_BODY;
    return FCGI_RECORD;
}

/* The first byte is judged as soon as it is here: who speaks another protocol may send no eight. */
static enum fcgi_event header_next(struct fcgi_reader *reader, struct span *input)
{
    if (input->len == 0) {
        return FCGI_NEED_DATA;
    }
    if (reader->partial_length == 0) {
        if (input->ptr[0] != FCGI_VERSION_1) {
            reader->state = READER_MALFORMED;
            return FCGI_MALFORMED;
        }
        if (input->len >= FCGI_HEADER_SIZE) {
            (void)fcgi_header_read(input->ptr, &reader->header);
            span_skip(input, FCGI_HEADER_SIZE);
            return record_begin(reader);
        }
    }
    struct span part = span_take(input, (size_t)(FCGI_HEADER_SIZE - reader->partial_length));

    memcpy(reader->partial + reader->partial_length, part.ptr, part.len);
    reader->partial_length = (uint8_t)(reader->partial_length + part.len);
    if (reader->partial_length < FCGI_HEADER_SIZE) {
        return FCGI_NEED_DATA;
    }
    (void)fcgi_header_read(reader->partial, &reader->header);
    return record_begin(reader);
}

static enum fcgi_event body_next(struct fcgi_reader *reader, struct span *input,
                                 struct span *content)
{
    if (reader->content_left > 0) {
        if (input->len == 0) {
            return FCGI_NEED_DATA;
        }
        *content = span_take(input, reader->content_left);
        reader->content_left = (uint16_t)(reader->content_left - content->len);
        return FCGI_CONTENT;
    }
    if (reader->padding_left > 0) {
        struct span padding = span_take(input, reader->padding_left);

        reader->padding_left = (uint8_t)(reader->padding_left - padding.len);
        if (reader->padding_left > 0) {
            return FCGI_NEED_DATA;
        }
    }
    reader->state = READER_HEADER;
    return FCGI_RECORD_END;
}

enum fcgi_event fcgi_reader_next(struct fcgi_reader *reader, struct span *input,
                                 struct span *content)
{
    if (reader->state == READER_BODY) {
        return body_next(reader, input, content);
    }
    if (reader->state == READER_HEADER) {
        return header_next(reader, input);
    }
    return FCGI_MALFORMED;
}

bool fcgi_reader_at_boundary(const struct fcgi_reader *reader)
{
    return reader->state == READER_HEADER && reader->partial_length == 0;
}
