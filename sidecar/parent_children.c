/* SPDX-License-Identifier: MIT */
/*
 * Children that start, speak, die and end. Must never start one more often than a machine can bear,
 * nor take the end of an old one for a reason to start another.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "sidecar/app.h"
#include "sidecar/parent_parts.h"

/* How long a child may take to say that it is ready. */
#define START_WAIT_MS 60000
/* How much longer than it may a child takes to end before it is killed: it is stuck then. */
#define END_WAIT_MS 30000

struct child *parent_find(struct parent *parent, enum child_role role)
{
    for (size_t i = 0; i < PARENT_CHILDREN_MAX; i++) {
        if (parent->children[i].pid > 0 && parent->children[i].role == role) {
            return &parent->children[i];
        }
    }
    return NULL;
}

unsigned parent_count(const struct parent *parent, enum child_role role)
{
    unsigned count = 0;

    for (size_t i = 0; i < PARENT_CHILDREN_MAX; i++) {
        count += parent->children[i].pid > 0 && parent->children[i].role == role;
    }
    return count;
}

static void close_but(const struct listeners *listeners, const struct listeners *kept)
{
    for (size_t i = 0; i < listeners->count; i++) {
        if (!listeners_have_fd(kept, listeners->items[i].fd)) {
            close(listeners->items[i].fd);
        }
    }
}

/* In a new child: a listener that it kept would never close, nor would the other children see our
 * end. */
static void on_fork(void *owner, const struct generation *generation)
{
    struct parent *parent = owner;

    for (size_t i = 0; i < PARENT_CHILDREN_MAX; i++) {
        child_close(&parent->children[i]);
    }
    close_but(&parent->current.listeners, &generation->listeners);
    close_but(&parent->next.listeners, &generation->listeners);
    log_sink_close(&parent->current.sink);
    log_sink_close(&parent->next.sink);
    log_pipe_close(&parent->own_lines);
    close(parent->log_fd);
    notify_deinit(&parent->notify);
    close(parent->signal_fd);
    free(parent->program);
    if (parent->trial.output_fd >= 0) {
        close(parent->trial.output_fd);
    }
}

int parent_start_child(struct parent *parent, const struct generation *generation)
{
    uint64_t watchdog_ms = parent->notify.watchdog_ms;
    struct child_start start = {
        .generation = generation,
        .on_fork = on_fork,
        .owner = parent,
    };
    int error = -ENOSPC;

    if (notify_is_on(&parent->notify)) {
        start.report_ms = watchdog_ms > 0 && watchdog_ms < 8000 ? (unsigned)watchdog_ms / 8 : 1000;
        start.stuck_ms = watchdog_ms > 0 ? (unsigned)(watchdog_ms / 2) : 0;
    }
    for (size_t i = 0; i < PARENT_CHILDREN_MAX; i++) {
        if (parent->children[i].pid == 0) {
            error = child_start(&parent->children[i], &start);
            parent->children[i].deadline_ms = parent_now_ms() + START_WAIT_MS;
            break;
        }
    }
    if (error != 0) {
        log_error(&parent->log, "cannot start a child", log_errno("error", error));
    }
    return error;
}

void parent_end_child(struct parent *parent, struct child *child, char order)
{
    uint64_t now = parent_now_ms();
    uint64_t allowed_ms = order == APP_STOP ? 0 : parent->current.config->shutdown_timeout_ms;

    child_order(child, order, now);
    if (child->deadline_ms == 0 || now + allowed_ms + END_WAIT_MS < child->deadline_ms) {
        child->deadline_ms = now + allowed_ms + END_WAIT_MS;
    }
}

static void log_death(struct parent *parent, pid_t pid, int status)
{
    if (WIFSIGNALED(status)) {
        log_error(&parent->log, "child died", log_int("pid", pid),
                  log_str("signal", strsignal(WTERMSIG(status))));
    } else {
        log_error(&parent->log, "child died", log_int("pid", pid),
                  log_int("exit_code", WEXITSTATUS(status)));
    }
}

/* When the child may be started again: at once, unless this was one death too many. */
static uint64_t restart_time_ms(struct parent *parent)
{
    uint64_t now = parent_now_ms();
    /* The ring's next place holds the death PARENT_DEATHS_MAX - 1 before this one. */
    uint64_t *place = &parent->deaths_ms[parent->deaths++ % PARENT_DEATHS_MAX];
    uint64_t earlier;

    *place = now;
    earlier = parent->deaths_ms[parent->deaths % PARENT_DEATHS_MAX];
    if (parent->deaths < PARENT_DEATHS_MAX || now - earlier > PARENT_DEATHS_WITHIN_MS) {
        return now;
    }
    log_error(&parent->log, "child dies again and again: waiting before the next start",
              log_uint("deaths", PARENT_DEATHS_MAX), log_uint("wait_ms", PARENT_RESTART_WAIT_MS));
    return now + PARENT_RESTART_WAIT_MS;
}

