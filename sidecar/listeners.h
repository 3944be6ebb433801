/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_LISTENERS_H
#define SIDECAR_LISTENERS_H

/*
 * The sockets that web servers connect to. The parent process opens them with the rights of the
 * start and keeps them, so that no child's end ever closes one.
 */

#include "sidecar/config.h"

struct listeners {
    int *fds;
    struct sock_address *addresses; /* of the same numbers; owned */
    size_t count;                   /* those of FastCGI first, then those of SCGI */
};

/*
 * Opens all listeners of the configuration. A socket file that nobody listens on is replaced; one
 * that answers means that another instance runs. On failure the reason is logged, nothing stays
 * open, and -errno is returned.
 */
int listeners_open(struct listeners *listeners, const struct config *config, struct log *log);

/* Closes them and removes the socket files. */
void listeners_close(struct listeners *listeners);

#endif
