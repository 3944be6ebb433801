/* SPDX-License-Identifier: MIT */
/*
 * Walks over JSON text without a tree. It must only be given what json_scan has accepted: nothing
 * is judged again here.
 */
#include "sidecar/build/json_walk.h"

static bool is_space(uint8_t byte)
{
    return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
}

static bool is_digit(uint8_t byte)
{
    return byte >= '0' && byte <= '9';
}

enum json_type json_type_of(uint8_t byte)
{
    switch (byte) {
    case '{':
        return JSON_OBJECT;
    case '[':
        return JSON_ARRAY;
    case '"':
        return JSON_STRING;
    case 't':
        return JSON_TRUE;
    case 'f':
        return JSON_FALSE;
    case 'n':
        return JSON_NULL;
    default:
        return JSON_NUMBER;
    }
}

/* The length of an accepted string that begins here, quotes included. */
static size_t string_length(struct span text)
{
    size_t at = 1;

    while (at < text.len && text.ptr[at] != '"') {
        at += text.ptr[at] == '\\' ? 2 : 1;
    }
    return at + 1;
}

static size_t container_length(struct span text)
{
    size_t at = 0;
    size_t depth = 0;

    do {
        uint8_t byte = text.ptr[at];

        if (byte == '"') {
            at += string_length(span_of(text.ptr + at, text.len - at));
            continue;
        }
        if (byte == '{' || byte == '[') {
            depth++;
        } else if (byte == '}' || byte == ']') {
            depth--;
        }
        at++;
    } while (depth > 0 && at < text.len);
    return at;
}

static size_t scalar_length(struct span text)
{
    size_t at = 0;

    while (at < text.len && !is_space(text.ptr[at]) && text.ptr[at] != ',' && text.ptr[at] != '}' &&
           text.ptr[at] != ']') {
        at++;
    }
    return at;
}

static size_t value_length(struct span text)
{
    if (text.ptr[0] == '"') {
        return string_length(text);
    }
    return text.ptr[0] == '{' || text.ptr[0] == '[' ? container_length(text) : scalar_length(text);
}

void json_cursor_init(struct json_cursor *cursor, struct json_value container)
{
    cursor->rest = span_of(container.text.ptr + 1, container.text.len - 2);
    cursor->in_object = container.type == JSON_OBJECT;
}

static void skip_to(struct span *rest, const char *also)
{
    while (rest->len > 0 && (is_space(rest->ptr[0]) || rest->ptr[0] == *also)) {
        span_skip(rest, 1);
    }
}

bool json_cursor_next(struct json_cursor *cursor, struct span *name, struct json_value *value)
{
    struct span *rest = &cursor->rest;

    skip_to(rest, ",");
    if (rest->len == 0) {
        return false;
    }
    *name = span_of(rest->ptr, 0);
    if (cursor->in_object) {
        struct span quoted = span_take(rest, string_length(*rest));

        *name = span_of(quoted.ptr + 1, quoted.len - 2);
        skip_to(rest, ":");
    }
    value->type = json_type_of(rest->ptr[0]);
    value->text = span_take(rest, value_length(*rest));
    return true;
}

bool json_member(struct json_value object, const char *name, struct json_value *value)
{
    struct json_cursor cursor;
    struct json_value candidate;
    struct span candidate_name;

    json_cursor_init(&cursor, object);
    while (json_cursor_next(&cursor, &candidate_name, &candidate)) {
        if (json_name_is(candidate_name, name)) {
            *value = candidate;
            return true;
        }
    }
    return false;
}

struct span json_string_raw(struct json_value string)
{
    return span_of(string.text.ptr + 1, string.text.len - 2);
}

bool json_long_number(struct span text, size_t *offset, struct span *number)
{
    size_t at = *offset;

    while (at < text.len) {
        struct span rest = span_of(text.ptr + at, text.len - at);
        size_t length = 1;

        if (rest.ptr[0] == '"') {
            length = string_length(rest);
        } else if (rest.ptr[0] == '-' || is_digit(rest.ptr[0])) {
            length = scalar_length(rest);
            if (length > JSON_NUMBER_SHORT_MAX) {
                *number = span_of(rest.ptr, length);
                *offset = at + length;
                return true;
            }
        }
        at += length;
    }
    return false;
}
