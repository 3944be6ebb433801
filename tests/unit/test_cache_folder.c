/* SPDX-License-Identifier: MIT */

/* Entries on disk: made in one step, copied whole, and not opened where anything is wrong. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "sidecar/build/cache_copy.h"
#include "sidecar/build/cache_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONTENT "what was built"
#define MODIFIED                                                                                   \
    {                                                                                              \
        .tv_sec = 1700000000, .tv_nsec = 123456789                                                 \
    }

struct place {
    char path[64];
    struct cache_folder folder;
    struct cache_facts facts;
    char name[CACHE_NAME_SIZE]; /* of the entry */
};

static int set_up(void **state)
{
    struct place *place = calloc(1, sizeof(*place));

    assert_non_null(place);
    strcpy(place->path, "/tmp/velox-unit-XXXXXX");
    assert_non_null(mkdtemp(place->path));
    assert_int_equal(cache_folder_open(&place->folder, place->path), 0);
    place->facts = (struct cache_facts){ .size_bytes = strlen(CONTENT), .modified = MODIFIED };
    memset(place->facts.key, 0xab, sizeof(place->facts.key));
    cache_name_print(place->facts.key, place->name);
    *state = place;
    return 0;
}

static int tear_down(void **state)
{
    struct place *place = *state;
    char command[128];

    cache_folder_close(&place->folder);
    snprintf(command, sizeof(command), "rm -rf %s", place->path);
    assert_int_equal(system(command), 0);
    free(place);
    return 0;
}

static void make_entry(struct place *place)
{
    char temporary[CACHE_NAME_SIZE];
    int fd = cache_folder_create(&place->folder, temporary);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, CONTENT, strlen(CONTENT), 0), strlen(CONTENT));
    assert_int_equal(cache_folder_seal(fd, &place->facts), 0);
    assert_int_equal(cache_folder_commit(&place->folder, temporary, place->name), 0);
    close(fd);
}

static void expect(const struct place *place, enum cache_entry_result expected)
{
    struct cache_facts facts;
    int fd = -1;

    assert_int_equal(cache_folder_open_entry(&place->folder, place->facts.key, &facts, &fd),
                     expected);
    assert_int_equal(fd >= 0, expected == CACHE_ENTRY_OPENED);
    if (fd >= 0) {
        close(fd);
    }
}

