/* SPDX-License-Identifier: MIT */
/*
 * A path walked by hand. It must never let the kernel follow a link, and never go up by "..":
 * folders that were entered stay open, and ".." returns to the one before, so that a folder that is
 * moved meanwhile cannot lead out.
 */
#include "sidecar/build/artifact_walk.h"

#include <limits.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#define WALK_DEPTH_MAX 64
#define WALK_LINKS_MAX 40 /* as the kernel: path_resolution(7) */

struct walk {
    int folders[WALK_DEPTH_MAX]; /* [0] is the root, borrowed; the others are ours */
    unsigned depth;              /* index of the current one */
    unsigned links;
    char rest[PATH_MAX]; /* what is still to be walked */
};

static int walk_here(const struct walk *walk)
{
    return walk->folders[walk->depth];
}

/* Takes the first component off walk->rest. False when none is left. *last: nothing but perhaps a
 * slash follows; *folder: it must be a folder. */
static bool walk_take(struct walk *walk, char name[NAME_MAX + 1], bool *last, bool *folder,
                      int *error)
{
    char *begin = walk->rest + strspn(walk->rest, "/");
    size_t length = strcspn(begin, "/");
    char *after = begin + length;

    *error = 0;
    if (length == 0) {
        return false;
    }
    if (length > NAME_MAX) {
        *error = -ENAMETOOLONG;
        return false;
    }
    memcpy(name, begin, length);
    name[length] = '\0';
    *folder = *after == '/';
    *last = after[strspn(after, "/")] == '\0';
    /* To the front. (Not memmove: valgrind 3.19 takes its fortified form for memcpy, and
     * complains.) */
    for (char *to = walk->rest; (*to = *after) != '\0'; to++) {
        after++;
    }
    return true;
}

/* Takes fd, a folder by its path. */
static int walk_enter(struct walk *walk, int fd)
{
    if (walk->depth + 1 == WALK_DEPTH_MAX) {
        close(fd);
        return -ENAMETOOLONG;
    }
    walk->folders[++walk->depth] = fd;
    return 0;
}

static int walk_leave(struct walk *walk)
{
    if (walk->depth == 0) {
        return -EXDEV;
    }
    close(walk->folders[walk->depth--]);
    return 0;
}

/* Puts the link's target in front of what is left. fd is the link itself, borrowed. */
static int walk_follow(struct walk *walk, int fd)
{
    char target[PATH_MAX];
    struct statfs system;
    size_t left = strlen(walk->rest);
    ssize_t length;

    if (++walk->links > WALK_LINKS_MAX) {
        return -ELOOP;
    }
    if (fstatfs(fd, &system) != 0) {
        return -errno;
    }
    if (system.f_type == PROC_SUPER_MAGIC) {
        return -ELOOP;
    }
    length = readlinkat(fd, "", target, sizeof(target));
    if (length < 0) {
        return -errno;
    }
    if (length == 0) {
        return -ENOENT;
    }
    if (target[0] == '/') {
        return -EXDEV;
    }
    if ((size_t)length + 1 + left >= sizeof(walk->rest)) {
        return -ENAMETOOLONG;
    }
    memmove(walk->rest + length + (left > 0), walk->rest, left + 1);
    if (left > 0) {
        walk->rest[length] = '/';
    }
    memcpy(walk->rest, target, (size_t)length);
    return 0;
}

/* One component that is no "." and no "..". 0 to go on, or what the walk ends with. */
static int walk_step(struct walk *walk, const char *name, bool last, bool folder, int *opened)
{
    struct stat status;
    int result;
    int fd = openat(walk_here(walk), name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0) {
        return -errno;
    }
    if (fstat(fd, &status) != 0) {
        result = -errno;
    } else if (S_ISLNK(status.st_mode)) {
        result = walk_follow(walk, fd);
    } else if (!last || folder) {
        if (S_ISDIR(status.st_mode)) {
            return walk_enter(walk, fd);
        }
        result = -ENOTDIR;
    } else if ((result = artifact_check_mode(status.st_mode)) == 0) {
        /* It may have become a link since: then ELOOP, as openat2 would say of a race. */
        *opened = openat(walk_here(walk), name, ARTIFACT_OPEN_FLAGS | O_NOFOLLOW);
        result = *opened < 0 ? -errno : 0;
    }
    close(fd);
    return result;
}

static int walk_run(struct walk *walk)
{
    char name[NAME_MAX + 1];
    bool last, folder;
    int opened = -1;
    int error = 0;

    while (opened < 0 && error == 0 && walk_take(walk, name, &last, &folder, &error)) {
        if (strcmp(name, "..") == 0) {
            error = walk_leave(walk);
        } else if (strcmp(name, ".") != 0) {
            error = walk_step(walk, name, last, folder, &opened);
        }
    }
    if (error != 0) {
        return error;
    }
    return opened >= 0 ? opened : -EISDIR; /* the path has ended in a folder */
}

int artifact_walk_open(int root_fd, const char *path)
{
    struct walk walk = { .depth = 0 };
    size_t length = strlen(path);
    int result;

    if (length >= sizeof(walk.rest)) {
        return -ENAMETOOLONG;
    }
    walk.folders[0] = root_fd;
    memcpy(walk.rest, path, length + 1);
    result = walk_run(&walk);
    while (walk.depth > 0) {
        close(walk.folders[walk.depth--]);
    }
    return result;
}
