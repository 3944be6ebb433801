/* SPDX-License-Identifier: MIT */
/*
 * Upgrading in place. The old program must give way only to one that has shown that it runs, and
 * the new one must reload before anything else, so that requests meet its child.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "sidecar/parent_parts.h"
#include "sidecar/pid_file.h"

/* A trial reads the configuration, and looks up names at worst. */
#define TRIAL_MS 30000
/* Lines of a trial's output that are logged. */
#define TRIAL_LINES 20

static struct upgrade_state state_of(struct parent *parent)
{
    struct upgrade_state state = {
        .version = PACKAGE_VERSION,
        .pid_file = parent->current.config->pid_file,
        .listeners = parent->current.listeners,
        .children = parent->children,
        .max_children = PARENT_CHILDREN_MAX,
    };

    return state;
}

static void fail(struct parent *parent, const char *reason)
{
    log_error(&parent->log, "upgrade failed: nothing has changed",
              log_str("program", parent->program), log_str("reason", reason));
    parent_tell_failure(parent);
}

void parent_start_upgrade(struct parent *parent)
{
    struct upgrade_state state = state_of(parent);
    int error = -ENOENT;

    if (parent->program != NULL) {
        error = upgrade_trial_start(&parent->trial, parent->program, parent->config_path, &state);
    }
    if (error != 0) {
        fail(parent, strerror(-error));
        return;
    }
    parent->trial.deadline_ms = parent_now_ms() + TRIAL_MS;
}

/* What the new program has said, a line each. */
static void log_output(struct parent *parent)
{
    struct span rest = buf_span(&parent->trial.output);

    for (unsigned i = 0; i < TRIAL_LINES && rest.len > 0; i++) {
        const uint8_t *end = memchr(rest.ptr, '\n', rest.len);
        struct span line = span_take(&rest, end == NULL ? rest.len : (size_t)(end - rest.ptr));

        log_error(&parent->log, "upgrade: the new program does not accept its start",
                  log_span("says", line));
        span_skip(&rest, end == NULL ? 0 : 1);
    }
}

static void execute(struct parent *parent)
{
    struct upgrade_state state = state_of(parent);
    int error;

    log_info(&parent->log, "upgrading", log_str("program", parent->program),
             log_str("old_version", PACKAGE_VERSION));
    /* Lines are written whole: what is read to its end here leaves no half of one behind. */
    parent_flush_log(parent);
    for (size_t i = 0; i < PARENT_CHILDREN_MAX; i++) {
        log_sink_pass(&parent->current.sink, &parent->children[i].log);
    }
    error = upgrade_execute(parent->program, parent->argv, &state);
    fail(parent, strerror(-error));
}

void parent_on_trial_end(struct parent *parent, int status)
{
    upgrade_trial_read(&parent->trial);
    parent->trial.pid = 0;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        upgrade_trial_end(&parent->trial);
        execute(parent);
        return;
    }
    log_output(parent);
    upgrade_trial_end(&parent->trial);
    fail(parent, WIFSIGNALED(status) ? strsignal(WTERMSIG(status))
                                     : "the new program does not accept its start");
}

static void move_pid_file(struct parent *parent, const char *old)
{
    const char *new = parent->current.config->pid_file;
    int error = strcmp(old, new) == 0 ? 0 : pid_file_write(new);

    if (error != 0) {
        log_error(&parent->log, "cannot write the pid file", log_str("pid_file", new),
                  log_errno("error", error));
    } else if (strcmp(old, new) != 0) {
        pid_file_remove(old);
    }
}

int parent_take_over(struct parent *parent, int fd)
{
    struct upgrade_state state = {
        .children = parent->children,
        .max_children = PARENT_CHILDREN_MAX,
    };
    int error = upgrade_read(fd, &state);

    parent->current.listeners = state.listeners;
    if (error == 0) {
        log_info(&parent->log, "upgraded", log_str("old_version", state.version),
                 log_str("version", PACKAGE_VERSION));
        move_pid_file(parent, state.pid_file == NULL ? "" : state.pid_file);
        for (size_t i = 0; i < PARENT_CHILDREN_MAX; i++) {
            parent->children[i].serving_since_ms = parent_now_ms();
        }
        parent->was_ready = true;
        parent->is_reload_told = true;
        parent->wish = WISH_RELOAD;
    } else {
        log_error(&parent->log, "cannot take over from the old program", log_errno("error", error));
    }
    free(state.pid_file);
    return error;
}