static void test_entry(void **state)
{
    struct place *place = *state;
    char content[64];
    struct cache_facts facts;
    struct stat status;
    int fd;

    expect(place, CACHE_ENTRY_ABSENT);
    make_entry(place);
    assert_int_equal(cache_folder_open_entry(&place->folder, place->facts.key, &facts, &fd),
                     CACHE_ENTRY_OPENED);
    assert_int_equal(facts.size_bytes, strlen(CONTENT));
    assert_int_equal(facts.modified.tv_sec, 1700000000);
    assert_int_equal(fstat(fd, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_int_equal(status.st_size, strlen(CONTENT) + CACHE_TRAILER_SIZE);
    assert_true((fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY);
    /* Gone, and still there for who has it. */
    assert_int_equal(cache_folder_remove(&place->folder, place->name), 0);
    expect(place, CACHE_ENTRY_ABSENT);
    assert_int_equal(pread(fd, content, sizeof(content), 0), sizeof(content));
    assert_memory_equal(content, CONTENT, strlen(CONTENT));
    close(fd);
}

/* ---- what is wrong --------------------------------------------------------------------------- */

static void shell(const struct place *place, const char *format)
{
    char path[160];
    char command[512];

    snprintf(path, sizeof(path), "%s/%s", place->path, place->name);
    snprintf(command, sizeof(command), "f=%s; %s", path, format);
    assert_int_equal(system(command), 0);
}

static void test_what_is_wrong(void **state)
{
    static const struct {
        const char *change;
        enum cache_entry_result expected;
    } cases[] = {
        { "true", CACHE_ENTRY_OPENED },
        { "touch $f", CACHE_ENTRY_CORRUPT },
        { "chmod 0400 $f", CACHE_ENTRY_OPENED },
        { "chmod 0620 $f", CACHE_ENTRY_CORRUPT },
        { "chmod 0602 $f", CACHE_ENTRY_CORRUPT },
        { "ln $f $f.twin", CACHE_ENTRY_CORRUPT },
        { "mv $f $f.real; ln -s $f.real $f", CACHE_ENTRY_CORRUPT },
        { "ln -sf /nowhere $f", CACHE_ENTRY_CORRUPT },
        { "rm $f; mkfifo $f", CACHE_ENTRY_CORRUPT },
        { "rm $f; mkdir $f", CACHE_ENTRY_CORRUPT },
        { ": >$f", CACHE_ENTRY_CORRUPT },
        { "truncate -s -1 $f", CACHE_ENTRY_CORRUPT },
        { "truncate -s +1 $f", CACHE_ENTRY_CORRUPT },
        { "truncate -s 287 $f", CACHE_ENTRY_CORRUPT },
        { "cp -p $f $f.copy; mv $f.copy $f", CACHE_ENTRY_OPENED }, /* from a backup */
        /* Content and trailer of another size. */
        { "(head -c 3 $f; tail -c 287 $f) >$f.x; touch -r $f $f.x; mv $f.x $f",
          CACHE_ENTRY_CORRUPT },
        { "rm $f", CACHE_ENTRY_ABSENT },
    };
    struct place *place = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        shell(place, "rm -rf $f $f.*");
        make_entry(place);
        shell(place, cases[i].change);
        expect(place, cases[i].expected);
    }
}

static void test_another_name(void **state)
{
    struct place *place = *state;

    make_entry(place);
    shell(place, "mv $f ${f%ab}ac");
    place->facts.key[CACHE_KEY_SIZE - 1] = 0xac;
    expect(place, CACHE_ENTRY_CORRUPT);
}

static void test_another_owner(void **state)
{
    struct place *place = *state;

    make_entry(place);
    place->folder.owner = geteuid() + 1; /* what is ours is another's */
    expect(place, CACHE_ENTRY_CORRUPT);
}

/* ---- names ----------------------------------------------------------------------------------- */

static void test_names(void **state)
{
    static const struct {
        const char *name;
        enum cache_name_kind expected;
    } cases[] = {
        { "abababababababababababababababababababababababababababababababab", CACHE_NAME_ENTRY },
        { "ABababababababababababababababababababababababababababababababab", CACHE_NAME_OTHER },
        { "abababababababababababababababababababababababababababababababa", CACHE_NAME_OTHER },
        { "ababababababababababababababababababababababababababababababababa", CACHE_NAME_OTHER },
        { "abababababababababababababababababababababababababababababababag", CACHE_NAME_OTHER },
        { ".new-0123456789abcdef", CACHE_NAME_TEMPORARY },
        { "access", CACHE_NAME_OTHER },
        { "lost+found", CACHE_NAME_OTHER },
        { ".", CACHE_NAME_OTHER },
        { "", CACHE_NAME_OTHER },
    };
    uint8_t key[CACHE_KEY_SIZE];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(cache_name_parse(cases[i].name, key), cases[i].expected);
    }
    assert_int_equal(key[31], 0xab);
}

/* Of two files that are not finished, the one whose process is gone goes. */
static void test_left_copies(void **state)
{
    struct place *place = *state;
    char alive[CACHE_NAME_SIZE];
    char dead[CACHE_NAME_SIZE];
    int alive_fd = cache_folder_create(&place->folder, alive);
    int dead_fd = cache_folder_create(&place->folder, dead);

    assert_true(alive_fd >= 0 && dead_fd >= 0);
    close(dead_fd);
    assert_true(cache_folder_remove_left(&place->folder, dead));
    assert_false(cache_folder_remove_left(&place->folder, dead));
    assert_false(cache_folder_remove_left(&place->folder, alive));
    assert_int_equal(faccessat(place->folder.fd, alive, F_OK, 0), 0);
    close(alive_fd);
    /* Nobody else's is touched, nor what a link leads to. */
    assert_int_equal(symlinkat(alive, place->folder.fd, ".new-link"), 0);
    assert_false(cache_folder_remove_left(&place->folder, ".new-link"));
    place->folder.owner++;
    assert_false(cache_folder_remove_left(&place->folder, alive));
}

static void test_folders(void **state)
{
    struct place *place = *state;
    struct cache_folder folder;
    struct stat status;
    char path[192];

    assert_false(cache_folder_is_shared(&place->folder));
    assert_int_equal(chmod(place->path, 0770), 0);
    assert_true(cache_folder_is_shared(&place->folder));
    snprintf(path, sizeof(path), "%s/made", place->path);
    assert_int_equal(cache_folder_open(&folder, path), 0);
    cache_folder_close(&folder);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0700);
    assert_int_equal(cache_folder_make(path, geteuid(), getegid()), 0);
    snprintf(path, sizeof(path), "%s/no/such", place->path);
    assert_int_equal(cache_folder_open(&folder, path), -ENOENT);
    assert_int_equal(cache_folder_make(path, geteuid(), getegid()), -ENOENT);
    make_entry(place);
    snprintf(path, sizeof(path), "%s/%s", place->path, place->name);
    assert_int_equal(cache_folder_open(&folder, path), -ENOTDIR);
}

