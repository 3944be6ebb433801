/* SPDX-License-Identifier: MIT */
/*
 * A short memory of failures. Must never outlive its time or grow without bound.
 */
#include "sidecar/build/failed_builds.h"

#include <stdlib.h>

struct failed_build {
    struct list link;
    uint8_t key[BUILD_REQUEST_KEY_SIZE];
    uint64_t until_ms;
    size_t length;
    uint8_t message[];
};

void failed_builds_init(struct failed_builds *failed, uint64_t ttl_ms)
{
    list_init(&failed->entries);
    failed->count = 0;
    failed->ttl_ms = ttl_ms;
}

static void forget(struct failed_builds *failed, struct failed_build *entry)
{
    list_remove(&entry->link);
    failed->count--;
    free(entry);
}

static struct failed_build *oldest(const struct failed_builds *failed)
{
    return list_is_empty(&failed->entries)
               ? NULL
               : list_entry(failed->entries.next, struct failed_build, link);
}

void failed_builds_deinit(struct failed_builds *failed)
{
    while (oldest(failed) != NULL) {
        forget(failed, oldest(failed));
    }
}

/* All have the same time to live, so the oldest ends first. */
static void forget_old(struct failed_builds *failed, uint64_t now_ms)
{
    while (oldest(failed) != NULL && oldest(failed)->until_ms <= now_ms) {
        forget(failed, oldest(failed));
    }
}

static struct failed_build *find(const struct failed_builds *failed, const uint8_t *key)
{
    struct list *link;

    for (link = failed->entries.next; link != &failed->entries; link = link->next) {
        struct failed_build *entry = list_entry(link, struct failed_build, link);

        if (memcmp(entry->key, key, BUILD_REQUEST_KEY_SIZE) == 0) {
            return entry;
        }
    }
    return NULL;
}

void failed_builds_forget(struct failed_builds *failed, const uint8_t key[BUILD_REQUEST_KEY_SIZE])
{
    struct failed_build *entry = find(failed, key);

    if (entry != NULL) {
        forget(failed, entry);
    }
}

void failed_builds_add(struct failed_builds *failed, const uint8_t key[BUILD_REQUEST_KEY_SIZE],
                       struct span message, uint64_t now_ms)
{
    struct failed_build *entry;

    failed_builds_forget(failed, key);
    if (failed->ttl_ms == 0) {
        return;
    }
    entry = malloc(sizeof(*entry) + message.len);
    if (entry == NULL) {
        return;
    }
    memcpy(entry->key, key, BUILD_REQUEST_KEY_SIZE);
    entry->until_ms = now_ms + failed->ttl_ms;
    entry->length = message.len;
    if (message.len > 0) {
        memcpy(entry->message, message.ptr, message.len);
    }
    list_append(&failed->entries, &entry->link);
    failed->count++;
    if (failed->count > FAILED_BUILDS_MAX) {
        forget(failed, oldest(failed));
    }
}

bool failed_builds_find(struct failed_builds *failed, const uint8_t key[BUILD_REQUEST_KEY_SIZE],
                        uint64_t now_ms, struct span *message)
{
    const struct failed_build *entry;

    forget_old(failed, now_ms);
    entry = find(failed, key);
    if (entry == NULL) {
        return false;
    }
    *message = span_of(entry->message, entry->length);
    return true;
}
