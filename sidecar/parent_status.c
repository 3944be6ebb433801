/* SPDX-License-Identifier: MIT */
/*
 * What the service manager is told while we run: a line for its status, and that we are alive,
 * which must never be said of a child that makes no progress.
 */
#include <stdio.h>

#include "sidecar/parent_parts.h"

#define STATUS_MS 1000

static const char *plural(unsigned count)
{
    return count == 1 ? "" : "s";
}

/* "draining: 3 builds, 2 downloads, 41 s": all old children together, since the first began. */
static size_t print_draining(const struct parent *parent, char *text, size_t size)
{
    uint64_t since_ms = UINT64_MAX;
    unsigned builds = 0;
    unsigned downloads = 0;

    for (size_t i = 0; i < PARENT_CHILDREN_MAX; i++) {
        const struct child *child = &parent->children[i];

        if (child->pid > 0 && child_is_old(child)) {
            builds += child->report.builds;
            downloads += child->report.downloads;
            since_ms = child->draining_since_ms < since_ms ? child->draining_since_ms : since_ms;
        }
    }
    if (since_ms == UINT64_MAX) {
        return 0;
    }
    return (size_t)snprintf(text, size, "draining: %u build%s, %u download%s, %llu s", builds,
                            plural(builds), downloads, plural(downloads),
                            (unsigned long long)((parent_now_ms() - since_ms) / 1000));
}

static const char *idle_status(const struct parent *parent)
{
    return parent->restart_at_ms > 0 ? "waiting: the child dies again and again" : "starting";
}

static void print_status(struct parent *parent, char *text, size_t size)
{
    const struct child *child = parent_find(parent, CHILD_SERVING);
    const char *failure = parent->has_failed ? "; the last reload failed, see the log" : "";
    char draining[128] = "";
    size_t length = print_draining(parent, draining, sizeof(draining));
    const char *separator = length > 0 ? "; " : "";

    if (parent->is_stopping) {
        snprintf(text, size, "%s", draining);
    } else if (child != NULL) {
        snprintf(text, size, "serving: %u front%s, %u build%s%s%s%s", child->report.fronts,
                 plural(child->report.fronts), child->report.builds, plural(child->report.builds),
                 separator, draining, failure);
    } else {
        snprintf(text, size, "%s%s%s%s", idle_status(parent), separator, draining, failure);
    }
}

/* A child that starts or waits for its restart has its own clock. */
static bool makes_progress(struct parent *parent)
{
    const struct child *child = parent_find(parent, CHILD_SERVING);
    uint64_t now = parent_now_ms();
    uint64_t allowed_ms = parent->notify.watchdog_ms / 2;

    return child == NULL ||
           (!child->report.is_stuck && (child->report.received_ms + allowed_ms > now ||
                                        child->serving_since_ms + allowed_ms > now));
}

static void feed_watchdog(struct parent *parent)
{
    if (makes_progress(parent)) {
        notify_watchdog(&parent->notify);
        parent->is_stuck_told = false;
    } else if (!parent->is_stuck_told) {
        parent->is_stuck_told = true;
        log_error(&parent->log, "child makes no progress: the watchdog is not fed",
                  log_int("pid", parent_find(parent, CHILD_SERVING)->pid));
    }
}

void parent_tell_status(struct parent *parent)
{
    uint64_t now = parent_now_ms();
    char text[sizeof(parent->notify.status)];

    if (!notify_is_on(&parent->notify)) {
        return;
    }
    if (now >= parent->next_status_ms) {
        parent->next_status_ms = now + STATUS_MS;
        print_status(parent, text, sizeof(text));
        notify_status(&parent->notify, text);
    }
    if (parent->notify.watchdog_ms > 0 && now >= parent->next_watchdog_ms) {
        parent->next_watchdog_ms = now + parent->notify.watchdog_ms / 2;
        feed_watchdog(parent);
    }
}

uint64_t parent_next_status_ms(const struct parent *parent)
{
    if (!notify_is_on(&parent->notify)) {
        return 0;
    }
    return parent->notify.watchdog_ms > 0 && parent->next_watchdog_ms < parent->next_status_ms
               ? parent->next_watchdog_ms
               : parent->next_status_ms;
}