/* ---- copies ---------------------------------------------------------------------------------- */

static int make_file(const struct place *place, const char *name, size_t size)
{
    int fd = openat(place->folder.fd, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    for (size_t i = 0; i < size; i += 1000) {
        assert_true(pwrite(fd, name, 3, (off_t)i) == 3);
    }
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    return fd;
}

static int copy_all(struct cache_copy *copy, uint8_t sha256[CACHE_SHA256_SIZE])
{
    uint8_t *room = malloc(CACHE_COPY_STEP);
    int result;

    assert_non_null(room);
    do {
        result = cache_copy_step(copy, room);
    } while (result > 0);
    free(room);
    return result < 0 ? result : cache_copy_finish(copy, sha256);
}

static void test_copies(void **state)
{
    static const size_t sizes[] = { 0, 1, CACHE_COPY_STEP - 1, CACHE_COPY_STEP, 1000007 };
    struct place *place = *state;

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        int from = make_file(place, "from", sizes[i]);
        int to = make_file(place, "to", 0);
        uint8_t copied[CACHE_SHA256_SIZE];
        uint8_t expected[CACHE_SHA256_SIZE];
        struct cache_copy copy;

        assert_int_equal(cache_copy_init(&copy, from, to, sizes[i]), 0);
        assert_int_equal(copy_all(&copy, copied), 0);
        cache_copy_deinit(&copy);
        assert_int_equal(lseek(to, 0, SEEK_END), sizes[i]);
        assert_int_equal(cache_copy_init(&copy, to, -1, sizes[i]), 0);
        assert_int_equal(copy_all(&copy, expected), 0);
        cache_copy_deinit(&copy);
        assert_memory_equal(copied, expected, sizeof(copied));
        assert_int_equal(lseek(from, 0, SEEK_CUR), 0);
        close(from);
        close(to);
    }
}

static void test_a_file_that_shrinks(void **state)
{
    struct place *place = *state;
    int from = make_file(place, "from", 1000);
    int to = make_file(place, "to", 0);
    uint8_t sha256[CACHE_SHA256_SIZE];
    struct cache_copy copy;

    assert_int_equal(cache_copy_init(&copy, from, to, 1001), 0);
    assert_int_equal(copy_all(&copy, sha256), -EPIPE);
    cache_copy_deinit(&copy);
    close(from);
    close(to);
}

#define folder_test(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        folder_test(test_entry),
        folder_test(test_what_is_wrong),
        folder_test(test_another_name),
        folder_test(test_another_owner),
        folder_test(test_names),
        folder_test(test_left_copies),
        folder_test(test_folders),
        folder_test(test_copies),
        folder_test(test_a_file_that_shrinks),
    };

    return cmocka_run_group_tests_name("cache_folder", tests, NULL, NULL);
}
