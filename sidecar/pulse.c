/* SPDX-License-Identifier: MIT */
/*
 * Asking the threads and reporting. Must never wait for either side.
 */
#include "sidecar/pulse.h"

#include <stdio.h>
#include <sys/socket.h>

void pulse_thread_init(struct pulse_thread *thread, struct mailbox *mailbox, const char *name,
                       unsigned number)
{
    *thread = (struct pulse_thread){ .mailbox = mailbox };
    atomic_init(&thread->has_answered, true);
    snprintf(thread->name, sizeof(thread->name), "%s-%u", name, number % 1000);
}

void pulse_answer(struct pulse_thread *thread)
{
    atomic_store(&thread->has_answered, true);
}

static void ask(struct pulse *pulse, struct pulse_thread *thread, uint64_t now)
{
    if (thread->is_told) {
        log_info(pulse->init.log, "thread makes progress again", log_str("thread", thread->name));
        thread->is_told = false;
    }
    thread->asked_ms = now;
    atomic_store(&thread->has_answered, false);
    (void)mailbox_post(thread->mailbox, &thread->question);
}

/* True: it should have answered long ago. */
static bool is_stuck(struct pulse *pulse, struct pulse_thread *thread, uint64_t now)
{
    if (atomic_load(&thread->has_answered)) {
        ask(pulse, thread, now); /* the message is not in the mailbox any more */
        return false;
    }
    if (pulse->init.stuck_ms == 0 || now - thread->asked_ms < pulse->init.stuck_ms) {
        return false;
    }
    if (!thread->is_told) {
        thread->is_told = true;
        log_error(pulse->init.log, "thread makes no progress", log_str("thread", thread->name),
                  log_uint("silent_ms", now - thread->asked_ms));
    }
    return true;
}

static void report(const struct pulse *pulse, const struct pulse_thread *stuck)
{
    struct status_numbers numbers;
    char text[128];
    int length;

    status_collect(pulse->init.board, &numbers);
    length = snprintf(
        text, sizeof(text), "S %u %u %u%s%s", (unsigned)numbers.values[STAT_FRONTS_ACTIVE],
        (unsigned)(numbers.values[STAT_BUILDS_ACTIVE] + numbers.values[STAT_BUILDS_QUEUED]),
        (unsigned)numbers.values[STAT_DOWNLOADS_ACTIVE], stuck == NULL ? "" : " ",
        stuck == NULL ? "" : stuck->name);
    (void)send(pulse->init.control_fd, text, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static int beat(struct pulse *pulse)
{
    uint64_t now = loop_now_ms(pulse->init.loop);
    const struct pulse_thread *stuck = NULL;

    for (size_t i = 0; i < pulse->init.thread_count; i++) {
        if (is_stuck(pulse, pulse->init.threads[i], now)) {
            stuck = pulse->init.threads[i];
        }
    }
    report(pulse, stuck);
    return timer_start(&pulse->timer, pulse->init.report_ms);
}

static void on_timer(struct timer *timer)
{
    /* Without memory for a timer the reports end, which says enough. */
    (void)beat(list_entry(timer, struct pulse, timer));
}

int pulse_start(struct pulse *pulse, const struct pulse_init *init)
{
    *pulse = (struct pulse){ .init = *init };
    timer_init(&pulse->timer, init->loop, on_timer);
    return init->report_ms > 0 ? beat(pulse) : 0;
}

void pulse_stop(struct pulse *pulse)
{
    if (pulse->timer.loop != NULL) {
        timer_stop(&pulse->timer);
    }
}
