/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_PARENT_PARTS_H
#define SIDECAR_PARENT_PARTS_H

/* What the files of the parent share; private to sidecar/parent*.c. */

#include "sidecar/child.h"
#include "sidecar/generation.h"
#include "sidecar/notify.h"
#include "sidecar/upgrade.h"

/* A child that dies this often within this time is started again only after a wait. */
#define PARENT_DEATHS_MAX 5
#define PARENT_DEATHS_WITHIN_MS 10000
#define PARENT_RESTART_WAIT_MS 10000
/* Old children that may drain at once; another reload waits for the first of them to end. */
#define PARENT_DRAINING_MAX 16
/* Those, one that closes, one that serves, one that starts. */
#define PARENT_CHILDREN_MAX (PARENT_DRAINING_MAX + 3)

/* What a signal or an outdated child has asked for; the greater one includes the lesser. */
enum parent_wish { WISH_NOTHING, WISH_RENEWAL, WISH_RELOAD, WISH_UPGRADE };

struct parent {
    const char *config_path;
    char **argv;
    char *program; /* the file that we run, owned; NULL: not known */
    struct upgrade_trial trial;
    struct generation current;
    struct generation next; /* is_changing: a child of it is starting */
    bool is_changing;
    uint64_t tell_by_ms; /* a change is told when the old child has closed, or then; 0: none */
    enum parent_wish wish;
    bool is_renewal;        /* the change to be told is no reload */
    uint64_t renewed_at_ms; /* when a child was last replaced since it was outdated; 0: never */
    bool is_wait_told;      /* that the wish waits for old children */
    struct log log;         /* the parent's own lines, through a pipe like a child's */
    int log_fd;
    struct log_pipe own_lines;
    struct notify notify;
    bool has_failed;     /* the last reload or upgrade */
    bool is_reload_told; /* the service manager waits for the end of a reload */
    uint64_t next_status_ms;
    uint64_t next_watchdog_ms;
    bool is_stuck_told;
    uint64_t next_group_ms; /* when PHP-FPM's socket is looked for again */
    int signal_fd;
    struct child children[PARENT_CHILDREN_MAX];
    uint64_t deaths_ms[PARENT_DEATHS_MAX]; /* times of the last deaths, a ring */
    unsigned deaths;
    uint64_t restart_at_ms; /* 0: no restart is waiting */
    bool was_ready;         /* any child was */
    bool is_stopping;
    int exit_code;
};

uint64_t parent_now_ms(void);

/* Passes the parent's own lines on to the log. */
void parent_flush_log(struct parent *parent);

/* ---- parent_children.c ---- */

/* The first child of the role; NULL: there is none. */
struct child *parent_find(struct parent *parent, enum child_role role);
unsigned parent_count(const struct parent *parent, enum child_role role);

/* 0 or -errno. The new child is one that starts. */
int parent_start_child(struct parent *parent, const struct generation *generation);

/* Orders the end of a child, which is killed if it takes much longer than it may. */
void parent_end_child(struct parent *parent, struct child *child, char order);

/* Takes what children have logged and told. */
void parent_hear_children(struct parent *parent);
/* Takes note of processes that have ended. */
void parent_reap(struct parent *parent);
/* Where a restart is due. */
void parent_restart_child(struct parent *parent);
/* Those that take too long to start or to end. */
void parent_kill_overdue(struct parent *parent);

/* ---- parent_reload.c ---- */

/* Begins what was wished for, unless something has to end first. */
void parent_begin_wish(struct parent *parent);
/* The child of the next generation is ready: it becomes the current one. */
void parent_finish_change(struct parent *parent);
/* The old child accepts no more: from here on everything is as the new configuration says. */
void parent_tell_change(struct parent *parent);
/* It died before. */
void parent_fail_change(struct parent *parent);

/* Of a reload or an upgrade: the service manager waits for its end. */
void parent_tell_failure(struct parent *parent);

/* A child that serves is outdated: another one of the same generation shall follow it. */
void parent_on_outdated(struct parent *parent, const struct child *child);
/* A child is about to serve, not by a reload: the one that it follows, if any, is to end. */
void parent_relieve(struct parent *parent);

/* ---- parent_upgrade.c ---- */

/* Tries the new program; parent_on_trial_end goes on. */
void parent_start_upgrade(struct parent *parent);
/* status is that of waitpid. Does not return where the new program takes over. */
void parent_on_trial_end(struct parent *parent, int status);
/* In the new program: takes what the old one hands over, and wishes for a reload. 0 or -errno. */
int parent_take_over(struct parent *parent, int fd);

/* ---- parent_status.c ---- */

/* Tells the service manager how we are, as often as it is to be told. */
void parent_tell_status(struct parent *parent);
/* The time of the next telling; 0: none. */
uint64_t parent_next_status_ms(const struct parent *parent);

#endif
