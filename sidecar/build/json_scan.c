/* SPDX-License-Identifier: MIT */
/*
 * The strict JSON scanner. It must never read beyond the text, never recurse, and never accept what
 * RFC 8259 does not; cJSON must be able to parse everything that it accepts (long numbers aside).
 */
#include "sidecar/build/json_scan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct frame {
    bool is_object;
    size_t index;      /* of the current element */
    struct span name;  /* of the current member; empty before the first */
    size_t name_first; /* where the names of this object begin in scan.names */
};

struct scan {
    struct span text;
    size_t at;
    unsigned options;
    struct frame frames[JSON_DEPTH_MAX];
    unsigned depth;
    struct span *names; /* of all objects that are open, innermost last */
    size_t name_count;
    size_t name_size;
};

enum expect { EXPECT_VALUE, EXPECT_NAME, EXPECT_AFTER_VALUE, EXPECT_NOTHING };

static bool is_space(uint8_t byte)
{
    return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
}

static bool is_digit(uint8_t byte)
{
    return byte >= '0' && byte <= '9';
}

/* The next byte, or -1 at the end of the text. */
static int scan_peek(const struct scan *scan)
{
    return scan->at < scan->text.len ? scan->text.ptr[scan->at] : -1;
}

static int scan_peek_after_space(struct scan *scan)
{
    while (scan->at < scan->text.len && is_space(scan->text.ptr[scan->at])) {
        scan->at++;
    }
    return scan_peek(scan);
}

/* Reads four hex digits of a \u escape at *at. */
static enum json_fault scan_hex4(struct scan *scan, uint32_t *unit)
{
    uint32_t value = 0;

    for (int i = 0; i < 4; i++) {
        int byte = scan_peek(scan);
        int digit = byte < 0 ? -1 : json_hex_digit((uint8_t)byte);

        if (digit < 0) {
            return byte < 0 ? JSON_TRUNCATED : JSON_ESCAPE;
        }
        value = value << 4 | (uint32_t)digit;
        scan->at++;
    }
    *unit = value;
    return JSON_FINE;
}

static enum json_fault scan_low_surrogate(struct scan *scan)
{
    static const char begin[] = { '\\', 'u' };
    uint32_t unit;
    enum json_fault fault;

    for (size_t i = 0; i < sizeof(begin); i++) {
        int byte = scan_peek(scan);

        if (byte != begin[i]) {
            return byte < 0 ? JSON_TRUNCATED : JSON_SURROGATE;
        }
        scan->at++;
    }
    fault = scan_hex4(scan, &unit);
    if (fault != JSON_FINE) {
        return fault;
    }
    return unit >= 0xdc00 && unit <= 0xdfff ? JSON_FINE : JSON_SURROGATE;
}

static enum json_fault scan_escape(struct scan *scan)
{
    uint32_t unit;
    enum json_fault fault;
    int byte = scan_peek(scan);

    if (byte < 0) {
        return JSON_TRUNCATED;
    }
    scan->at++;
    if (byte != 'u') {
        return memchr("\"\\/bfnrt", byte, 8) != NULL ? JSON_FINE : JSON_ESCAPE;
    }
    fault = scan_hex4(scan, &unit);
    if (fault != JSON_FINE) {
        return fault;
    }
    if (unit == 0 && (scan->options & JSON_ALLOW_NUL) == 0) {
        return JSON_NUL;
    }
    if (unit >= 0xd800 && unit <= 0xdbff) {
        return scan_low_surrogate(scan);
    }
    return unit >= 0xdc00 && unit <= 0xdfff ? JSON_SURROGATE : JSON_FINE;
}

/* At the opening quote; leaves scan->at behind the closing one. */
static enum json_fault scan_string(struct scan *scan)
{
    scan->at++;
    while (scan->at < scan->text.len) {
        uint8_t byte = scan->text.ptr[scan->at];

        if (byte == '"') {
            scan->at++;
            return JSON_FINE;
        }
        if (byte < 0x20) {
            return JSON_CONTROL;
        }
        if (byte == '\\') {
            enum json_fault fault;

            scan->at++;
            fault = scan_escape(scan);
            if (fault != JSON_FINE) {
                return fault;
            }
        } else {
            int length = utf8_length(span_of(scan->text.ptr + scan->at, scan->text.len - scan->at));

            if (length <= 0) {
                return length < 0 ? JSON_TRUNCATED : JSON_UTF8;
            }
            scan->at += (size_t)length;
        }
    }
    return JSON_TRUNCATED;
}

static enum json_fault scan_digits(struct scan *scan)
{
    int byte = scan_peek(scan);

