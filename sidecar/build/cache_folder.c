/* SPDX-License-Identifier: MIT */
/*
 * Every system call with a name in the cache's folder. It must never follow a link, never open what
 * is not its own, and never leave a file under an entry's name that is not complete on the disk.
 */
#include "sidecar/build/cache_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEMPORARY_PREFIX ".new-"
#define TEMPORARY_TRIES 16
#define OPEN_FLAGS (O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)

/* ---- the folder ------------------------------------------------------------------------------ */

int cache_folder_make(const char *path, uid_t user, gid_t group)
{
    int fd;
    int error = 0;

    if (mkdir(path, 0700) != 0) {
        return errno == EEXIST ? 0 : -errno;
    }
    fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    if (fchown(fd, user, group) != 0) {
        error = -errno;
    }
    close(fd);
    return error;
}

int cache_folder_open(struct cache_folder *folder, const char *path)
{
    *folder = (struct cache_folder){ .fd = -1, .owner = geteuid() };
    folder->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder->fd < 0 && errno == ENOENT && mkdir(path, 0700) == 0) {
        folder->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    if (folder->fd < 0) {
        return -errno;
    }
    if (faccessat(folder->fd, ".", R_OK | W_OK | X_OK, AT_EACCESS) != 0) {
        int error = -errno;

        cache_folder_close(folder);
        return error;
    }
    return 0;
}

void cache_folder_close(struct cache_folder *folder)
{
    if (folder->fd >= 0) {
        close(folder->fd);
        folder->fd = -1;
    }
}

bool cache_folder_is_shared(const struct cache_folder *folder)
{
    struct stat status;

    return fstat(folder->fd, &status) == 0 &&
           ((status.st_uid != folder->owner && status.st_uid != 0) ||
            (status.st_mode & (S_IWGRP | S_IWOTH)) != 0);
}

/* ---- names ----------------------------------------------------------------------------------- */

void cache_name_print(const uint8_t key[CACHE_KEY_SIZE], char name[CACHE_NAME_SIZE])
{
    cache_hex_print(key, CACHE_KEY_SIZE, name);
}

enum cache_name_kind cache_name_parse(const char *name, uint8_t key[CACHE_KEY_SIZE])
{
    uint8_t parsed[CACHE_KEY_SIZE];

    if (strncmp(name, TEMPORARY_PREFIX, strlen(TEMPORARY_PREFIX)) == 0) {
        return CACHE_NAME_TEMPORARY;
    }
    if (strlen(name) != CACHE_NAME_SIZE - 1 || !cache_hex_parse(name, CACHE_KEY_SIZE, parsed)) {
        return CACHE_NAME_OTHER;
    }
    memcpy(key, parsed, CACHE_KEY_SIZE);
    return CACHE_NAME_ENTRY;
}

/* ---- reading --------------------------------------------------------------------------------- */

