/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_IO_MAILBOX_H
#define SIDECAR_IO_MAILBOX_H

/*
 * Messages to another thread's loop. A message is an object that begins with a struct mail and
 * belongs to whoever holds it: posting gives it to the receiver. Messages of one sender arrive in
 * the order in which they were posted.
 */

#include <pthread.h>

#include "sidecar/io/loop.h"

struct mail {
    struct list link; /* private */
};

struct mailbox {
    pthread_mutex_t lock;
    struct list mails; /* under lock */
    bool closed;       /* under lock */
    int event_fd;
    struct watch watch;
    void (*on_mail)(struct mailbox *mailbox, struct mail *mail);
};

/* on_mail runs in loop's thread, once for each message, and takes it. 0 or -errno. */
int mailbox_init(struct mailbox *mailbox, struct loop *loop,
                 void (*on_mail)(struct mailbox *mailbox, struct mail *mail));

/*
 * Takes the message. From any thread, never blocks for long and never fails, except with -EPIPE
 * after mailbox_close: the message then still belongs to the caller.
 */
int mailbox_post(struct mailbox *mailbox, struct mail *mail);

/* From the loop's own thread: no more messages. Those that wait are given to on_mail now. */
void mailbox_close(struct mailbox *mailbox);
/* The last step; nobody may hold a pointer to the mailbox any more. */
void mailbox_deinit(struct mailbox *mailbox);

#endif
