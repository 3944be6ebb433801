/* SPDX-License-Identifier: MIT */
/*
 * Reads every entry again, once a scrub_interval, and compares its hash: disks forget. It takes at
 * most a tenth of the thread's time, waits while anything is stored, and must never push out of
 * memory what is being delivered.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "sidecar/build/cache_parts.h"

#define FIRST_PASS_MS ((uint64_t)10 * 60 * 1000)
/* For each millisecond of work so many of rest. */
#define REST 9
#define REST_MAX_MS 1000
/* An entry that was used within that time is likely to be wanted in memory. */
#define RECENT_MS ((uint64_t)60 * 60 * 1000)

static struct cache *cache_of(struct cache_scrub *scrub)
{
    return list_entry(scrub, struct cache, scrub);
}

static void close_entry(struct cache_scrub *scrub)
{
    cache_copy_deinit(&scrub->copy);
    if (scrub->fd >= 0) {
        close(scrub->fd);
        scrub->fd = -1;
    }
}

static void next_pass(struct cache *cache)
{
    struct cache_scrub *scrub = &cache->scrub;

    scrub->is_passing = false;
    (void)timer_start(&scrub->timer, cache->options->scrub_interval_ms);
}

static int open_entry(struct cache *cache, const uint8_t *key)
{
    struct cache_scrub *scrub = &cache->scrub;
    int error;

    switch (cache_folder_open_entry(&cache->folder, key, &scrub->facts, &scrub->fd)) {
    case CACHE_ENTRY_OPENED:
        break;
    case CACHE_ENTRY_CORRUPT:
        return -EBADMSG;
    case CACHE_ENTRY_ABSENT:
        return -ENOENT;
    default:
        return -EAGAIN;
    }
    error = cache_copy_init(&scrub->copy, scrub->fd, -1, scrub->facts.size_bytes);
    if (error != 0) {
        close_entry(scrub);
    }
    return error;
}

/* -EBADMSG where the content is not that of the hash any more. */
static int compare(struct cache *cache)
{
    struct cache_scrub *scrub = &cache->scrub;
    const struct cache_item *item = cache_index_find(&cache->index, scrub->facts.key);
    uint8_t sha256[CACHE_SHA256_SIZE];
    int error = cache_copy_finish(&scrub->copy, sha256);

    if (item == NULL || item->used_ms + RECENT_MS < cache_now_ms()) {
        (void)posix_fadvise(scrub->fd, 0, 0, POSIX_FADV_DONTNEED);
    }
    if (error == 0 && memcmp(sha256, scrub->facts.sha256, sizeof(sha256)) != 0) {
        error = -EBADMSG;
    }
    return error;
}

/* Another process may have put a new one in its place, which nothing is wrong with. */
static bool is_current(const struct cache *cache, const struct cache_facts *facts)
{
    struct cache_facts now;
    int fd;
    enum cache_entry_result result = cache_folder_open_entry(&cache->folder, facts->key, &now, &fd);

    if (result != CACHE_ENTRY_OPENED) {
        return result == CACHE_ENTRY_CORRUPT;
    }
    close(fd);
    return now.created_ms == facts->created_ms &&
           memcmp(now.sha256, facts->sha256, sizeof(now.sha256)) == 0;
}

static void read_on(struct cache *cache)
{
    struct cache_scrub *scrub = &cache->scrub;
    int result = 1;

    for (unsigned i = 0; i < 4 && result > 0; i++) {
        result = cache_copy_step(&scrub->copy, cache->room);
    }
    if (result > 0) {
        return;
    }
    if (result == 0) {
        result = compare(cache);
    }
    if ((result == -EBADMSG || result == -EIO || result == -EPIPE) &&
        is_current(cache, &scrub->facts)) {
        cache_drop(cache, scrub->facts.key, CACHE_DROP_CORRUPT);
    }
    close_entry(scrub);
}

/* The entry that was checked longest ago, which then goes behind all others. */
static void open_next(struct cache *cache)
{
    struct cache_scrub *scrub = &cache->scrub;
    struct cache_item *item;
    int error;

    if (list_is_empty(&cache->index.items)) {
        next_pass(cache);
        return;
    }
    item = list_entry(cache->index.items.next, struct cache_item, link);
    if (item->checked == scrub->pass) {
        next_pass(cache);
        return;
    }
    item->checked = scrub->pass;
    list_remove(&item->link);
    list_append(&cache->index.items, &item->link);
    error = open_entry(cache, item->key);
    if (error == -EBADMSG) {
        cache_drop(cache, item->key, CACHE_DROP_CORRUPT);
    } else if (error == -ENOENT) {
        cache_index_remove(&cache->index, item);
        cache_show(cache);
    }
}

static void on_due(struct timer *timer)
{
    struct cache_scrub *scrub = list_entry(timer, struct cache_scrub, timer);
    struct cache *cache = cache_of(scrub);
    uint64_t began_ns = clock_monotonic_ns();
    uint64_t rest_ms = REST_MAX_MS;

    if (!scrub->is_passing) {
        scrub->is_passing = true;
        scrub->pass++;
    }
    if (cache->stores.count == 0) {
        if (scrub->fd < 0) {
            open_next(cache);
        }
        if (scrub->fd >= 0) {
            read_on(cache);
        }
        rest_ms = (clock_monotonic_ns() - began_ns) * REST / 1000000;
    }
    if (scrub->is_passing) {
        (void)timer_start(timer, rest_ms > REST_MAX_MS ? REST_MAX_MS : rest_ms + 1);
    }
}

void cache_scrub_init(struct cache *cache)
{
    uint64_t interval_ms = cache->options->scrub_interval_ms;

    cache->scrub.fd = -1;
    timer_init(&cache->scrub.timer, cache->loop, on_due);
    if (interval_ms > 0) {
        (void)timer_start(&cache->scrub.timer,
                          interval_ms < FIRST_PASS_MS ? interval_ms : FIRST_PASS_MS);
    }
}

void cache_scrub_stop(struct cache *cache)
{
    timer_stop(&cache->scrub.timer);
    close_entry(&cache->scrub);
}
