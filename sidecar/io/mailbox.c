/* SPDX-License-Identifier: MIT */
/*
 * A list under a mutex and an eventfd that wakes the receiver. The lock is held for a few
 * instructions and never while a message is looked at.
 */
#include "sidecar/io/mailbox.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* One message; NULL when none waits. */
static struct mail *take_first(struct mailbox *mailbox)
{
    struct list *link;

    pthread_mutex_lock(&mailbox->lock);
    link = list_shift(&mailbox->mails);
    pthread_mutex_unlock(&mailbox->lock);
    return link == NULL ? NULL : list_entry(link, struct mail, link);
}

static void deliver_all(struct mailbox *mailbox)
{
    struct mail *mail;

    while ((mail = take_first(mailbox)) != NULL) {
        mailbox->on_mail(mailbox, mail);
    }
}

static void on_ready(struct watch *watch)
{
    struct mailbox *mailbox = list_entry(watch, struct mailbox, watch);
    eventfd_t count;

    /* Cleared before the list is read: a message posted from here on wakes us again. */
    (void)eventfd_read(mailbox->event_fd, &count);
    watch_clear(watch, WATCH_READ);
    deliver_all(mailbox);
}

int mailbox_init(struct mailbox *mailbox, struct loop *loop,
                 void (*on_mail)(struct mailbox *mailbox, struct mail *mail))
{
    int error;

    *mailbox = (struct mailbox){ .on_mail = on_mail };
    list_init(&mailbox->mails);
    mailbox->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (mailbox->event_fd < 0) {
        return -errno;
    }
    error = watch_start(&mailbox->watch, loop, mailbox->event_fd, 0, on_ready);
    if (error != 0) {
        close(mailbox->event_fd);
        return error;
    }
    pthread_mutex_init(&mailbox->lock, NULL);
    return 0;
}

int mailbox_post(struct mailbox *mailbox, struct mail *mail)
{
    bool wake;

    pthread_mutex_lock(&mailbox->lock);
    if (mailbox->closed) {
        pthread_mutex_unlock(&mailbox->lock);
        return -EPIPE;
    }
    wake = list_is_empty(&mailbox->mails);
    list_append(&mailbox->mails, &mail->link);
    if (wake) {
        /* Under the lock, so that mailbox_deinit cannot close the descriptor meanwhile. */
        (void)eventfd_write(mailbox->event_fd, 1);
    }
    pthread_mutex_unlock(&mailbox->lock);
    return 0;
}

void mailbox_close(struct mailbox *mailbox)
{
    pthread_mutex_lock(&mailbox->lock);
    mailbox->closed = true;
    pthread_mutex_unlock(&mailbox->lock);
    watch_stop(&mailbox->watch);
    deliver_all(mailbox);
}

void mailbox_deinit(struct mailbox *mailbox)
{
    watch_stop(&mailbox->watch);
    close(mailbox->event_fd);
    pthread_mutex_destroy(&mailbox->lock);
}
