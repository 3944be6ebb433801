/* SPDX-License-Identifier: MIT */

/*
 * FastCGI name-value pairs. A length comes from a peer and may be anything up to 2^31-1: it is only
 * ever compared with what is left, never added to another first.
 */

#include "fcgi/params.h"

#include <fastcgi.h>
#include <stdio.h>

/* The longest length that fits in one byte, and the mark of one in four. */
#define PARAMS_SHORT_MAX 127
#define PARAMS_LONG_FLAG 0x80

static bool length_read(struct span *bytes, size_t *length)
{
    if (bytes->len == 0) {
        return false;
    }
    if ((bytes->ptr[0] & PARAMS_LONG_FLAG) == 0) {
        *length = bytes->ptr[0];
        span_skip(bytes, 1);
        return true;
    }
    if (bytes->len < 4) {
        return false;
    }
    *length = (size_t)(bytes->ptr[0] & PARAMS_SHORT_MAX) << 24 | (size_t)bytes->ptr[1] << 16 |
              (size_t)bytes->ptr[2] << 8 | bytes->ptr[3];
    span_skip(bytes, 4);
    return true;
}

enum params_result params_next(struct span *pairs, struct span *name, struct span *value)
{
    struct span rest = *pairs;
    size_t name_length;
    size_t value_length;

    if (rest.len == 0) {
        return PARAMS_END;
    }
    if (!length_read(&rest, &name_length) || !length_read(&rest, &value_length)) {
        return PARAMS_MALFORMED;
    }
    if (name_length > rest.len || value_length > rest.len - name_length) {
        return PARAMS_MALFORMED;
    }
    *name = span_of(rest.ptr, name_length);
    *value = span_of(rest.ptr + name_length, value_length);
    span_skip(&rest, name_length + value_length);
    *pairs = rest;
    return PARAMS_PAIR;
}

static size_t length_size(size_t length)
{
    return length <= PARAMS_SHORT_MAX ? 1 : 4;
}

size_t params_size(size_t name_length, size_t value_length)
{
    return length_size(name_length) + length_size(value_length) + name_length + value_length;
}

static uint8_t *length_write(uint8_t *bytes, size_t length)
{
    if (length <= PARAMS_SHORT_MAX) {
        bytes[0] = (uint8_t)length;
        return bytes + 1;
    }
    bytes[0] = (uint8_t)(length >> 24 | PARAMS_LONG_FLAG);
    bytes[1] = (uint8_t)(length >> 16);
    bytes[2] = (uint8_t)(length >> 8);
    bytes[3] = (uint8_t)length;
    return bytes + 4;
}

static uint8_t *span_write(uint8_t *bytes, struct span span)
{
    if (span.len > 0) {
        memcpy(bytes, span.ptr, span.len);
    }
    return bytes + span.len;
}

size_t params_write(uint8_t *bytes, struct span name, struct span value)
{
    uint8_t *end = length_write(bytes, name.len);

    end = length_write(end, value.len);
    end = span_write(end, name);
    end = span_write(end, value);
    return (size_t)(end - bytes);
}

size_t params_cut(struct span pairs, size_t max)
{
    struct span rest = pairs;
    struct span name;
    struct span value;
    size_t cut = 0;

    if (pairs.len <= max) {
        return pairs.len;
    }
    while (params_next(&rest, &name, &value) == PARAMS_PAIR && pairs.len - rest.len <= max) {
        cut = pairs.len - rest.len;
    }
    return cut;
}

size_t params_values_answer(struct span asked, unsigned max_conns,
                            uint8_t answer[PARAMS_VALUES_MAX])
{
    static const char *const names[] = { FCGI_MAX_CONNS, FCGI_MAX_REQS, FCGI_MPXS_CONNS };
    enum { NAMES = sizeof(names) / sizeof(names[0]) };
    bool is_asked[NAMES] = { false };
    char number[16];
    struct span name;
    struct span value;
    size_t length = 0;

    while (params_next(&asked, &name, &value) == PARAMS_PAIR) {
        for (size_t i = 0; i < NAMES; i++) {
            is_asked[i] = is_asked[i] || span_is(name, names[i]);
        }
    }
    (void)snprintf(number, sizeof(number), "%u", max_conns);
    for (size_t i = 0; i < NAMES; i++) {
        if (is_asked[i]) {
            value = span_of_string(strcmp(names[i], FCGI_MPXS_CONNS) == 0 ? "0" : number);
            length += params_write(answer + length, span_of_string(names[i]), value);
        }
    }
    return length;
}
