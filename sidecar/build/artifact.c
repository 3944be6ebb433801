/* SPDX-License-Identifier: MIT */
/*
 * Opens what Velox named. It must never open anything outside of the roots, not even for a moment,
 * and never wait: the path comes from a peer, and the tree below a root belongs to others, who may
 * change it while it is walked.
 */
#include "sidecar/build/artifact.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "sidecar/build/artifact_walk.h"

#define OPENAT2_TRIES 8
#define READ_AHEAD_BYTES (4 * 1024 * 1024)

/* ---- the path as text ------------------------------------------------------------------------ */

/* The next component, without slashes; empty behind the last one. */
static struct span next_component(struct span *rest)
{
    struct span component;

    while (rest->len > 0 && rest->ptr[0] == '/') {
        span_skip(rest, 1);
    }
    component = span_of(rest->ptr, 0);
    while (component.len < rest->len && component.ptr[component.len] != '/') {
        component.len++;
    }
    span_skip(rest, component.len);
    return component;
}

/* "/a//./b" becomes "/a/b", so that prefixes can be compared; a slash or a "." at the end stays as
 * a slash, since it asks for a folder. */
bool artifact_path_text(struct span path, char text[PATH_MAX])
{
    struct span rest = path;
    struct span component;
    bool asks_for_folder = false;
    size_t used = 0;

    if (path.len == 0 || path.len >= PATH_MAX || path.ptr[0] != '/' ||
        memchr(path.ptr, '\0', path.len) != NULL) {
        return false;
    }
    while ((component = next_component(&rest)).len > 0) {
        if (span_is(component, "..")) {
            return false;
        }
        asks_for_folder = rest.len > 0; /* slashes, unless another component comes */
        if (span_is(component, ".")) {
            asks_for_folder = true;
            continue;
        }
        text[used++] = '/';
        memcpy(text + used, component.ptr, component.len);
        used += component.len;
    }
    if (used == 0 || asks_for_folder) {
        text[used++] = '/';
    }
    text[used] = '\0';
    return true;
}

/* What follows the prefix, with its slash or empty; NULL where whole components do not match. */
static const char *behind_prefix(const char *path, const char *prefix)
{
    size_t length = strlen(prefix);

    if (length > 0 && prefix[length - 1] == '/') {
        length--; /* "/" itself */
    }
    if (strncmp(path, prefix, length) != 0 || (path[length] != '/' && path[length] != '\0')) {
        return NULL;
    }
    return path + length;
}

/* The longest FROM that matches is replaced by its TO. False where the result is too long. */
static bool map_path(const struct artifact_options *options, char path[PATH_MAX])
{
    const struct path_mapping *best = NULL;
    char mapped[PATH_MAX];
    int length;

    for (size_t i = 0; i < options->mapping_count; i++) {
        const struct path_mapping *mapping = &options->mappings[i];

        if (behind_prefix(path, mapping->from) != NULL &&
            (best == NULL || strlen(mapping->from) > strlen(best->from))) {
            best = mapping;
        }
    }
    if (best == NULL) {
        return true;
    }
    length = snprintf(mapped, sizeof(mapped), "%s%s", strcmp(best->to, "/") == 0 ? "" : best->to,
                      behind_prefix(path, best->from));
    if (length < 0 || (size_t)length >= sizeof(mapped)) {
        return false;
    }
    memcpy(path, mapped[0] == '\0' ? "/" : mapped, mapped[0] == '\0' ? 2 : (size_t)length + 1);
    return true;
}

/* ---- opening below a root -------------------------------------------------------------------- */

static int open_by_kernel(int root_fd, const char *path, int flags)
{
    struct open_how how = {
        .flags = (unsigned)flags,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
    };

    for (int i = 0; i < OPENAT2_TRIES; i++) {
        long fd = syscall(SYS_openat2, root_fd, path, &how, sizeof(how));

        if (fd >= 0) {
            return (int)fd;
        }
        /* A rename or mount elsewhere while ".." in a link was walked: openat2(2) says try
         * again. */
        if (errno != EAGAIN && errno != EINTR) {
            break;
        }
    }
    return -errno;
}

/* What is no file is looked at, but not opened: that lets a FIFO's writer go on, and starts some
 * devices. It may be another one by the time it is opened, so the caller looks again. */
static int open_file_by_kernel(int root_fd, const char *path)
{
    int fd = open_by_kernel(root_fd, path, O_PATH | O_CLOEXEC);
    struct stat status;
    int error;

    if (fd < 0) {
        return fd;
    }
    error = fstat(fd, &status) != 0 ? -errno : artifact_check_mode(status.st_mode);
    close(fd);
    return error != 0 ? error : open_by_kernel(root_fd, path, ARTIFACT_OPEN_FLAGS);
}

