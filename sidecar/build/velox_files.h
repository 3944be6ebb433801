/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_VELOX_FILES_H
#define SIDECAR_BUILD_VELOX_FILES_H

/* The files that the configuration names for the talk with Velox. Only velox.c uses it. */

#include "sidecar/base/buf.h"
#include "sidecar/base/log.h"

/* Appends a whole file to content, within its maximum. 0, -ENOMEM, or -EINVAL where it cannot be
 * read, is too large or is empty, which is logged under the key's name. */
int velox_read_file(struct log *log, const char *key, const char *path, struct buf *content);

/* Appends "Authorization: Bearer …" and a NUL: the token that is all of the file but white space at
 * its end. Errors as above; a token that could end the header line is refused too. */
int velox_read_token(struct log *log, const char *path, struct buf *header);

#endif