static bool is_clean(int status)
{
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* The reason is in the log, and trying again would not help. */
static bool cannot_start(const struct parent *parent, int status)
{
    return !parent->was_ready && WIFEXITED(status) && WEXITSTATUS(status) == EX_OSERR;
}

/* A child that was at work, or was to be. */
static void on_death(struct parent *parent, enum child_role role, int status)
{
    if (role == CHILD_STARTING && parent->is_changing) {
        parent_fail_change(parent);
    } else if (cannot_start(parent, status)) {
        parent->exit_code = EX_OSERR;
        parent->is_stopping = true;
    } else if (role != CHILD_STARTING || parent_find(parent, CHILD_SERVING) == NULL) {
        parent->restart_at_ms = restart_time_ms(parent);
    }
}

static void on_child_end(struct parent *parent, struct child *child, int status)
{
    enum child_role role = child->role;
    bool was_old = child_is_old(child);
    pid_t pid = child->pid;

    log_sink_pass(&parent->current.sink, &child->log);
    child_close(child);
    if (role == CHILD_CLOSING && parent->tell_by_ms > 0) {
        parent_tell_change(parent);
    }
    if (was_old && is_clean(status)) {
        log_info(&parent->log, "child ended", log_int("pid", pid));
        return;
    }
    if (!cannot_start(parent, status)) {
        log_death(parent, pid, status);
    }
    if (!was_old) {
        on_death(parent, role, status);
    }
}

void parent_reap(struct parent *parent)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == parent->trial.pid) {
            parent_on_trial_end(parent, status);
            continue;
        }
        for (size_t i = 0; i < PARENT_CHILDREN_MAX; i++) {
            if (parent->children[i].pid == pid) {
                on_child_end(parent, &parent->children[i], status);
                break;
            }
        }
    }
}

void parent_restart_child(struct parent *parent)
{
    if (parent->restart_at_ms == 0 || parent_now_ms() < parent->restart_at_ms ||
        parent->is_stopping || parent->is_changing) {
        return;
    }
    if (parent_start_child(parent, &parent->current) != 0) {
        parent->restart_at_ms = parent_now_ms() + 1000;
        return;
    }
    parent->restart_at_ms = 0;
    log_info(&parent->log, "child started",
             log_int("pid", parent_find(parent, CHILD_STARTING)->pid));
}

void parent_kill_overdue(struct parent *parent)
{
    uint64_t now = parent_now_ms();

    if (parent->trial.pid > 0 && now >= parent->trial.deadline_ms) {
        kill(parent->trial.pid, SIGKILL);
    }

    for (size_t i = 0; i < PARENT_CHILDREN_MAX; i++) {
        struct child *child = &parent->children[i];

        if (child->pid > 0 && child->deadline_ms > 0 && now >= child->deadline_ms) {
            log_error(&parent->log, "child killed: it takes too long",
                      log_str("to", child->role == CHILD_STARTING ? "start" : "end"),
                      log_int("pid", child->pid));
            kill(child->pid, SIGKILL);
            child->deadline_ms = 0;
        }
    }
}

static void on_ready(struct parent *parent, struct child *child)
{
    if (child->role != CHILD_STARTING) {
        return; /* it has been told to end meanwhile */
    }
    child->deadline_ms = 0;
    if (parent->is_changing) {
        parent_finish_change(parent);
    } else {
        parent_relieve(parent);
    }
    child->role = CHILD_SERVING;
    child->serving_since_ms = parent_now_ms();
    parent->next_status_ms = 0;
    if (!parent->was_ready) {
        parent->was_ready = true;
        notify_ready(&parent->notify);
    }
}

static void on_closed(struct parent *parent, struct child *child)
{
    child->role = CHILD_DRAINING;
    if (parent->tell_by_ms > 0) {
        parent_tell_change(parent);
    }
}

static void hear_child(struct parent *parent, struct child *child)
{
    if (child->pid == 0) {
        return;
    }
    log_sink_pass(&parent->current.sink, &child->log);
    switch (child_read(child, parent_now_ms())) {
    case APP_READY:
        on_ready(parent, child);
        break;
    case APP_CLOSED:
        on_closed(parent, child);
        break;
    case APP_OUTDATED:
        parent_on_outdated(parent, child);
        break;
    default:
        break;
    }
}

void parent_hear_children(struct parent *parent)
{
    for (size_t i = 0; i < PARENT_CHILDREN_MAX; i++) {
        hear_child(parent, &parent->children[i]);
    }
}
