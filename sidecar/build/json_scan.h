/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_JSON_SCAN_H
#define SIDECAR_BUILD_JSON_SCAN_H

/*
 * A strict scanner of JSON (RFC 8259) over bytes that stay where they are: it judges, and it finds
 * where values lie. It exists because build requests are passed on as the bytes that came, and
 * because a tree cannot tell what is refused here: members given twice, \u0000, invalid UTF-8,
 * control characters in strings, half surrogate pairs, numbers such as 01, bytes after the value.
 */

#include "sidecar/build/json_walk.h"

/* Containers in containers; deeper is refused. */
#define JSON_DEPTH_MAX 64
#define JSON_PLACE_SIZE 128

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

#endif
