/* SPDX-License-Identifier: MIT */
/*
 * Starting a child and talking with it. What runs between fork and app_run has the parent's rights
 * and must stay short.
 */
#include "sidecar/child.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

#include "sidecar/app.h"
#include "sidecar/rights.h"

/* ---- in the child ---------------------------------------------------------------------------- */

static int run_app(const struct child_start *start, const int *fds, int log_fd, int control_fd)
{
    const struct generation *generation = start->generation;
    struct app_init init = {
        .config = generation->config,
        .listeners = fds,
        .listener_count = generation->listeners.count,
        .scgi_count = listeners_scgi_count(&generation->listeners),
        .log_fd = log_fd,
        .control_fd = control_fd,
        .report_ms = start->report_ms,
        .stuck_ms = start->stuck_ms,
    };
    struct log log;
    int error;

    /* A file at the limit of file sizes is that file's failure (EFBIG), not our end. */
    (void)signal(SIGXFSZ, SIG_IGN);
    app_prepare(generation->config);
    error = rights_drop(generation->config);
    if (error != 0) {
        log_init(&log, log_fd, LOG_INFO, generation->config->log_format);
        log_error(&log, "cannot become the configured user and group",
                  log_str("user", generation->config->user_name), log_errno("error", error));
        return EX_OSERR;
    }
    return app_run(&init);
}

static int child_main(const struct child_start *start, int log_fd, int control_fd)
{
    const struct listeners *listeners = &start->generation->listeners;
    int *fds;
    int code;

    start->on_fork(start->owner, start->generation);
    fds = calloc(listeners->count, sizeof(*fds));
    if (fds == NULL) {
        return EX_OSERR;
    }
    for (size_t i = 0; i < listeners->count; i++) {
        fds[i] = listeners->items[i].fd;
    }
    code = run_app(start, fds, log_fd, control_fd);
    free(fds);
    return code;
}

/* ---- in the parent --------------------------------------------------------------------------- */

int child_start(struct child *child, const struct child_start *start)
{
    struct log_pipe log;
    int control_fds[2];
    int log_fd;
    int error = log_pipe_open(&log, &log_fd);
    pid_t pid;

    if (error != 0) {
        return error;
    }
    /* Reports are messages, so that none is ever read in halves. */
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, control_fds) != 0) {
        error = -errno;
        log_pipe_close(&log);
        close(log_fd);
        return error;
    }
    pid = fork();
    if (pid == 0) {
        log_pipe_close(&log);
        close(control_fds[0]);
        exit(child_main(start, log_fd, control_fds[1]));
    }
    error = pid < 0 ? -errno : 0;
    close(log_fd);
    close(control_fds[1]);
    if (error != 0) {
        log_pipe_close(&log);
        close(control_fds[0]);
        return error;
    }
    *child = (struct child){ .pid = pid, .log = log, .control_fd = control_fds[0] };
    return 0;
}

void child_close(struct child *child)
{
    log_pipe_close(&child->log);
    if (child->control_fd >= 0) {
        close(child->control_fd);
    }
    *child = (struct child){ .log = { .fd = -1 }, .control_fd = -1 };
}

void child_order(struct child *child, char order, uint64_t now_ms)
{
    if (child->role != CHILD_CLOSING && child->role != CHILD_DRAINING) {
        child->role = CHILD_CLOSING;
        child->draining_since_ms = now_ms;
        child->deadline_ms = 0;
    }
    if (send(child->control_fd, &order, 1, MSG_NOSIGNAL | MSG_DONTWAIT) != 1 && errno != EPIPE) {
        kill(child->pid, SIGKILL); /* it has left hundreds of orders unread */
    }
}

/* "S FRONTS BUILDS DOWNLOADS [THREAD]": the thread is one that makes no progress. */
static void take_report(struct child_report *report, const char *text, uint64_t now_ms)
{
    unsigned fronts;
    unsigned builds;
    unsigned downloads;
    char stuck[32] = "";

    if (sscanf(text, "S %u %u %u %31s", &fronts, &builds, &downloads, stuck) < 3) {
        return; /* of another version of the program, which says more than we know */
    }
    *report = (struct child_report){
        .received_ms = now_ms,
        .fronts = fronts,
        .builds = builds,
        .downloads = downloads,
        .is_stuck = stuck[0] != '\0',
    };
}

char child_read(struct child *child, uint64_t now_ms)
{
    char text[128];
    char news = 0;
    ssize_t got;

    while (news == 0 && (got = recv(child->control_fd, text, sizeof(text) - 1, MSG_DONTWAIT)) > 0) {
        text[got] = '\0';
        if (text[0] == APP_READY || text[0] == APP_CLOSED || text[0] == APP_OUTDATED) {
            news = text[0];
        } else {
            take_report(&child->report, text, now_ms);
        }
    }
    return news;
}