/* Older kernels say ENOSYS; seccomp filters that do not know the call (old container runtimes) say
 * EPERM, which opening a file for reading does not. */
static bool lacks_openat2(int error)
{
    return error == -ENOSYS || error == -EPERM || error == -EINVAL || error == -E2BIG;
}

static int open_below(enum artifact_walk walk, int root_fd, const char *path)
{
    int fd;

    if (walk == ARTIFACT_BY_COMPONENT) {
        return artifact_walk_open(root_fd, path);
    }
    fd = open_file_by_kernel(root_fd, path);
    return lacks_openat2(fd) ? artifact_walk_open(root_fd, path) : fd;
}

static enum artifact_result result_of(int error)
{
    switch (-error) {
    case EXDEV:
    case ELOOP: /* a magic link, or links without end */
        return ARTIFACT_OUTSIDE_ROOT;
    case ENOENT:
    case ENOTDIR:
        return ARTIFACT_MISSING;
    case ENAMETOOLONG:
        return ARTIFACT_BAD_PATH;
    case EISDIR:
    case ENXIO: /* a socket, or a device without its hardware */
    case ENODEV:
        return ARTIFACT_NOT_REGULAR;
    default:
        return ARTIFACT_UNREADABLE;
    }
}

/* What procfs shows as files are questions to the kernel, about us above all. */
static bool is_of_kernel(int fd)
{
    struct statfs system;

    return fstatfs(fd, &system) != 0 || system.f_type == PROC_SUPER_MAGIC;
}

/* Takes fd. */
static enum artifact_result take_file(int fd, struct artifact *artifact, int *error)
{
    struct stat status;

    if (fstat(fd, &status) != 0) {
        *error = errno;
        close(fd);
        return ARTIFACT_UNREADABLE;
    }
    if (!S_ISREG(status.st_mode) || is_of_kernel(fd)) {
        close(fd);
        return ARTIFACT_NOT_REGULAR;
    }
    *artifact = (struct artifact){
        .fd = fd,
        .size_bytes = (uint64_t)status.st_size,
        .modified = status.st_mtim,
    };
    /* It will be sent from the begin: what is not in memory is on its way from the disk by then. */
    (void)posix_fadvise(fd, 0, READ_AHEAD_BYTES, POSIX_FADV_WILLNEED);
    return ARTIFACT_OPENED;
}

static enum artifact_result open_in_root(enum artifact_walk walk, const char *root,
                                         const char *below, struct artifact *artifact, int *error)
{
    int root_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd;

    if (root_fd < 0) {
        *error = errno;
        return result_of(-errno);
    }
    below += *below == '/';
    fd = open_below(walk, root_fd, *below == '\0' ? "." : below);
    close(root_fd);
    if (fd < 0) {
        *error = -fd;
        return result_of(fd);
    }
    return take_file(fd, artifact, error);
}

enum artifact_result artifact_open_by(enum artifact_walk walk,
                                      const struct artifact_options *options, struct span path,
                                      struct artifact *artifact, int *error)
{
    enum artifact_result result = ARTIFACT_OUTSIDE_ROOT;
    char text[PATH_MAX];

    *error = 0;
    if (!artifact_path_text(path, text) || !map_path(options, text)) {
        return ARTIFACT_BAD_PATH;
    }
    /* Roots may lie in one another: what a link leads out of one of them may lie in the next. */
    for (size_t i = 0; i < options->roots.count && result != ARTIFACT_OPENED; i++) {
        const char *below = behind_prefix(text, options->roots.items[i]);

        if (below != NULL) {
            result = open_in_root(walk, options->roots.items[i], below, artifact, error);
        }
    }
    if (result == ARTIFACT_OPENED) {
        *error = 0;
    }
    return result;
}

enum artifact_result artifact_open(const struct artifact_options *options, struct span path,
                                   struct artifact *artifact, int *error)
{
    return artifact_open_by(ARTIFACT_BY_KERNEL, options, path, artifact, error);
}

void artifact_close(struct artifact *artifact)
{
    if (artifact->fd >= 0) {
        close(artifact->fd);
        artifact->fd = -1;
    }
}

const char *artifact_result_text(enum artifact_result result)
{
    static const char *const texts[] = {
        [ARTIFACT_OPENED] = "opened",
        [ARTIFACT_BAD_PATH] = "not an absolute path without \"..\"",
        [ARTIFACT_OUTSIDE_ROOT] = "outside of every root",
        [ARTIFACT_MISSING] = "no such file",
        [ARTIFACT_UNREADABLE] = "cannot be opened",
        [ARTIFACT_NOT_REGULAR] = "not a regular file",
    };

    return texts[result];
}
