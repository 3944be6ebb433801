/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BASE_BUF_H
#define SIDECAR_BASE_BUF_H

/*
 * A growable byte queue with a maximum from birth: bytes go in at the end and come out at the
 * front. An empty buf holds no memory, so that an idle connection costs none.
 */

#include <stdarg.h>

#include "fcgi/span.h"

struct buf {
    uint8_t *bytes;
    size_t start; /* first byte that is still wanted */
    size_t end;   /* behind the last one */
    size_t size;  /* allocated */
    size_t max;   /* the most bytes that may be held at once */
};

/* A buf must be initialised before use; the zero buf with max set is initialised too. */
void buf_init(struct buf *buf, size_t max);
/* Frees the memory; the buf stays usable with its maximum. */
void buf_deinit(struct buf *buf);

/* Adds bytes at the end. 0, -ENOMEM, or -ENOBUFS where the maximum would be passed; on an error
 * nothing has changed. */
int buf_append(struct buf *buf, const void *bytes, size_t len);
int buf_append_span(struct buf *buf, struct span span);
int buf_append_string(struct buf *buf, const char *string);
int buf_printf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * Makes room for len more bytes and gives the address where they go; buf_commit then counts those
 * that were written. Errors as buf_append.
 */
int buf_reserve(struct buf *buf, size_t len, uint8_t **room);
void buf_commit(struct buf *buf, size_t len);

/* Removes len bytes (at most buf_length) from the front; frees the memory when none is left. */
void buf_consume(struct buf *buf, size_t len);
/* Removes all and frees the memory. */
void buf_clear(struct buf *buf);

static inline size_t buf_length(const struct buf *buf)
{
    return buf->end - buf->start;
}

/* What it holds; borrowed until the next change. */
static inline struct span buf_span(const struct buf *buf)
{
    return span_of(buf->bytes == NULL ? NULL : buf->bytes + buf->start, buf->end - buf->start);
}

#endif
