/* SPDX-License-Identifier: MIT */
#ifndef FCGI_READER_H
#define FCGI_READER_H

/*
 * An incremental reader of FastCGI records that is pulled: the caller gives bytes as they come and
 * asks for the next event until it hears FCGI_NEED_DATA. However the bytes are cut, the events are
 * the same, except that the content of a record may come in more pieces.
 *
 *     RECORD  CONTENT*  RECORD_END       once for each record, CONTENT never empty
 *
 * The reader judges the version only. Whether a type, an id or a length is allowed here is the
 * caller's business, who sees the header in reader->header from RECORD to RECORD_END.
 */

#include "fcgi/record.h"

enum fcgi_event {
    FCGI_NEED_DATA,  /* all input is consumed */
    FCGI_RECORD,     /* reader->header holds a new record's header */
    FCGI_CONTENT,    /* *content holds the next piece of its content */
    FCGI_RECORD_END, /* its content and padding are consumed */
    FCGI_MALFORMED,  /* not version 1, known from a header's first byte, which is not consumed;
                      * every further call says the same */
};

struct fcgi_reader {
    struct fcgi_header header;
    uint16_t content_left;  /* of the current record, not yet consumed */
    uint8_t padding_left;   /* likewise */
    uint8_t state;          /* private */
    uint8_t partial_length; /* private: bytes of a header that has not come whole */
    uint8_t partial[FCGI_HEADER_SIZE];
};

void fcgi_reader_init(struct fcgi_reader *reader);

/*
 * Consumes bytes from the front of *input up to the next event. On FCGI_CONTENT *content borrows
 * from the input; otherwise it is untouched. On FCGI_RECORD the input continues right behind the
 * header's last byte, so the bytes before it (up to 8, as far as they came in this input) are the
 * header's.
 */
enum fcgi_event fcgi_reader_next(struct fcgi_reader *reader, struct span *input,
                                 struct span *content);

/* True where no record has begun: the input may end here without being cut short. */
bool fcgi_reader_at_boundary(const struct fcgi_reader *reader);

#endif
