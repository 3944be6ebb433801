/* SPDX-License-Identifier: MIT */

/* A collected body: in memory, then in a file without a name, never over its maximum. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sidecar/relay/spool.h"

/* What is kept in memory (spool.c). */
#define MEMORY_MAX (64 * 1024)
#define BYTES_MAX (4 * MEMORY_MAX)

struct scene {
    char folder[64];
    struct spool spool;
    uint8_t *pattern;
};

static int set_up(void **state)
{
    struct scene *scene = calloc(1, sizeof(*scene));

    assert_non_null(scene);
    (void)snprintf(scene->folder, sizeof(scene->folder), "/var/tmp/test_spool.XXXXXX");
    assert_non_null(mkdtemp(scene->folder));
    scene->pattern = malloc(BYTES_MAX);
    assert_non_null(scene->pattern);
    for (size_t i = 0; i < BYTES_MAX; i++) {
        scene->pattern[i] = (uint8_t)(i * 13 + i / 257);
    }
    spool_init(&scene->spool, scene->folder, BYTES_MAX);
    *state = scene;
    return 0;
}

static int tear_down(void **state)
{
    struct scene *scene = *state;

    spool_deinit(&scene->spool);
    assert_int_equal(rmdir(scene->folder), 0); /* so nothing is left in it */
    free(scene->pattern);
    free(scene);
    return 0;
}

static void append(struct scene *scene, size_t len)
{
    assert_int_equal(
        spool_append(&scene->spool, span_of(scene->pattern + scene->spool.length, len)), 0);
}

/* Reads all of it in steps of this size, and at and behind the end. */
static void assert_reads_back(struct scene *scene, size_t step)
{
    uint8_t *bytes = malloc(step);
    uint64_t offset = 0;
    ssize_t got;

    assert_non_null(bytes);
    while ((got = spool_read(&scene->spool, offset, bytes, step)) > 0) {
        assert_true((size_t)got <= step);
        assert_memory_equal(bytes, scene->pattern + offset, (size_t)got);
        offset += (uint64_t)got;
    }
    assert_int_equal(got, 0);
    assert_int_equal(offset, scene->spool.length);
    assert_int_equal(spool_read(&scene->spool, offset + 1, bytes, step), 0);
    free(bytes);
}

static void test_sizes_in_memory_and_on_disk(void **state)
{
    static const struct {
        size_t pieces[4];
        bool in_file;
    } cases[] = {
        { { 0 }, false },
        { { 1 }, false },
        { { MEMORY_MAX - 1 }, false },
        { { MEMORY_MAX }, false },
        { { MEMORY_MAX, 0 }, false },
        { { MEMORY_MAX - 1, 1 }, false },
        { { MEMORY_MAX + 1 }, true },
        { { MEMORY_MAX, 1 }, true },
        { { 1, MEMORY_MAX }, true },
        { { MEMORY_MAX, 1, 1, MEMORY_MAX }, true },
        { { BYTES_MAX }, true },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        tear_down(state);
        set_up(state);
        struct scene *scene = *state;
        uint64_t length = 0;

        for (size_t j = 0; j < 4; j++) {
            append(scene, cases[i].pieces[j]);
            length += cases[i].pieces[j];
        }
        assert_int_equal(scene->spool.length, length);
        assert_true((scene->spool.fd >= 0) == cases[i].in_file);
        /* What went to the file takes no memory any more. */
        assert_true(cases[i].in_file ? scene->spool.memory.bytes == NULL
                                     : buf_length(&scene->spool.memory) == length);
        assert_reads_back(scene, 1000);
        assert_reads_back(scene, BYTES_MAX);
        if (length < 2000) {
            assert_reads_back(scene, 1);
        }
    }
}

static void test_maximum(void **state)
{
    static const uint64_t maxima[] = { 0, 1, 10, MEMORY_MAX, MEMORY_MAX + 1, BYTES_MAX - 1 };

    for (size_t i = 0; i < sizeof(maxima) / sizeof(maxima[0]); i++) {
        struct scene *scene = *state;

        spool_init(&scene->spool, scene->folder, maxima[i]);
        assert_int_equal(spool_append(&scene->spool, span_of(scene->pattern, maxima[i] + 1)),
                         -EFBIG);
        assert_int_equal(scene->spool.length, 0);
        assert_int_equal(scene->spool.fd, -1);
        append(scene, maxima[i]);
        assert_int_equal(spool_append(&scene->spool, span_of(scene->pattern, 1)), -EFBIG);
        assert_int_equal(spool_append(&scene->spool, span_of(NULL, 0)), 0);
        /* What was refused has left no trace. */
        assert_int_equal(scene->spool.length, maxima[i]);
        assert_reads_back(scene, MEMORY_MAX);
        spool_deinit(&scene->spool);
    }
}

static unsigned count_names(const char *folder)
{
    DIR *dir = opendir(folder);
    unsigned count = 0;

    assert_non_null(dir);
    while (readdir(dir) != NULL) {
        count++;
    }
    closedir(dir);
    return count - 2; /* "." and ".." */
}

static void test_file_has_no_name_and_is_private(void **state)
{
    struct scene *scene = *state;
    struct stat file;

    append(scene, MEMORY_MAX);
    append(scene, MEMORY_MAX);
    assert_int_equal(count_names(scene->folder), 0);
    assert_int_equal(fstat(scene->spool.fd, &file), 0);
    assert_int_equal(file.st_size, 2 * MEMORY_MAX);
    assert_int_equal(file.st_nlink, 0);
    assert_int_equal(file.st_mode & 0777, 0600);
    assert_true((fcntl(scene->spool.fd, F_GETFD) & FD_CLOEXEC) != 0);
}

static void test_descriptor_is_given_back(void **state)
{
    struct scene *scene = *state;
    int fd;

    append(scene, MEMORY_MAX + 1);
    fd = scene->spool.fd;
    spool_deinit(&scene->spool);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    assert_int_equal(scene->spool.fd, -1);
    assert_int_equal(scene->spool.length, 0);
    spool_deinit(&scene->spool);
}

static void test_folder_that_is_not_there(void **state)
{
    struct scene *scene = *state;

    spool_init(&scene->spool, "/nonexistent/folder", BYTES_MAX);
    append(scene, MEMORY_MAX); /* needs no folder yet */
    assert_int_equal(spool_append(&scene->spool, span_of(scene->pattern, 1)), -ENOENT);
    assert_int_equal(scene->spool.length, MEMORY_MAX);
    assert_int_equal(scene->spool.fd, -1);
    assert_reads_back(scene, 4096);
}

/* The disk is full, as far as the process can tell: an error, and no endless loop. */
static void test_disk_is_full(void **state)
{
    struct scene *scene = *state;
    struct rlimit before;
    struct rlimit limit;
    int error;

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = (struct rlimit){ .rlim_cur = MEMORY_MAX + 100, .rlim_max = before.rlim_max };
    append(scene, MEMORY_MAX);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    error = spool_append(&scene->spool, span_of(scene->pattern + MEMORY_MAX, 200));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(error, -EFBIG); /* write(2)'s errno at this limit */
    assert_int_equal(scene->spool.length, MEMORY_MAX);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_sizes_in_memory_and_on_disk),     TEST(test_maximum),
        TEST(test_file_has_no_name_and_is_private), TEST(test_descriptor_is_given_back),
        TEST(test_folder_that_is_not_there),        TEST(test_disk_is_full),
    };

    signal(SIGXFSZ, SIG_IGN); /* as beyond RLIMIT_FSIZE write(2) shall fail, not kill */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
