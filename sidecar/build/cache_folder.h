/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_CACHE_FOLDER_H
#define SIDECAR_BUILD_CACHE_FOLDER_H

/*
 * The folder of the cache: one file an entry, named by the key in hexadecimal, complete from the
 * moment in which it has that name. The folder is the truth; whatever is remembered of it may be
 * out of date, since other processes (the child before a reload, another instance) use it too, and
 * an administrator may remove files. A struct cache_folder never changes after the opening, so any
 * thread may use it.
 */

#include <sys/types.h>

#include "sidecar/build/cache_trailer.h"

/* Room for the name of an entry, or of a file that becomes one. */
#define CACHE_NAME_SIZE (2 * CACHE_KEY_SIZE + 1)

struct cache_folder {
    int fd;      /* -1: not open */
    uid_t owner; /* of every file in it that counts: ourselves */
};

/* Makes the folder, mode 0700, for that user, unless there is something of that name. For those who
 * may do what the user may not. 0 or -errno. */
int cache_folder_make(const char *path, uid_t user, gid_t group);

/* Makes the folder where it is missing. 0 or -errno. */
int cache_folder_open(struct cache_folder *folder, const char *path);
void cache_folder_close(struct cache_folder *folder);
/* Whether others may put files into it. */
bool cache_folder_is_shared(const struct cache_folder *folder);

enum cache_entry_result {
    CACHE_ENTRY_OPENED,
    CACHE_ENTRY_ABSENT,
    CACHE_ENTRY_CORRUPT,   /* not what we have written: must not be delivered, may be removed */
    CACHE_ENTRY_UNREADABLE /* no descriptors, no permission, an I/O error */
};

/*
 * Opens an entry for reading, and compares what costs nothing: a regular file of ours without
 * another name, that nobody else may write to, whose key, size and time of modification are those
 * of its trailer. On OPENED, and then only, *fd belongs to the caller.
 */
enum cache_entry_result cache_folder_open_entry(const struct cache_folder *folder,
                                                const uint8_t key[CACHE_KEY_SIZE],
                                                struct cache_facts *facts, int *fd);

/*
 * A new empty file that becomes an entry, or another file of ours, by cache_folder_commit. It is
 * locked while it is open, so that other processes can tell it from what a dead one has left. The
 * descriptor (for reading and writing), or -errno.
 */
int cache_folder_create(const struct cache_folder *folder, char name[CACHE_NAME_SIZE]);
/* Behind the content: the trailer and the time of modification, on the disk when it returns. fd
 * stays the caller's. Where the file system keeps times less exactly, facts->modified follows. */
int cache_folder_seal(int fd, struct cache_facts *facts);
/* Opens the new file for reading, before anybody can remove it. The descriptor, or -errno. */
int cache_folder_open_new(const struct cache_folder *folder, const char *temporary);
/* In one step the new file takes the place of whatever has that name. 0 or -errno. */
int cache_folder_commit(const struct cache_folder *folder, const char *temporary, const char *name);

/* 0 or -errno. */
int cache_folder_remove(const struct cache_folder *folder, const char *name);

enum cache_name_kind {
    CACHE_NAME_ENTRY,
    CACHE_NAME_TEMPORARY,
    CACHE_NAME_OTHER, /* not ours */
};
void cache_name_print(const uint8_t key[CACHE_KEY_SIZE], char name[CACHE_NAME_SIZE]);
/* Writes *key for an entry only. */
enum cache_name_kind cache_name_parse(const char *name, uint8_t key[CACHE_KEY_SIZE]);

/* Removes a temporary file if the process that began it is gone. True if it did. */
bool cache_folder_remove_left(const struct cache_folder *folder, const char *name);

#endif
