/* SPDX-License-Identifier: MIT */
/*
 * The parent's loop, its signals, its begin and its end. Must never close a listener while the
 * service is meant to run, and must stay so simple that it cannot die itself.
 */
#include "sidecar/parent.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sysexits.h>
#include <unistd.h>

#include "sidecar/activation.h"
#include "sidecar/app.h"
#include "sidecar/base/clock.h"
#include "sidecar/parent_parts.h"
#include "sidecar/pid_file.h"

/* How often PHP-FPM's socket, whose group ours is to have, is looked for while it is not there. */
#define GROUP_RETRY_MS 1000

uint64_t parent_now_ms(void)
{
    return clock_monotonic_ns() / 1000000;
}

static bool has_children(const struct parent *parent)
{
    for (size_t i = 0; i < PARENT_CHILDREN_MAX; i++) {
        if (parent->children[i].pid > 0) {
            return true;
        }
    }
    return false;
}

void parent_flush_log(struct parent *parent)
{
    log_sink_pass(&parent->current.sink, &parent->own_lines);
}

/* ---- signals --------------------------------------------------------------------------------- */

static void stop(struct parent *parent, bool at_once)
{
    char order = at_once || parent->is_stopping ? APP_STOP : APP_DRAIN;

    if (!parent->is_stopping) {
        notify_stopping(&parent->notify);
        parent->next_status_ms = 0;
    }
    parent->is_stopping = true;
    parent->wish = WISH_NOTHING;
    parent->tell_by_ms = 0;
    upgrade_trial_end(&parent->trial);
    if (parent->is_changing) {
        parent->is_changing = false;
        generation_discard(&parent->next, &parent->current);
    }
    /* New connections are refused from here on, as those of a server that is down. */
    listeners_close(&parent->current.listeners);
    for (size_t i = 0; i < PARENT_CHILDREN_MAX; i++) {
        struct child *child = &parent->children[i];

        if (child->pid > 0 && (order == APP_STOP || !child_is_old(child))) {
            parent_end_child(parent, child, order);
        }
    }
}

static void reopen_log(struct parent *parent)
{
    int error = log_sink_reopen(&parent->current.sink);

    if (error != 0) {
        log_error(&parent->log, "cannot reopen the log file",
                  log_str("log_file", parent->current.config->log_file), log_errno("error", error));
    }
}

static void wish(struct parent *parent, enum parent_wish wanted)
{
    reopen_log(parent);
    if (!parent->is_stopping && parent->wish < wanted) {
        parent->wish = wanted;
    }
}

static void on_signal(struct parent *parent, int signal)
{
    switch (signal) {
    case SIGCHLD:
        parent_reap(parent);
        break;
    case SIGUSR1:
        reopen_log(parent);
        break;
    case SIGHUP:
        wish(parent, WISH_RELOAD);
        break;
    case SIGUSR2:
        wish(parent, WISH_UPGRADE);
        break;
    default:
        stop(parent, signal == SIGINT);
        break;
    }
}

static void read_signals(struct parent *parent)
{
    struct signalfd_siginfo signal;

    while (read(parent->signal_fd, &signal, sizeof(signal)) == (ssize_t)sizeof(signal)) {
        on_signal(parent, (int)signal.ssi_signo);
    }
}

static int open_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGQUIT);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    sigaddset(&set, SIGCHLD);
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0) {
        return -errno;
    }
    return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

/* ---- the loop -------------------------------------------------------------------------------- */

static void look_for_group(struct parent *parent)
{
    uint64_t now = parent_now_ms();

    if (parent->current.listeners.awaits_group && now >= parent->next_group_ms) {
        parent->next_group_ms = now + GROUP_RETRY_MS;
        listeners_retry_group(&parent->current.listeners, parent->current.config, &parent->log);
    }
}

/* at_ms 0: never. */
static void wake_at(uint64_t *wake_ms, uint64_t at_ms)
{
    if (at_ms > 0 && at_ms < *wake_ms) {
        *wake_ms = at_ms;
    }
}

static int poll_timeout_ms(const struct parent *parent)
{
    uint64_t now = parent_now_ms();
    uint64_t wake_ms = now + 3600000;

    wake_at(&wake_ms, parent->is_stopping ? 0 : parent->restart_at_ms);
    wake_at(&wake_ms, parent->current.listeners.awaits_group ? parent->next_group_ms : 0);
    wake_at(&wake_ms, parent->tell_by_ms);
    wake_at(&wake_ms, parent->trial.pid > 0 ? parent->trial.deadline_ms : 0);
    wake_at(&wake_ms, parent_next_status_ms(parent));
    for (size_t i = 0; i < PARENT_CHILDREN_MAX; i++) {
        wake_at(&wake_ms, parent->children[i].pid > 0 ? parent->children[i].deadline_ms : 0);
    }
    return wake_ms > now ? (int)(wake_ms - now) : 0;
}

