/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_APP_H
#define SIDECAR_APP_H

/*
 * The child process: its threads and how they end. All the work is done here, with a configuration
 * that is fixed for the child's life.
 */

#include "sidecar/config.h"

/*
 * What parent and child tell each other. After an upgrade they are of different versions, so what
 * is said once stays: new words may come, and those that are not known are passed over.
 */

/* The parent's orders, a byte each: finish what has been received and end; end at once. */
#define APP_DRAIN 'D'
#define APP_STOP 'S'
/* What the child tells once, as soon as it accepts connections. */
#define APP_READY 'R'
/* The answer to APP_DRAIN: it accepts no more. */
#define APP_CLOSED 'C'
/* Files have been replaced that the sandbox lets it read: another child can, it cannot. */
#define APP_OUTDATED 'O'

struct app_init {
    const struct config *config;
    const int *listeners; /* open and listening; app_run closes them */
    size_t listener_count;
    size_t scgi_count; /* that many of them, the last ones, speak SCGI */
    int log_fd;        /* lines go here; nonblocking */
    /* To the parent: messages. We send APP_READY and reports, it sends orders; its end is an order
     * to drain. */
    int control_fd;
    unsigned report_ms; /* how often it wants a report; 0: never */
    unsigned stuck_ms;  /* a thread that has not answered for so long is reported; 0: none is */
};

/* Before the rights of the start are given up: makes the folders that the child may not make. What
 * fails here will be told by app_run. */
void app_prepare(const struct config *config);

/*
 * Runs until the parent orders the end, or ends itself. Signals that would end the process must be
 * blocked or ignored. Returns the process's exit code: 0, or 71 when it cannot start (logged).
 */
int app_run(const struct app_init *init);

#endif
