/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_LISTENERS_H
#define SIDECAR_LISTENERS_H

/*
 * The sockets that web servers connect to. The parent process opens them with the rights of the
 * start and keeps them, so that no child's end ever closes one, and a reload passes on those that
 * stay, with the connections that wait in them.
 */

#include "sidecar/config.h"

struct listener {
    int fd;
    bool is_scgi;
    bool is_activated; /* the service manager's: used as it is, and its file never removed */
    /* The socket file as we made it: another file of that name is somebody else's. */
    dev_t device;
    ino_t inode;
    struct sock_address address;
};

struct listeners {
    struct listener *items; /* those of FastCGI first, then those of SCGI */
    size_t count;
    bool awaits_group; /* the group was guessed, since PHP-FPM's socket is not there yet */
};

/*
 * Gives the listeners of the configuration: those that are in current already stay what they are
 * (their descriptors are then in both), the others are opened. What a service manager passed
 * replaces the configured list of its kind. A socket file that nobody listens on is replaced; one
 * that answers means that another instance runs. On failure the reason is logged, nothing new stays
 * open, and -errno is returned.
 */
int listeners_open(struct listeners *listeners, const struct listeners *current,
                   const struct config *config, struct log *log);

/* Gives up what listeners_open has opened beyond current. */
void listeners_abandon(struct listeners *listeners, const struct listeners *current);

/* next takes the place of current, whose dropped listeners are closed and their files removed. */
void listeners_replace(struct listeners *current, struct listeners *next);

/* Sets owner, group, mode and backlog of those that were open before; failures are logged. */
void listeners_apply(struct listeners *listeners, const struct config *config, struct log *log);

/* Where awaits_group: sets the group again, and clears awaits_group when PHP-FPM's socket is
 * there. */
void listeners_retry_group(struct listeners *listeners, const struct config *config,
                           struct log *log);

/* Closes them and removes the socket files. */
void listeners_close(struct listeners *listeners);

/* Adds one at its place in the order; takes the descriptor. 0 or -ENOMEM. */
int listeners_add(struct listeners *listeners, const struct listener *listener);

size_t listeners_scgi_count(const struct listeners *listeners);
bool listeners_have_fd(const struct listeners *listeners, int fd);

#endif
