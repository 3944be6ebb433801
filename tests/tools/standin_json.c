/* SPDX-License-Identifier: MIT */
/* Finds members in the JSON that the stand-in is sent. It reads what tests and the sidecar write,
 * and must not be used on anything else. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/tools/standin_json.h"

static const char *json_skip_space(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r'))
        p++;
    return p;
}

static const char *json_skip_string(const char *p, const char *end)
{
    for (p++; p < end; p++) {
        if (*p == '\\')
            p++;
        else if (*p == '"')
            return p + 1;
    }
    return NULL;
}

/* Past one value, or NULL. Nesting is counted, brackets are not matched by kind. */
static const char *json_skip_value(const char *p, const char *end)
{
    int depth = 0;

    for (p = json_skip_space(p, end); p < end;) {
        if (*p == '"') {
            p = json_skip_string(p, end);
            if (!p || depth == 0)
                return p;
            continue;
        }
        if (*p == '{' || *p == '[')
            depth++;
        else if (*p == '}' || *p == ']') {
            if (depth == 0)
                return p;
            if (--depth == 0)
                return p + 1;
        } else if (depth == 0 && strchr(", \t\r\n", *p))
            return p;
        p++;
    }
    return depth == 0 ? p : NULL;
}

int json_next_member(const struct json *object, struct json *name, struct json *value)
{
    const char *end = object->end;
    const char *p = value->end ? value->end : object->at;

    p = json_skip_space(p, end);
    if (p == end || (!value->end && *p != '{'))
        return -1;
    if (value->end && *p == '}')
        return 0;
    if (value->end && *p != ',')
        return -1;
    p = json_skip_space(p + 1, end);
    if (!value->end && p < end && *p == '}')
        return 0;
    if (p == end || *p != '"' || !(name->end = json_skip_string(p, end)))
        return -1;
    name->at = p;
    p = json_skip_space(name->end, end);
    if (p == end || *p != ':')
        return -1;
    value->at = json_skip_space(p + 1, end);
    value->end = json_skip_value(value->at, end);
    return value->end && value->end > value->at ? 1 : -1;
}

bool json_is_name(const struct json *name, const char *wanted)
{
    size_t length = strlen(wanted);

    return (size_t)(name->end - name->at) == length + 2 &&
           memcmp(name->at + 1, wanted, length) == 0;
}

bool json_find(const struct json *object, const char *wanted, struct json *found)
{
    struct json name = { 0 }, value = { 0 };

    while (json_next_member(object, &name, &value) == 1) {
        if (json_is_name(&name, wanted)) {
            *found = value;
            return true;
        }
    }
    return false;
}

static void json_unescape(struct evbuffer *out, const char **p)
{
    unsigned code = 0;
    const char *plain = strchr("n\nt\tr\rb\bf\f", **p);

    if (**p != 'u') {
        evbuffer_add(out, plain ? plain + 1 : *p, 1);
        return;
    }
    sscanf(*p + 1, "%4x", &code);
    *p += 4;
    if (code < 0x80)
        evbuffer_add_printf(out, "%c", (int)code);
    else if (code < 0x800)
        evbuffer_add_printf(out, "%c%c", (int)(0xc0 | code >> 6), (int)(0x80 | (code & 63)));
    else
        evbuffer_add_printf(out, "%c%c%c", (int)(0xe0 | code >> 12), (int)(0x80 | (code >> 6 & 63)),
                            (int)(0x80 | (code & 63)));
}

char *json_string(const struct json *value)
{
    struct evbuffer *out;
    char *text;
    size_t length;

    if (value->end - value->at < 2 || *value->at != '"')
        return NULL;
    out = evbuffer_new();
    for (const char *p = value->at + 1; p < value->end - 1; p++) {
        if (*p == '\\' && p + 1 < value->end - 1) {
            p++;
            json_unescape(out, &p);
        } else
            evbuffer_add(out, p, 1);
    }
    length = evbuffer_get_length(out);
    text = calloc(1, length + 1);
    if (text)
        evbuffer_remove(out, text, length);
    evbuffer_free(out);
    return text;
}

void json_print_string(struct evbuffer *out, const char *text)
{
    evbuffer_add(out, "\"", 1);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            evbuffer_add_printf(out, "\\%c", *text);
        else if ((unsigned char)*text < 0x20)
            evbuffer_add_printf(out, "\\u%04x", (unsigned char)*text);
        else
            evbuffer_add(out, text, 1);
    }
    evbuffer_add(out, "\"", 1);
}
