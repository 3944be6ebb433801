/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_PARENT_H
#define SIDECAR_PARENT_H

/*
 * The parent process: it keeps the listeners, the log and the rights of the start, and sees to it
 * that a child is at work. It never touches a connection.
 */

#include "sidecar/config.h"

/*
 * Runs the service until it is told to stop. Borrows config, and config_path and argv, of which it
 * was read and with which the program was started. Returns the process's exit code: 0, or 71 when
 * it cannot start (logged).
 */
int parent_run(const char *config_path, const struct config *config, char **argv);

#endif
