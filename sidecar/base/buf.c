/* SPDX-License-Identifier: MIT */
/*
 * A growable byte queue. It must never hold more than its maximum, however much a peer sends, and
 * never keep memory once it is empty.
 */

#include "sidecar/base/buf.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define BUF_SIZE_MIN 512

void buf_init(struct buf *buf, size_t max)
{
    *buf = (struct buf){ .max = max };
}

void buf_deinit(struct buf *buf)
{
    free(buf->bytes);
    buf_init(buf, buf->max);
}

void buf_clear(struct buf *buf)
{
    buf_deinit(buf);
}

static void buf_compact(struct buf *buf)
{
    size_t length = buf_length(buf);

    if (buf->start > 0 && length > 0) {
        memmove(buf->bytes, buf->bytes + buf->start, length);
    }
    buf->start = 0;
    buf->end = length;
}

/* Allocates for needed bytes, twice as much as before if the maximum allows, so that many small
 * appends cost little. */
static int buf_grow(struct buf *buf, size_t needed)
{
    size_t size = buf->size < BUF_SIZE_MIN ? BUF_SIZE_MIN : buf->size;
    uint8_t *bytes;

    while (size < needed) {
        size = size > SIZE_MAX / 2 ? needed : size * 2;
    }
    if (size > buf->max) {
        size = buf->max;
    }
    bytes = realloc(buf->bytes, size);
    if (bytes == NULL) {
        return -ENOMEM;
    }
    buf->bytes = bytes;
    buf->size = size;
    return 0;
}

int buf_reserve(struct buf *buf, size_t len, uint8_t **room)
{
    size_t length = buf_length(buf);

    if (length > buf->max || len > buf->max - length) { /* whose maximum was lowered since */
        return -ENOBUFS;
    }
    if (len > buf->size - buf->end) {
        buf_compact(buf);
    }
    /* An address is promised even for no bytes. */
    if (len > buf->size - buf->end || buf->bytes == NULL) {
        int error = buf_grow(buf, length + len);

        if (error != 0) {
            return error;
        }
    }
    *room = buf->bytes + buf->end;
    return 0;
}

void buf_commit(struct buf *buf, size_t len)
{
    buf->end += len;
}

int buf_append(struct buf *buf, const void *bytes, size_t len)
{
    uint8_t *room;
    int error;

    if (len == 0) {
        return 0;
    }
    error = buf_reserve(buf, len, &room);
    if (error != 0) {
        return error;
    }
    memcpy(room, bytes, len);
    buf_commit(buf, len);
    return 0;
}

int buf_append_span(struct buf *buf, struct span span)
{
    return buf_append(buf, span.ptr, span.len);
}

int buf_append_string(struct buf *buf, const char *string)
{
    return buf_append(buf, string, strlen(string));
}

int buf_printf(struct buf *buf, const char *format, ...)
{
    va_list args;
    char *text;
    int length;
    int error;

    va_start(args, format);
    length = vasprintf(&text, format, args);
    va_end(args);
    if (length < 0) {
        return -ENOMEM;
    }
    error = buf_append(buf, text, (size_t)length);
    free(text);
    return error;
}

void buf_consume(struct buf *buf, size_t len)
{
    buf->start += len;
    if (buf->start == buf->end) {
        buf_deinit(buf);
    }
}
