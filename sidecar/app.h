/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_APP_H
#define SIDECAR_APP_H

/*
 * The child process: its threads and how they end. All the work is done here, with a configuration
 * that is fixed for the child's life.
 */

#include "sidecar/config.h"

struct app_init {
    const struct config *config;
    const int *listeners; /* open and listening; borrowed */
    size_t listener_count;
    size_t scgi_count; /* that many of them, the last ones, speak SCGI */
    int log_fd;        /* lines go here; nonblocking */
    int control_fd;    /* to the parent: a byte when ready; its end means that the parent is gone */
};

/*
 * Runs until TERM, QUIT, INT or the parent's end. Expects those signals to be blocked. Returns the
 * process's exit code: 0, or 71 when it cannot start (logged).
 */
int app_run(const struct app_init *init);

#endif
