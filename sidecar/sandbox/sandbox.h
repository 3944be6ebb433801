/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_SANDBOX_SANDBOX_H
#define SIDECAR_SANDBOX_SANDBOX_H

/*
 * What the child gives up before its threads begin: every file but those that its configuration
 * names, programs, listening, other processes. What the program never does, a mistake in it cannot
 * do either.
 */

#include "sidecar/base/log.h"
#include "sidecar/config.h"
#include "sidecar/sandbox/watchlist.h"

/*
 * Enters the sandbox as [sidecar] sandbox says, for good. To be called by the only thread, with
 * no_new_privs set, when everything is open that is opened once: token_file need not be readable
 * any more. Logs what is active, or what is missing. Adds to known what the rules hold for: when it
 * changes, only a new process sees what has come. 0; with sandbox = on -errno where a part is
 * missing (logged), else never an error.
 */
int sandbox_enter(const struct config *config, struct log *log, struct watchlist *known);

#endif
