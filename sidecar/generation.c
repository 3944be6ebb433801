/* SPDX-License-Identifier: MIT */
/*
 * The steps of a reload that belong to the parent. Until generation_replace nothing that is in use
 * may change.
 */
#include "sidecar/generation.h"

#include <errno.h>
#include <stdlib.h>

#include "sidecar/pid_file.h"

/* What -t would print, a line of the log for each line. */
static void log_messages(char *messages, const char *path, struct log *log)
{
    char *rest = messages;
    char *line;

    while ((line = strsep(&rest, "\n")) != NULL) {
        if (line[0] == '\0') {
            continue;
        }
        if (strstr(line, " warning: ") != NULL) {
            log_warn(log, "configuration: warning", log_str("warning", line));
        } else {
            log_error(log, "configuration: mistake", log_str("mistake", line),
                      log_str("file", path));
        }
    }
}

static int load(struct generation *next, const char *path, struct log *log)
{
    char *messages = NULL;
    size_t size = 0;
    unsigned mistakes = 0;
    unsigned warnings = 0;
    FILE *stream = open_memstream(&messages, &size);
    int error = -ENOMEM;

    if (stream != NULL) {
        error = config_load(path, stream, &next->config, &mistakes, &warnings);
        if (fclose(stream) == 0) {
            log_messages(messages, path, log);
        }
    }
    free(messages);
    if (error == -ENOMEM) {
        log_error(log, "configuration cannot be read", log_errno("error", error));
    }
    return error;
}

/* A service manager's socket stays: its list cannot be changed here. */
static void warn_of_fixed(const struct generation *next, const struct generation *current,
                          struct log *log)
{
    const struct listen_options *old = current->config == NULL ? NULL : &current->config->listen;
    const struct listen_options *new = &next->config->listen;

    for (size_t i = 0; old != NULL && i < current->listeners.count; i++) {
        const struct listener *listener = &current->listeners.items[i];
        size_t old_count = listener->is_scgi ? old->scgi_count : old->fastcgi_count;
        size_t new_count = listener->is_scgi ? new->scgi_count : new->fastcgi_count;
        const struct sock_address *old_list = listener->is_scgi ? old->scgi : old->fastcgi;
        const struct sock_address *new_list = listener->is_scgi ? new->scgi : new->fastcgi;

        if (listener->is_activated &&
            (old_count != new_count ||
             (old_count > 0 && strcmp(old_list[0].text, new_list[0].text) != 0))) {
            log_warn(log,
                     "the new list has no effect: the service manager passes the socket, and only "
                     "its configuration and a restart change that",
                     log_str("key", listener->is_scgi ? "[listen] scgi" : "[listen] fastcgi"),
                     log_str("socket", listener->address.text));
            return;
        }
    }
}

int generation_prepare(struct generation *next, const struct generation *current, const char *path,
                       struct log *log)
{
    int error;

    *next = (struct generation){ .sink = { .fd = -1 } };
    error = load(next, path, log);
    if (error != 0) {
        return error;
    }
    error = log_sink_open(&next->sink, next->config->log_file,
                          next->config->has_user ? next->config->user : (uid_t)-1,
                          next->config->has_user ? next->config->group : (gid_t)-1);
    if (error != 0) {
        log_error(log, "cannot open the log file", log_str("log_file", next->config->log_file),
                  log_errno("error", error));
    } else {
        warn_of_fixed(next, current, log);
        error = listeners_open(&next->listeners, &current->listeners, next->config, log);
    }
    if (error != 0) {
        generation_discard(next, current);
    }
    return error;
}

void generation_discard(struct generation *next, const struct generation *current)
{
    listeners_abandon(&next->listeners, &current->listeners);
    log_sink_close(&next->sink);
    config_free(next->config);
    next->config = NULL;
}

static void replace_pid_file(const char *old, const char *new, struct log *log)
{
    int error;

    if (strcmp(old, new) == 0) {
        return;
    }
    error = pid_file_write(new);
    if (error != 0) {
        log_error(log, "cannot write the pid file", log_str("pid_file", new),
                  log_errno("error", error));
        return;
    }
    pid_file_remove(old);
}

void generation_replace(struct generation *current, struct generation *next, struct log *log)
{
    listeners_replace(&current->listeners, &next->listeners);
    listeners_apply(&current->listeners, next->config, log);
    replace_pid_file(current->config->pid_file, next->config->pid_file, log);
    log_sink_close(&current->sink);
    config_free(current->config);
    current->sink = next->sink;
    current->config = next->config;
    next->config = NULL;
}
