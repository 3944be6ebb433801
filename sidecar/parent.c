/* SPDX-License-Identifier: MIT */
/*
 * One child at a time, started again when it dies. Must never close a listener while the service is
 * meant to run, and must stay so simple that it cannot die itself.
 */
#include "sidecar/parent.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "sidecar/app.h"
#include "sidecar/base/buf.h"
#include "sidecar/base/clock.h"
#include "sidecar/listeners.h"
#include "sidecar/log_sink.h"

/* A child that dies this often within this time is started again only after a wait. */
#define DEATHS_MAX 5
#define DEATHS_WITHIN_MS 10000
#define RESTART_WAIT_MS 10000
/* Room for log lines of a child while the parent is busy. */
#define LOG_PIPE_BYTES (1024 * 1024)
#define LOG_HELD_MAX ((size_t)64 * 1024)

struct child {
    pid_t pid; /* 0: none */
    int log_fd;
    int control_fd;
    bool is_ready;
    struct buf line; /* the begin of a line that has not come whole */
};

struct parent {
    const struct config *config;
    struct log_sink sink;
    struct log log; /* the parent's own lines */
    struct listeners listeners;
    int signal_fd;
    struct child child;
    uint64_t deaths_ms[DEATHS_MAX]; /* times of the last deaths, a ring */
    unsigned deaths;
    uint64_t restart_at_ms; /* 0: no restart is waiting */
    bool was_ready;         /* any child was */
    bool is_stopping;
    int exit_code;
};

static uint64_t now_ms(void)
{
    return clock_monotonic_ns() / 1000000;
}

/* ---- in the child ------------------------------------------------------------------------------
 * */

static int drop_rights(const struct config *config)
{
    /* Started as somebody else there is nothing to drop; the configuration's check has warned. */
    if (geteuid() == 0) {
        if (config->has_user && initgroups(config->user_name, config->group) != 0) {
            return -errno;
        }
        if ((config->has_user || config->has_group) && setgid(config->group) != 0) {
            return -errno;
        }
        if (config->has_user && setuid(config->user) != 0) {
            return -errno;
        }
    }
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 ? 0 : -errno;
}

static int child_main(struct parent *parent, int log_fd, int control_fd)
{
    struct rlimit no_core = { 0, 0 };
    struct app_init init = {
        .config = parent->config,
        .listeners = parent->listeners.fds,
        .listener_count = parent->listeners.count,
        .scgi_count = parent->config->listen.scgi_count,
        .log_fd = log_fd,
        .control_fd = control_fd,
    };
    struct log log;
    int error;

    close(parent->signal_fd);
    (void)setrlimit(RLIMIT_CORE, &no_core);
    error = drop_rights(parent->config);
    if (error != 0) {
        log_init(&log, log_fd, LOG_INFO, parent->config->log_format);
        log_error(&log, "cannot become the configured user and group",
                  log_str("user", parent->config->user_name), log_errno("error", error));
        return EX_OSERR;
    }
    return app_run(&init);
}

/* ---- in the parent -----------------------------------------------------------------------------
 * */

static int open_channels(int log_fds[2], int control_fds[2])
{
    if (pipe2(log_fds, O_CLOEXEC | O_NONBLOCK) != 0) {
        return -errno;
    }
    (void)fcntl(log_fds[0], F_SETPIPE_SZ, LOG_PIPE_BYTES);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, control_fds) != 0) {
        int error = -errno;

        close(log_fds[0]);
        close(log_fds[1]);
        return error;
    }
    return 0;
}

static void close_channels(const int log_fds[2], const int control_fds[2], unsigned side)
{
    close(log_fds[side]);
    close(control_fds[side]);
}

static int start_child(struct parent *parent)
{
    struct child *child = &parent->child;
    int log_fds[2];
    int control_fds[2];
    int error = open_channels(log_fds, control_fds);
    pid_t pid;

    if (error != 0) {
        return error;
    }
    pid = fork();
    if (pid < 0) {
        error = -errno;
        close_channels(log_fds, control_fds, 0);
        close_channels(log_fds, control_fds, 1);
        return error;
    }
    if (pid == 0) {
        close_channels(log_fds, control_fds, 0);
        parent->exit_code = child_main(parent, log_fds[1], control_fds[1]);
        exit(parent->exit_code);
    }
    close_channels(log_fds, control_fds, 1);
    *child = (struct child){ .pid = pid, .log_fd = log_fds[0], .control_fd = control_fds[0] };
    buf_init(&child->line, LOG_HELD_MAX);
    return 0;
}

