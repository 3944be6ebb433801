/* SPDX-License-Identifier: MIT */
/*
 * The key of a build request. It must never see a request that json_scan has not accepted: that
 * bounds the depth of the recursion here (JSON_DEPTH_MAX) and makes names unique.
 */
#include "sidecar/build/build_key.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>

struct member {
    struct span name;
    struct json_value value;
};

struct member_list {
    struct member *items;
    size_t count;
};

static int append_value(struct buf *out, struct json_value value, unsigned depth);

static bool is_left_out(struct span name)
{
    return json_name_is(name, "request_id") || json_name_is(name, "force_rebuild");
}

static bool is_unordered(struct span name)
{
    return json_name_is(name, "plugins") || json_name_is(name, "replaces") ||
           json_name_is(name, "excludes");
}

static int compare_members(const void *a, const void *b)
{
    const struct member *left = a;
    const struct member *right = b;

    return json_name_compare(left->name, right->name);
}

/* By bytes, the shorter first where one begins with the other. */
static int compare_bytes(const void *a, const void *b)
{
    const struct member *left = a;
    const struct member *right = b;
    struct span x = left->value.text;
    struct span y = right->value.text;
    size_t common = x.len < y.len ? x.len : y.len;
    int order = common == 0 ? 0 : memcmp(x.ptr, y.ptr, common);

    return order != 0 ? order : (x.len > y.len) - (x.len < y.len);
}

/* The members or elements of a container; the caller frees items. */
static int list_members(struct json_value container, struct member_list *list)
{
    struct json_cursor cursor;
    struct member member;
    size_t size = 0;

    json_cursor_init(&cursor, container);
    while (json_cursor_next(&cursor, &member.name, &member.value)) {
        if (list->count == size) {
            struct member *items;

            size = size == 0 ? 8 : size * 2;
            items = reallocarray(list->items, size, sizeof(*items));
            if (items == NULL) {
                return -ENOMEM;
            }
            list->items = items;
        }
        list->items[list->count++] = member;
    }
    return 0;
}

static int append_separator(struct buf *out, bool *first)
{
    bool was_first = *first;

    *first = false;
    return was_first ? 0 : buf_append(out, ",", 1);
}

/*
 * The elements in the order of their canonical bytes: each is written to a buffer of its own first,
 * then the pieces are sorted and copied.
 */
static int append_sorted_elements(struct buf *out, struct member_list *list)
{
    struct buf forms;
    size_t at = 0;
    bool first = true;
    int result = 0;

    buf_init(&forms, out->max);
    for (size_t i = 0; i < list->count && result == 0; i++) {
        size_t before = buf_length(&forms);

        result = append_value(&forms, list->items[i].value, 1);
        list->items[i].value.text.len = buf_length(&forms) - before;
    }
    for (size_t i = 0; i < list->count && result == 0; i++) {
        list->items[i].value.text.ptr = buf_span(&forms).ptr + at;
        at += list->items[i].value.text.len;
    }
    if (result == 0 && list->count > 1) {
        qsort(list->items, list->count, sizeof(*list->items), compare_bytes);
    }
    for (size_t i = 0; i < list->count && result == 0; i++) {
        result = append_separator(out, &first);
        if (result == 0) {
            result = buf_append_span(out, list->items[i].value.text);
        }
    }
    buf_deinit(&forms);
    return result;
}

static int append_unordered(struct buf *out, struct json_value array)
{
    struct member_list list = { .items = NULL };
    int result = list_members(array, &list);

    if (result == 0) {
        result = buf_append(out, "[", 1);
    }
    if (result == 0) {
        result = append_sorted_elements(out, &list);
    }
    free(list.items);
    return result < 0 ? result : buf_append(out, "]", 1);
}

static int append_array(struct buf *out, struct json_value array, unsigned depth)
{
    struct json_cursor cursor;
    struct json_value value;
    struct span name;
    bool first = true;
    int result = buf_append(out, "[", 1);

    json_cursor_init(&cursor, array);
    while (result == 0 && json_cursor_next(&cursor, &name, &value)) {
        result = append_separator(out, &first);
        if (result == 0) {
            result = append_value(out, value, depth + 1);
        }
    }
    return result < 0 ? result : buf_append(out, "]", 1);
}

static int append_member(struct buf *out, const struct member *member, unsigned depth)
{
    int result = buf_append(out, "\"", 1);

    if (result == 0) {
        result = buf_append_span(out, member->name);
    }
    if (result == 0) {
        result = buf_append(out, "\":", 2);
    }
    if (result < 0) {
        return result;
    }
    if (depth == 0 && member->value.type == JSON_ARRAY && is_unordered(member->name)) {
        return append_unordered(out, member->value);
    }
    return append_value(out, member->value, depth + 1);
}

static int append_object(struct buf *out, struct json_value object, unsigned depth)
{
    struct member_list list = { .items = NULL };
    bool first = true;
    int result = list_members(object, &list);

    if (result == 0) {
        result = buf_append(out, "{", 1);
    }
    if (list.count > 1) {
        qsort(list.items, list.count, sizeof(*list.items), compare_members);
    }
    for (size_t i = 0; i < list.count && result == 0; i++) {
        if (depth == 0 && is_left_out(list.items[i].name)) {
            continue;
        }
        result = append_separator(out, &first);
        if (result == 0) {
            result = append_member(out, &list.items[i], depth);
        }
    }
    free(list.items);
    return result < 0 ? result : buf_append(out, "}", 1);
}

static int append_value(struct buf *out, struct json_value value, unsigned depth)
{
    if (value.type == JSON_OBJECT) {
        return append_object(out, value, depth);
    }
    return value.type == JSON_ARRAY ? append_array(out, value, depth)
                                    : buf_append_span(out, value.text);
}

int build_key_canonical(struct json_value request, struct buf *out)
{
    return append_value(out, request, 0);
}

int build_key_compute(struct json_value request, uint8_t key[BUILD_KEY_SIZE])
{
    struct buf canonical;
    int result;

    buf_init(&canonical, request.text.len);
    result = build_key_canonical(request, &canonical);
    if (result == 0) {
        struct span span = buf_span(&canonical);

        if (EVP_Digest(span.ptr, span.len, key, NULL, EVP_sha256(), NULL) != 1) {
            result = -ENOMEM; /* the only way in which hashing memory can fail */
        }
    }
    buf_deinit(&canonical);
    return result < 0 ? -ENOMEM : 0;
}