static bool is_ours(const struct cache_folder *folder, const struct stat *status)
{
    /* Replaced between open and fstat, it has no name any more, and is as good as before. */
    return S_ISREG(status->st_mode) && status->st_uid == folder->owner && status->st_nlink <= 1 &&
           (status->st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

static bool is_same_time(struct timespec a, struct timespec b)
{
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static enum cache_entry_result read_facts(int fd, const struct stat *status,
                                          struct cache_facts *facts)
{
    char trailer[CACHE_TRAILER_SIZE];
    off_t content = status->st_size - CACHE_TRAILER_SIZE;
    ssize_t got;

    if (content < 0) {
        return CACHE_ENTRY_CORRUPT;
    }
    got = pread(fd, trailer, sizeof(trailer), content);
    if (got < 0) {
        return errno == EIO ? CACHE_ENTRY_CORRUPT : CACHE_ENTRY_UNREADABLE;
    }
    return got == (ssize_t)sizeof(trailer) && cache_trailer_parse(trailer, facts) &&
                   facts->size_bytes == (uint64_t)content &&
                   is_same_time(facts->modified, status->st_mtim)
               ? CACHE_ENTRY_OPENED
               : CACHE_ENTRY_CORRUPT;
}

static enum cache_entry_result result_of_open(int error)
{
    switch (error) {
    case ENOENT:
        return CACHE_ENTRY_ABSENT;
    case ELOOP: /* a link */
    case ENXIO: /* a socket, or a device without its hardware */
        return CACHE_ENTRY_CORRUPT;
    default:
        return CACHE_ENTRY_UNREADABLE;
    }
}

enum cache_entry_result cache_folder_open_entry(const struct cache_folder *folder,
                                                const uint8_t key[CACHE_KEY_SIZE],
                                                struct cache_facts *facts, int *fd)
{
    char name[CACHE_NAME_SIZE];
    struct cache_facts found;
    struct stat status;
    enum cache_entry_result result = CACHE_ENTRY_CORRUPT;
    int opened;

    cache_name_print(key, name);
    opened = openat(folder->fd, name, OPEN_FLAGS);
    if (opened < 0) {
        return result_of_open(errno);
    }
    if (fstat(opened, &status) != 0) {
        result = CACHE_ENTRY_UNREADABLE;
    } else if (is_ours(folder, &status)) {
        result = read_facts(opened, &status, &found);
    }
    if (result == CACHE_ENTRY_OPENED && memcmp(found.key, key, CACHE_KEY_SIZE) != 0) {
        result = CACHE_ENTRY_CORRUPT;
    }
    if (result != CACHE_ENTRY_OPENED) {
        close(opened);
        return result;
    }
    *facts = found;
    *fd = opened;
    return CACHE_ENTRY_OPENED;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* Nobody who cleans up has taken it for a dead one's before the lock was ours. */
static bool lock_new(int fd)
{
    struct stat status;

    return flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &status) == 0 && status.st_nlink == 1;
}

int cache_folder_create(const struct cache_folder *folder, char name[CACHE_NAME_SIZE])
{
    for (int i = 0; i < TEMPORARY_TRIES; i++) {
        uint64_t number;
        int fd;

        if (getrandom(&number, sizeof(number), 0) != (ssize_t)sizeof(number)) {
            return -EAGAIN;
        }
        (void)snprintf(name, CACHE_NAME_SIZE, TEMPORARY_PREFIX "%016llx",
                       (unsigned long long)number);
        fd = openat(folder->fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd >= 0 && lock_new(fd)) {
            return fd;
        }
        if (fd < 0 && errno != EEXIST) {
            return -errno;
        }
        if (fd >= 0) {
            (void)unlinkat(folder->fd, name, 0);
            close(fd);
        }
    }
    return -EBUSY;
}

static int set_modified(int fd, struct timespec modified)
{
    const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, modified };

    return futimens(fd, times) == 0 ? 0 : -errno;
}

static int write_trailer(int fd, const struct cache_facts *facts)
{
    char trailer[CACHE_TRAILER_SIZE];
    ssize_t written;

    cache_trailer_print(facts, trailer);
    written = pwrite(fd, trailer, sizeof(trailer), (off_t)facts->size_bytes);
    if (written < 0) {
        return -errno;
    }
    return written == (ssize_t)sizeof(trailer) ? 0 : -ENOSPC;
}

int cache_folder_seal(int fd, struct cache_facts *facts)
{
    struct stat status;
    int error = set_modified(fd, facts->modified);

    if (error == 0 && fstat(fd, &status) != 0) {
        error = -errno;
    }
    if (error != 0) {
        return error;
    }
    facts->modified = status.st_mtim;
    error = write_trailer(fd, facts);
    if (error == 0) {
        error = set_modified(fd, facts->modified); /* which the trailer has changed */
    }
    if (error == 0 && fsync(fd) != 0) {
        error = -errno;
    }
    return error;
}

int cache_folder_open_new(const struct cache_folder *folder, const char *temporary)
{
    int fd = openat(folder->fd, temporary, OPEN_FLAGS);

    return fd < 0 ? -errno : fd;
}

int cache_folder_commit(const struct cache_folder *folder, const char *temporary, const char *name)
{
    return renameat(folder->fd, temporary, folder->fd, name) == 0 ? 0 : -errno;
}

int cache_folder_remove(const struct cache_folder *folder, const char *name)
{
    return unlinkat(folder->fd, name, 0) == 0 ? 0 : -errno;
}

bool cache_folder_remove_left(const struct cache_folder *folder, const char *name)
{
    struct stat status;
    bool removed = false;
    int fd = openat(folder->fd, name, OPEN_FLAGS);

    if (fd < 0) {
        return false;
    }
    if (fstat(fd, &status) == 0 && is_ours(folder, &status) && flock(fd, LOCK_EX | LOCK_NB) == 0) {
        removed = cache_folder_remove(folder, name) == 0;
    }
    close(fd);
    return removed;
}
