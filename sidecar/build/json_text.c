/* SPDX-License-Identifier: MIT */
/*
 * The inside of JSON strings. Except where it says so, it must only be given what json_scan has
 * accepted: escape sequences are not judged again here.
 */
#include "sidecar/build/json_text.h"

int json_hex_digit(uint8_t byte)
{
    if (byte >= '0' && byte <= '9') {
        return byte - '0';
    }
    if (byte >= 'a' && byte <= 'f') {
        return byte - 'a' + 10;
    }
    return byte >= 'A' && byte <= 'F' ? byte - 'A' + 10 : -1;
}

struct span json_utf8_cut(struct span span, size_t max)
{
    size_t len = max;

    if (span.len <= max) {
        return span;
    }
    while (len > 0 && (span.ptr[len] & 0xc0) == 0x80) {
        len--;
    }
    return span_of(span.ptr, len);
}

static uint32_t take_hex4(struct span *rest)
{
    struct span digits = span_take(rest, 4);
    uint32_t value = 0;

    for (size_t i = 0; i < digits.len; i++) {
        value = value << 4 | (uint32_t)json_hex_digit(digits.ptr[i]);
    }
    return value;
}

static uint32_t take_escape(struct span *rest)
{
    uint8_t byte = rest->ptr[0];
    uint32_t unit;

    span_skip(rest, 1);
    switch (byte) {
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    case 'u':
        break;
    default:
        return byte;
    }
    unit = take_hex4(rest);
    if (unit >= 0xd800 && unit <= 0xdbff) {
        span_skip(rest, 2);
        unit = 0x10000 + ((unit - 0xd800) << 10) + (take_hex4(rest) - 0xdc00);
    }
    return unit;
}

/* Takes one character off an accepted string that is not empty. */
static uint32_t take_character(struct span *rest)
{
    uint8_t byte = rest->ptr[0];
    uint32_t character;
    int length;

    if (byte == '\\') {
        span_skip(rest, 1);
        return take_escape(rest);
    }
    length = utf8_length(*rest);
    if (length <= 1) {
        span_skip(rest, 1);
        return byte;
    }
    character = byte & (0xffu >> (length + 1));
    for (int i = 1; i < length; i++) {
        character = character << 6 | (rest->ptr[i] & 0x3fu);
    }
    span_skip(rest, (size_t)length);
    return character;
}

int json_name_compare(struct span a, struct span b)
{
    while (a.len > 0 && b.len > 0) {
        uint32_t left = take_character(&a);
        uint32_t right = take_character(&b);

        if (left != right) {
            return left < right ? -1 : 1;
        }
    }
    return a.len == b.len ? 0 : a.len < b.len ? -1 : 1;
}

bool json_name_is(struct span name, const char *text)
{
    return json_name_compare(name, span_of_string(text)) == 0;
}

static size_t encode_character(uint32_t character, uint8_t bytes[4])
{
    static const uint8_t leads[] = { 0, 0, 0xc0, 0xe0, 0xf0 };
    size_t length = character < 0x80 ? 1 : character < 0x800 ? 2 : character < 0x10000 ? 3 : 4;

    for (size_t i = length - 1; i > 0; i--) {
        bytes[i] = (uint8_t)(0x80 | (character & 0x3f));
        character >>= 6;
    }
    bytes[0] = (uint8_t)(leads[length] | character);
    return length;
}

int json_text_decode(struct span raw, struct buf *out)
{
    struct span rest = raw;
    uint8_t *room;
    size_t used = 0;
    int result;

    if (rest.len == 0) {
        return 0;
    }
    result = buf_reserve(out, rest.len, &room);
    if (result < 0) {
        return result;
    }
    while (rest.len > 0) {
        used += encode_character(take_character(&rest), room + used);
    }
    buf_commit(out, used);
    return 0;
}

size_t json_print_escaped(char *text, size_t size, struct span span)
{
    static const char digits[] = "0123456789abcdef";
    size_t used = 0;

    while (span.len > 0) {
        int length = utf8_length(span);
        uint8_t byte = span.ptr[0];
        bool plain = length > 1 || (length == 1 && byte >= 0x20 && byte != 0x7f && byte != '\\');
        size_t taken = plain ? (size_t)length : 1;

        /* U+0080 to U+009f are control characters too, encoded as c2 80 to c2 9f. */
        if (length == 2 && byte == 0xc2 && span.ptr[1] < 0xa0) {
            plain = false;
            taken = 1;
        }
        if (used + (plain ? taken : 4) >= size) {
            break;
        }
        if (plain) {
            memcpy(text + used, span.ptr, taken);
            used += taken;
        } else {
            text[used++] = '\\';
            text[used++] = 'x';
            text[used++] = digits[byte >> 4];
            text[used++] = digits[byte & 15];
        }
        span_skip(&span, taken);
    }
    text[used] = '\0';
    return used;
}