/* Passes whole lines on, so that no two children's lines mix. */
static void pass_log_lines(struct parent *parent, struct span bytes)
{
    struct child *child = &parent->child;
    const uint8_t *last = memrchr(bytes.ptr, '\n', bytes.len);
    struct span lines;

    if (last == NULL) {
        (void)buf_append_span(&child->line, bytes);
        return;
    }
    lines = span_take(&bytes, (size_t)(last - bytes.ptr) + 1);
    log_sink_write(&parent->sink, buf_span(&child->line));
    log_sink_write(&parent->sink, lines);
    buf_clear(&child->line);
    if (bytes.len > 0) {
        (void)buf_append_span(&child->line, bytes);
    }
}

static void read_log(struct parent *parent)
{
    uint8_t bytes[16384];
    ssize_t got;

    while ((got = read(parent->child.log_fd, bytes, sizeof(bytes))) > 0) {
        pass_log_lines(parent, span_of(bytes, (size_t)got));
    }
}

static void read_control(struct parent *parent)
{
    char order;

    if (recv(parent->child.control_fd, &order, 1, MSG_DONTWAIT) == 1) {
        parent->child.is_ready = true;
        parent->was_ready = true;
    }
}

static void forget_child(struct parent *parent)
{
    struct child *child = &parent->child;

    read_control(parent);
    read_log(parent);
    close(child->log_fd);
    close(child->control_fd);
    buf_deinit(&child->line);
    *child = (struct child){ .pid = 0, .log_fd = -1, .control_fd = -1 };
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
    uint64_t now = now_ms();
    /* The ring's next place holds the death DEATHS_MAX - 1 before this one. */
    uint64_t *place = &parent->deaths_ms[parent->deaths++ % DEATHS_MAX];
    uint64_t earlier;

    *place = now;
    earlier = parent->deaths_ms[parent->deaths % DEATHS_MAX];
    if (parent->deaths < DEATHS_MAX || now - earlier > DEATHS_WITHIN_MS) {
        return now;
    }
    log_error(&parent->log, "child dies again and again: waiting before the next start",
              log_uint("deaths", DEATHS_MAX), log_uint("wait_ms", RESTART_WAIT_MS));
    return now + RESTART_WAIT_MS;
}

static void on_child_end(struct parent *parent, pid_t pid, int status)
{
    forget_child(parent);
    if (parent->is_stopping) {
        return;
    }
    if (!parent->was_ready && WIFEXITED(status) && WEXITSTATUS(status) == EX_OSERR) {
        /* It cannot start: the reason is in the log, and trying again would not help. */
        parent->exit_code = EX_OSERR;
        parent->is_stopping = true;
        return;
    }
    log_death(parent, pid, status);
    parent->restart_at_ms = restart_time_ms(parent);
}

static void restart_child(struct parent *parent)
{
    int error;

    if (parent->restart_at_ms == 0 || now_ms() < parent->restart_at_ms || parent->is_stopping) {
        return;
    }
    error = start_child(parent);
    if (error != 0) {
        log_error(&parent->log, "cannot start a child", log_errno("error", error));
        parent->restart_at_ms = now_ms() + 1000;
        return;
    }
    parent->restart_at_ms = 0;
    log_info(&parent->log, "child started", log_int("pid", parent->child.pid));
}

static void reap(struct parent *parent)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == parent->child.pid) {
            on_child_end(parent, pid, status);
        }
    }
}

static void stop(struct parent *parent, bool at_once)
{
    char order = at_once || parent->is_stopping ? APP_STOP : APP_DRAIN;

    parent->is_stopping = true;
    /* New connections are refused from here on, as those of a server that is down. */
    listeners_close(&parent->listeners);
    if (parent->child.pid > 0 && write(parent->child.control_fd, &order, 1) != 1) {
        kill(parent->child.pid, SIGKILL); /* it has left hundreds of orders unread */
    }
}

