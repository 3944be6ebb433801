/* SPDX-License-Identifier: MIT */
/*
 * The cache's two sides: look-ups in the builder's thread, and the thread that does the work. A
 * look-up must never wait for that work, and never deliver what is not exactly what was stored.
 */
#include "sidecar/build/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "sidecar/build/cache_access.h"
#include "sidecar/build/cache_parts.h"

/* ---- in the builder's thread ----------------------------------------------------------------- */

static struct cache_order *order_new(enum cache_order_kind kind, const uint8_t *key)
{
    struct cache_order *order = calloc(1, sizeof(*order));

    if (order != NULL) {
        list_init(&order->mail.link);
        order->kind = kind;
        memcpy(order->key, key, sizeof(order->key));
        order->artifact.fd = -1;
    }
    return order;
}

void cache_order_free(struct cache_order *order)
{
    artifact_close(&order->artifact);
    free(order);
}

/* News that help; without memory they are lost. */
static void tell(struct cache *cache, enum cache_order_kind kind, const uint8_t *key)
{
    struct cache_order *order = order_new(kind, key);

    if (order != NULL && mailbox_post(&cache->mailbox, &order->mail) < 0) {
        cache_order_free(order);
    }
}

void cache_take_entry(int fd, const struct cache_facts *facts, struct artifact *artifact)
{
    char sha256[2 * CACHE_SHA256_SIZE + 1];

    *artifact = (struct artifact){
        .fd = fd,
        .size_bytes = facts->size_bytes,
        .modified = facts->modified,
    };
    cache_hex_print(facts->sha256, CACHE_SHA256_SIZE, sha256);
    (void)snprintf(artifact->etag, sizeof(artifact->etag), "\"%s\"", sha256);
}

bool cache_find(struct cache *cache, const uint8_t key[BUILD_REQUEST_KEY_SIZE],
                struct artifact *artifact, uint64_t *age_s)
{
    uint64_t now_ms = cache_now_ms();
    struct cache_facts facts;
    int fd;

    switch (cache_folder_open_entry(&cache->folder, key, &facts, &fd)) {
    case CACHE_ENTRY_OPENED:
        break;
    case CACHE_ENTRY_CORRUPT:
        tell(cache, CACHE_ORDER_DOUBT, key);
        return false;
    default:
        return false;
    }
    if (cache_is_expired(cache->options, facts.is_mutable, facts.created_ms, now_ms)) {
        close(fd);
        tell(cache, CACHE_ORDER_DOUBT, key);
        return false;
    }
    cache_take_entry(fd, &facts, artifact);
    *age_s = now_ms > facts.created_ms ? (now_ms - facts.created_ms) / 1000 : 0;
    tell(cache, CACHE_ORDER_USED, key);
    return true;
}

bool cache_wants(const struct cache *cache, bool is_mutable)
{
    return !is_mutable || cache->options->max_age_mutable_ms > 0;
}

int cache_keep(struct cache *cache, const struct build_request *request,
               const struct artifact *artifact, uint64_t number, struct mailbox *reply_to)
{
    struct cache_order *order = order_new(CACHE_ORDER_KEEP, request->key);
    int error;

    if (order == NULL) {
        return -ENOMEM;
    }
    order->artifact = *artifact;
    order->artifact.fd = fcntl(artifact->fd, F_DUPFD_CLOEXEC, 0);
    order->is_mutable = request->is_mutable;
    order->number = number;
    order->reply_to = reply_to;
    memcpy(order->request_id, request->id, sizeof(order->request_id));
    error = order->artifact.fd < 0 ? -errno : mailbox_post(&cache->mailbox, &order->mail);
    if (error < 0) {
        cache_order_free(order);
    }
    return error;
}

/* ---- in the cache's thread ------------------------------------------------------------------- */

void cache_show(struct cache *cache)
{
    stats_add(cache->stats, STAT_CACHE_ENTRIES, cache->index.count - cache->shown_entries);
    stats_add(cache->stats, STAT_CACHE_SIZE_BYTES, cache->index.size_bytes - cache->shown_bytes);
    cache->shown_entries = cache->index.count;
    cache->shown_bytes = cache->index.size_bytes;
}

void cache_drop(struct cache *cache, const uint8_t key[CACHE_KEY_SIZE],
                enum cache_drop_reason reason)
{
    static const struct {
        const char *name;
        enum statistic stat;
        enum log_level level;
    } reasons[] = {
        [CACHE_DROP_SIZE] = { "size", STAT_CACHE_EVICTIONS_SIZE, LOG_INFO },
        [CACHE_DROP_ENTRIES] = { "entries", STAT_CACHE_EVICTIONS_ENTRIES, LOG_INFO },
        [CACHE_DROP_AGE] = { "age", STAT_CACHE_EVICTIONS_AGE, LOG_INFO },
        [CACHE_DROP_CORRUPT] = { "corrupt", STAT_CACHE_EVICTIONS_CORRUPT, LOG_WARN },
    };
    struct cache_item *item = cache_index_find(&cache->index, key);
    char name[CACHE_NAME_SIZE];
    int error;

