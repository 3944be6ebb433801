/* SPDX-License-Identifier: MIT */
/*
 * Reloading: the next generation starts beside the current one and takes its place only when it is
 * ready. Whatever fails on the way, the current one must go on as if nothing had been asked.
 */
#include <errno.h>
#include <unistd.h>

#include "sidecar/app.h"
#include "sidecar/parent_parts.h"

/* A child that is stuck may not close; the new one serves all the same. */
#define CLOSE_WAIT_MS 1000
/* Where files change all the time, children follow each other no faster. */
#define RENEWAL_PAUSE_MS 60000

static void tell_reloading(struct parent *parent)
{
    if (!parent->is_reload_told) {
        parent->is_reload_told = true;
        notify_reloading(&parent->notify);
    }
}

/* The manager waits for this after a failure, too: only the status can say that it was one. */
static void tell_reloaded(struct parent *parent, bool has_failed)
{
    if (has_failed && parent_find(parent, CHILD_SERVING) == NULL &&
        parent_find(parent, CHILD_STARTING) == NULL && parent->restart_at_ms == 0) {
        parent->restart_at_ms = parent_now_ms(); /* the old one died meanwhile */
    }
    parent->is_reload_told = false;
    parent->has_failed = has_failed;
    parent->next_status_ms = 0;
    notify_ready(&parent->notify);
}

void parent_tell_failure(struct parent *parent)
{
    tell_reloaded(parent, true);
}

static void give_up(struct parent *parent)
{
    log_error(&parent->log, "reload failed: nothing has changed",
              log_str("file", parent->config_path));
    tell_reloaded(parent, true);
}

static void reload(struct parent *parent)
{
    int error = generation_prepare(&parent->next, &parent->current, parent->config_path,
                                   &parent->log);

    if (error == 0) {
        parent->is_changing = true;
        error = parent_start_child(parent, &parent->next);
        if (error != 0) {
            parent_fail_change(parent);
        }
    } else {
        give_up(parent);
    }
}

/* The configuration is not read again: nobody has said that it is ready. */
static void renew(struct parent *parent)
{
    if (parent_find(parent, CHILD_SERVING) != NULL) {
        parent->renewed_at_ms = parent_now_ms();
        (void)parent_start_child(parent, &parent->current);
    }
}

void parent_on_outdated(struct parent *parent, const struct child *child)
{
    if (child->role == CHILD_SERVING && parent->wish == WISH_NOTHING && !parent->is_stopping &&
        (parent->renewed_at_ms == 0 ||
         parent_now_ms() - parent->renewed_at_ms >= RENEWAL_PAUSE_MS)) {
        parent->wish = WISH_RENEWAL;
    }
}

void parent_relieve(struct parent *parent)
{
    struct child *old = parent_find(parent, CHILD_SERVING);

    if (old != NULL) {
        parent_end_child(parent, old, APP_DRAIN);
        parent->is_renewal = true;
        parent->tell_by_ms = parent_now_ms() + CLOSE_WAIT_MS;
    }
}

void parent_begin_wish(struct parent *parent)
{
    enum parent_wish wish = parent->wish;

    if (wish == WISH_NOTHING || parent->is_changing || parent->tell_by_ms > 0 ||
        parent->trial.pid > 0 || parent->is_stopping ||
        parent_find(parent, CHILD_STARTING) != NULL) {
        return;
    }
    if (parent_count(parent, CHILD_CLOSING) + parent_count(parent, CHILD_DRAINING) >=
        PARENT_DRAINING_MAX) {
        if (!parent->is_wait_told) {
            parent->is_wait_told = true;
            log_warn(&parent->log, "reload waits for an old child to end",
                     log_uint("old_children", PARENT_DRAINING_MAX));
        }
        return;
    }
    parent->is_wait_told = false;
    parent->wish = WISH_NOTHING;
    if (wish == WISH_RENEWAL) {
        renew(parent);
        return;
    }
    tell_reloading(parent);
    if (wish == WISH_UPGRADE) {
        parent_start_upgrade(parent);
    } else {
        reload(parent);
    }
}

void parent_finish_change(struct parent *parent)
{
    struct child *old = parent_find(parent, CHILD_SERVING);

    parent_flush_log(parent); /* into the log that the old configuration names */
    if (old != NULL) {
        parent_end_child(parent, old, APP_DRAIN);
    }
    generation_replace(&parent->current, &parent->next, &parent->log);
    parent->is_changing = false;
    parent->restart_at_ms = 0;
    log_init(&parent->log, parent->log_fd, parent->current.config->log_level,
             parent->current.config->log_format);
    parent->is_renewal = false;
    parent->tell_by_ms = parent_now_ms() + (old == NULL ? 0 : CLOSE_WAIT_MS);
}

void parent_tell_change(struct parent *parent)
{
    const struct child *child = parent_find(parent, CHILD_SERVING);

    parent->tell_by_ms = 0;
    if (parent->is_renewal) {
        log_info(&parent->log, "child replaced, with a sandbox for the files of now",
                 log_int("pid", child == NULL ? 0 : child->pid));
        return;
    }
    log_info(&parent->log, "configuration reloaded",
             log_int("pid", child == NULL ? 0 : child->pid));
    tell_reloaded(parent, false);
}

void parent_fail_change(struct parent *parent)
{
    parent->is_changing = false;
    generation_discard(&parent->next, &parent->current);
    give_up(parent);
}
