/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_UPGRADE_H
#define SIDECAR_UPGRADE_H

/*
 * Going on as another version of the program: the parent executes the file that now has our name,
 * in the same process, so that its children stay its children, and hands over what it holds. That
 * are descriptors, which stay open, and a text in a memory file that says what they are; an
 * environment variable names its descriptor. Before, the new program is tried in a process of its
 * own, so that one that does not run, or does not understand the text, changes nothing.
 *
 *     velox-sidecar-state 1
 *     version VERSION
 *     pid_file PATH
 *     listener FD fastcgi|scgi ACTIVATED DEVICE INODE ADDRESS
 *     child PID LOG_FD CONTROL_FD ROLE DRAINING_SINCE_MS DEADLINE_MS
 */

#include "sidecar/child.h"

/* What is handed over. */
struct upgrade_state {
    char version[32];
    char *pid_file; /* owned; NULL: none */
    struct listeners listeners;
    struct child *children; /* room for max_children, borrowed; free ones have the pid 0 */
    size_t max_children;
};

/* The try of the new program. */
struct upgrade_trial {
    pid_t pid; /* 0: none runs */
    int output_fd;
    struct buf output; /* what it says */
    uint64_t deadline_ms;
};

/* The name of the file that runs as us, absolute and as it was given, so that a link may come to
 * lead elsewhere. To be freed; NULL where it cannot be told. Call it at the start, before the file
 * may have been replaced. */
char *upgrade_own_name(void);

/*
 * Runs `program -t -c config_path` with the state that it would get. 0 or -errno. When the process
 * has ended, its exit code 0 means that it would go on.
 */
int upgrade_trial_start(struct upgrade_trial *trial, const char *program, const char *config_path,
                        const struct upgrade_state *state);
/* Reads what has come. */
void upgrade_trial_read(struct upgrade_trial *trial);
/* Kills it where it still runs, and forgets it. */
void upgrade_trial_end(struct upgrade_trial *trial);

/* Becomes the program. Returns only where that fails, with -errno and nothing changed. */
int upgrade_execute(const char *program, char **argv, const struct upgrade_state *state);

/*
 * The descriptor of the state that we have been handed, or -1 when there is none: an ordinary
 * start. It is told once.
 */
int upgrade_handed_fd(void);
/* In a trial, which is not handed the descriptors themselves: reads all of the text, since after
 * the exec it would be too late, and closes fd. 0 or -EPROTO. */
int upgrade_check(int fd);
/*
 * Reads it and closes fd; fills state, whose children must be free ones and which the caller takes
 * apart. 0; -EPROTO when it is of a version that we do not know; another -errno. The pid file and
 * listeners are to be freed in any case.
 */
int upgrade_read(int fd, struct upgrade_state *state);

#endif
