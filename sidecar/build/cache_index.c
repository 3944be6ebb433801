/* SPDX-License-Identifier: MIT */
/*
 * A table by key and a list of all. A victim is looked for among all entries: ten thousand take
 * less time than the removal of one file. Must never touch the folder.
 */
#include "sidecar/build/cache_index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TABLE_SIZE 4096
#define DAY_MS ((uint64_t)86400 * 1000)

int cache_index_init(struct cache_index *index)
{
    *index = (struct cache_index){ .table = calloc(TABLE_SIZE, sizeof(*index->table)) };
    list_init(&index->items);
    if (index->table == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < TABLE_SIZE; i++) {
        list_init(&index->table[i]);
    }
    return 0;
}

void cache_index_deinit(struct cache_index *index)
{
    while (!list_is_empty(&index->items)) {
        cache_index_remove(index, list_entry(index->items.next, struct cache_item, link));
    }
    free(index->table);
    index->table = NULL;
}

/* Keys are hashes. */
static struct list *row_of(const struct cache_index *index, const uint8_t *key)
{
    return &index->table[(key[0] | key[1] << 8) % TABLE_SIZE];
}

struct cache_item *cache_index_find(const struct cache_index *index,
                                    const uint8_t key[CACHE_KEY_SIZE])
{
    struct list *head = row_of(index, key);
    struct list *link;

    for (link = head->next; link != head; link = link->next) {
        struct cache_item *item = list_entry(link, struct cache_item, table_link);

        if (memcmp(item->key, key, CACHE_KEY_SIZE) == 0) {
            return item;
        }
    }
    return NULL;
}

static struct cache_item *item_new(struct cache_index *index, const struct cache_facts *facts)
{
    struct cache_item *item = calloc(1, sizeof(*item));

    if (item == NULL) {
        return NULL;
    }
    memcpy(item->key, facts->key, CACHE_KEY_SIZE);
    list_append(&index->items, &item->link);
    list_append(row_of(index, facts->key), &item->table_link);
    index->count++;
    return item;
}

struct cache_item *cache_index_put(struct cache_index *index, const struct cache_facts *facts)
{
    struct cache_item *item = cache_index_find(index, facts->key);

    if (item == NULL) {
        item = item_new(index, facts);
    }
    if (item == NULL) {
        return NULL;
    }
    index->size_bytes += facts->size_bytes - item->size_bytes;
    item->size_bytes = facts->size_bytes;
    item->created_ms = facts->created_ms;
    item->is_mutable = facts->is_mutable;
    if (item->used_ms < facts->created_ms) {
        item->used_ms = facts->created_ms;
    }
    return item;
}

void cache_index_remove(struct cache_index *index, struct cache_item *item)
{
    list_remove(&item->link);
    list_remove(&item->table_link);
    index->count--;
    index->size_bytes -= item->size_bytes;
    free(item);
}

/* Smaller goes first; where two are equal, the one used longer ago. */
static uint64_t worth(const struct cache_item *item, enum eviction_policy policy)
{
    switch (policy) {
    case EVICTION_LFU:
        return item->uses;
    case EVICTION_FIFO:
        return item->created_ms;
    default:
        return item->used_ms;
    }
}

struct cache_item *cache_index_victim(const struct cache_index *index, enum eviction_policy policy,
                                      const struct cache_item *spared)
{
    struct cache_item *victim = NULL;
    struct list *link;

    for (link = index->items.next; link != &index->items; link = link->next) {
        struct cache_item *item = list_entry(link, struct cache_item, link);

        if (item != spared &&
            (victim == NULL || worth(item, policy) < worth(victim, policy) ||
             (worth(item, policy) == worth(victim, policy) && item->used_ms < victim->used_ms))) {
            victim = item;
        }
    }
    return victim;
}

bool cache_is_expired(const struct cache_options *options, bool is_mutable, uint64_t created_ms,
                      uint64_t now_ms)
{
    uint64_t age_ms = now_ms > created_ms ? now_ms - created_ms : 0;

    if (is_mutable && age_ms >= options->max_age_mutable_ms) {
        return true;
    }
    return options->max_age_days > 0 && age_ms / DAY_MS >= options->max_age_days;
}