    if (byte < 0 || !is_digit((uint8_t)byte)) {
        return byte < 0 ? JSON_TRUNCATED : JSON_SYNTAX;
    }
    while (byte >= 0 && is_digit((uint8_t)byte)) {
        scan->at++;
        byte = scan_peek(scan);
    }
    return JSON_FINE;
}

static enum json_fault scan_number(struct scan *scan)
{
    enum json_fault fault = JSON_FINE;

    if (scan_peek(scan) == '-') {
        scan->at++;
    }
    if (scan_peek(scan) == '0') {
        scan->at++; /* 01 then meets a digit where none may be */
    } else {
        fault = scan_digits(scan);
    }
    if (fault == JSON_FINE && scan_peek(scan) == '.') {
        scan->at++;
        fault = scan_digits(scan);
    }
    if (fault == JSON_FINE && (scan_peek(scan) == 'e' || scan_peek(scan) == 'E')) {
        scan->at++;
        if (scan_peek(scan) == '+' || scan_peek(scan) == '-') {
            scan->at++;
        }
        fault = scan_digits(scan);
    }
    return fault;
}

static enum json_fault scan_literal(struct scan *scan, const char *literal)
{
    for (; *literal != '\0'; literal++) {
        int byte = scan_peek(scan);

        if (byte != *literal) {
            return byte < 0 ? JSON_TRUNCATED : JSON_SYNTAX;
        }
        scan->at++;
    }
    return JSON_FINE;
}

static enum json_fault scan_push(struct scan *scan, bool is_object, enum expect *expect)
{
    int byte;

    if (scan->depth == JSON_DEPTH_MAX) {
        return JSON_DEPTH;
    }
    scan->frames[scan->depth] = (struct frame){ .is_object = is_object,
                                                .name_first = scan->name_count };
    scan->depth++;
    scan->at++;
    byte = scan_peek_after_space(scan);
    if (byte == (is_object ? '}' : ']')) {
        *expect = EXPECT_AFTER_VALUE;
        scan->depth--;
        scan->at++;
    } else {
        *expect = is_object ? EXPECT_NAME : EXPECT_VALUE;
    }
    return JSON_FINE;
}

static enum json_fault scan_value(struct scan *scan, enum expect *expect)
{
    int byte = scan_peek_after_space(scan);

    *expect = EXPECT_AFTER_VALUE;
    switch (byte) {
    case -1:
        return JSON_TRUNCATED;
    case '{':
    case '[':
        return scan_push(scan, byte == '{', expect);
    case '"':
        return scan_string(scan);
    case 't':
        return scan_literal(scan, "true");
    case 'f':
        return scan_literal(scan, "false");
    case 'n':
        return scan_literal(scan, "null");
    default:
        return byte == '-' || is_digit((uint8_t)byte) ? scan_number(scan) : JSON_SYNTAX;
    }
}

static enum json_fault names_add(struct scan *scan, struct span name)
{
    if (scan->name_count == scan->name_size) {
        size_t size = scan->name_size == 0 ? 32 : scan->name_size * 2;
        struct span *names = reallocarray(scan->names, size, sizeof(*names));

        if (names == NULL) {
            return JSON_NO_MEMORY;
        }
        scan->names = names;
        scan->name_size = size;
    }
    scan->names[scan->name_count++] = name;
    return JSON_FINE;
}

static enum json_fault scan_name(struct scan *scan, enum expect *expect)
{
    struct frame *frame = &scan->frames[scan->depth - 1];
    enum json_fault fault;
    size_t first;
    int byte = scan_peek_after_space(scan);

    if (byte != '"') {
        return byte < 0 ? JSON_TRUNCATED : JSON_SYNTAX;
    }
    first = scan->at + 1;
    fault = scan_string(scan);
    if (fault != JSON_FINE) {
        frame->name = span_of(scan->text.ptr + first, scan->at - first);
        return fault;
    }
    frame->name = span_of(scan->text.ptr + first, scan->at - 1 - first);
    fault = names_add(scan, frame->name);
    if (fault != JSON_FINE) {
        return fault;
    }
    byte = scan_peek_after_space(scan);
    if (byte != ':') {
        return byte < 0 ? JSON_TRUNCATED : JSON_SYNTAX;
    }
    scan->at++;
    *expect = EXPECT_VALUE;
    return JSON_FINE;
}

static int compare_names(const void *a, const void *b)
{
    return json_name_compare(*(const struct span *)a, *(const struct span *)b);
}

