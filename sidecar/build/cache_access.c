/* SPDX-License-Identifier: MIT */
/*
 * Access times on disk. Must never make an entry: the folder alone says which there are.
 */
#include "sidecar/build/cache_access.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sidecar/base/clock.h"

#define ACCESS_NAME "access"
#define ACCESS_MAX ((size_t)256 * 1024 * 1024) /* two million entries */
#define READ_SIZE ((size_t)64 * 1024)

/* ---- the text -------------------------------------------------------------------------------- */

static struct span take_line(struct span *text)
{
    size_t length = 0;
    struct span line;

    while (length < text->len && text->ptr[length] != '\n') {
        length++;
    }
    line = span_take(text, length);
    span_skip(text, text->len > 0);
    return line;
}

/* A space and a number without a sign. */
static bool take_number(struct span *rest, uint64_t *number)
{
    uint64_t value = 0;
    size_t at = 1;

    while (at < rest->len && rest->ptr[at] >= '0' && rest->ptr[at] <= '9') {
        value = value * 10 + (uint64_t)(rest->ptr[at] - '0');
        at++;
    }
    if (at < 2 || at > 20 || rest->ptr[0] != ' ') { /* 19 digits never overflow */
        return false;
    }
    span_skip(rest, at);
    *number = value;
    return true;
}

static bool parse_line(struct span line, struct cache_access *access)
{
    struct cache_access found;

    if (line.len < 2 * (size_t)CACHE_KEY_SIZE ||
        !cache_hex_parse((const char *)line.ptr, CACHE_KEY_SIZE, found.key)) {
        return false;
    }
    span_skip(&line, 2 * (size_t)CACHE_KEY_SIZE);
    if (!take_number(&line, &found.used_ms) || !take_number(&line, &found.uses) || line.len > 0) {
        return false;
    }
    *access = found;
    return true;
}

bool cache_access_next(struct span *text, struct cache_access *access)
{
    while (text->len > 0) {
        if (parse_line(take_line(text), access)) {
            return true;
        }
    }
    return false;
}

int cache_access_append(const struct cache_access *access, struct buf *text)
{
    char key[CACHE_NAME_SIZE];

    cache_name_print(access->key, key);
    return buf_printf(text, "%s %" PRIu64 " %" PRIu64 "\n", key, access->used_ms, access->uses);
}

/* ---- the file -------------------------------------------------------------------------------- */

static int read_all(int fd, struct buf *text)
{
    for (;;) {
        uint8_t *room;
        int error = buf_reserve(text, READ_SIZE, &room);
        ssize_t got = error != 0 ? 0 : read(fd, room, READ_SIZE);

        if (error != 0 || got < 0) {
            return error != 0 ? error : -errno;
        }
        if (got == 0) {
            return 0;
        }
        buf_commit(text, (size_t)got);
    }
}

static int read_file(const struct cache_folder *folder, struct buf *text)
{
    int fd = openat(folder->fd, ACCESS_NAME,
                    O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    struct stat status;
    int error;

    if (fd < 0) {
        return -errno;
    }
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_uid == folder->owner) {
        error = read_all(fd, text);
    } else {
        error = -EPERM;
    }
    close(fd);
    return error;
}

static void merge(struct cache_index *index, const struct cache_access *access, uint64_t now_ms)
{
    struct cache_item *item = cache_index_find(index, access->key);

    if (item == NULL) {
        return;
    }
    if (item->uses < access->uses) {
        item->uses = access->uses;
    }
    if (item->used_ms < access->used_ms && access->used_ms <= now_ms) {
        item->used_ms = access->used_ms;
    }
}

int cache_access_load(const struct cache_folder *folder, struct cache_index *index)
{
    struct timespec now = clock_wall();
    uint64_t now_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    struct cache_access access;
    struct span text;
    struct buf file;
    int error;

    buf_init(&file, ACCESS_MAX);
    error = read_file(folder, &file);
    text = buf_span(&file);
    while (error == 0 && cache_access_next(&text, &access)) {
        merge(index, &access, now_ms);
    }
    buf_deinit(&file);
    return error;
}

static int print_index(const struct cache_index *index, struct buf *text)
{
    int error = buf_append_string(text, "velox-sidecar cache access 1\n");
    struct list *link;

    for (link = index->items.next; error == 0 && link != &index->items; link = link->next) {
        const struct cache_item *item = list_entry(link, struct cache_item, link);
        struct cache_access access = { .used_ms = item->used_ms, .uses = item->uses };

        memcpy(access.key, item->key, CACHE_KEY_SIZE);
        error = cache_access_append(&access, text);
    }
    return error;
}

static int write_all(int fd, struct span bytes)
{
    while (bytes.len > 0) {
        ssize_t written = write(fd, bytes.ptr, bytes.len);

        if (written <= 0) {
            return written < 0 ? -errno : -ENOSPC;
        }
        span_skip(&bytes, (size_t)written);
    }
    return 0;
}

static int write_file(const struct cache_folder *folder, struct span text)
{
    char name[CACHE_NAME_SIZE];
    int fd = cache_folder_create(folder, name);
    int error;

    if (fd < 0) {
        return fd;
    }
    error = write_all(fd, text);
    if (error == 0) {
        error = cache_folder_commit(folder, name, ACCESS_NAME);
    }
    if (error != 0) {
        (void)cache_folder_remove(folder, name);
    }
    close(fd);
    return error;
}

int cache_access_save(const struct cache_folder *folder, struct cache_index *index)
{
    struct buf text;
    int error;

    (void)cache_access_load(folder, index); /* what another process has written */
    buf_init(&text, ACCESS_MAX);
    error = print_index(index, &text);
    if (error == 0) {
        error = write_file(folder, buf_span(&text));
    }
    buf_deinit(&text);
    return error;
}
