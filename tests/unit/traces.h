/* SPDX-License-Identifier: MIT */
#ifndef TESTS_UNIT_TRACES_H
#define TESTS_UNIT_TRACES_H

/*
 * What each parser of fcgi/ says about an input, as a trace that does not depend on how the input
 * was cut, with the promises of its header checked on the way. And the slow, obvious version of
 * what cgi_scan and cgi_strip do, to compare with.
 */

#include "fcgi/cgi.h"
#include "fcgi/reader.h"
#include "fcgi/scgi.h"
#include "tests/unit/cuts.h"

static inline bool span_is_within(struct span part, struct span whole)
{
    return part.ptr >= whole.ptr && part.len <= whole.len &&
           (size_t)(part.ptr - whole.ptr) <= whole.len - part.len;
}

/* ---- records ---- */

/* One piece. False once the input is malformed. */
static inline bool trace_reader_piece(struct trace *trace, struct fcgi_reader *reader,
                                      struct span piece, size_t offset, size_t *record_bytes)
{
    struct span input = piece;
    struct span content = { 0 };

    for (;;) {
        switch (fcgi_reader_next(reader, &input, &content)) {
        case FCGI_NEED_DATA:
            CUTS_CHECK(input.len == 0);
            return true;
        case FCGI_RECORD:
            *record_bytes = 0;
            trace_line(trace, "record type %u id %u length %u padding %u\n", reader->header.type,
                       reader->header.request_id, reader->header.content_length,
                       reader->header.padding_length);
            CUTS_CHECK(!fcgi_reader_at_boundary(reader));
            break;
        case FCGI_CONTENT:
            CUTS_CHECK(content.len > 0 && span_is_within(content, piece));
            *record_bytes += content.len;
            trace_add(trace, content);
            break;
        case FCGI_RECORD_END:
            CUTS_CHECK(*record_bytes == reader->header.content_length);
            CUTS_CHECK(fcgi_reader_at_boundary(reader));
            trace_line(trace, "\nend\n");
            break;
        case FCGI_MALFORMED:
            trace_line(trace, "malformed at %zu\n", offset + piece.len - input.len);
            CUTS_CHECK(fcgi_reader_next(reader, &input, &content) == FCGI_MALFORMED);
            CUTS_CHECK(!fcgi_reader_at_boundary(reader));
            return false;
        }
    }
}

static inline void trace_reader(struct trace *trace, struct span input, struct cuts cuts)
{
    struct fcgi_reader reader;
    size_t record_bytes = 0;
    size_t offset = 0;
    bool is_going = true;

    fcgi_reader_init(&reader);
    while (input.len > 0 && is_going) {
        struct span piece = cuts_take(&cuts, &input);

        is_going = trace_reader_piece(trace, &reader, piece, offset, &record_bytes);
        offset += piece.len;
        cuts_give_back(piece.ptr);
    }
    trace_line(trace, "\nboundary %d, left %u + %u\n", fcgi_reader_at_boundary(&reader),
               reader.content_left, reader.padding_left);
}

/* ---- CGI heads ---- */

static inline void trace_scan(struct trace *trace, struct span input, struct cuts cuts)
{
    struct cgi_scan scan;
    size_t offset = 0;

    cgi_scan_init(&scan);
    while (input.len > 0) {
        struct span piece = cuts_take(&cuts, &input);
        size_t length = SIZE_MAX;
        bool is_end = cgi_scan_next(&scan, piece, &length);

        CUTS_CHECK(is_end ? length >= 1 && length <= piece.len : length == SIZE_MAX);
        if (is_end) {
            trace_line(trace, "end at %zu\n", offset + length);
            CUTS_CHECK(cgi_scan_next(&scan, piece, &length) && length == 0);
            input.len = 0;
        }
        offset += piece.len;
        cuts_give_back(piece.ptr);
    }
}

