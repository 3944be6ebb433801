/* SPDX-License-Identifier: MIT */

/* Jobs come back once each, whatever happens meanwhile, and the pages are there then. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "sidecar/io/prefetch.h"

#define FILE_BYTES ((size_t)2 * 1024 * 1024)

struct scene {
    struct loop *loop;
    struct prefetch *prefetch;
    struct mailbox mailbox;
    unsigned awaited;
    struct prefetch_job *last;
    int file;
};

static void on_mail(struct mailbox *mailbox, struct mail *mail)
{
    struct scene *scene = list_entry(mailbox, struct scene, mailbox);
    struct prefetch_job *job = list_entry(mail, struct prefetch_job, mail);

    assert_ptr_equal(job->asker, scene);
    if (scene->last != NULL) {
        prefetch_job_free(scene->last);
    }
    scene->last = job;
    if (--scene->awaited == 0) {
        loop_stop(scene->loop);
    }
}

static int set_up(void **state)
{
    struct scene *scene = calloc(1, sizeof(*scene));
    char path[] = "/tmp/test_prefetch.XXXXXX";
    uint8_t *bytes = calloc(1, FILE_BYTES);

    assert_non_null(scene);
    assert_non_null(bytes);
    scene->file = mkstemp(path);
    assert_true(scene->file >= 0);
    assert_int_equal(write(scene->file, bytes, FILE_BYTES), FILE_BYTES);
    free(bytes);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(loop_new(&scene->loop), 0);
    assert_int_equal(mailbox_init(&scene->mailbox, scene->loop, on_mail), 0);
    assert_int_equal(prefetch_new(&scene->prefetch, 2), 0);
    *state = scene;
    return 0;
}

static int tear_down(void **state)
{
    struct scene *scene = *state;

    if (scene->prefetch != NULL) {
        prefetch_stop(scene->prefetch);
    }
    mailbox_close(&scene->mailbox);
    mailbox_deinit(&scene->mailbox);
    if (scene->last != NULL) {
        prefetch_job_free(scene->last);
    }
    loop_free(scene->loop);
    close(scene->file);
    free(scene);
    return 0;
}

static struct prefetch_job *post(struct scene *scene, uint64_t offset, uint64_t end)
{
    struct prefetch_job *job = prefetch_job_new(scene->file, &scene->mailbox, scene);

    assert_non_null(job);
    job->offset = offset;
    job->end = job->ahead_end = end;
    scene->awaited++;
    prefetch_post(scene->prefetch, job);
    return job;
}

static void test_jobs_come_back(void **state)
{
    struct scene *scene = *state;

    assert_int_equal(prefetch_run(scene->prefetch), 0);
    for (unsigned i = 0; i < 50; i++) {
        post(scene, i * 1000, FILE_BYTES);
    }
    loop_run(scene->loop);
    assert_int_equal(scene->awaited, 0);
    assert_int_equal(scene->last->error, 0);
    post(scene, FILE_BYTES - 1, FILE_BYTES * 2); /* beyond the end: what there is */
    loop_run(scene->loop);
    assert_int_equal(scene->last->error, 0);
}

static void test_file_that_cannot_be_read(void **state)
{
    struct scene *scene = *state;
    struct prefetch_job *job;
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

    assert_true(null >= 0);
    job = prefetch_job_new(null, &scene->mailbox, scene);
    close(null); /* the job has a descriptor of its own */
    assert_non_null(job);
    job->end = job->ahead_end = 1;
    scene->awaited++;
    prefetch_post(scene->prefetch, job);
    assert_int_equal(prefetch_run(scene->prefetch), 0);
    loop_run(scene->loop);
    assert_int_equal(scene->last->error, -EBADF);
}

/* Who asks waits for an end, but not for the disk. */
static void test_cancelled_job_comes_back(void **state)
{
    struct scene *scene = *state;

    atomic_store(&post(scene, 0, FILE_BYTES)->is_cancelled, true);
    assert_int_equal(prefetch_run(scene->prefetch), 0);
    loop_run(scene->loop);
    assert_int_equal(scene->awaited, 0);
}

static void test_stop_gives_back_what_waits(void **state)
{
    struct scene *scene = *state;

    post(scene, 0, FILE_BYTES); /* no thread runs */
    post(scene, 0, FILE_BYTES);
    prefetch_stop(scene->prefetch);
    scene->prefetch = NULL;
    mailbox_close(&scene->mailbox);
    assert_int_equal(scene->awaited, 0);
    assert_int_equal(scene->last->error, -ECANCELED);
}

/* The asker's whole thread has gone: nobody is left to free the jobs but the prefetch. */
static void test_closed_mailbox(void **state)
{
    struct scene *scene = *state;

    post(scene, 0, FILE_BYTES);
    mailbox_close(&scene->mailbox);
    assert_int_equal(prefetch_run(scene->prefetch), 0);
    prefetch_stop(scene->prefetch);
    scene->prefetch = NULL;
    assert_int_equal(scene->awaited, 1);
}

static void test_what_is_cached(void **state)
{
    struct scene *scene = *state;
    struct statfs system;

    assert_true(prefetch_is_cached(scene->file, 0, FILE_BYTES));
    assert_true(prefetch_is_cached(scene->file, 0, 0));
    assert_true(
        prefetch_is_cached(scene->file, FILE_BYTES, FILE_BYTES * 2)); /* nothing to wait for */
    assert_int_equal(fstatfs(scene->file, &system), 0);
    if (system.f_type == TMPFS_MAGIC) {
        skip(); /* is nothing but cache */
    }
    assert_int_equal(fsync(scene->file), 0);
    assert_int_equal(posix_fadvise(scene->file, 0, 0, POSIX_FADV_DONTNEED), 0);
    if (prefetch_is_cached(scene->file, 0, FILE_BYTES)) {
        skip(); /* a file system that keeps it nevertheless */
    }
    assert_int_equal(prefetch_run(scene->prefetch), 0);
    post(scene, 0, FILE_BYTES);
    loop_run(scene->loop);
    assert_true(prefetch_is_cached(scene->file, 0, FILE_BYTES));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_jobs_come_back),           TEST(test_file_that_cannot_be_read),
        TEST(test_cancelled_job_comes_back), TEST(test_stop_gives_back_what_waits),
        TEST(test_closed_mailbox),           TEST(test_what_is_cached),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
