/* SPDX-License-Identifier: MIT */

/*
 * Heads of SCGI requests. Lengths and pairs come from the front and are believed only where the
 * bytes bear them out; nothing is read past what has come.
 */

#include "fcgi/scgi.h"

#include <stdio.h>

#define SCGI_LENGTH_DIGITS_MAX 9

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

/* Reads the digits and the colon. On SCGI_COMPLETE *prefix is their number. */
static enum scgi_result length_read(struct span input, size_t *length, size_t *prefix)
{
    size_t number = 0;
    size_t digits = 0;

    while (digits < input.len && is_digit(input.ptr[digits])) {
        if (input.ptr[0] == '0' || digits == SCGI_LENGTH_DIGITS_MAX) {
            return SCGI_MALFORMED;
        }
        number = number * 10 + (size_t)(input.ptr[digits] - '0');
        digits++;
    }
    if (digits == input.len) {
        return SCGI_NEED_DATA;
    }
    if (digits == 0 || input.ptr[digits] != ':') {
        return SCGI_MALFORMED;
    }
    *length = number;
    *prefix = digits + 1;
    return SCGI_COMPLETE;
}

enum scgi_result scgi_head_read(struct span input, size_t max, struct span *headers,
                                size_t *head_length)
{
    size_t length;
    size_t prefix;
    enum scgi_result result = length_read(input, &length, &prefix);

    if (result != SCGI_COMPLETE) {
        return result;
    }
    if (length > max) {
        return SCGI_TOO_LARGE;
    }
    if (input.len - prefix <= length) {
        return SCGI_NEED_DATA;
    }
    if (input.ptr[prefix + length] != ',') {
        return SCGI_MALFORMED;
    }
    *headers = span_of(input.ptr + prefix, length);
    *head_length = prefix + length + 1;
    return SCGI_COMPLETE;
}

/* Takes the bytes up to the next NUL off *text, and the NUL with them. */
static bool string_take(struct span *text, struct span *string)
{
    const uint8_t *nul = text->len == 0 ? NULL : memchr(text->ptr, '\0', text->len);

    if (nul == NULL) {
        return false;
    }
    *string = span_take(text, (size_t)(nul - text->ptr));
    span_skip(text, 1);
    return true;
}

bool scgi_next(struct span *headers, struct span *name, struct span *value)
{
    struct span rest = *headers;
    struct span first;
    struct span second;

    if (!string_take(&rest, &first) || !string_take(&rest, &second)) {
        return false;
    }
    *headers = rest;
    *name = first;
    *value = second;
    return true;
}

static bool number_read(struct span text, uint64_t *number)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < text.len; i++) {
        unsigned digit = text.ptr[i] - (unsigned)'0';

        if (!is_digit(text.ptr[i]) || sum > (UINT64_MAX - digit) / 10) {
            return false;
        }
        sum = sum * 10 + digit;
    }
    *number = sum;
    return text.len > 0;
}

bool scgi_headers_check(struct span headers, uint64_t *content_length)
{
    struct span name;
    struct span value;
    uint64_t length;
    bool scgi_seen = false;

    if (!scgi_next(&headers, &name, &value) || !span_is(name, "CONTENT_LENGTH") ||
        !number_read(value, &length)) {
        return false;
    }
    while (scgi_next(&headers, &name, &value)) {
        bool is_scgi = span_is(name, "SCGI");

        if (name.len == 0 || span_is(name, "CONTENT_LENGTH")) {
            return false;
        }
        if (is_scgi && (scgi_seen || !span_is(value, "1"))) {
            return false;
        }
        scgi_seen = scgi_seen || is_scgi;
    }
    if (!scgi_seen || headers.len > 0) {
        return false;
    }
    *content_length = length;
    return true;
}

/* The digits of the length and the colon; returns how many, as snprintf does. */
static size_t prefix_write(char *text, size_t size, size_t headers_length)
{
    return (size_t)snprintf(text, size, "%zu:", headers_length);
}

size_t scgi_head_size(size_t headers_length)
{
    return prefix_write(NULL, 0, headers_length) + headers_length + 1;
}

size_t scgi_head_write(uint8_t *bytes, struct span headers)
{
    char prefix[24];
    size_t length = prefix_write(prefix, sizeof(prefix), headers.len);

    memcpy(bytes, prefix, length);
    if (headers.len > 0) {
        memcpy(bytes + length, headers.ptr, headers.len);
    }
    bytes[length + headers.len] = ',';
    return length + headers.len + 1;
}
