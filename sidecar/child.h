/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_CHILD_H
#define SIDECAR_CHILD_H

/*
 * The parent's view of one child process. Its log lines come through a pipe, its reports through a
 * socket pair, and orders go the other way (sidecar/app.h).
 */

#include <sys/types.h>

#include "sidecar/generation.h"

enum child_role {
    CHILD_STARTING, /* has not said that it is ready */
    CHILD_SERVING,
    CHILD_CLOSING,  /* was told to end, and has not said yet that it accepts no more */
    CHILD_DRAINING, /* was told to end: another one serves, or the service stops */
};

/* What a child tells about itself, where it was asked to. */
struct child_report {
    uint64_t received_ms; /* when the last one came; 0: none */
    unsigned fronts;
    unsigned builds;
    unsigned downloads;
    bool is_stuck; /* some thread of it makes no progress */
};

struct child {
    pid_t pid; /* 0: none */
    enum child_role role;
    struct log_pipe log;
    int control_fd;
    uint64_t deadline_ms;       /* when it is killed; 0: never */
    uint64_t serving_since_ms;  /* in CHILD_SERVING */
    uint64_t draining_since_ms; /* in CHILD_CLOSING and CHILD_DRAINING */
    struct child_report report;
};

struct child_start {
    const struct generation *generation;
    unsigned report_ms; /* 0: no reports */
    unsigned stuck_ms;  /* a thread that has not answered for so long is reported as stuck */
    /* In the child: closes whatever of the parent's the child must not keep. */
    void (*on_fork)(void *owner, const struct generation *generation);
    void *owner;
};

/*
 * Starts a process that becomes the configured user and runs the service (app_run); never returns
 * in it. 0 or -errno.
 */
int child_start(struct child *child, const struct child_start *start);

/* Whether it was told to end. */
static inline bool child_is_old(const struct child *child)
{
    return child->role == CHILD_CLOSING || child->role == CHILD_DRAINING;
}

/* The end of it has been seen, or is left to another process image: closes our ends. */
void child_close(struct child *child);

/* Sends APP_DRAIN or APP_STOP, and notes that it closes. One that takes no order is killed. */
void child_order(struct child *child, char order, uint64_t now_ms);

/* Reads what it has told: APP_READY, APP_CLOSED or APP_OUTDATED, or 0 where it was only a report or
 * nothing. */
char child_read(struct child *child, uint64_t now_ms);

#endif
