/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_JSON_WALK_H
#define SIDECAR_BUILD_JSON_WALK_H

/* Finds values in JSON text that json_scan (sidecar/build/json_scan.h) has accepted. */

#include "sidecar/build/json_text.h"

/* cJSON before 1.7.18 copies numbers into 64 bytes and takes the rest for a syntax error. */
#define JSON_NUMBER_SHORT_MAX 63

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

/* By the first byte of an accepted value. */
enum json_type json_type_of(uint8_t byte);

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

/* The bytes between the quotes of a string. */
struct span json_string_raw(struct json_value string);

/* Where each number longer than JSON_NUMBER_SHORT_MAX lies, in a text that json_scan has accepted:
 * the first one at or after *offset, whose end is then in *offset; false when there is none. */
bool json_long_number(struct span text, size_t *offset, struct span *number);

#endif
