/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_RELAY_ACCEL_H
#define SIDECAR_RELAY_ACCEL_H

/*
 * Where nginx finds a built file that it is to send itself: the value of X-Accel-Redirect. nginx
 * opens the file by its name, so the name is asked of the kernel, by the open descriptor: without
 * links, and only if the file still has it.
 */

#include "sidecar/base/buf.h"

/*
 * Appends prefix and the percent-encoded path below root of the open file. root may be a link
 * itself. 0, -ENOMEM, -ENOBUFS, or -ENOENT where the file has no name below root (any more).
 */
int accel_location(int fd, const char *root, const char *prefix, struct buf *out);

#endif
