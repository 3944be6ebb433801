/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_SANDBOX_WATCHLIST_H
#define SIDECAR_SANDBOX_WATCHLIST_H

/*
 * What was at some paths at a time. Landlock's rules hold for files and folders, not for names: a
 * folder that is made again, mounted or comes later is another one.
 */

#include <stddef.h>
#include <sys/types.h>

struct watched {
    char *path;
    int error; /* of looking at it; 0: it is there */
    dev_t device;
    ino_t inode;
};

struct watchlist {
    struct watched *items;
    size_t count;
};

/* Notes what is at path now, which may be nothing. 0 or -ENOMEM. A watchlist of zeros is empty. */
int watchlist_add(struct watchlist *list, const char *path);
void watchlist_deinit(struct watchlist *list);

/* The first path at which there is something else by now, or no longer or only now anything; NULL:
 * all are as they were. Looks at each, which takes as long as its file system takes. */
const char *watchlist_changed(const struct watchlist *list);

#endif
