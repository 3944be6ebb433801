/* SPDX-License-Identifier: MIT */
/*
 * The datagrams of sd_notify(3). Must never hold the parent up for long.
 */
#include "sidecar/notify.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sidecar/base/clock.h"

/* A manager that does not read is waited for so long where the message matters. */
#define SEND_WAIT_S 2

static void set_watchdog(struct notify *notify)
{
    const char *usec = getenv("WATCHDOG_USEC");
    const char *pid = getenv("WATCHDOG_PID");

    if (usec != NULL && (pid == NULL || strtol(pid, NULL, 10) == (long)getpid())) {
        notify->watchdog_ms = strtoull(usec, NULL, 10) / 1000;
    }
}

void notify_init(struct notify *notify)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct timeval wait = { .tv_sec = SEND_WAIT_S };
    size_t length = path == NULL ? 0 : strlen(path);

    *notify = (struct notify){ .fd = -1, .address = { .sun_family = AF_UNIX } };
    /* A path, or an abstract name, for which @ stands in place of the NUL. */
    if (length < 2 || length >= sizeof(notify->address.sun_path) ||
        (path[0] != '/' && path[0] != '@')) {
        return;
    }
    memcpy(notify->address.sun_path, path, length);
    if (path[0] == '@') {
        notify->address.sun_path[0] = '\0';
    }
    notify->length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    notify->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (notify->fd >= 0) {
        (void)setsockopt(notify->fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
        set_watchdog(notify);
    }
}

void notify_deinit(struct notify *notify)
{
    if (notify->fd >= 0) {
        close(notify->fd);
    }
    notify->fd = -1;
}

static void tell(const struct notify *notify, const char *text, int flags)
{
    if (notify->fd >= 0) {
        (void)sendto(notify->fd, text, strlen(text), flags | MSG_NOSIGNAL,
                     (const struct sockaddr *)&notify->address, notify->length);
    }
}

void notify_ready(struct notify *notify)
{
    tell(notify, "READY=1", 0);
}

void notify_reloading(struct notify *notify)
{
    char text[64];

    /* The time tells the manager that this answers its own signal (Type=notify-reload). */
    snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%llu",
             (unsigned long long)(clock_monotonic_ns() / 1000));
    tell(notify, text, 0);
}

void notify_stopping(struct notify *notify)
{
    tell(notify, "STOPPING=1", 0);
}

void notify_watchdog(struct notify *notify)
{
    tell(notify, "WATCHDOG=1", MSG_DONTWAIT);
}

void notify_status(struct notify *notify, const char *status)
{
    char text[sizeof(notify->status) + 16];

    if (notify->fd < 0 || strcmp(status, notify->status) == 0) {
        return;
    }
    snprintf(notify->status, sizeof(notify->status), "%s", status);
    snprintf(text, sizeof(text), "STATUS=%s", notify->status);
    tell(notify, text, MSG_DONTWAIT);
}
