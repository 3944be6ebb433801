/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_LOG_SINK_H
#define SIDECAR_LOG_SINK_H

/*
 * Where log lines end up. The parent owns the file; children write their lines into pipes, and so
 * does the parent itself, so that after a rotation even an old child's lines go into the new file.
 */

#include <sys/types.h>

#include "sidecar/base/buf.h"

enum log_sink_kind { LOG_SINK_STDERR, LOG_SINK_SYSLOG, LOG_SINK_FILE };

struct log_sink {
    enum log_sink_kind kind;
    const char *path; /* borrowed */
    int fd;           /* the file's or that of standard error; -1 for syslog */
    uid_t owner;      /* whom root gives a new file to; (uid_t)-1: nobody */
    gid_t group;
};

/* target is [sidecar] log_file, borrowed. A file that is made goes to owner and group where we are
 * root: they rotate it (logrotate's `su`). 0 or -errno: the file cannot be opened; -EPERM where
 * root would follow a link that somebody else has made. */
int log_sink_open(struct log_sink *sink, const char *target, uid_t owner, gid_t group);
/* Opens the file again under its name; on failure -errno, and the old one stays. */
int log_sink_reopen(struct log_sink *sink);
void log_sink_close(struct log_sink *sink);

/* The parent's end of a pipe that lines come through. */
struct log_pipe {
    int fd;          /* -1: none */
    struct buf line; /* the begin of a line that has not come whole */
};

/* Gives the writer's end, which is nonblocking, in *writer. 0 or -errno. */
int log_pipe_open(struct log_pipe *pipe, int *writer);
/* Of a pipe that another process image has opened; takes fd. */
void log_pipe_adopt(struct log_pipe *pipe, int fd);
void log_pipe_close(struct log_pipe *pipe);

/* Passes on what has come, a full pipe at most, whole lines at a time, so that no two writers'
 * lines mix. */
void log_sink_pass(const struct log_sink *sink, struct log_pipe *pipe);

#endif