static void wait_for_events(const struct parent *parent)
{
    struct pollfd fds[2 + 2 * PARENT_CHILDREN_MAX];
    nfds_t count = 0;

    fds[count++] = (struct pollfd){ .fd = parent->signal_fd, .events = POLLIN };
    fds[count++] = (struct pollfd){ .fd = parent->trial.output_fd, .events = POLLIN };
    for (size_t i = 0; i < PARENT_CHILDREN_MAX; i++) {
        const struct child *child = &parent->children[i];

        /* Their end is told by SIGCHLD; a pipe that is at its end would only keep us busy. */
        if (child->pid > 0) {
            fds[count++] = (struct pollfd){ .fd = child->log.fd, .events = POLLIN };
            fds[count++] = (struct pollfd){ .fd = child->control_fd, .events = POLLIN };
        }
    }
    (void)poll(fds, count, poll_timeout_ms(parent));
}

/* Whatever is due. */
static void act(struct parent *parent)
{
    parent_kill_overdue(parent);
    if (parent->tell_by_ms > 0 && parent_now_ms() >= parent->tell_by_ms) {
        parent_tell_change(parent);
    }
    parent_begin_wish(parent);
    parent_restart_child(parent);
    look_for_group(parent);
    parent_tell_status(parent);
    parent_flush_log(parent);
}

static void watch_over(struct parent *parent)
{
    parent_reap(parent); /* those whose signal another program image of ours got */
    act(parent);
    while (!parent->is_stopping || has_children(parent)) {
        wait_for_events(parent);
        parent_hear_children(parent);
        upgrade_trial_read(&parent->trial);
        read_signals(parent);
        act(parent);
    }
}

/* ---- begin and end --------------------------------------------------------------------------- */

/* Where the log file cannot be had the reason goes to standard error. */
static int open_log(struct parent *parent)
{
    const struct config *config = parent->current.config;
    int error = log_sink_open(&parent->current.sink, config->log_file,
                              config->has_user ? config->user : (uid_t)-1,
                              config->has_user ? config->group : (gid_t)-1);

    if (error != 0) {
        log_init(&parent->log, STDERR_FILENO, config->log_level, config->log_format);
        log_error(&parent->log, "cannot open the log file", log_str("log_file", config->log_file),
                  log_errno("error", error));
        return error;
    }
    error = log_pipe_open(&parent->own_lines, &parent->log_fd);
    if (error == 0) {
        log_init(&parent->log, parent->log_fd, config->log_level, config->log_format);
    }
    return error;
}

static int open_listeners(struct parent *parent)
{
    struct listeners passed = { .count = 0 };
    struct listeners listeners;
    int error = activation_take(&passed, &parent->log);

    if (error == -EINVAL) {
        parent->exit_code = EX_CONFIG;
    }
    if (error == 0) {
        error = listeners_open(&listeners, &passed, parent->current.config, &parent->log);
    }
    free(passed.items);
    if (error != 0) {
        return error;
    }
    parent->current.listeners = listeners;
    error = pid_file_write(parent->current.config->pid_file);
    if (error != 0) {
        log_error(&parent->log, "cannot write the pid file",
                  log_str("pid_file", parent->current.config->pid_file), log_errno("error", error));
    }
    return error;
}

/* What can fail before the first child; logged here. */
static int set_up(struct parent *parent, int handed_fd)
{
    int error;

    /* The reader of our standard error may go away; we do not. */
    (void)signal(SIGPIPE, SIG_IGN);
    parent->program = upgrade_own_name();
    error = open_log(parent);
    if (error != 0) {
        return error;
    }
    parent->signal_fd = open_signals();
    if (parent->signal_fd < 0) {
        return -errno;
    }
    if (handed_fd >= 0) {
        return parent_take_over(parent, handed_fd);
    }
    error = open_listeners(parent);
    return error != 0 ? error : parent_start_child(parent, &parent->current);
}

static void tear_down(struct parent *parent)
{
    for (size_t i = 0; i < PARENT_CHILDREN_MAX; i++) {
        child_close(&parent->children[i]);
    }
    listeners_close(&parent->current.listeners);
    parent_flush_log(parent);
    log_pipe_close(&parent->own_lines);
    if (parent->log_fd >= 0) {
        close(parent->log_fd);
    }
    log_sink_close(&parent->current.sink);
    config_free(parent->current.config);
    free(parent->program);
    notify_deinit(&parent->notify);
    if (parent->signal_fd >= 0) {
        close(parent->signal_fd);
    }
}

int parent_run(const char *config_path, struct config *config, char **argv)
{
    struct parent parent = {
        .config_path = config_path,
        .argv = argv,
        .trial = { .output_fd = -1 },
        .current = { .config = config, .sink = { .fd = -1 } },
        .next = { .sink = { .fd = -1 } },
        .log_fd = -1,
        .own_lines = { .fd = -1 },
        .signal_fd = -1,
    };
    int error;

    for (size_t i = 0; i < PARENT_CHILDREN_MAX; i++) {
        parent.children[i] = (struct child){ .log = { .fd = -1 }, .control_fd = -1 };
    }
    notify_init(&parent.notify);
    error = set_up(&parent, upgrade_handed_fd());
    if (error == 0) {
        watch_over(&parent);
        pid_file_remove(parent.current.config->pid_file);
    }
    tear_down(&parent);
    return error != 0 && parent.exit_code == 0 ? EX_OSERR : parent.exit_code;
}
