/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_LOG_SINK_H
#define SIDECAR_LOG_SINK_H

/*
 * Where log lines end up. The parent owns the file; children write their lines into pipes, so that
 * after a rotation even an old child's lines go into the new file.
 */

#include "fcgi/span.h"

enum log_sink_kind { LOG_SINK_STDERR, LOG_SINK_SYSLOG, LOG_SINK_FILE };

struct log_sink {
    enum log_sink_kind kind;
    const char *path; /* borrowed */
    int fd;           /* stderr or the file; what parent's own struct log writes to */
};

/* target is [sidecar] log_file. 0 or -errno: the file cannot be opened. */
int log_sink_open(struct log_sink *sink, const char *target);
/* Opens the file again under its name; on failure -errno, and the old one stays. */
int log_sink_reopen(struct log_sink *sink);
void log_sink_close(struct log_sink *sink);

/* Writes whole lines. */
void log_sink_write(const struct log_sink *sink, struct span lines);

#endif
