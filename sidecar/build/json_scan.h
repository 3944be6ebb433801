/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_JSON_SCAN_H
#define SIDECAR_BUILD_JSON_SCAN_H

/*
 * A strict scanner of JSON (RFC 8259) over bytes that stay where they are: it judges, and it finds
 * where values lie. It exists because build requests are passed on as the bytes that came, and
 * because a tree cannot tell what is refused here: members given twice, \u0000, invalid UTF-8,
 * control characters in strings, half surrogate pairs, numbers such as 01, bytes after the value.
 */

#include "sidecar/base/buf.h"

/* Containers in containers; deeper is refused. */
#define JSON_DEPTH_MAX 64
/* cJSON before 1.7.18 copies numbers into 64 bytes and takes the rest for a syntax error. */
#define JSON_NUMBER_SHORT_MAX 63
#define JSON_PLACE_SIZE       128

enum json_type {
    JSON_OBJECT,
    JSON_ARRAY,
    JSON_STRING,
    JSON_NUMBER,
    JSON_TRUE,
    JSON_FALSE,
    JSON_NULL,
};

struct json_value {
    enum json_type type;
    struct span text; /* borrowed: the value's bytes, a string's with its quotes */
};

enum json_fault {
    JSON_FINE,
    JSON_TRUNCATED, /* right so far, but the text ends within the value, or is empty */
    JSON_SYNTAX,
    JSON_TRAILING, /* something other than white space follows the value */
    JSON_CONTROL,  /* a control character in a string */
    JSON_ESCAPE,
    JSON_SURROGATE, /* \ud800 to \udfff that are no pair */
    JSON_NUL,       /* \u0000 */
    JSON_UTF8,
    JSON_DEPTH,
    JSON_DUPLICATE,
    JSON_NO_MEMORY,
};

struct json_error {
    enum json_fault fault;
    size_t offset;               /* in the text */
    char place[JSON_PLACE_SIZE]; /* "plugins[3].tag", printable; empty outside of every member */
};

enum json_options {
    JSON_ALLOW_NUL = 1, /* \u0000 is accepted */
};

/*
 * Checks that text is one JSON value with nothing but white space around it. 0 with *value,
 * -EINVAL or -ENOMEM with *error. Takes time in proportion to the text (sorting the names of each
 * object for duplicates aside).
 */
int json_scan(struct span text, unsigned options, struct json_value *value,
              struct json_error *error);

/* "a control character in a string" and the like. Static. */
const char *json_fault_text(enum json_fault fault);

/* Walks over the members or elements of a container that json_scan has accepted. */
struct json_cursor {
    struct span rest;
    bool in_object;
};

void json_cursor_init(struct json_cursor *cursor, struct json_value container);
/* False behind the last one. name is empty in an array, else the raw bytes between its quotes. */
bool json_cursor_next(struct json_cursor *cursor, struct span *name, struct json_value *value);

/* The member of that (plain ASCII) name, or false. */
bool json_member(struct json_value object, const char *name, struct json_value *value);

/* For accepted names and strings, as the raw bytes between their quotes: compared by what they mean,
 * so that "\u0061" is "a". */
int json_name_compare(struct span a, struct span b);
bool json_name_is(struct span name, const char *text);

/* The bytes between the quotes of a string. */
struct span json_string_raw(struct json_value string);
/* Appends what an accepted string means, as UTF-8; never longer than its raw bytes. Errors as buf_append. */
int json_string_decode(struct json_value string, struct buf *out);

/* Where each number longer than JSON_NUMBER_SHORT_MAX lies, in a text that json_scan has accepted:
 * the first one at or after *offset, whose end is then in *offset; false when there is none. */
bool json_long_number(struct span text, size_t *offset, struct span *number);

/* Writes span into text (size bytes, always terminated) with control characters, backslashes and
 * bytes that are no UTF-8 as \xNN; cut where it does not fit. Returns the length written. */
size_t json_print_escaped(char *text, size_t size, struct span span);

/* The length of the UTF-8 character that the span begins with: 1 to 4; 0 where it is invalid; -1
 * where it is right so far but cut short. */
int json_utf8_length(struct span span);

/* Without a character cut in two: the longest part of at most max bytes that ends at a character. */
struct span json_utf8_cut(struct span span, size_t max);

#endif