    cache_name_print(key, name);
    error = cache_folder_remove(&cache->folder, name);
    if (error == 0) {
        stats_count(cache->stats, reasons[reason].stat);
        log_at(cache->log, reasons[reason].level, "cache entry removed", log_str("key", name),
               log_str("reason", reasons[reason].name),
               log_uint("file_size", item == NULL ? 0 : item->size_bytes));
    } else if (error != -ENOENT) {
        log_warn(cache->log, "cache entry cannot be removed", log_str("key", name),
                 log_str("reason", reasons[reason].name), log_errno("error", error));
    }
    if (item != NULL) {
        cache_index_remove(&cache->index, item);
        cache_show(cache);
    }
}

/* What the index says of an entry, which another process may have made. */
static struct cache_item *item_of(struct cache *cache, const uint8_t *key)
{
    struct cache_item *item = cache_index_find(&cache->index, key);
    struct cache_facts facts;
    int fd;

    if (item != NULL ||
        cache_folder_open_entry(&cache->folder, key, &facts, &fd) != CACHE_ENTRY_OPENED) {
        return item;
    }
    close(fd);
    item = cache_index_put(&cache->index, &facts);
    cache_show(cache);
    return item;
}

static void on_used(struct cache *cache, const uint8_t *key)
{
    struct cache_item *item = item_of(cache, key);

    if (item != NULL) {
        item->uses++;
        item->used_ms = cache_now_ms();
        item->seen = cache->scan.number;
        cache->has_new_access = true;
    }
}

/* It may be another one by now. */
static void on_doubt(struct cache *cache, const uint8_t *key)
{
    struct cache_facts facts;
    int fd;

    switch (cache_folder_open_entry(&cache->folder, key, &facts, &fd)) {
    case CACHE_ENTRY_OPENED:
        close(fd);
        if (cache_is_expired(cache->options, facts.is_mutable, facts.created_ms, cache_now_ms())) {
            cache_drop(cache, key, CACHE_DROP_AGE);
        }
        break;
    case CACHE_ENTRY_CORRUPT:
        cache_drop(cache, key, CACHE_DROP_CORRUPT);
        break;
    default:
        break;
    }
}

static void on_mail(struct mailbox *mailbox, struct mail *mail)
{
    struct cache *cache = list_entry(mailbox, struct cache, mailbox);
    struct cache_order *order = list_entry(mail, struct cache_order, mail);

    switch (order->kind) {
    case CACHE_ORDER_KEEP:
        cache_store_add(cache, order);
        return;
    case CACHE_ORDER_USED:
        on_used(cache, order->key);
        break;
    default:
        on_doubt(cache, order->key);
        break;
    }
    cache_order_free(order);
}

static void save_access(struct cache *cache)
{
    int error;

    /* Before all entries are known, those that are not would be left out. */
    if (!cache->has_new_access || !cache->is_known) {
        return;
    }
    error = cache_access_save(&cache->folder, &cache->index);
    if (error != 0) {
        log_warn(cache->log, "access times of the cache cannot be written",
                 log_errno("error", error));
    }
    cache->has_new_access = error != 0;
}

static void on_access_due(struct timer *timer)
{
    struct cache *cache = list_entry(timer, struct cache, access);

    save_access(cache);
    (void)timer_start(timer, cache->options->access_update_interval_ms);
}

/* ---- begin and end --------------------------------------------------------------------------- */

static int set_up(struct cache *cache)
{
    int error = cache_index_init(&cache->index);

    if (error == 0) {
        error = mailbox_init(&cache->mailbox, cache->loop, on_mail);
    }
    if (error != 0) {
        cache_index_deinit(&cache->index);
        return error;
    }
    cache_store_init(cache);
    cache_scan_init(cache);
    cache_scrub_init(cache);
    timer_init(&cache->access, cache->loop, on_access_due);
    if (cache->options->access_update_interval_ms > 0) {
        (void)timer_start(&cache->access, cache->options->access_update_interval_ms);
    }
    return 0;
}

int cache_new(struct cache **cache, struct loop *loop, const struct cache_options *options,
              struct log *log, struct stats *stats)
{
    struct cache *made = calloc(1, sizeof(*made));
    int error;

    if (made == NULL) {
        return -ENOMEM;
    }
    made->loop = loop;
    made->options = options;
    made->log = log;
    made->stats = stats;
    error = cache_folder_open(&made->folder, options->directory);
    if (error == 0) {
        error = set_up(made);
    }
    if (error != 0) {
        cache_folder_close(&made->folder);
        free(made);
        return error;
    }
    if (cache_folder_is_shared(&made->folder)) {
        log_warn(log, "others may write to the cache's folder; it should be the service's alone",
                 log_str("directory", options->directory));
    }
    *cache = made;
    return 0;
}

void cache_stop(struct cache *cache)
{
    if (cache->is_stopped) {
        return;
    }
    cache->is_stopped = true;
    mailbox_close(&cache->mailbox);
    timer_stop(&cache->access);
    cache_store_stop(cache);
    cache_scan_stop(cache);
    cache_scrub_stop(cache);
    save_access(cache);
}

void cache_free(struct cache *cache)
{
    if (cache == NULL) {
        return;
    }
    cache_stop(cache); /* unless its thread has done so */
    mailbox_deinit(&cache->mailbox);
    cache_index_deinit(&cache->index);
    cache_folder_close(&cache->folder);
    free(cache);
}
