/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_IO_PREFETCH_H
#define SIDECAR_IO_PREFETCH_H

/*
 * Threads that wait for disks, so that no loop has to: they read a part of a file into the page
 * cache and say when it is there. A job begins with a struct mail and travels like one: posting
 * gives it to the threads, which give it back by the asker's mailbox.
 *
 * All functions may be called from any thread.
 */

#include <stdatomic.h>

#include "sidecar/io/mailbox.h"

struct prefetch;

struct prefetch_job {
    struct mail mail;
    int fd; /* owned */
    uint64_t offset;
    uint64_t end;
    uint64_t ahead_end; /* the disk is told that as much will be wanted next */
    int error;          /* when it comes back: 0 (what the file has is there) or -errno */
    struct mailbox *mailbox;
    void *asker; /* looked at by nobody but the asker */
    atomic_bool is_cancelled;
};

/* A job on a duplicate of fd, or NULL where memory or descriptors are short. */
struct prefetch_job *prefetch_job_new(int fd, struct mailbox *mailbox, void *asker);
/* For who holds the job, not while it is posted. */
void prefetch_job_free(struct prefetch_job *job);

/* 0 or -ENOMEM. Jobs may be posted from here on; nothing is done before prefetch_run. */
int prefetch_new(struct prefetch **prefetch, unsigned threads);
/* Starts the threads. 0 or -errno. */
int prefetch_run(struct prefetch *prefetch);
/*
 * Takes the job, with what to read in offset, end and ahead_end. It comes back exactly once, except
 * where the mailbox is closed by then: it is freed. First come, first served; an asker has one job,
 * so there are never more than askers. is_cancelled may be set meanwhile: it comes back sooner.
 */
void prefetch_post(struct prefetch *prefetch, struct prefetch_job *job);
/* Ends the threads, if they run, and frees all. Jobs that wait go back, not done. All mailboxes
 * must still exist. */
void prefetch_stop(struct prefetch *prefetch);

/*
 * Whether a read of the bytes from offset to before end would find them in the page cache, as far
 * as samples tell. False also where the file system cannot say.
 */
bool prefetch_is_cached(int fd, uint64_t offset, uint64_t end);

#endif
