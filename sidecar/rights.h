/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_RIGHTS_H
#define SIDECAR_RIGHTS_H

/* What the child gives up of the rights it is started with, before it touches a peer. */

#include "sidecar/config.h"

/*
 * Becomes the configured user and group with their supplementary groups and without capabilities,
 * for good: programs that are executed get none back. No core dumps, no other process of the same
 * user may look into the memory (it holds the token for Velox), and new files are nobody else's. A
 * process that stays root keeps root's capabilities. 0 or -errno.
 */
int rights_drop(const struct config *config);

/* The part of it that changes who we are, for root only: user, group, supplementary groups, and the
 * capabilities that programs could get back. 0 or -errno. */
int rights_become(const struct config *config);

/* Raises the limit of open files as far as it may be raised. Gives the limit. */
uint64_t rights_raise_files(void);

#endif
