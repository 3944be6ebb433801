/* SPDX-License-Identifier: MIT */
#ifndef FCGI_CGI_H
#define FCGI_CGI_H

/*
 * The head of a CGI response (RFC 3875 section 6): header lines that end in LF or CRLF, then an
 * empty line, then the body. Finding its end, iterating over it and leaving one header out.
 */

#include "fcgi/span.h"

/* Finds the end of the head in bytes that come in any pieces. */
struct cgi_scan {
    uint8_t state; /* private */
};

void cgi_scan_init(struct cgi_scan *scan);

/*
 * Looks through the next piece. True when the head's last byte, the LF of the empty line, is in it;
 * *head_length is then how many bytes of this piece belong to the head. False: all of it does, and
 * *head_length is untouched. An empty line at the very start is a head of no headers. A line ends
 * in LF or CRLF, as in nginx; a CR alone ends no line. Past the end every piece gives true and 0.
 */
bool cgi_scan_next(struct cgi_scan *scan, struct span piece, size_t *head_length);

struct cgi_header {
    struct span name;  /* as it stands; empty where the line is not a header */
    struct span value; /* trimmed of spaces, tabs and the line end */
    struct span line;  /* the whole line with its line end */
    bool valid;        /* a token, a colon, and a value without CR, LF, NUL; not a folded line */
};

/*
 * Takes the next line off the front of *head. False, and nothing changed, at the empty line or the
 * end. Whoever builds a new head leaves out the lines with valid = false:
 *
 *   - lines that are no headers (no colon, a space before it, a folded header's continuation, an
 *     empty name, a name that is not a token of RFC 9110): name and value are empty;
 *   - headers whose value holds a CR or NUL, or goes on in a folded line, since it is not whole
 *     here (a cookie would lose its attributes): name and value are what this line holds.
 *
 * A last line without a line end counts as a line.
 */
bool cgi_next_header(struct span *head, struct cgi_header *header);

/* The number of a Status value such as "404 Not Found" or "404": 100 to 999, or 0 if it is none.
 * Three digits and no fourth; whatever follows does not count, as in nginx
 * (ngx_http_fastcgi_module.c:ngx_http_fastcgi_process_header), which must not see another status.
 * */
unsigned cgi_status(struct span value);

/*
 * Leaves one header out of a head that streams through: with its name as it stands, any case, and
 * with the continuation lines folded into it. Holds back at most the bytes of one name at the start
 * of a line. Used where a head is too long to be held in memory.
 */
#define CGI_STRIP_NAME_MAX 63

struct cgi_strip {
    const char *name;    /* borrowed; 1 to CGI_STRIP_NAME_MAX bytes */
    uint8_t name_length; /* private */
    uint8_t state;       /* private */
    uint8_t held;        /* private: bytes of a possible name that are not given out yet */
    uint8_t held_bytes[CGI_STRIP_NAME_MAX];
};

enum cgi_strip_event {
    CGI_STRIP_NEED_DATA, /* all input is consumed */
    CGI_STRIP_KEEP,      /* *keep holds bytes that stay, never none (borrows from the input or from
                          * the strip, until the next call) */
    CGI_STRIP_END,       /* the head has ended, its empty line was kept; the input continues with
                          * the body; every further call says the same */
};

void cgi_strip_init(struct cgi_strip *strip, const char *name);
enum cgi_strip_event cgi_strip_next(struct cgi_strip *strip, struct span *input, struct span *keep);

/* Gives out what is held back, where the stream ends before the head does: bytes that stay, maybe
 * none. They borrow from the strip, of which nothing else is asked after that. */
struct span cgi_strip_flush(struct cgi_strip *strip);

#endif
