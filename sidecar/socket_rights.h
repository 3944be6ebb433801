/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_SOCKET_RIGHTS_H
#define SIDECAR_SOCKET_RIGHTS_H

/*
 * Who may connect to our unix sockets: owner, group and mode of the files. Without configuration it
 * is the group of PHP-FPM's socket, since the web server has used that one so far.
 */

#include "sidecar/config.h"

struct socket_rights {
    uid_t owner; /* (uid_t)-1: stays */
    gid_t group; /* (gid_t)-1: stays */
    unsigned mode;
    bool is_chosen;  /* the group is not configured: where it cannot be set, it stays */
    bool is_guessed; /* it may change: PHP-FPM's socket is not there yet */
};

/* What the configuration and the system ask for now. log, for warnings, may be NULL. */
struct socket_rights socket_rights_of(const struct config *config, struct log *log);

/* Sets them on the socket file of that name, and on nothing but a socket. 0 or -errno. */
int socket_rights_set(const struct socket_rights *rights, const char *path);

#endif
