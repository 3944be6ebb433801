/* SPDX-License-Identifier: MIT */
/*
 * Well-formed UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing over U+10FFFF. Must never
 * read behind the span.
 */
#include "sidecar/base/utf8.h"

/* How many bytes follow a lead byte and the range of the first of them, by table 3-7 of the Unicode
 * standard (no overlong forms, no surrogates, nothing above U+10FFFF). */
static int utf8_tail(uint8_t lead, uint8_t *low, uint8_t *high)
{
    *low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    *high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (lead < 0x80) {
        return 0;
    }
    if (lead >= 0xc2 && lead <= 0xdf) {
        return 1;
    }
    if (lead >= 0xe0 && lead <= 0xef) {
        return 2;
    }
    return lead >= 0xf0 && lead <= 0xf4 ? 3 : -1;
}

int utf8_length(struct span span)
{
    uint8_t low, high;
    int tail;

    if (span.len == 0) {
        return -1;
    }
    tail = utf8_tail(span.ptr[0], &low, &high);
    if (tail < 0) {
        return 0;
    }
    for (int i = 1; i <= tail; i++) {
        if ((size_t)i >= span.len) {
            return -1;
        }
        if (span.ptr[i] < low || span.ptr[i] > high) {
            return 0;
        }
        low = 0x80;
        high = 0xbf;
    }
    return tail + 1;
}

size_t utf8_decode(struct span span, uint32_t *code)
{
    int length = utf8_length(span);
    uint32_t value;

    if (length <= 0) {
        return 0;
    }
    value = length == 1 ? span.ptr[0] : span.ptr[0] & (0x7fu >> length);
    for (int i = 1; i < length; i++) {
        value = value << 6 | (span.ptr[i] & 0x3fu);
    }
    *code = value;
    return (size_t)length;
}

bool utf8_is_control(uint32_t code)
{
    return code < 0x20 || (code >= 0x7f && code <= 0x9f) || (code >= 0x2028 && code <= 0x202e) ||
           (code >= 0x2066 && code <= 0x2069);
}
