/* SPDX-License-Identifier: MIT */
/*
 * Copies built files into the cache, a little of each a turn. It must never hold up an answer for
 * good: whatever goes wrong, the order goes back and the built file is delivered from where it is.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sidecar/build/cache_parts.h"

/* Of one file in a turn, before the next one's and the mailbox's. */
#define STEPS_A_TURN 16
/* Written to the disk after so much, so that the end of a large file is no long wait for all of it,
 * in which nobody hears from this thread. */
#define SYNC_BYTES ((uint64_t)32 * 1024 * 1024)

struct cache_store {
    struct list link;
    struct cache_order *order;
    struct cache_copy copy;
    int fd; /* of the new file, -1: none yet */
    char name[CACHE_NAME_SIZE];
    uint64_t size_bytes;
    uint64_t began_ns;
};

/* ---- the end of one -------------------------------------------------------------------------- */

static void answer(struct cache_order *order)
{
    if (mailbox_post(order->reply_to, &order->mail) < 0) {
        cache_order_free(order); /* the builder has stopped */
    }
}

/* In the log and for the builder: it is not kept. */
static void refuse(struct cache *cache, struct cache_order *order, int error)
{
    log_warn(cache->log, "the built file cannot be kept in the cache",
             log_str("request_id", order->request_id),
             log_uint("file_size", order->artifact.size_bytes), log_errno("error", error));
    artifact_close(&order->artifact);
    answer(order);
}

/* Its file has become an entry, or goes. */
static void store_free(struct cache *cache, struct cache_store *store)
{
    list_remove(&store->link);
    cache->stores.count--;
    cache->stores.size_bytes -= store->size_bytes;
    cache_copy_deinit(&store->copy);
    if (store->fd >= 0) {
        close(store->fd);
    }
    free(store);
}

static void give_up(struct cache *cache, struct cache_store *store, int error)
{
    if (store->fd >= 0) {
        (void)cache_folder_remove(&cache->folder, store->name);
    }
    refuse(cache, store->order, error);
    store_free(cache, store);
}

/* Velox, or somebody, has written to it while it was copied. What was fetched is nobody else's, and
 * its time is that of the source. */
static bool has_changed(const struct artifact *artifact)
{
    struct stat status;

    if (artifact->is_fetched) {
        return false;
    }

    return fstat(artifact->fd, &status) != 0 || (uint64_t)status.st_size != artifact->size_bytes ||
           status.st_mtim.tv_sec != artifact->modified.tv_sec ||
           status.st_mtim.tv_nsec != artifact->modified.tv_nsec;
}

/* The copy takes the place of the built file in the order, opened anew, for reading; and that of
 * whatever has been kept of its key so far. */
static int commit(struct cache *cache, struct cache_store *store, struct cache_facts *facts)
{
    char name[CACHE_NAME_SIZE];
    int error = has_changed(&store->order->artifact) ? -ETXTBSY : 0;
    int fd;

    if (error == 0) {
        error = cache_copy_finish(&store->copy, facts->sha256);
    }
    if (error == 0) {
        error = cache_folder_seal(store->fd, facts);
    }
    if (error != 0) {
        return error;
    }
    fd = cache_folder_open_new(&cache->folder, store->name);
    if (fd < 0) {
        return fd;
    }
    cache_name_print(facts->key, name);
    error = cache_folder_commit(&cache->folder, store->name, name);
    if (error != 0) {
        close(fd);
        return error;
    }
    artifact_close(&store->order->artifact);
    cache_take_entry(fd, facts, &store->order->artifact);
    return 0;
}

static void remember(struct cache *cache, const struct cache_facts *facts)
{
    struct cache_item *item = cache_index_put(&cache->index, facts);

    /* Without memory for it, the next look through the folder will find it. */
    if (item != NULL) {
        item->seen = cache->scan.number;
        item->checked = cache->scrub.pass;
        cache->has_new_access = true;
        cache_show(cache);
    }
}

static void finish(struct cache *cache, struct cache_store *store)
{
    struct cache_order *order = store->order;
    struct cache_facts facts = {
        .size_bytes = order->artifact.size_bytes,
        .modified = order->artifact.lacks_time ? clock_wall() : order->artifact.modified,
        .created_ms = cache_now_ms(),
        .is_mutable = order->is_mutable,
    };
    char name[CACHE_NAME_SIZE];
    int error;

    memcpy(facts.key, order->key, sizeof(facts.key));
    error = commit(cache, store, &facts);
    if (error != 0) {
        give_up(cache, store, error);
        return;
    }
    remember(cache, &facts);
    cache_name_print(facts.key, name);
    log_info(cache->log, "cache entry added", log_str("request_id", order->request_id),
             log_str("key", name), log_uint("file_size", facts.size_bytes),
             log_uint("duration_ms", (clock_monotonic_ns() - store->began_ns) / 1000000));
    answer(order);
    store_free(cache, store);
    cache_keep_limits(cache);
}

/* ---- by turns -------------------------------------------------------------------------------- */

/* A turn's steps: 1: there is more; 0: all is copied; -errno. */
static int copy_on(struct cache *cache, struct cache_store *store)
{
    uint64_t before = store->copy.done_bytes / SYNC_BYTES;
    int result = 1;

    for (unsigned i = 0; i < STEPS_A_TURN && result > 0; i++) {
        result = cache_copy_step(&store->copy, cache->room);
    }
    if (result > 0 && store->copy.done_bytes / SYNC_BYTES > before && fdatasync(store->fd) != 0) {
        result = -errno;
    }
    return result;
}

static void on_task(struct task *task)
{
    struct cache_stores *stores = list_entry(task, struct cache_stores, task);
    struct cache *cache = list_entry(stores, struct cache, stores);
    struct cache_store *store = list_entry(stores->list.next, struct cache_store, link);
    int result = copy_on(cache, store);

    if (result > 0) {
        list_remove(&store->link);
        list_append(&stores->list, &store->link);
    } else if (result == 0) {
        finish(cache, store);
    } else {
        give_up(cache, store, result);
    }
    if (!list_is_empty(&stores->list)) {
        task_defer(task, cache->loop);
    }
}

static int begin(struct cache *cache, struct cache_store *store)
{
    store->fd = cache_folder_create(&cache->folder, store->name);
    if (store->fd < 0) {
        return store->fd;
    }
    return cache_copy_init(&store->copy, store->order->artifact.fd, store->fd, store->size_bytes);
}

void cache_store_add(struct cache *cache, struct cache_order *order)
{
    struct cache_store *store;
    int error;

    if (!cache_make_room(cache, order->key, order->artifact.size_bytes)) {
        refuse(cache, order, -EFBIG);
        return;
    }
    store = calloc(1, sizeof(*store));
    if (store == NULL) {
        refuse(cache, order, -ENOMEM);
        return;
    }
    store->order = order;
    store->fd = -1;
    store->size_bytes = order->artifact.size_bytes;
    store->began_ns = clock_monotonic_ns();
    list_append(&cache->stores.list, &store->link);
    cache->stores.count++;
    cache->stores.size_bytes += store->size_bytes;
    error = begin(cache, store);
    if (error != 0) {
        give_up(cache, store, error);
        return;
    }
    task_defer(&cache->stores.task, cache->loop);
}

void cache_store_init(struct cache *cache)
{
    list_init(&cache->stores.list);
    task_init(&cache->stores.task, on_task);
}

void cache_store_stop(struct cache *cache)
{
    struct list *head = &cache->stores.list;

    task_stop(&cache->stores.task);
    while (!list_is_empty(head)) {
        give_up(cache, list_entry(head->next, struct cache_store, link), -ECANCELED);
    }
}
