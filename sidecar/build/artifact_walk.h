/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_ARTIFACT_WALK_H
#define SIDECAR_BUILD_ARTIFACT_WALK_H

/* What openat2 with RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS does, for kernels without it (before
 * 5.6). Only artifact.c uses it. */

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

/* O_NONBLOCK: opening a FIFO or a device must not wait. O_NOCTTY: a terminal must not become
 * ours. */
#define ARTIFACT_OPEN_FLAGS (O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)

/* 0 for a regular file; -EISDIR for a folder, -ENODEV for anything else. */
static inline int artifact_check_mode(mode_t mode)
{
    return S_ISREG(mode) ? 0 : S_ISDIR(mode) ? -EISDIR : -ENODEV;
}

/*
 * Opens path (relative, as far as root_fd is concerned) by one component after the other, none of
 * which may lead out of root_fd. A descriptor, or -errno: -EXDEV where it leads out, -ELOOP after
 * 40 links or at a link of procfs (which may be magic), -EISDIR or -ENODEV where it is no file.
 */
int artifact_walk_open(int root_fd, const char *path);

#endif
