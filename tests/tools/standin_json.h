/* SPDX-License-Identifier: MIT */
/* Just enough JSON for the Velox stand-in to find the members of an object. Values are spans of the
 * text, which the caller keeps; nothing is checked beyond what finding needs. */
#ifndef TESTS_TOOLS_STANDIN_JSON_H
#define TESTS_TOOLS_STANDIN_JSON_H

#include <stdbool.h>

#include <event2/buffer.h>

struct json {
    const char *at, *end;
};

/* Steps through an object; `name` and `value` start as zeros. Returns 1 for a member, 0 at the end,
 * -1 when the text is no object. `name` still carries its quotes. */
int json_next_member(const struct json *object, struct json *name, struct json *value);

bool json_is_name(const struct json *name, const char *wanted);

/* The first member of that name. */
bool json_find(const struct json *object, const char *wanted, struct json *found);

/* Gives the text of a string value; NULL when it is no string. The caller frees it. */
char *json_string(const struct json *value);

/* Appends `text` in quotes, escaped. */
void json_print_string(struct evbuffer *out, const char *text);

#endif