/* The head's length by its definition, or 0 if it does not end. */
static inline size_t head_length_plainly(struct span text)
{
    size_t line = 0;

    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] != '\n') {
            continue;
        }
        if (i == line || (i == line + 1 && text.ptr[line] == '\r')) {
            return i + 1;
        }
        line = i + 1;
    }
    return 0;
}

#define TRACE_STRIP_NAME "X-Velox-Build"

static inline void trace_strip(struct trace *trace, struct span input, struct cuts cuts)
{
    struct cgi_strip strip;
    struct span keep;
    enum cgi_strip_event event = CGI_STRIP_NEED_DATA;
    size_t offset = 0;

    cgi_strip_init(&strip, TRACE_STRIP_NAME);
    while (input.len > 0 && event != CGI_STRIP_END) {
        struct span piece = cuts_take(&cuts, &input);
        struct span rest = piece;

        while ((event = cgi_strip_next(&strip, &rest, &keep)) == CGI_STRIP_KEEP) {
            CUTS_CHECK(keep.len > 0);
            trace_add(trace, keep);
        }
        CUTS_CHECK(event == CGI_STRIP_END || rest.len == 0);
        offset += piece.len - rest.len;
        cuts_give_back(piece.ptr);
    }
    if (event == CGI_STRIP_END) {
        trace_line(trace, "end at %zu\n", offset);
        CUTS_CHECK(cgi_strip_next(&strip, &input, &keep) == CGI_STRIP_END);
    } else {
        trace_add(trace, cgi_strip_flush(&strip));
    }
}

static inline bool line_is_of(struct span line, const char *name)
{
    size_t length = strlen(name);

    return line.len > length && line.ptr[length] == ':' &&
           span_is_nocase(span_of(line.ptr, length), name);
}

/* The same trace, by walking over whole lines. */
static inline void trace_strip_plainly(struct trace *trace, struct span input)
{
    size_t head_length = head_length_plainly(input);
    struct span head = span_of(input.ptr, head_length > 0 ? head_length : input.len);
    bool is_dropping = false;

    while (head.len > 0) {
        const uint8_t *lf = memchr(head.ptr, '\n', head.len);
        struct span line = span_take(&head, lf == NULL ? head.len : (size_t)(lf - head.ptr) + 1);
        bool is_folded = line.ptr[0] == ' ' || line.ptr[0] == '\t';

        is_dropping = (is_dropping && is_folded) || line_is_of(line, TRACE_STRIP_NAME);
        if (!is_dropping) {
            trace_add(trace, line);
        }
    }
    if (head_length > 0) {
        trace_line(trace, "end at %zu\n", head_length);
    }
}

/* ---- SCGI heads ---- */

#define TRACE_SCGI_MAX 100000

/* The parser is given all that has come so far, each time again. */
static inline void trace_scgi(struct trace *trace, struct span input, struct cuts cuts)
{
    enum scgi_result result = SCGI_NEED_DATA;
    struct span rest = input;
    struct span headers = { 0 };
    size_t head_length = 0;

    while (rest.len > 0 && result == SCGI_NEED_DATA) {
        struct span piece = cuts_take(&cuts, &rest);
        struct cuts whole = cuts_whole();
        struct span so_far = span_of(input.ptr, input.len - rest.len);
        struct span copy = cuts_take(&whole, &so_far);

        result = scgi_head_read(copy, TRACE_SCGI_MAX, &headers, &head_length);
        if (result == SCGI_COMPLETE) {
            CUTS_CHECK(head_length <= copy.len && span_is_within(headers, copy));
            CUTS_CHECK(head_length >= headers.len + 3 && copy.ptr[head_length - 1] == ',');
            trace_line(trace, "head of %zu\n", head_length);
            trace_add(trace, headers);
        }
        cuts_give_back(copy.ptr);
        cuts_give_back(piece.ptr);
    }
    trace_line(trace, "\nresult %d\n", (int)result);
}

#endif
