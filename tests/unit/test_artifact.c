/* SPDX-License-Identifier: MIT */

/*
 * Which files are opened. Every case runs twice: with openat2 and with the walk for kernels that
 * lack it; both must say the same.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "sidecar/build/artifact.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static const enum artifact_walk walks[] = { ARTIFACT_BY_KERNEL, ARTIFACT_BY_COMPONENT };

/* A folder with root/ (the only root) and outside/, both below base. */
struct tree {
    char base[64];
    int fd;
};

static void write_file(int dir, const char *path, const char *content)
{
    int fd = openat(dir, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, content, strlen(content)), strlen(content));
    close(fd);
}

static void make_socket(const struct tree *tree)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/root/socket", tree->base);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
}

static int make_tree(void **state)
{
    struct tree *tree = calloc(1, sizeof(*tree));

    assert_non_null(tree);
    (void)snprintf(tree->base, sizeof(tree->base), "/tmp/test_artifact.XXXXXX");
    assert_non_null(mkdtemp(tree->base));
    tree->fd = open(tree->base, O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_true(tree->fd >= 0);
    assert_int_equal(mkdirat(tree->fd, "root", 0755), 0);
    assert_int_equal(mkdirat(tree->fd, "root/dir", 0755), 0);
    assert_int_equal(mkdirat(tree->fd, "root/dir/deep", 0755), 0);
    assert_int_equal(mkdirat(tree->fd, "rootless", 0755), 0);
    assert_int_equal(mkdirat(tree->fd, "outside", 0755), 0);
    write_file(tree->fd, "root/rr", "binary");
    write_file(tree->fd, "root/empty", "");
    write_file(tree->fd, "root/new\nline", "odd");
    write_file(tree->fd, "root/..rr", "dots");
    write_file(tree->fd, "root/a..b", "dots within");
    write_file(tree->fd, "root/...", "three");
    write_file(tree->fd, "root/%2e%2e", "percent");
    write_file(tree->fd, "root/dir/rr", "deep binary");
    write_file(tree->fd, "outside/secret", "secret");
    write_file(tree->fd, "rootless/rr", "near");
    assert_int_equal(symlinkat("rr", tree->fd, "root/link"), 0);
    assert_int_equal(symlinkat("../rr", tree->fd, "root/dir/up"), 0);
    assert_int_equal(symlinkat("dir/deep/../../link", tree->fd, "root/around"), 0);
    assert_int_equal(symlinkat("dir", tree->fd, "root/folder"), 0);
    assert_int_equal(symlinkat("../outside/secret", tree->fd, "root/out"), 0);
    assert_int_equal(symlinkat("../outside", tree->fd, "root/outdir"), 0);
    assert_int_equal(symlinkat("../root/rr", tree->fd, "root/out_and_in"), 0);
    assert_int_equal(symlinkat("/etc/passwd", tree->fd, "root/absolute"), 0);
    assert_int_equal(symlinkat("loop", tree->fd, "root/loop"), 0);
    assert_int_equal(symlinkat("nothing", tree->fd, "root/dangling"), 0);
    assert_int_equal(symlinkat("link", tree->fd, "root/chain"), 0);
    assert_int_equal(symlinkat("chain2", tree->fd, "root/chain1"), 0);
    assert_int_equal(symlinkat("folder/../out", tree->fd, "root/chain2"), 0);
    assert_int_equal(symlinkat("loop2", tree->fd, "root/loop1"), 0);
    assert_int_equal(symlinkat("loop1", tree->fd, "root/loop2"), 0);
    assert_int_equal(symlinkat("../nothing", tree->fd, "root/dangling_out"), 0);
    assert_int_equal(symlinkat(".", tree->fd, "root/dot"), 0);
    assert_int_equal(symlinkat("..", tree->fd, "root/dots"), 0);
    assert_int_equal(symlinkat("../..", tree->fd, "root/dir/dots"), 0);
    assert_int_equal(symlinkat("fifo", tree->fd, "root/to_fifo"), 0);
    assert_int_equal(symlinkat("/proc/self/fd/0", tree->fd, "root/magic"), 0);
    assert_int_equal(mkfifoat(tree->fd, "root/fifo", 0644), 0);
    make_socket(tree);
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

/* Opens and closes; the descriptor and the size are checked on the way. */
static enum artifact_result open_with(enum artifact_walk walk,
                                      const struct artifact_options *options, struct span path,
                                      uint64_t size_bytes)
{
    struct artifact artifact = { .fd = -7 };
    int error = -1;
    enum artifact_result result = artifact_open_by(walk, options, path, &artifact, &error);

    if (result != ARTIFACT_OPENED) {
        assert_int_equal(artifact.fd, -7);
        assert_true(error >= 0);
        return result;
    }
    assert_int_equal(error, 0);
    assert_int_equal(artifact.size_bytes, size_bytes);
    assert_true(artifact.modified.tv_sec > 0);
    assert_int_equal(fcntl(artifact.fd, F_GETFD), FD_CLOEXEC);
    assert_int_equal(fcntl(artifact.fd, F_GETFL) & O_ACCMODE, O_RDONLY);
    artifact_close(&artifact);
    assert_int_equal(artifact.fd, -1);
    artifact_close(&artifact);
    return result;
}

static const struct {
    const char *path; /* below base */
    enum artifact_result result;
    uint64_t size_bytes;
} cases[] = {
    { "root/rr", ARTIFACT_OPENED, 6 },
    { "root/empty", ARTIFACT_OPENED, 0 },
    { "root/new\nline", ARTIFACT_OPENED, 3 },
    { "root/..rr", ARTIFACT_OPENED, 4 },
    { "root//dir/./rr", ARTIFACT_OPENED, 11 },
    { "root/./dir/.//rr", ARTIFACT_OPENED, 11 },
    { "root/a..b", ARTIFACT_OPENED, 11 },
    { "root/...", ARTIFACT_OPENED, 5 },
    { "root/%2e%2e", ARTIFACT_OPENED, 7 },
    { "root/link", ARTIFACT_OPENED, 6 },
    { "root/chain", ARTIFACT_OPENED, 6 },
    { "root/dot/dot/./dot/rr", ARTIFACT_OPENED, 6 },
    { "root/dir/up", ARTIFACT_OPENED, 6 },
    { "root/around", ARTIFACT_OPENED, 6 },
    { "root/folder/rr", ARTIFACT_OPENED, 11 },
    { "root/folder/up", ARTIFACT_OPENED, 6 },
    { "root/nothing", ARTIFACT_MISSING, 0 },
    { "root/nothing/rr", ARTIFACT_MISSING, 0 },
    { "root/rr/more", ARTIFACT_MISSING, 0 },
    { "root/rr/", ARTIFACT_MISSING, 0 },
    { "root/rr/.", ARTIFACT_MISSING, 0 },
    { "root/rr/./", ARTIFACT_MISSING, 0 },
    { "root/link/", ARTIFACT_MISSING, 0 },
    { "root/dangling", ARTIFACT_MISSING, 0 },
    { "root/%2e%2e/outside/secret", ARTIFACT_MISSING, 0 },
    { "root/%2e%2e%2foutside%2fsecret", ARTIFACT_MISSING, 0 },
    { "root/..%2foutside", ARTIFACT_MISSING, 0 },
    { "root/rr\n", ARTIFACT_MISSING, 0 },
    { "root/\xff\xfe\x1b[31m", ARTIFACT_MISSING, 0 },
    { "root/out", ARTIFACT_OUTSIDE_ROOT, 0 },
    { "root/outdir/secret", ARTIFACT_OUTSIDE_ROOT, 0 },
    { "root/out_and_in", ARTIFACT_OUTSIDE_ROOT, 0 },
    { "root/absolute", ARTIFACT_OUTSIDE_ROOT, 0 },
    { "root/loop", ARTIFACT_OUTSIDE_ROOT, 0 },
    { "root/loop1", ARTIFACT_OUTSIDE_ROOT, 0 },
    { "root/chain1", ARTIFACT_OUTSIDE_ROOT, 0 },
    { "root/dangling_out", ARTIFACT_OUTSIDE_ROOT, 0 },
    { "root/dots", ARTIFACT_OUTSIDE_ROOT, 0 },
    { "root/dots/outside/secret", ARTIFACT_OUTSIDE_ROOT, 0 },
    { "root/dots/root/rr", ARTIFACT_OUTSIDE_ROOT, 0 },
    { "root/dir/dots/outside/secret", ARTIFACT_OUTSIDE_ROOT, 0 },
    { "root/magic", ARTIFACT_OUTSIDE_ROOT, 0 },
    { "root ", ARTIFACT_OUTSIDE_ROOT, 0 },
    { "roo", ARTIFACT_OUTSIDE_ROOT, 0 },
    { "rootless/rr", ARTIFACT_OUTSIDE_ROOT, 0 },
    { "outside/secret", ARTIFACT_OUTSIDE_ROOT, 0 },
    { "root/../outside/secret", ARTIFACT_BAD_PATH, 0 },
    { "root/dir/../rr", ARTIFACT_BAD_PATH, 0 },
    { "root/dir/../../outside/secret", ARTIFACT_BAD_PATH, 0 },
    { "root/rr/..", ARTIFACT_BAD_PATH, 0 },
    { "root/./..//outside/secret", ARTIFACT_BAD_PATH, 0 },
    { "root/nothing/../rr", ARTIFACT_BAD_PATH, 0 },
    { "root/../", ARTIFACT_BAD_PATH, 0 },
    { "root/..", ARTIFACT_BAD_PATH, 0 },
    { "root", ARTIFACT_NOT_REGULAR, 0 },
    { "root/", ARTIFACT_NOT_REGULAR, 0 },
    { "root/dir", ARTIFACT_NOT_REGULAR, 0 },
    { "root/dir/", ARTIFACT_NOT_REGULAR, 0 },
    { "root/dir/.", ARTIFACT_NOT_REGULAR, 0 },
    { "root/.", ARTIFACT_NOT_REGULAR, 0 },
    { "root/dot", ARTIFACT_NOT_REGULAR, 0 },
    { "root/to_fifo", ARTIFACT_NOT_REGULAR, 0 },
    { "root/folder", ARTIFACT_NOT_REGULAR, 0 },
    { "root/fifo", ARTIFACT_NOT_REGULAR, 0 },
    { "root/socket", ARTIFACT_NOT_REGULAR, 0 },
};

static void test_cases(void **state)
{
    const struct tree *tree = *state;
    char root[100];
    char *roots[] = { root };
    struct artifact_options options = { .roots = { .items = roots, .count = 1 } };

    (void)snprintf(root, sizeof(root), "%s/root", tree->base);
    for (size_t i = 0; i < COUNT(cases); i++) {
        for (size_t w = 0; w < COUNT(walks); w++) {
            char path[200];
            enum artifact_result result;

            (void)snprintf(path, sizeof(path), "%s/%s", tree->base, cases[i].path);
            result = open_with(walks[w], &options, span_of_string(path), cases[i].size_bytes);
            if (result != cases[i].result) {
                fail_msg("%s by %d: %s", cases[i].path, (int)walks[w],
                         artifact_result_text(result));
            }
        }
    }
}

static void assert_result(const struct artifact_options *options, struct span path,
                          enum artifact_result wanted, uint64_t size_bytes)
{
    for (size_t w = 0; w < COUNT(walks); w++) {
        assert_int_equal(open_with(walks[w], options, path, size_bytes), wanted);
    }
}

static void test_text_rules(void **state)
{
    char slash[] = "/";
    char *roots[] = { slash };
    struct artifact_options options = { .roots = { .items = roots, .count = 1 } };
    char path[PATH_MAX + 1];

    (void)state;
    assert_result(&options, span_of_string(""), ARTIFACT_BAD_PATH, 0);
    assert_result(&options, span_of_string("tmp/rr"), ARTIFACT_BAD_PATH, 0);
    assert_result(&options, span_of_string("file:///tmp/rr"), ARTIFACT_BAD_PATH, 0);
    assert_result(&options, span_of("/etc/passwd\0.rr", 15), ARTIFACT_BAD_PATH, 0);
    assert_result(&options, span_of_string("/"), ARTIFACT_NOT_REGULAR, 0);
    assert_result(&options, span_of_string("/dev/null"), ARTIFACT_NOT_REGULAR, 0);
    assert_result(&options, span_of_string("/dev/zero"), ARTIFACT_NOT_REGULAR, 0);
    assert_result(&options, span_of_string("/dev/tty"), ARTIFACT_NOT_REGULAR, 0);
    assert_result(&options, span_of_string("/proc/uptime"), ARTIFACT_NOT_REGULAR, 0);
    assert_result(&options, span_of_string("/../etc/passwd"), ARTIFACT_BAD_PATH, 0);
    assert_result(&options, span_of_string("/.."), ARTIFACT_BAD_PATH, 0);
    assert_result(&options, span_of("\0", 1), ARTIFACT_BAD_PATH, 0);
    assert_result(&options, span_of("/tmp/rr\0", 8), ARTIFACT_BAD_PATH, 0);
    assert_result(&options, span_of_string(" /tmp/rr"), ARTIFACT_BAD_PATH, 0);
    assert_result(&options, span_of_string("~/rr"), ARTIFACT_BAD_PATH, 0);
    memset(path, 'a', sizeof(path));
    path[0] = '/';
    assert_result(&options, span_of(path, PATH_MAX), ARTIFACT_BAD_PATH, 0);
    assert_result(&options, span_of(path, 300), ARTIFACT_BAD_PATH, 0); /* over NAME_MAX */
}

/* What /proc/self/fd names are not paths: they lead to the open file itself, wherever it is. */
static void test_magic_links(void **state)
{
    const struct tree *tree = *state;
    char slash[] = "/";
    char *roots[] = { slash };
    struct artifact_options options = { .roots = { .items = roots, .count = 1 } };
    char path[64];
    int fd = openat(tree->fd, "outside/secret", O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    (void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)getpid(), fd);
    assert_result(&options, span_of_string(path), ARTIFACT_OUTSIDE_ROOT, 0);
    (void)snprintf(path, sizeof(path), "/proc/%d/root%s", (int)getpid(), "/etc/passwd");
    assert_result(&options, span_of_string(path), ARTIFACT_OUTSIDE_ROOT, 0);
    close(fd);
}

static void test_several_roots(void **state)
{
    const struct tree *tree = *state;
    char inner[100], outer[100], missing[100], path[200];
    char *roots[] = { missing, inner, outer };
    struct artifact_options options = { .roots = { .items = roots, .count = 3 } };

    (void)snprintf(missing, sizeof(missing), "%s/missing", tree->base);
    (void)snprintf(inner, sizeof(inner), "%s/root", tree->base);
    (void)snprintf(outer, sizeof(outer), "%s", tree->base);
    /* The link leads out of the inner root, not out of the outer one. */
    (void)snprintf(path, sizeof(path), "%s/root/out", tree->base);
    assert_result(&options, span_of_string(path), ARTIFACT_OPENED, 6);
    (void)snprintf(path, sizeof(path), "%s/missing/rr", tree->base);
    assert_result(&options, span_of_string(path), ARTIFACT_MISSING, 0);
    options.roots.count = 1;
    assert_result(&options, span_of_string(path), ARTIFACT_MISSING, 0);
    options.roots.count = 0;
    assert_result(&options, span_of_string(path), ARTIFACT_OUTSIDE_ROOT, 0);
}

static void test_path_map(void **state)
{
    const struct tree *tree = *state;
    char from[] = "/build", from_dir[] = "/build/dir", from_root[] = "/";
    char root[100], dir[100];
    char *roots[] = { root };
    struct path_mapping mappings[] = {
        { .from = from, .to = root },
        { .from = from_dir, .to = dir },
        { .from = from_root, .to = dir },
    };
    struct artifact_options options = {
        .roots = { .items = roots, .count = 1 },
        .mappings = mappings,
        .mapping_count = 2,
    };

    (void)snprintf(root, sizeof(root), "%s/root", tree->base);
    (void)snprintf(dir, sizeof(dir), "%s/root/dir", tree->base);
    assert_result(&options, span_of_string("/build/rr"), ARTIFACT_OPENED, 6);
    assert_result(&options, span_of_string("//build///rr"), ARTIFACT_OPENED, 6);
    assert_result(&options, span_of_string("/build/dir/rr"), ARTIFACT_OPENED, 11);
    assert_result(&options, span_of_string("/build"), ARTIFACT_NOT_REGULAR, 0);
    assert_result(&options, span_of_string("/builder/rr"), ARTIFACT_OUTSIDE_ROOT, 0);
    assert_result(&options, span_of_string("/rr"), ARTIFACT_OUTSIDE_ROOT, 0);
    assert_result(&options, span_of_string("/build/../etc/passwd"), ARTIFACT_BAD_PATH, 0);
    options.mapping_count = 3;
    assert_result(&options, span_of_string("/rr"), ARTIFACT_OPENED, 11);
}

static void test_no_permission(void **state)
{
    const struct tree *tree = *state;
    char path[200], root[100];
    char *roots[] = { root };
    struct artifact_options options = { .roots = { .items = roots, .count = 1 } };
    bool is_root = geteuid() == 0;

    assert_int_equal(fchmodat(tree->fd, "root/empty", 0, 0), 0);
    (void)snprintf(root, sizeof(root), "%s/root", tree->base);
    (void)snprintf(path, sizeof(path), "%s/root/empty", tree->base);
    if (is_root) {
        assert_int_equal(chmod(tree->base, 0755), 0);
        assert_int_equal(seteuid(65534), 0);
    }
    assert_result(&options, span_of_string(path), ARTIFACT_UNREADABLE, 0);
    if (is_root) {
        assert_int_equal(seteuid(0), 0);
    }
}

/* A path_map decides where a path lies, and only then the roots decide. */
static void test_path_map_and_roots(void **state)
{
    const struct tree *tree = *state;
    char from[] = "/build", outside[100], root[100], path[200];
    char *roots[] = { root };
    struct path_mapping mapping = { .from = from, .to = outside };
    struct artifact_options options = {
        .roots = { .items = roots, .count = 1 },
        .mappings = &mapping,
        .mapping_count = 1,
    };

    (void)snprintf(root, sizeof(root), "%s/root", tree->base);
    (void)snprintf(outside, sizeof(outside), "%s/outside", tree->base);
    (void)snprintf(path, sizeof(path), "%s/outside/secret", tree->base);
    assert_result(&options, span_of_string("/build/secret"), ARTIFACT_OUTSIDE_ROOT, 0);
    assert_result(&options, span_of_string("/build"), ARTIFACT_OUTSIDE_ROOT, 0);
    /* Mapped once: what comes out is not mapped again. */
    mapping = (struct path_mapping){ .from = root, .to = outside };
    (void)snprintf(path, sizeof(path), "%s/root/rr", tree->base);
    assert_result(&options, span_of_string(path), ARTIFACT_OUTSIDE_ROOT, 0);
    mapping = (struct path_mapping){ .from = outside, .to = root };
    (void)snprintf(path, sizeof(path), "%s/outside/rr", tree->base);
    assert_result(&options, span_of_string(path), ARTIFACT_OPENED, 6);
    (void)snprintf(path, sizeof(path), "%s/outside/out", tree->base);
    assert_result(&options, span_of_string(path), ARTIFACT_OUTSIDE_ROOT, 0);
}

/* 40 links are followed, as the kernel does, and no more. */
static void test_chains_of_links(void **state)
{
    const struct tree *tree = *state;
    char root[100], path[200];
    char *roots[] = { root };
    struct artifact_options options = { .roots = { .items = roots, .count = 1 } };

    assert_int_equal(mkdirat(tree->fd, "root/links", 0755), 0);
    write_file(tree->fd, "root/links/0", "end");
    for (int i = 1; i <= 41; i++) {
        char target[20], name[40];

        (void)snprintf(target, sizeof(target), "%d", i - 1);
        (void)snprintf(name, sizeof(name), "root/links/%d", i);
        assert_int_equal(symlinkat(target, tree->fd, name), 0);
    }
    (void)snprintf(root, sizeof(root), "%s/root", tree->base);
    (void)snprintf(path, sizeof(path), "%s/root/links/40", tree->base);
    assert_result(&options, span_of_string(path), ARTIFACT_OPENED, 3);
    (void)snprintf(path, sizeof(path), "%s/root/links/41", tree->base);
    assert_result(&options, span_of_string(path), ARTIFACT_OUTSIDE_ROOT, 0);
}

struct swapper {
    const struct tree *tree;
    atomic_bool ends;
};

/* root/race is the folder with the harmless file, then the link to the secret one, and back. */
static void *swap(void *swapper_pointer)
{
    struct swapper *swapper = swapper_pointer;
    int fd = swapper->tree->fd;

    while (!atomic_load(&swapper->ends)) {
        (void)renameat2(fd, "root/race", fd, "root/race_link", RENAME_EXCHANGE);
    }
    return NULL;
}

static void check_content(const struct artifact *artifact, enum artifact_walk walk)
{
    char content[16];

    assert_int_equal(pread(artifact->fd, content, sizeof(content), 0), 8);
    if (memcmp(content, "harmless", 8) != 0) {
        fail_msg("walk %d opened what is outside", (int)walk);
    }
}

/* Whatever is swapped while the path is walked, it is the harmless file or none. */
static void test_races(void **state)
{
    const struct tree *tree = *state;
    struct swapper swapper = { .tree = tree };
    char root[100], path[200];
    char *roots[] = { root };
    struct artifact_options options = { .roots = { .items = roots, .count = 1 } };
    pthread_t thread;
    unsigned opened = 0;

    assert_int_equal(mkdirat(tree->fd, "root/race", 0755), 0);
    assert_int_equal(mkdirat(tree->fd, "secrets", 0755), 0);
    write_file(tree->fd, "root/race/rr", "harmless");
    write_file(tree->fd, "secrets/rr", "secret!!");
    assert_int_equal(symlinkat("../secrets", tree->fd, "root/race_link"), 0);
    (void)snprintf(root, sizeof(root), "%s/root", tree->base);
    (void)snprintf(path, sizeof(path), "%s/root/race/rr", tree->base);
    assert_int_equal(pthread_create(&thread, NULL, swap, &swapper), 0);
    for (int i = 0; i < 20000; i++) {
        struct artifact artifact;
        int error;

        if (artifact_open_by(walks[i % 2], &options, span_of_string(path), &artifact, &error) ==
            ARTIFACT_OPENED) {
            check_content(&artifact, walks[i % 2]);
            artifact_close(&artifact);
            opened++;
        }
    }
    atomic_store(&swapper.ends, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(opened > 0);
}

/* A FIFO's writer does not get past its open(2), since the FIFO is looked at only. */
static void test_a_fifo_is_not_opened(void **state)
{
    const struct tree *tree = *state;
    char root[100], path[200];
    char *roots[] = { root };
    struct artifact_options options = { .roots = { .items = roots, .count = 1 } };
    pid_t writer;
    int status;

    (void)snprintf(root, sizeof(root), "%s/root", tree->base);
    (void)snprintf(path, sizeof(path), "%s/root/fifo", tree->base);
    writer = fork();
    assert_true(writer >= 0);
    if (writer == 0) {
        _exit(open(path, O_WRONLY | O_CLOEXEC) >= 0 ? 1 : 2);
    }
    for (int i = 0; i < 200; i++) {
        assert_result(&options, span_of_string(path), ARTIFACT_NOT_REGULAR, 0);
    }
    assert_int_equal(waitpid(writer, &status, WNOHANG), 0);
    assert_int_equal(kill(writer, SIGKILL), 0);
    assert_int_equal(waitpid(writer, &status, 0), writer);
}

/* The descriptor keeps the file, whatever happens to its name. */
static void test_removal_does_no_harm(void **state)
{
    const struct tree *tree = *state;
    char path[200], root[100], content[10];
    char *roots[] = { root };
    struct artifact_options options = { .roots = { .items = roots, .count = 1 } };
    struct artifact artifact;
    int error;

    write_file(tree->fd, "root/gone", "still here");
    (void)snprintf(root, sizeof(root), "%s/root", tree->base);
    (void)snprintf(path, sizeof(path), "%s/root/gone", tree->base);
    assert_int_equal(artifact_open(&options, span_of_string(path), &artifact, &error),
                     ARTIFACT_OPENED);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(pread(artifact.fd, content, sizeof(content), 0), 10);
    assert_memory_equal(content, "still here", 10);
    artifact_close(&artifact);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_text_rules),
        cmocka_unit_test(test_magic_links),
        cmocka_unit_test(test_several_roots),
        cmocka_unit_test(test_path_map),
        cmocka_unit_test(test_path_map_and_roots),
        cmocka_unit_test(test_chains_of_links),
        cmocka_unit_test(test_races),
        cmocka_unit_test(test_a_fifo_is_not_opened),
        cmocka_unit_test(test_no_permission),
        cmocka_unit_test(test_removal_does_no_harm),
    };

    return cmocka_run_group_tests(tests, make_tree, remove_tree);
}
