/* SPDX-License-Identifier: MIT */
/*
 * The parent's loop: children that start, die and end, and signals. Must never close a listener
 * while the service is meant to run, and must stay so simple that it cannot die itself.
 */
#include "sidecar/parent.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "sidecar/app.h"
#include "sidecar/base/clock.h"
#include "sidecar/parent_parts.h"
#include "sidecar/pid_file.h"

/* How long a child may take to say that it is ready. */
#define START_WAIT_MS 60000
/* How much longer than it may a child takes to end before it is killed: it is stuck then. */
#define END_WAIT_MS 30000
/* How often PHP-FPM's socket, whose group ours is to have, is looked for while it is not there. */
#define GROUP_RETRY_MS 1000

uint64_t parent_now_ms(void)
{
    return clock_monotonic_ns() / 1000000;
}

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

static bool has_children(const struct parent *parent)
{
    for (size_t i = 0; i < PARENT_CHILDREN_MAX; i++) {
        if (parent->children[i].pid > 0) {
            return true;
        }
    }
    return false;
}

static bool is_old(const struct child *child)
{
    return child->role == CHILD_CLOSING || child->role == CHILD_DRAINING;
}

void parent_flush_log(struct parent *parent)
{
    log_sink_pass(&parent->current.sink, &parent->own_lines);
}

/* ---- children -------------------------------------------------------------------------------- */

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
    } else {
        parent->restart_at_ms = restart_time_ms(parent);
    }
}

static void on_child_end(struct parent *parent, struct child *child, int status)
{
    enum child_role role = child->role;
    bool was_old = is_old(child);
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

static void reap(struct parent *parent)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        for (size_t i = 0; i < PARENT_CHILDREN_MAX; i++) {
            if (parent->children[i].pid == pid) {
                on_child_end(parent, &parent->children[i], status);
                break;
            }
        }
    }
}

static void restart_child(struct parent *parent)
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

static void kill_overdue(struct parent *parent)
{
    uint64_t now = parent_now_ms();

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
    }
    child->role = CHILD_SERVING;
    child->serving_since_ms = parent_now_ms();
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
    default:
        break;
    }
}

/* ---- signals --------------------------------------------------------------------------------- */

static void stop(struct parent *parent, bool at_once)
{
    char order = at_once || parent->is_stopping ? APP_STOP : APP_DRAIN;

    if (!parent->is_stopping) {
        notify_stopping(&parent->notify);
    }
    parent->is_stopping = true;
    parent->wish = WISH_NOTHING;
    parent->tell_by_ms = 0;
    if (parent->is_changing) {
        parent->is_changing = false;
        generation_discard(&parent->next, &parent->current);
    }
    /* New connections are refused from here on, as those of a server that is down. */
    listeners_close(&parent->current.listeners);
    for (size_t i = 0; i < PARENT_CHILDREN_MAX; i++) {
        struct child *child = &parent->children[i];

        if (child->pid > 0 && (order == APP_STOP || !is_old(child))) {
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
        reap(parent);
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
    wake_at(&wake_ms, parent_next_status_ms(parent));
    for (size_t i = 0; i < PARENT_CHILDREN_MAX; i++) {
        wake_at(&wake_ms, parent->children[i].pid > 0 ? parent->children[i].deadline_ms : 0);
    }
    return wake_ms > now ? (int)(wake_ms - now) : 0;
}

static void wait_for_events(const struct parent *parent)
{
    struct pollfd fds[1 + 2 * PARENT_CHILDREN_MAX];
    nfds_t count = 0;

    fds[count++] = (struct pollfd){ .fd = parent->signal_fd, .events = POLLIN };
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

static void watch_over(struct parent *parent)
{
    while (!parent->is_stopping || has_children(parent)) {
        parent_flush_log(parent);
        wait_for_events(parent);
        for (size_t i = 0; i < PARENT_CHILDREN_MAX; i++) {
            hear_child(parent, &parent->children[i]);
        }
        read_signals(parent);
        kill_overdue(parent);
        if (parent->tell_by_ms > 0 && parent_now_ms() >= parent->tell_by_ms) {
            parent_tell_change(parent);
        }
        parent_begin_wish(parent);
        restart_child(parent);
        look_for_group(parent);
        parent_tell_status(parent);
    }
}

/* ---- begin and end --------------------------------------------------------------------------- */

/* Where the log file cannot be had the reason goes to standard error. */
static int open_log(struct parent *parent)
{
    const struct config *config = parent->current.config;
    int error = log_sink_open(&parent->current.sink, config->log_file);

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

/* What can fail before the first child; logged here. */
static int set_up(struct parent *parent)
{
    const struct listeners none = { .count = 0 };
    struct listeners listeners;
    int error;

    /* The reader of our standard error may go away; we do not. */
    (void)signal(SIGPIPE, SIG_IGN);
    error = open_log(parent);
    if (error != 0) {
        return error;
    }
    parent->signal_fd = open_signals();
    if (parent->signal_fd < 0) {
        return -errno;
    }
    error = listeners_open(&listeners, &none, parent->current.config, &parent->log);
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
    error = set_up(&parent);
    if (error == 0) {
        error = parent_start_child(&parent, &parent.current);
    }
    if (error == 0) {
        watch_over(&parent);
        pid_file_remove(parent.current.config->pid_file);
    }
    tear_down(&parent);
    return error != 0 ? EX_OSERR : parent.exit_code;
}
