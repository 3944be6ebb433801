/* SPDX-License-Identifier: MIT */
/*
 * Waiting for disks. Must never keep what it read, and never touch the asker, who may be gone.
 */
#include "sidecar/io/prefetch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "sidecar/base/memory.h"

/* Read at once, and thrown away: what counts is that the pages are in the cache then. */
#define READ_BYTES ((size_t)128 * 1024)
/* How far apart the samples are. The kernel reads ahead, and writes and drops files, in greater
 * pieces; each sample costs a system call. */
#define SAMPLE_BYTES ((uint64_t)512 * 1024)
#define STACK_BYTES ((size_t)256 * 1024)

struct prefetch {
    pthread_mutex_t lock;
    pthread_cond_t posted;
    struct list jobs;      /* under lock */
    bool is_stopping;      /* under lock */
    unsigned thread_count; /* that run */
    unsigned thread_max;
    pthread_t threads[];
};

struct prefetch_job *prefetch_job_new(int fd, struct mailbox *mailbox, void *asker)
{
    struct prefetch_job *job = memory_zeroed(sizeof(*job));

    if (job == NULL) {
        return NULL;
    }
    job->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (job->fd < 0) {
        free(job);
        return NULL;
    }
    job->mailbox = mailbox;
    job->asker = asker;
    atomic_init(&job->is_cancelled, false);
    return job;
}

void prefetch_job_free(struct prefetch_job *job)
{
    close(job->fd);
    free(job);
}

static void give_back(struct prefetch_job *job)
{
    if (mailbox_post(job->mailbox, &job->mail) != 0) {
        prefetch_job_free(job);
    }
}

static void read_all(struct prefetch_job *job, uint8_t *scratch)
{
    uint64_t offset = job->offset;

    job->error = 0;
    (void)posix_fadvise(job->fd, (off_t)offset, (off_t)(job->ahead_end - offset),
                        POSIX_FADV_WILLNEED);
    while (offset < job->end && !atomic_load_explicit(&job->is_cancelled, memory_order_relaxed)) {
        uint64_t left = job->end - offset;
        ssize_t got = pread(job->fd, scratch, left < READ_BYTES ? (size_t)left : READ_BYTES,
                            (off_t)offset);

        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            job->error = got < 0 ? -errno : 0; /* shorter than it was: the sender sees that */
            return;
        }
        offset += (uint64_t)got;
    }
}

/* NULL: the thread is to end. */
static struct prefetch_job *wait_for_job(struct prefetch *prefetch)
{
    struct list *link = NULL;

    pthread_mutex_lock(&prefetch->lock);
    while (list_is_empty(&prefetch->jobs) && !prefetch->is_stopping) {
        pthread_cond_wait(&prefetch->posted, &prefetch->lock);
    }
    if (!prefetch->is_stopping) {
        link = list_shift(&prefetch->jobs);
    }
    pthread_mutex_unlock(&prefetch->lock);
    return link == NULL ? NULL : list_entry(link, struct prefetch_job, mail.link);
}

static void *run(void *arg)
{
    struct prefetch *prefetch = arg;
    uint8_t *scratch = malloc(READ_BYTES); /* untouched, and so no memory, until it is needed */
    struct prefetch_job *job;

    /* By itself, which takes no file: in the sandbox none may be written. */
    pthread_setname_np(pthread_self(), "prefetch");
    while ((job = wait_for_job(prefetch)) != NULL) {
        if (scratch == NULL) {
            scratch = malloc(READ_BYTES);
        }
        if (scratch != NULL) {
            read_all(job, scratch);
        } else {
            job->error = -ENOMEM;
        }
        give_back(job);
    }
    free(scratch);
    return NULL;
}

static int start_thread(struct prefetch *prefetch)
{
    pthread_attr_t attr;
    int error = pthread_attr_init(&attr);

    if (error != 0) {
        return -error;
    }
    (void)pthread_attr_setstacksize(&attr, STACK_BYTES);
    error = pthread_create(&prefetch->threads[prefetch->thread_count], &attr, run, prefetch);
    pthread_attr_destroy(&attr);
    if (error != 0) {
        return -error;
    }
    prefetch->thread_count++;
    return 0;
}

int prefetch_new(struct prefetch **prefetch, unsigned threads)
{
    struct prefetch *made = calloc(1, sizeof(*made) + threads * sizeof(made->threads[0]));

    if (made == NULL) {
        return -ENOMEM;
    }
    pthread_mutex_init(&made->lock, NULL);
    pthread_cond_init(&made->posted, NULL);
    list_init(&made->jobs);
    made->thread_max = threads;
    *prefetch = made;
    return 0;
}

int prefetch_run(struct prefetch *prefetch)
{
    int error = 0;

    while (error == 0 && prefetch->thread_count < prefetch->thread_max) {
        error = start_thread(prefetch);
    }
    return error;
}

void prefetch_post(struct prefetch *prefetch, struct prefetch_job *job)
{
    pthread_mutex_lock(&prefetch->lock);
    list_append(&prefetch->jobs, &job->mail.link);
    pthread_cond_signal(&prefetch->posted);
    pthread_mutex_unlock(&prefetch->lock);
}

void prefetch_stop(struct prefetch *prefetch)
{
    struct list *link;

    pthread_mutex_lock(&prefetch->lock);
    prefetch->is_stopping = true;
    pthread_cond_broadcast(&prefetch->posted);
    pthread_mutex_unlock(&prefetch->lock);
    for (unsigned i = 0; i < prefetch->thread_count; i++) {
        pthread_join(prefetch->threads[i], NULL);
    }
    while ((link = list_shift(&prefetch->jobs)) != NULL) {
        struct prefetch_job *job = list_entry(link, struct prefetch_job, mail.link);

        job->error = -ECANCELED;
        give_back(job);
    }
    pthread_cond_destroy(&prefetch->posted);
    pthread_mutex_destroy(&prefetch->lock);
    free(prefetch);
}

static bool is_byte_cached(int fd, uint64_t offset)
{
    uint8_t byte;
    struct iovec piece = { .iov_base = &byte, .iov_len = 1 };

    /* 0: the end of the file, where there is nothing to wait for. */
    return preadv2(fd, &piece, 1, (off_t)offset, RWF_NOWAIT) >= 0;
}

bool prefetch_is_cached(int fd, uint64_t offset, uint64_t end)
{
    for (uint64_t at = offset; at < end; at += SAMPLE_BYTES) {
        if (!is_byte_cached(fd, at)) {
            return false;
        }
    }
    return true;
}
