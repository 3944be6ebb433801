/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_SANDBOX_RULES_H
#define SIDECAR_SANDBOX_RULES_H

/* From a configuration to what Landlock allows. */

#include "sidecar/base/log.h"
#include "sidecar/config.h"
#include "sidecar/sandbox/landlock.h"
#include "sidecar/sandbox/watchlist.h"

/* Whether names of hosts are looked up after the start: a server, or artifact_url, has one. */
bool rules_need_names(const struct build_options *build);

/*
 * Adds all rules. What the configuration names and is not there stays closed, with a warning in the
 * log; what the system may lack is passed over. Either is added to known. 0 or -errno.
 */
int rules_add(struct landlock *landlock, const struct config *config, struct log *log,
              struct watchlist *known);

#endif
