/* SPDX-License-Identifier: MIT */
/*
 * Writing log lines. Must never lose a line because of a short write or a rotation.
 */
#include "sidecar/log_sink.h"

#include <errno.h>
#include <fcntl.h>
#include <syslog.h>
#include <unistd.h>

static int open_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);

    return fd < 0 ? -errno : fd;
}

int log_sink_open(struct log_sink *sink, const char *target)
{
    *sink = (struct log_sink){ .kind = LOG_SINK_STDERR, .path = target, .fd = STDERR_FILENO };
    if (strcmp(target, "stderr") == 0) {
        return 0;
    }
    if (strcmp(target, "syslog") == 0) {
        sink->kind = LOG_SINK_SYSLOG;
        openlog("velox-sidecar", LOG_PID, LOG_DAEMON);
        return 0;
    }
    sink->fd = open_file(target);
    sink->kind = LOG_SINK_FILE;
    return sink->fd < 0 ? sink->fd : 0;
}

int log_sink_reopen(struct log_sink *sink)
{
    int fd;

    if (sink->kind != LOG_SINK_FILE) {
        return 0;
    }
    fd = open_file(sink->path);
    if (fd < 0) {
        return fd;
    }
    /* Under the same number, since a struct log holds it. */
    if (dup3(fd, sink->fd, O_CLOEXEC) < 0) {
        int error = -errno;

        close(fd);
        return error;
    }
    close(fd);
    return 0;
}

void log_sink_close(struct log_sink *sink)
{
    if (sink->kind == LOG_SINK_FILE) {
        close(sink->fd);
    }
}

static void write_syslog(struct span lines)
{
    while (lines.len > 0) {
        const uint8_t *end = memchr(lines.ptr, '\n', lines.len);
        size_t len = end == NULL ? lines.len : (size_t)(end - lines.ptr);

        syslog(LOG_INFO, "%.*s", (int)len, (const char *)lines.ptr);
        span_skip(&lines, end == NULL ? len : len + 1);
    }
}

void log_sink_write(const struct log_sink *sink, struct span lines)
{
    if (sink->kind == LOG_SINK_SYSLOG) {
        write_syslog(lines);
        return;
    }
    while (lines.len > 0) {
        ssize_t written = write(sink->fd, lines.ptr, lines.len);

        if (written > 0) {
            span_skip(&lines, (size_t)written);
        } else if (errno != EINTR) {
            return; /* a full disk or a closed terminal: nobody can be told */
        }
    }
}
