/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_GENERATION_H
#define SIDECAR_GENERATION_H

/*
 * What a child is started with: a configuration, and the listeners and the log that belong to it. A
 * reload makes the next generation beside the current one, and either it takes its place as a whole
 * or nothing has changed.
 */

#include "sidecar/listeners.h"
#include "sidecar/log_sink.h"

struct generation {
    struct config *config; /* owned; NULL: there is none */
    struct listeners listeners;
    struct log_sink sink;
};

/*
 * Reads the configuration at path, opens its log file and those of its listeners that current does
 * not have. 0, or -errno with nothing changed and the reasons logged, the configuration's mistakes
 * one line each.
 */
int generation_prepare(struct generation *next, const struct generation *current, const char *path,
                       struct log *log);

/* Undoes generation_prepare. */
void generation_discard(struct generation *next, const struct generation *current);

/*
 * next takes the place of current: what current does not share with it is closed, and the socket
 * files and the pid file become as the new configuration says. What fails of that is logged.
 */
void generation_replace(struct generation *current, struct generation *next, struct log *log);

#endif
