/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_PULSE_H
#define SIDECAR_PULSE_H

/*
 * Whether every thread of the child makes progress, and the report of it to the parent, together
 * with the figures that a service manager shows. The main thread asks each of the others by a
 * message that its loop answers; nothing else is asked of them.
 *
 * A report is one message, "S FRONTS BUILDS DOWNLOADS", with the name of a thread behind it that
 * has not answered for too long.
 */

#include "sidecar/base/log.h"
#include "sidecar/io/mailbox.h"
#include "sidecar/relay/status.h"

struct pulse_thread {
    char name[16];
    struct mailbox *mailbox; /* where it is asked */
    struct mail question;
    atomic_bool has_answered;
    uint64_t asked_ms;
    bool is_told; /* that it is stuck */
};

struct pulse_init {
    struct loop *loop; /* the main thread's, as is every call but pulse_answer */
    struct log *log;
    const struct status_board *board;
    int control_fd;
    unsigned report_ms; /* 0: no reports, and nobody is asked */
    unsigned stuck_ms;  /* 0: whoever does not answer is left alone */
    struct pulse_thread **threads;
    size_t thread_count;
};

struct pulse {
    struct pulse_init init;
    struct timer timer;
};

void pulse_thread_init(struct pulse_thread *thread, struct mailbox *mailbox, const char *name,
                       unsigned number);
/* In the thread, when its mailbox gets the question. */
void pulse_answer(struct pulse_thread *thread);

/* Begins with a report at once. 0 or -ENOMEM. Borrows everything until pulse_stop; a question may
 * still be in a mailbox after that. */
int pulse_start(struct pulse *pulse, const struct pulse_init *init);
void pulse_stop(struct pulse *pulse);

#endif
