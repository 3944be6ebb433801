/* SPDX-License-Identifier: MIT */
/*
 * Looks through the folder, at the start and every cleanup_interval, and keeps the limits. It must
 * never remove what is not the cache's own.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "sidecar/build/cache_access.h"
#include "sidecar/build/cache_parts.h"

/* Between two looks at the mailbox. */
#define NAMES_A_TURN 128

/* ---- limits ---------------------------------------------------------------------------------- */

/* Whether so much more would be too much, beside what is there, except for the item that it
 * replaces, and what is being copied. */
static bool is_over(const struct cache *cache, const struct cache_item *replaced, uint64_t entries,
                    uint64_t size_bytes, enum cache_drop_reason *reason)
{
    const struct cache_options *options = cache->options;
    uint64_t others = cache->index.count - (replaced != NULL) + cache->stores.count;
    uint64_t others_bytes = cache->index.size_bytes -
                            (replaced == NULL ? 0 : replaced->size_bytes) +
                            cache->stores.size_bytes;

    if (options->max_size > 0 && others_bytes + size_bytes > options->max_size) {
        *reason = CACHE_DROP_SIZE;
        return true;
    }
    *reason = CACHE_DROP_ENTRIES;
    return options->max_entries > 0 && others + entries > options->max_entries;
}

static void keep_limits(struct cache *cache, const uint8_t *key, uint64_t entries,
                        uint64_t size_bytes)
{
    const struct cache_item *replaced = key == NULL ? NULL : cache_index_find(&cache->index, key);
    const struct cache_item *victim;
    enum cache_drop_reason reason;

    while (is_over(cache, replaced, entries, size_bytes, &reason) &&
           (victim = cache_index_victim(&cache->index, cache->options->eviction, replaced)) !=
               NULL) {
        cache_drop(cache, victim->key, reason);
    }
}

bool cache_make_room(struct cache *cache, const uint8_t *key, uint64_t size_bytes)
{
    if (cache->options->max_size > 0 && size_bytes > cache->options->max_size) {
        return false;
    }
    keep_limits(cache, key, 1, size_bytes);
    return true;
}

void cache_keep_limits(struct cache *cache)
{
    keep_limits(cache, NULL, 0, 0);
}

static void drop_expired(struct cache *cache)
{
    uint64_t now_ms = cache_now_ms();
    struct list *link, *after;

    list_for_each (link, after, &cache->index.items) {
        const struct cache_item *item = list_entry(link, struct cache_item, link);

        if (cache_is_expired(cache->options, item->is_mutable, item->created_ms, now_ms)) {
            cache_drop(cache, item->key, CACHE_DROP_AGE);
        }
    }
}

/* ---- a look through the folder --------------------------------------------------------------- */

static void take_entry(struct cache *cache, const uint8_t *key)
{
    struct cache_item *item = cache_index_find(&cache->index, key);
    struct cache_facts facts;
    int fd;

    if (item == NULL) {
        switch (cache_folder_open_entry(&cache->folder, key, &facts, &fd)) {
        case CACHE_ENTRY_OPENED:
            close(fd);
            item = cache_index_put(&cache->index, &facts);
            break;
        case CACHE_ENTRY_CORRUPT:
            cache_drop(cache, key, CACHE_DROP_CORRUPT);
            break;
        default:
            break;
        }
    }
    if (item != NULL) {
        item->seen = cache->scan.number;
    }
}

static void take_name(struct cache *cache, const char *name)
{
    uint8_t key[CACHE_KEY_SIZE];

    switch (cache_name_parse(name, key)) {
    case CACHE_NAME_ENTRY:
        take_entry(cache, key);
        break;
    case CACHE_NAME_TEMPORARY:
        if (cache_folder_remove_left(&cache->folder, name)) {
            log_info(cache->log, "a copy that was never finished is removed from the cache",
                     log_str("file", name));
        }
        break;
    case CACHE_NAME_OTHER:
        break;
    }
}

/* Others may remove files, too. */
static void forget_unseen(struct cache *cache)
{
    struct list *link, *after;

    list_for_each (link, after, &cache->index.items) {
        struct cache_item *item = list_entry(link, struct cache_item, link);

        if (item->seen != cache->scan.number) {
            cache_index_remove(&cache->index, item);
        }
    }
}

static void start_timer(struct cache *cache)
{
    if (cache->options->cleanup_interval_ms > 0) {
        (void)timer_start(&cache->scan.timer, cache->options->cleanup_interval_ms);
    }
}

static void on_broken_off(struct cache *cache, int error)
{
    log_warn(cache->log, "the cache's folder cannot be read",
             log_str("directory", cache->options->directory), log_errno("error", error));
    start_timer(cache);
}

static void close_folder(struct cache_scan *scan)
{
    if (scan->dir != NULL) {
        closedir(scan->dir);
        scan->dir = NULL;
    }
}

static void on_end(struct cache *cache)
{
    struct cache_scan *scan = &cache->scan;

    cache->is_known = true;
    forget_unseen(cache);
    (void)cache_access_load(&cache->folder, &cache->index);
    drop_expired(cache);
    cache_keep_limits(cache);
    cache_show(cache);
    log_at(cache->log, scan->number == 1 ? LOG_INFO : LOG_DEBUG, "cache folder read",
           log_uint("entries", cache->index.count), log_uint("size", cache->index.size_bytes),
           log_uint("duration_ms", (clock_monotonic_ns() - scan->began_ns) / 1000000));
    start_timer(cache);
}

static void on_task(struct task *task)
{
    struct cache_scan *scan = list_entry(task, struct cache_scan, task);
    struct cache *cache = list_entry(scan, struct cache, scan);

    for (unsigned i = 0; i < NAMES_A_TURN; i++) {
        const struct dirent *entry;

        errno = 0;
        entry = readdir(scan->dir);
        if (entry == NULL) {
            int error = errno;

            close_folder(scan);
            if (error == 0) {
                on_end(cache);
            } else {
                on_broken_off(cache, error);
            }
            return;
        }
        take_name(cache, entry->d_name);
    }
    cache_show(cache);
    task_defer(task, cache->loop);
}

static int open_folder(struct cache *cache)
{
    int fd = openat(cache->folder.fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0) {
        return -errno;
    }
    cache->scan.dir = fdopendir(fd);
    if (cache->scan.dir == NULL) {
        close(fd);
        return -ENOMEM;
    }
    return 0;
}

static void begin(struct cache *cache)
{
    struct cache_scan *scan = &cache->scan;
    int error = open_folder(cache);

    if (error != 0) {
        on_broken_off(cache, error);
        return;
    }
    scan->number++;
    scan->began_ns = clock_monotonic_ns();
    task_defer(&scan->task, cache->loop);
}

static void on_due(struct timer *timer)
{
    begin(list_entry(list_entry(timer, struct cache_scan, timer), struct cache, scan));
}

void cache_scan_init(struct cache *cache)
{
    task_init(&cache->scan.task, on_task);
    timer_init(&cache->scan.timer, cache->loop, on_due);
    begin(cache);
}

void cache_scan_stop(struct cache *cache)
{
    task_stop(&cache->scan.task);
    timer_stop(&cache->scan.timer);
    close_folder(&cache->scan);
}
