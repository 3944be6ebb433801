/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_NOTIFY_H
#define SIDECAR_NOTIFY_H

/*
 * Telling a service manager how we are: datagrams to the socket that $NOTIFY_SOCKET names, as
 * sd_notify(3) describes them. Without that variable every function does nothing.
 *
 * This is not done with libsystemd: the protocol is stable and a few lines long (the manual says so
 * and shows how), and the parent, which may be root, would get a library with compressors and
 * parsers into its address space.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

struct notify {
    int fd; /* -1: nobody to tell */
    struct sockaddr_un address;
    socklen_t length;
    uint64_t watchdog_ms; /* the manager acts when we are silent for so long; 0: never */
    char status[256];     /* the last one told */
};

void notify_init(struct notify *notify);
void notify_deinit(struct notify *notify);

static inline bool notify_is_on(const struct notify *notify)
{
    return notify->fd >= 0;
}

void notify_ready(struct notify *notify);
void notify_reloading(struct notify *notify);
void notify_stopping(struct notify *notify);
void notify_watchdog(struct notify *notify);
/* Tells it only when it differs from the last one. */
void notify_status(struct notify *notify, const char *status);

#endif
