/* SPDX-License-Identifier: MIT */
/*
 * Compares by device and inode, as Landlock's rules do. Must not open anything: looking is allowed
 * everywhere.
 */
#include "sidecar/sandbox/watchlist.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static struct watched look(char *path)
{
    struct stat status;

    if (stat(path, &status) != 0) {
        return (struct watched){ .path = path, .error = errno };
    }
    return (struct watched){ .path = path, .device = status.st_dev, .inode = status.st_ino };
}

int watchlist_add(struct watchlist *list, const char *path)
{
    struct watched *grown = realloc(list->items, (list->count + 1) * sizeof(*grown));
    char *copy;

    if (grown == NULL) {
        return -ENOMEM;
    }
    list->items = grown;
    copy = strdup(path);
    if (copy == NULL) {
        return -ENOMEM;
    }
    list->items[list->count++] = look(copy);
    return 0;
}

void watchlist_deinit(struct watchlist *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->items[i].path);
    }
    free(list->items);
    *list = (struct watchlist){ 0 };
}

const char *watchlist_changed(const struct watchlist *list)
{
    for (size_t i = 0; i < list->count; i++) {
        const struct watched *was = &list->items[i];
        struct watched is = look(was->path);

        if (is.error != was->error || is.device != was->device || is.inode != was->inode) {
            return was->path;
        }
    }
    return NULL;
}
