/* SPDX-License-Identifier: MIT */

/* Where nginx finds an open file. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "sidecar/relay/accel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct tree {
    char base[64];
    int fd;
};

static int make_tree(void **state)
{
    struct tree *tree = calloc(1, sizeof(*tree));

    assert_non_null(tree);
    (void)snprintf(tree->base, sizeof(tree->base), "/tmp/test_accel.XXXXXX");
    assert_non_null(mkdtemp(tree->base));
    tree->fd = open(tree->base, O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(mkdirat(tree->fd, "root", 0755), 0);
    assert_int_equal(mkdirat(tree->fd, "root/dir", 0755), 0);
    assert_int_equal(mkdirat(tree->fd, "rootless", 0755), 0);
    assert_int_equal(symlinkat("root", tree->fd, "link"), 0);
    assert_int_equal(symlinkat("dir", tree->fd, "root/folder"), 0);
    *state = tree;
    return 0;
}

static int remove_tree(void **state)
{
    struct tree *tree = *state;
    char command[128];

    close(tree->fd);
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", tree->base);
    assert_int_equal(system(command), 0);
    free(tree);
    return 0;
}

static int open_file(const struct tree *tree, const char *path)
{
    int fd = openat(tree->fd, path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    return fd;
}

/* Takes fd. */
static void assert_location(const struct tree *tree, int fd, const char *root, const char *wanted)
{
    char path[128];
    struct buf out;
    int error;

    (void)snprintf(path, sizeof(path), "%s/%s", tree->base, root);
    buf_init(&out, 4096);
    error = accel_location(fd, path, "/files/", &out);
    assert_int_equal(error, wanted == NULL ? -ENOENT : 0);
    if (wanted != NULL && !span_is(buf_span(&out), wanted)) {
        fail_msg("%.*s instead of %s", (int)buf_length(&out), (const char *)buf_span(&out).ptr,
                 wanted);
    }
    buf_deinit(&out);
    close(fd);
}

static void test_names_below_the_root(void **state)
{
    const struct tree *tree = *state;

    assert_location(tree, open_file(tree, "root/rr"), "root", "/files/rr");
    assert_location(tree, open_file(tree, "root/rr"), "link", "/files/rr");
    assert_location(tree, open_file(tree, "link/rr"), "root", "/files/rr");
    assert_location(tree, open_file(tree, "root/dir/rr"), "root", "/files/dir/rr");
    assert_location(tree, open_file(tree, "root/folder/rr"), "root", "/files/dir/rr");
    assert_location(tree, open_file(tree, "root/a b?#%\n"), "root", "/files/a%20b%3F%23%25%0A");
    assert_location(tree, open_file(tree, "root/x (deleted)"), "root", "/files/x%20%28deleted%29");
}

static void test_what_has_no_name_below_the_root(void **state)
{
    const struct tree *tree = *state;
    int fd = open_file(tree, "root/gone");

    assert_location(tree, open_file(tree, "rootless/rr"), "root", NULL);
    assert_location(tree, open_file(tree, "beside"), "root", NULL);
    assert_location(tree, open_file(tree, "root/rr"), "nothing", NULL);
    assert_int_equal(unlinkat(tree->fd, "root/gone", 0), 0);
    close(open_file(tree, "root/gone (deleted)")); /* another file of that very name */
    assert_location(tree, fd, "root", NULL);
    fd = open_file(tree, "root/moved");
    assert_int_equal(renameat(tree->fd, "root/moved", tree->fd, "moved"), 0);
    assert_location(tree, fd, "root", NULL);
    fd = open(tree->base, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0) {
        assert_location(tree, fd, "", NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_below_the_root),
        cmocka_unit_test(test_what_has_no_name_below_the_root),
    };

    return cmocka_run_group_tests(tests, make_tree, remove_tree);
}