/* At the end of an object: its names sorted, equal ones are neighbours. */
static enum json_fault scan_duplicates(struct scan *scan)
{
    struct frame *frame = &scan->frames[scan->depth - 1];
    struct span *names = scan->names + frame->name_first;
    size_t count = scan->name_count - frame->name_first;

    if (count > 1) {
        qsort(names, count, sizeof(*names), compare_names);
    }
    for (size_t i = 1; i < count; i++) {
        if (json_name_compare(names[i - 1], names[i]) == 0) {
            frame->name = names[i];
            return JSON_DUPLICATE;
        }
    }
    scan->name_count = frame->name_first;
    return JSON_FINE;
}

static enum json_fault scan_after_value(struct scan *scan, enum expect *expect)
{
    struct frame *frame;
    int byte = scan_peek_after_space(scan);

    if (scan->depth == 0) {
        *expect = EXPECT_NOTHING;
        return byte < 0 ? JSON_FINE : JSON_TRAILING;
    }
    if (byte < 0) {
        return JSON_TRUNCATED;
    }
    frame = &scan->frames[scan->depth - 1];
    if (byte == ',') {
        scan->at++;
        frame->index++;
        *expect = frame->is_object ? EXPECT_NAME : EXPECT_VALUE;
        return JSON_FINE;
    }
    if (byte != (frame->is_object ? '}' : ']')) {
        return JSON_SYNTAX;
    }
    if (frame->is_object) {
        enum json_fault fault = scan_duplicates(scan);

        if (fault != JSON_FINE) {
            return fault;
        }
    }
    scan->at++;
    scan->depth--;
    return JSON_FINE;
}

static enum json_fault scan_run(struct scan *scan)
{
    enum expect expect = EXPECT_VALUE;
    enum json_fault fault = JSON_FINE;

    while (fault == JSON_FINE && expect != EXPECT_NOTHING) {
        switch (expect) {
        case EXPECT_VALUE:
            fault = scan_value(scan, &expect);
            break;
        case EXPECT_NAME:
            fault = scan_name(scan, &expect);
            break;
        case EXPECT_AFTER_VALUE:
        case EXPECT_NOTHING:
            fault = scan_after_value(scan, &expect);
            break;
        }
    }
    return fault;
}

/* "plugins[3].tag", as far as it fits. */
static void scan_place(const struct scan *scan, char place[JSON_PLACE_SIZE])
{
    size_t used = 0;

    place[0] = '\0';
    for (unsigned i = 0; i < scan->depth && used < JSON_PLACE_SIZE - 1; i++) {
        const struct frame *frame = &scan->frames[i];

        if (!frame->is_object) {
            int length = snprintf(place + used, JSON_PLACE_SIZE - used, "[%zu]", frame->index);

            used += length < 0 ? 0 : (size_t)length;
        } else if (frame->name.len > 0) {
            if (used > 0) {
                place[used++] = '.';
            }
            used += json_print_escaped(place + used, JSON_PLACE_SIZE - used, frame->name);
        }
    }
}

static struct span trim_space(struct span span)
{
    while (span.len > 0 && is_space(span.ptr[0])) {
        span_skip(&span, 1);
    }
    while (span.len > 0 && is_space(span.ptr[span.len - 1])) {
        span.len--;
    }
    return span;
}

int json_scan(struct span text, unsigned options, struct json_value *value,
              struct json_error *error)
{
    struct scan scan = { .text = text, .options = options };
    enum json_fault fault = scan_run(&scan);

    free(scan.names);
    if (fault != JSON_FINE) {
        error->fault = fault;
        error->offset = scan.at;
        scan_place(&scan, error->place);
        return fault == JSON_NO_MEMORY ? -ENOMEM : -EINVAL;
    }
    value->text = trim_space(text);
    value->type = json_type_of(value->text.ptr[0]);
    return 0;
}

const char *json_fault_text(enum json_fault fault)
{
    switch (fault) {
    case JSON_TRUNCATED:
        return "it ends in the middle of the value";
    case JSON_TRAILING:
        return "something follows the value";
    case JSON_CONTROL:
        return "a control character that is not escaped";
    case JSON_ESCAPE:
        return "an escape sequence that JSON does not have";
    case JSON_SURROGATE:
        return "half of a surrogate pair";
    case JSON_NUL:
        return "the character \\u0000 is not allowed";
    case JSON_UTF8:
        return "invalid UTF-8";
    case JSON_DEPTH:
        return "nested too deeply";
    case JSON_DUPLICATE:
        return "a member is given twice";
    case JSON_NO_MEMORY:
        return "out of memory";
    case JSON_FINE:
    case JSON_SYNTAX:
        break;
    }
    return "a syntax error";
}
