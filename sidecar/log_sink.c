/* SPDX-License-Identifier: MIT */
/*
 * Writing log lines. Must never lose a line because of a short write or a rotation, nor follow a
 * link of somebody with fewer rights than we have.
 */
#include "sidecar/log_sink.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

/* Room for log lines of a child while the parent is busy. */
#define PIPE_BYTES ((size_t)1024 * 1024)
#define LINE_MAX_BYTES ((size_t)64 * 1024)
#define READ_BYTES 16384
/* The level stands in the first bytes of a line, behind the time. */
#define LEVEL_WITHIN 64

/* O_NONBLOCK, for the opening: a named pipe that nobody reads must not hold the parent up. */
#define OPEN_FLAGS (O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)

/* A log folder often belongs to the child's user, who could lay a link there to any file of root's
 * (as in CVE-2016-1247): as root, root's own links only. */
static int open_existing(const char *path)
{
    int fd = open(path, OPEN_FLAGS | O_NOFOLLOW, 0640);
    struct stat file;

    if (fd < 0 && errno == ELOOP) {
        if (geteuid() == 0 && lstat(path, &file) == 0 && file.st_uid != 0) {
            return -EPERM;
        }
        fd = open(path, OPEN_FLAGS, 0640);
    }
    return fd < 0 ? -errno : fd;
}

/* Only a file that did not exist changes its owner: any other might have been put there. */
static int open_file(const struct log_sink *sink)
{
    int fd = open(sink->path, OPEN_FLAGS | O_EXCL, 0640);

    if (fd < 0) {
        fd = errno == EEXIST ? open_existing(sink->path) : -errno;
    } else if (geteuid() == 0 && fchown(fd, sink->owner, sink->group) != 0) {
        /* It stays root's, and takes our lines all the same. */
    }
    if (fd >= 0) {
        (void)fcntl(fd, F_SETFL, O_APPEND); /* what is read gets every line, however slowly */
    }
    return fd;
}

int log_sink_open(struct log_sink *sink, const char *target, uid_t owner, gid_t group)
{
    *sink = (struct log_sink){
        .kind = LOG_SINK_STDERR, .path = target, .fd = STDERR_FILENO, .owner = owner, .group = group
    };
    if (strcmp(target, "stderr") == 0) {
        return 0;
    }
    if (strcmp(target, "syslog") == 0) {
        sink->kind = LOG_SINK_SYSLOG;
        sink->fd = -1;
        openlog("velox-sidecar", LOG_PID, LOG_DAEMON);
        return 0;
    }
    sink->fd = open_file(sink);
    sink->kind = LOG_SINK_FILE;
    return sink->fd < 0 ? sink->fd : 0;
}

int log_sink_reopen(struct log_sink *sink)
{
    int fd;

    if (sink->kind != LOG_SINK_FILE) {
        return 0;
    }
    fd = open_file(sink);
    if (fd < 0) {
        return fd;
    }
    close(sink->fd);
    sink->fd = fd;
    return 0;
}

void log_sink_close(struct log_sink *sink)
{
    if (sink->kind == LOG_SINK_FILE && sink->fd >= 0) {
        close(sink->fd);
    }
    sink->fd = -1;
}

static bool has_level(struct span head, const char *name)
{
    return memmem(head.ptr, head.len, name, strlen(name)) != NULL;
}

/* The line says its level in either format: level=warn, "level":"warn". */
static int priority_of(struct span line)
{
    struct span head = span_of(line.ptr, line.len < LEVEL_WITHIN ? line.len : LEVEL_WITHIN);

    if (has_level(head, "level=error") || has_level(head, "\"level\":\"error\"")) {
        return LOG_ERR;
    }
    if (has_level(head, "level=warn") || has_level(head, "\"level\":\"warn\"")) {
        return LOG_WARNING;
    }
    if (has_level(head, "level=debug") || has_level(head, "\"level\":\"debug\"")) {
        return LOG_DEBUG;
    }
    return LOG_INFO;
}

static void write_syslog(struct span lines)
{
    while (lines.len > 0) {
        const uint8_t *end = memchr(lines.ptr, '\n', lines.len);
        size_t len = end == NULL ? lines.len : (size_t)(end - lines.ptr);

        syslog(priority_of(span_of(lines.ptr, len)), "%.*s", (int)len, (const char *)lines.ptr);
        span_skip(&lines, end == NULL ? len : len + 1);
    }
}

/* Writes whole lines. */
static void write_lines(const struct log_sink *sink, struct span lines)
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

int log_pipe_open(struct log_pipe *pipe, int *writer)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0) {
        return -errno;
    }
    (void)fcntl(fds[0], F_SETPIPE_SZ, (int)PIPE_BYTES);
    log_pipe_adopt(pipe, fds[0]);
    *writer = fds[1];
    return 0;
}

void log_pipe_adopt(struct log_pipe *pipe, int fd)
{
    pipe->fd = fd;
    buf_init(&pipe->line, LINE_MAX_BYTES);
}

void log_pipe_close(struct log_pipe *pipe)
{
    if (pipe->fd >= 0) {
        close(pipe->fd);
        buf_deinit(&pipe->line);
    }
    pipe->fd = -1;
}

static void pass_lines(const struct log_sink *sink, struct log_pipe *pipe, struct span bytes)
{
    const uint8_t *last = memrchr(bytes.ptr, '\n', bytes.len);

    if (last != NULL) {
        struct span lines = span_take(&bytes, (size_t)(last - bytes.ptr) + 1);

        write_lines(sink, buf_span(&pipe->line));
        write_lines(sink, lines);
        buf_clear(&pipe->line);
    }
    if (bytes.len > 0) {
        (void)buf_append_span(&pipe->line, bytes);
    }
}

void log_sink_pass(const struct log_sink *sink, struct log_pipe *pipe)
{
    uint8_t bytes[READ_BYTES];
    size_t passed = 0;
    ssize_t got;

    /* A pipe's worth: a writer as fast as we are must not keep the parent here. */
    while (pipe->fd >= 0 && passed < PIPE_BYTES &&
           (got = read(pipe->fd, bytes, sizeof(bytes))) > 0) {
        pass_lines(sink, pipe, span_of(bytes, (size_t)got));
        passed += (size_t)got;
    }
}
