/* SPDX-License-Identifier: MIT */
/* It must never take two files for one. */
#include "sidecar/build/fetch_head.h"

#include <string.h>

void fetch_head_init(struct fetch_head *head)
{
    *head = (struct fetch_head){ .length = -1, .modified_s = -1 };
}

static void keep_text(char *text, size_t size, struct span value)
{
    text[0] = '\0';
    if (value.len >= size) {
        return;
    }
    for (size_t i = 0; i < value.len; i++) {
        if (value.ptr[i] < 0x20 || value.ptr[i] > 0x7e) {
            return;
        }
    }
    memcpy(text, value.ptr, value.len);
    text[value.len] = '\0';
}

/* A weak one does not promise the same bytes, so it is none to us. */
static void keep_tag(struct fetch_head *head, struct span value)
{
    bool is_strong = value.len >= 2 && value.ptr[0] == '"' && value.ptr[value.len - 1] == '"' &&
                     memchr(value.ptr + 1, '"', value.len - 2) == NULL &&
                     memchr(value.ptr, ' ', value.len) == NULL;

    keep_text(head->etag, sizeof(head->etag), is_strong ? value : span_of("", 0));
}

/* bytes 100-199/1000 */
static void keep_range(struct fetch_head *head, struct span value)
{
    uint64_t last;

    head->has_range = false;
    if (value.len < 6 || !span_is_nocase(span_of(value.ptr, 6), "bytes ")) {
        return;
    }
    span_skip(&value, 6);
    value = span_trim(value);
    head->has_range = span_take_number(&value, &head->range_first) && span_take_byte(&value, '-') &&
                      span_take_number(&value, &last) && span_take_byte(&value, '/') &&
                      span_take_number(&value, &head->range_total) && value.len == 0 &&
                      head->range_first <= last && last < head->range_total;
    head->range_end = head->has_range ? last + 1 : 0;
}

void fetch_head_line(struct fetch_head *head, struct span line)
{
    const uint8_t *colon;
    struct span name;

    while (line.len > 0 && (line.ptr[line.len - 1] == '\n' || line.ptr[line.len - 1] == '\r')) {
        line.len--;
    }
    if (line.len >= 5 && memcmp(line.ptr, "HTTP/", 5) == 0) {
        fetch_head_init(head);
        return;
    }
    head->is_complete = head->is_complete || line.len == 0;
    colon = line.len == 0 ? NULL : memchr(line.ptr, ':', line.len);
    if (colon == NULL) {
        return;
    }
    name = span_take(&line, (size_t)(colon - line.ptr));
    span_skip(&line, 1);
    line = span_trim(line);
    if (span_is_nocase(name, "ETag")) {
        keep_tag(head, line);
    } else if (span_is_nocase(name, "Last-Modified")) {
        keep_text(head->last_modified, sizeof(head->last_modified), line);
    } else if (span_is_nocase(name, "Content-Range")) {
        keep_range(head, line);
    } else if (span_is_nocase(name, "Content-Encoding")) {
        head->is_encoded = line.len > 0 && !span_is_nocase(line, "identity");
    }
}

const char *fetch_head_check_first(const struct fetch_head *head)
{
    if (head->status != 200) {
        return head->status == 404 || head->status == 410 ? "it is not there either"
                                                          : "the answer is none with status 200";
    }
    return head->is_encoded ? "the answer is compressed" : NULL;
}

/* What both answers name must be equal; what only one names does not count. */
static bool differs(const char *one, const char *other)
{
    return one[0] != '\0' && other[0] != '\0' && strcmp(one, other) != 0;
}

const char *fetch_head_check_rest(const struct fetch_head *first, const struct fetch_head *head,
                                  uint64_t offset, uint64_t size)
{
    if (head->status == 200 || head->status == 412 || head->status == 416) {
        return "the source cannot go on where it stopped, or has another file there now";
    }
    if (head->status != 206) {
        return "the answer to a range request is none with status 206";
    }
    if (head->is_encoded) {
        return "the answer is compressed";
    }
    if (!head->has_range || head->range_first != offset) {
        return "the answer to a range request has another range";
    }
    if (head->range_total != size || differs(first->etag, head->etag) ||
        (first->etag[0] == '\0' && differs(first->last_modified, head->last_modified))) {
        return "the source has another file there now";
    }
    return NULL;
}

bool fetch_head_may_retry(const struct fetch_head *head)
{
    return head->status == 429 || head->status == 500 || head->status == 502 ||
           head->status == 503 || head->status == 504;
}
