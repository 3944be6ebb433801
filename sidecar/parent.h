/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_PARENT_H
#define SIDECAR_PARENT_H

/*
 * The parent process: it keeps the listeners, the log and the rights of the start, and sees to it
 * that a child is at work. It never touches a connection.
 */

#include "sidecar/config.h"

/*
 * Runs the service until it is told to stop. Takes config, which was read from config_path; borrows
 * config_path and argv, with which the program was started and will be started again at an upgrade.
 * Returns the process's exit code: 0, 71 when it cannot start, or 78 when a service manager passed
 * sockets that it cannot use (logged).
 */
int parent_run(const char *config_path, struct config *config, char **argv);

#endif
