/* SPDX-License-Identifier: MIT */
/*
 * The name of an open file below a root. It must never give a name that leads to another file at
 * this moment.
 */
#include "sidecar/relay/accel.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sidecar/base/percent.h"

/* 0 or -ENOENT. The kernel's answer for a file that has been removed ends in " (deleted)": no file
 * of that name is the same one, which is checked later. */
static int name_of(int fd, char name[PATH_MAX])
{
    char link[40];
    ssize_t length;

    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    length = readlink(link, name, PATH_MAX);
    if (length <= 0 || length == PATH_MAX || name[0] != '/') {
        return -ENOENT;
    }
    name[length] = '\0';
    return 0;
}

static bool is_same_file(int fd, int root_fd, const char *below)
{
    struct stat opened, named;

    return fstat(fd, &opened) == 0 && fstatat(root_fd, below, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
           opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

/* What follows root and a slash; NULL where the name is not below it. */
static const char *behind_root(const char *name, const char *root)
{
    size_t length = strcmp(root, "/") == 0 ? 0 : strlen(root);

    return strncmp(name, root, length) == 0 && name[length] == '/' ? name + length + 1 : NULL;
}

static int location_in(int fd, int root_fd, const char *prefix, struct buf *out)
{
    char name[PATH_MAX], root[PATH_MAX];
    const char *below;
    int error = name_of(fd, name);

    if (error == 0) {
        error = name_of(root_fd, root);
    }
    if (error != 0) {
        return error;
    }
    below = behind_root(name, root);
    if (below == NULL || !is_same_file(fd, root_fd, below)) {
        return -ENOENT;
    }
    error = buf_append_string(out, prefix);
    return error != 0 ? error : percent_append_path(out, span_of_string(below));
}

int accel_location(int fd, const char *root, const char *prefix, struct buf *out)
{
    int root_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int error;

    if (root_fd < 0) {
        return -ENOENT;
    }
    error = location_in(fd, root_fd, prefix, out);
    close(root_fd);
    return error;
}
