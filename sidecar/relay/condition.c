/* SPDX-License-Identifier: MIT */
/*
 * Judging conditional and range requests. Must never answer with a part of a file that may be
 * another one than the client thinks.
 */
#include "sidecar/relay/condition.h"

#include <errno.h>

#include "fcgi/params.h"

static const char *const wanted_headers[] = {
    "HTTP_RANGE",
    "HTTP_IF_RANGE",
    "HTTP_IF_NONE_MATCH",
    "HTTP_IF_MODIFIED_SINCE",
};

static bool find_header(struct span headers, const char *wanted, struct span *value)
{
    struct span name;

    while (params_next(&headers, &name, value) == PARAMS_PAIR) {
        if (span_is(name, wanted)) {
            *value = span_trim(*value);
            return true;
        }
    }
    return false;
}

int condition_collect(struct span params, struct buf *headers)
{
    struct span method;
    struct span value;

    if (!find_header(params, "REQUEST_METHOD", &method) || !span_is(method, "GET")) {
        return 0;
    }
    for (size_t i = 0; i < sizeof(wanted_headers) / sizeof(wanted_headers[0]); i++) {
        struct span name = span_of_string(wanted_headers[i]);
        uint8_t *room;
        int error;

        if (!find_header(params, wanted_headers[i], &value)) {
            continue;
        }
        error = buf_reserve(headers, params_size(name.len, value.len), &room);
        if (error != 0) {
            buf_clear(headers);
            return error;
        }
        buf_commit(headers, params_write(room, name, value));
    }
    return 0;
}

/* The three forms of RFC 9110 section 5.6.7. (Nobody sets a locale here, so the names are English.)
 * */
static bool parse_date(struct span text, time_t *when)
{
    static const char *const forms[] = {
        "%a, %d %b %Y %H:%M:%S GMT",
        "%A, %d-%b-%y %H:%M:%S GMT",
        "%a %b %d %H:%M:%S %Y",
    };
    char string[64];

    if (text.len >= sizeof(string)) {
        return false;
    }
    memcpy(string, text.ptr, text.len);
    string[text.len] = '\0';
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        struct tm tm = { .tm_mday = 0 };
        const char *end = strptime(string, forms[i], &tm);

        if (end != NULL && *end == '\0') {
            *when = timegm(&tm);
            return true;
        }
    }
    return false;
}

/* One member of a list of entity tags; an empty one at the end of the list. */
static struct span next_tag(struct span *list, bool *is_weak)
{
    struct span tag = span_of(NULL, 0);
    const uint8_t *quote;

    while (list->len > 0 && (list->ptr[0] == ',' || list->ptr[0] == ' ' || list->ptr[0] == '\t')) {
        span_skip(list, 1);
    }
    *is_weak = list->len > 2 && list->ptr[0] == 'W' && list->ptr[1] == '/';
    if (*is_weak) {
        span_skip(list, 2);
    }
    if (list->len < 2 || list->ptr[0] != '"') {
        return tag;
    }
    quote = memchr(list->ptr + 1, '"', list->len - 1);
    return quote == NULL ? tag : span_take(list, (size_t)(quote - list->ptr) + 1);
}

/* If-None-Match compares weakly: the mark W/ does not count. */
static bool none_match_has(struct span list, const char *etag)
{
    struct span tag;
    bool is_weak;

    if (span_is(list, "*")) {
        return true;
    }
    while ((tag = next_tag(&list, &is_weak)).len > 0) {
        if (span_is(tag, etag)) {
            return true;
        }
    }
    return false;
}

static bool client_has_it(struct span headers, const struct condition_entity *entity)
{
    struct span value;
    time_t since;

    if (find_header(headers, "HTTP_IF_NONE_MATCH", &value)) {
        return none_match_has(value, entity->etag); /* and the date is not looked at */
    }
    return !entity->lacks_time && find_header(headers, "HTTP_IF_MODIFIED_SINCE", &value) &&
           parse_date(value, &since) && entity->modified <= since;
}

/* Whether the part may be given: no If-Range, or one that names exactly this file. */
static bool range_may_be_used(struct span headers, const struct condition_entity *entity)
{
    struct span value;
    struct span tag;
    bool is_weak;
    time_t date;

    if (!find_header(headers, "HTTP_IF_RANGE", &value)) {
        return true;
    }
    if (parse_date(value, &date)) {
        return !entity->lacks_time && date == entity->modified;
    }
    tag = next_tag(&value, &is_weak);
    return !is_weak && value.len == 0 && tag.len > 0 && span_is(tag, entity->etag);
}

enum range_kind { RANGE_IGNORED, RANGE_UNSATISFIABLE, RANGE_USED };

static enum range_kind suffix_range(struct span text, uint64_t size, uint64_t *first, uint64_t *end)
{
    uint64_t length;

    if (!span_take_number(&text, &length) || text.len > 0) {
        return RANGE_IGNORED;
    }
    if (length == 0 || size == 0) {
        return RANGE_UNSATISFIABLE;
    }
    *first = length >= size ? 0 : size - length;
    *end = size;
    return RANGE_USED;
}

/* One range of bytes; anything else, several ranges too, is ignored (section 14.2 allows it). */
static enum range_kind parse_range(struct span text, uint64_t size, uint64_t *first, uint64_t *end)
{
    uint64_t last;

    if (text.len < 6 || !span_is_nocase(span_of(text.ptr, 6), "bytes=")) {
        return RANGE_IGNORED;
    }
    span_skip(&text, 6);
    text = span_trim(text);
    if (text.len > 0 && text.ptr[0] == '-') {
        span_skip(&text, 1);
        return suffix_range(text, size, first, end);
    }
    if (!span_take_number(&text, first) || text.len == 0 || text.ptr[0] != '-') {
        return RANGE_IGNORED;
    }
    span_skip(&text, 1);
    if (text.len == 0) {
        last = UINT64_MAX - 1;
    } else if (!span_take_number(&text, &last) || text.len > 0 || last < *first) {
        return RANGE_IGNORED;
    }
    if (*first >= size) {
        return RANGE_UNSATISFIABLE;
    }
    *end = last >= size ? size : last + 1;
    return RANGE_USED;
}

struct condition_verdict condition_judge(struct span headers, const struct condition_entity *entity)
{
    struct condition_verdict verdict = { .status = 200, .end = entity->size_bytes };
    struct span range;
    uint64_t first;
    uint64_t end;

    if (client_has_it(headers, entity)) {
        return (struct condition_verdict){ .status = 304 };
    }
    if (!find_header(headers, "HTTP_RANGE", &range) || !range_may_be_used(headers, entity)) {
        return verdict;
    }
    switch (parse_range(range, entity->size_bytes, &first, &end)) {
    case RANGE_IGNORED:
        return verdict;
    case RANGE_UNSATISFIABLE:
        return (struct condition_verdict){ .status = 416 };
    case RANGE_USED:
        break;
    }
    return (struct condition_verdict){ .status = 206, .first = first, .end = end };
}
