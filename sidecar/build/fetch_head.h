/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_FETCH_HEAD_H
#define SIDECAR_BUILD_FETCH_HEAD_H

/*
 * What the head of an answer says about the file behind it, and whether a later answer goes on with
 * the same file. Pure.
 */

#include <stdint.h>

#include "fcgi/span.h"

#define FETCH_TAG_SIZE 80
#define FETCH_DATE_SIZE 40

struct fetch_head {
    unsigned status;
    bool is_complete;                    /* the blank line has come */
    char etag[FETCH_TAG_SIZE];           /* a strong one with its quotes; empty: none */
    char last_modified[FETCH_DATE_SIZE]; /* as it came; empty: none */
    bool is_encoded;                     /* Content-Encoding, which we did not ask for */
    bool has_range;
    uint64_t range_first;
    uint64_t range_end; /* behind the last byte */
    uint64_t range_total;
    int64_t length;     /* of the content; -1: not announced */
    int64_t modified_s; /* Unix time; -1: not told */
};

/* Empty, for a new answer. */
void fetch_head_init(struct fetch_head *head);
/* One line of the head, with or without its end; an interim answer's lines are forgotten by the
 * next status line. Fills all but status, length and modified_s. */
void fetch_head_line(struct fetch_head *head, struct span line);

/* Whether a file may begin with this answer. NULL, or what is wrong, for the log and the client. */
const char *fetch_head_check_first(const struct fetch_head *head);
/*
 * Whether this answer goes on at offset with the file of size bytes that first began. It does not
 * where the source says that it has another file there now; where it names neither a tag nor a
 * date, the size has to do. NULL, or what is wrong.
 */
const char *fetch_head_check_rest(const struct fetch_head *first, const struct fetch_head *head,
                                  uint64_t offset, uint64_t size);

/* Whether it may be better later: 429, 500, 502, 503 and 504. */
bool fetch_head_may_retry(const struct fetch_head *head);

#endif
