/* SPDX-License-Identifier: MIT */
#ifndef FCGI_SCGI_H
#define FCGI_SCGI_H

/*
 * The head of an SCGI request (the SCGI protocol text by Neil Schemenauer, 2006-01): a netstring of
 * NUL-terminated names and values, CONTENT_LENGTH first, and SCGI=1 among them. The body follows
 * the netstring's comma.
 */

#include "fcgi/span.h"

enum scgi_result {
    SCGI_NEED_DATA, /* the netstring has not come whole */
    SCGI_COMPLETE,
    SCGI_TOO_LARGE, /* the announced length is over max; known as soon as its colon is here */
    SCGI_MALFORMED,
};

/*
 * Reads the netstring at the front of input, all bytes that have come so far. On SCGI_COMPLETE
 * *headers borrows its inside and *head_length is the bytes up to and including the comma.
 * A length with a leading zero (0 itself too: no request is empty), of more than nine digits or
 * with anything but digits is malformed.
 */
enum scgi_result scgi_head_read(struct span input, size_t max, struct span *headers,
                                size_t *head_length);

/*
 * Checks the inside once: pairs complete, names not empty, CONTENT_LENGTH first and digits only
 * (one at least, under 2^64), SCGI=1 present, neither of the two twice. True and *content_length if
 * it is well-formed.
 */
bool scgi_headers_check(struct span headers, uint64_t *content_length);

/* Takes the next pair off; false when nothing (whole) is left. */
bool scgi_next(struct span *headers, struct span *name, struct span *value);

/* Writing, for tests and clients: the size of, and then the netstring for, the given inside, which
 * is at most nine digits long in a netstring that can be read back. */
size_t scgi_head_size(size_t headers_length);
size_t scgi_head_write(uint8_t *bytes, struct span headers);

#endif