static void on_signal(struct parent *parent, int signal)
{
    int error;

    switch (signal) {
    case SIGCHLD:
        reap(parent);
        break;
    case SIGUSR1:
        error = log_sink_reopen(&parent->sink);
        if (error != 0) {
            log_error(&parent->log, "cannot reopen the log file",
                      log_str("log_file", parent->config->log_file), log_errno("error", error));
        }
        break;
    case SIGHUP:
    case SIGUSR2:
        log_warn(&parent->log, "this version cannot reload or upgrade in place: restart it",
                 log_str("signal", strsignal(signal)));
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

static int poll_timeout_ms(const struct parent *parent)
{
    uint64_t now = now_ms();

    if (parent->restart_at_ms == 0) {
        return -1;
    }
    return parent->restart_at_ms > now ? (int)(parent->restart_at_ms - now) : 0;
}

static void watch_over(struct parent *parent)
{
    while (!parent->is_stopping || parent->child.pid > 0) {
        struct pollfd fds[3] = {
            { .fd = parent->signal_fd, .events = POLLIN },
            { .fd = parent->child.pid > 0 ? parent->child.log_fd : -1, .events = POLLIN },
            { .fd = parent->child.pid > 0 && !parent->child.is_ready ? parent->child.control_fd
                                                                     : -1,
              .events = POLLIN },
        };

        (void)poll(fds, 3, poll_timeout_ms(parent));
        if ((fds[1].revents & POLLIN) != 0) {
            read_log(parent);
        }
        if ((fds[2].revents & POLLIN) != 0) {
            read_control(parent);
        }
        read_signals(parent);
        restart_child(parent);
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

static bool write_pid(const char *path)
{
    FILE *file = fopen(path, "we");
    bool is_written;

    if (file == NULL) {
        return false;
    }
    is_written = fprintf(file, "%ld\n", (long)getpid()) > 0;
    return fclose(file) == 0 && is_written;
}

/* Under another name first: whoever finds the file finds a number in it. */
static int write_pid_file(struct parent *parent)
{
    const char *path = parent->config->pid_file;
    char *new_path;
    int error = 0;

    if (path[0] == '\0') {
        return 0;
    }
    if (asprintf(&new_path, "%s.new", path) < 0) {
        return -ENOMEM;
    }
    if (!write_pid(new_path) || rename(new_path, path) != 0) {
        error = -errno;
        (void)unlink(new_path);
    }
    free(new_path);
    return error;
}

/* What can fail before the first child; logged here. */
static int set_up(struct parent *parent)
{
    int error;

    /* The reader of our standard error may go away; we do not. */
    (void)signal(SIGPIPE, SIG_IGN);
    error = log_sink_open(&parent->sink, parent->config->log_file);
    log_init(&parent->log, parent->sink.fd < 0 ? STDERR_FILENO : parent->sink.fd,
             parent->config->log_level, parent->config->log_format);
    if (error != 0) {
        log_error(&parent->log, "cannot open the log file",
                  log_str("log_file", parent->config->log_file), log_errno("error", error));
        return error;
    }
    parent->signal_fd = open_signals();
    if (parent->signal_fd < 0) {
        return -errno;
    }
    error = listeners_open(&parent->listeners, parent->config, &parent->log);
    if (error != 0) {
        return error;
    }
    error = write_pid_file(parent);
    if (error != 0) {
        log_error(&parent->log, "cannot write the pid file",
                  log_str("pid_file", parent->config->pid_file), log_errno("error", error));
    }
    return error;
}

int parent_run(const char *config_path, const struct config *config, char **argv)
{
    struct parent parent = {
        .config = config,
        .signal_fd = -1,
        .child = { .log_fd = -1, .control_fd = -1 },
    };
    int error = set_up(&parent);

    (void)config_path; /* for a reload and an upgrade in place, which this version lacks */
    (void)argv;
    if (error == 0) {
        error = start_child(&parent);
        if (error != 0) {
            log_error(&parent.log, "cannot start a child", log_errno("error", error));
        }
    }
    if (error == 0) {
        watch_over(&parent);
        if (config->pid_file[0] != '\0') {
            (void)unlink(config->pid_file);
        }
    }
    listeners_close(&parent.listeners);
    log_sink_close(&parent.sink);
    if (parent.signal_fd >= 0) {
        close(parent.signal_fd);
    }
    return error != 0 ? EX_OSERR : parent.exit_code;
}
