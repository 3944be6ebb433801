/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BASE_PERCENT_H
#define SIDECAR_BASE_PERCENT_H

/* Percent-encoding of paths (RFC 3986 section 2.1). */

#include "sidecar/base/buf.h"

/* Appends path as the path of a URL: every byte is encoded except letters, digits, "-", ".", "_",
 * "~" and "/". 0, -ENOMEM or -ENOBUFS; part of it may have been appended then. */
int percent_append_path(struct buf *out, struct span path);

#endif
