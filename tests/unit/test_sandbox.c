/* SPDX-License-Identifier: MIT */
/*
 * What a bug in the child could still do: every test enters the sandbox in a process of its own and
 * tries there, with the system calls themselves. The real daemon in it: tests/daemon/test_sandbox.
 */

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sidecar/sandbox/landlock.h"
#include "sidecar/sandbox/sandbox.h"

/* Folders below one that is outside of all: an artifact root, a cache, a spool directory. */
struct place {
    char outside[64];
    char root[96];
    char cache[96];
    char spool[96];
    char secret[96]; /* outside */
    char built[128]; /* in the root */
    int listener;    /* TCP, on a port that php_fpm names */
    int other;       /* TCP, on one that nothing names */
    int unix_listener;
    char unix_path[96];
    struct sockaddr_un abstract;
    struct config config;
    struct sock_address php;
    char *root_item;
    char server_url[64];
    struct velox_server server;
};

static void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static int listen_tcp(struct sockaddr_in *address)
{
    socklen_t length = sizeof(*address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    *address = (struct sockaddr_in){ .sin_family = AF_INET,
                                     .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    assert_int_equal(bind(fd, (struct sockaddr *)address, sizeof(*address)), 0);
    assert_int_equal(listen(fd, 5), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)address, &length), 0);
    return fd;
}

static int listen_unix(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strcpy(address.sun_path, path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 5), 0);
    return fd;
}

static void make_folder(char *path, size_t size, const struct place *place, const char *name)
{
    snprintf(path, size, "%s/%s", place->outside, name);
    assert_int_equal(mkdir(path, 0755), 0);
}

static int set_up(void **state)
{
    struct place *place = calloc(1, sizeof(*place));
    struct sockaddr_in address;

    *state = place;
    strcpy(place->outside, "/tmp/test_sandbox.XXXXXX");
    if (mkdtemp(place->outside) == NULL) {
        return -1;
    }
    make_folder(place->root, sizeof(place->root), place, "root");
    make_folder(place->cache, sizeof(place->cache), place, "cache");
    make_folder(place->spool, sizeof(place->spool), place, "spool");
    snprintf(place->secret, sizeof(place->secret), "%s/secret", place->outside);
    snprintf(place->built, sizeof(place->built), "%s/rr", place->root);
    snprintf(place->unix_path, sizeof(place->unix_path), "%s/php.sock", place->outside);
    write_file(place->secret, "secret");
    write_file(place->built, "built");
    place->unix_listener = listen_unix(place->unix_path);
    place->other = listen_tcp(&address);
    place->listener = listen_tcp(&address);
    memcpy(&place->php.storage, &address, sizeof(address));
    place->php.length = sizeof(address);
    place->root_item = place->root;
    place->server = (struct velox_server){ .url = place->server_url, .unix_socket = place->spool };
    place->server.unix_socket = place->unix_path;
    place->config = (struct config){
        .sandbox = SANDBOX_ON,
        .relay = { .intercept = true,
                   .spool_directory = place->spool,
                   .addresses = &place->php,
                   .address_count = 1 },
        .build = { .servers = &place->server,
                   .server_count = 1,
                   .token_file = place->secret,
                   .ca_file = place->secret + strlen(place->secret),
                   .artifact = { .roots = { &place->root_item, 1 },
                                 .url = place->secret + strlen(place->secret) },
                   .cache = { .directory = place->cache } },
    };
    return 0;
}

static int tear_down(void **state)
{
    struct place *place = *state;
    char command[128];

    close(place->listener);
    close(place->other);
    close(place->unix_listener);
    snprintf(command, sizeof(command), "rm -rf %s", place->outside);
    assert_int_equal(system(command), 0);
    free(place);
    return 0;
}

/* ---- the process in the sandbox -------------------------------------------------------------- */

#define CANNOT_ENTER 77

/* In the child: each thing that is not as it should be is a line, and the exit code is their
 * number. */
struct trial {
    struct place *place;
    int failures;
};

static void expect(struct trial *trial, bool is_right, const char *what)
{
    if (!is_right) {
        trial->failures++;
        fprintf(stderr, "in the sandbox: %s: %s\n", what, strerror(errno));
    }
}

#define REFUSED(call, error) (errno = 0, (long)(call) == -1 && errno == (error))
#define WORKS(call) (errno = 0, (long)(call) != -1)

/* Skips the test where the sandbox cannot be had. */
static void in_sandbox(struct place *place, void (*body)(struct trial *trial))
{
    struct trial trial = { .place = place };
    int status = 0;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        struct watchlist known = { 0 };
        struct log log;

        log_init(&log, STDERR_FILENO, LOG_WARN, LOG_TEXT);
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
            sandbox_enter(&place->config, &log, &known) != 0) {
            _exit(CANNOT_ENTER);
        }
        body(&trial);
        _exit(trial.failures);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == CANNOT_ENTER) {
        print_message("skipped: no Landlock, no seccomp, or a sanitizer; see the line above\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

static int landlock_abi(void)
{
    long abi = syscall(444, NULL, 0, 1);

    return abi < 0 ? 0 : (int)abi;
}

static void try_files_outside(struct trial *trial)
{
    char path[256];
    int root;

    expect(trial, REFUSED(open(trial->place->secret, O_RDONLY), EACCES), "read a file outside");
    expect(trial, REFUSED(open(trial->place->secret, O_WRONLY), EACCES), "write a file outside");
    expect(trial, REFUSED(open("/etc/shadow", O_RDONLY), EACCES), "/etc/shadow");
    expect(trial, REFUSED(open("/etc/passwd", O_RDONLY), EACCES), "/etc/passwd");
    expect(trial, REFUSED(open("/etc/hosts", O_RDONLY), EACCES) || errno == ENOENT,
           "/etc/hosts, for which no server calls");
    expect(trial, REFUSED(open("/proc/self/environ", O_RDONLY), EACCES), "/proc/self/environ");
    expect(trial, REFUSED(open("/", O_RDONLY | O_DIRECTORY), EACCES), "list /");
    snprintf(path, sizeof(path), "%s/../secret", trial->place->root);
    expect(trial, REFUSED(open(path, O_RDONLY), EACCES), "by way of the root");
    root = open(trial->place->root, O_PATH);
    expect(trial, REFUSED(openat(root, "../secret", O_RDONLY), EACCES),
           "from the root's descriptor");
    expect(trial, REFUSED(openat(root, "out", O_RDONLY), EACCES), "by a link in the root");
}

static void test_a_file_outside_of_the_roots_cannot_be_opened(void **state)
{
    struct place *place = *state;
    char link[128];

    snprintf(link, sizeof(link), "%s/out", place->root);
    assert_int_equal(symlink(place->secret, link), 0);
    in_sandbox(place, try_files_outside);
}

static void try_writing(struct trial *trial)
{
    char path[256];

    expect(trial, REFUSED(open(trial->place->built, O_RDWR), EACCES), "write an artifact");
    expect(trial, WORKS(access(trial->place->built, R_OK)), "see an artifact");
    snprintf(path, sizeof(path), "%s/new", trial->place->root);
    expect(trial, REFUSED(open(path, O_WRONLY | O_CREAT, 0600), EACCES), "create in a root");
    expect(trial, REFUSED(unlink(trial->place->built), ENOSYS), "remove an artifact");
    expect(trial, REFUSED(rename(trial->place->built, path), ENOSYS), "rename an artifact");
    expect(trial, REFUSED(truncate(trial->place->built, 0), ENOSYS), "truncate an artifact");
    snprintf(path, sizeof(path), "%s/new", trial->place->cache);
    expect(trial, REFUSED(open(path, O_WRONLY | O_CREAT, 0600), EACCES), "a cache that is off");
    snprintf(path, sizeof(path), "%s/new", trial->place->outside);
    expect(trial, REFUSED(open(path, O_WRONLY | O_CREAT, 0600), EACCES), "create outside");
}

static void test_nothing_is_written_without_a_cache(void **state)
{
    in_sandbox(*state, try_writing);
}

static void try_needed(struct trial *trial)
{
    const struct place *place = trial->place;
    char bytes[8] = "";
    int fd = open(place->built, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    expect(trial, fd >= 0 && read(fd, bytes, 5) == 5 && memcmp(bytes, "built", 5) == 0,
           "an artifact");
    fd = open(place->spool, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    expect(trial, fd >= 0 && write(fd, "body", 4) == 4 && pread(fd, bytes, 4, 0) == 4, "spooling");
    expect(trial, WORKS(ftruncate(fd, 0)), "truncate what was spooled");
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    expect(trial,
           WORKS(connect(fd, (const struct sockaddr *)&place->php.storage, place->php.length)),
           "PHP-FPM over TCP");
    /* The socket file of a PHP-FPM that has been started again is another one. */
    strcpy(address.sun_path, place->unix_path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    expect(trial, WORKS(connect(fd, (struct sockaddr *)&address, sizeof(address))),
           "a unix socket");
}

static void test_what_is_needed_works(void **state)
{
    in_sandbox(*state, try_needed);
}

static void *set_flag(void *flag)
{
    *(bool *)flag = true;
    return NULL;
}

static void try_calls(struct trial *trial)
{
    char name[] = "true";
    char *const arguments[] = { name, NULL };
    long page = sysconf(_SC_PAGESIZE);
    void *memory = mmap(NULL, (size_t)page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                        0);
    bool flag = false;
    pthread_t thread;

    expect(trial, REFUSED(execv("/bin/true", arguments), EPERM), "execve");
    expect(trial, REFUSED(syscall(SYS_execveat, AT_FDCWD, "/bin/true", arguments, NULL, 0), EPERM),
           "execveat");
    expect(trial, REFUSED(fork(), EPERM), "fork");
    expect(trial, REFUSED(unshare(CLONE_NEWUSER), EPERM), "unshare");
    expect(trial, REFUSED(ptrace(PTRACE_TRACEME, 0, NULL, NULL), EPERM), "ptrace");
    expect(trial, REFUSED(kill(getppid(), 0), EPERM), "kill");
    expect(trial, REFUSED(syscall(SYS_tgkill, getppid(), getppid(), 0), EPERM), "tgkill");
    expect(trial, REFUSED(socket(AF_PACKET, SOCK_RAW, 0), EPERM), "AF_PACKET");
    expect(trial, REFUSED(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), ENOSYS), "SOCK_RAW");
    expect(trial, REFUSED(socket(AF_VSOCK, SOCK_STREAM, 0), EPERM), "AF_VSOCK");
    expect(trial, REFUSED(socket(AF_NETLINK, SOCK_RAW, NETLINK_AUDIT), EPERM), "netlink for audit");
    expect(trial, WORKS(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)), "netlink for addresses");
    expect(trial,
           memory != MAP_FAILED &&
               REFUSED(mprotect(memory, (size_t)page, PROT_READ | PROT_EXEC), EPERM),
           "mprotect to executable");
    expect(trial,
           mmap(NULL, (size_t)page, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
               MAP_FAILED,
           "executable memory");
    expect(trial, REFUSED(syscall(SYS_io_uring_setup, 1, NULL), EPERM), "io_uring");
    expect(trial, REFUSED(syscall(460, 0, 0, 0, 0, 0, 0), ENOSYS), "a call that is not known");
    expect(trial,
           pthread_create(&thread, NULL, set_flag, &flag) == 0 && pthread_join(thread, NULL) == 0 &&
               flag,
           "a thread");
}

static void test_calls_that_nothing_makes_are_refused(void **state)
{
    in_sandbox(*state, try_calls);
}

static void try_network(struct trial *trial)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct sockaddr_in other;
    struct sockaddr_un abstract = trial->place->abstract;
    socklen_t length = sizeof(other);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    expect(trial, REFUSED(listen(fd, 5), EPERM), "listen");
    if (landlock_abi() >= 4) {
        expect(trial, REFUSED(bind(fd, (struct sockaddr *)&address, sizeof(address)), EACCES),
               "bind");
        (void)getsockname(trial->place->other, (struct sockaddr *)&other, &length);
        expect(trial, REFUSED(connect(fd, (struct sockaddr *)&other, length), EACCES),
               "a port that nothing names");
    }
    if (landlock_abi() >= 6) {
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        expect(trial, REFUSED(connect(fd, (struct sockaddr *)&abstract, sizeof(abstract)), EPERM),
               "an abstract socket");
    }
}

static void test_only_configured_ports_are_connected_to(void **state)
{
    struct place *place = *state;
    struct sockaddr_un *abstract = &place->abstract;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    abstract->sun_family = AF_UNIX;
    strcpy(abstract->sun_path + 1, place->outside); /* a name that nobody else has */
    assert_int_equal(bind(fd, (struct sockaddr *)abstract, sizeof(*abstract)), 0);
    assert_int_equal(listen(fd, 5), 0);
    in_sandbox(place, try_network);
    close(fd);
}

static void try_cache(struct trial *trial)
{
    const struct place *place = trial->place;
    char path[256];
    char other[256];
    char outside[256];
    char descriptor[64];
    int fd;

    snprintf(path, sizeof(path), "%s/sub", place->cache);
    expect(trial, WORKS(mkdir(path, 0700)), "a folder in the cache");
    snprintf(path, sizeof(path), "%s/new", place->cache);
    snprintf(other, sizeof(other), "%s/sub/new", place->cache);
    snprintf(outside, sizeof(outside), "%s/new", place->outside);
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    expect(trial, fd >= 0 && write(fd, "bytes", 5) == 5 && fsync(fd) == 0, "a file in the cache");
    expect(trial, WORKS(truncate(path, 1)), "truncate it");
    expect(trial, WORKS(utimensat(AT_FDCWD, path, NULL, 0)), "touch it");
    expect(trial,
           REFUSED(rename(path, outside), landlock_abi() == 1 ? EXDEV : EACCES) || errno == EXDEV,
           "move it out");
    expect(trial, REFUSED(link(path, outside), EACCES) || errno == EXDEV, "link it outside");
    expect(trial, landlock_abi() == 1 || WORKS(rename(path, other)), "move it within the cache");
    fd = open(place->cache, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    snprintf(descriptor, sizeof(descriptor), "/proc/self/fd/%d", fd);
    expect(trial, WORKS(linkat(AT_FDCWD, descriptor, AT_FDCWD, path, AT_SYMLINK_FOLLOW)),
           "name a file");
    expect(trial, WORKS(unlink(path)), "remove it");
    expect(trial, REFUSED(open(place->secret, O_RDONLY), EACCES), "outside as ever");
    expect(trial, REFUSED(unlink(place->built), EACCES), "an artifact is not ours");
    expect(trial, REFUSED(mkdir(outside, 0700), EACCES), "a folder outside");
}

static void test_the_cache_is_ours(void **state)
{
    struct place *place = *state;

    place->config.build.cache.enabled = true;
    in_sandbox(place, try_cache);
}

static void try_names(struct trial *trial)
{
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
    struct addrinfo *found = NULL;

    if (WORKS(open("/etc/hosts", O_RDONLY))) {
        expect(trial, getaddrinfo("localhost", "80", &hints, &found) == 0, "look localhost up");
    } else {
        expect(trial, errno == ENOENT, "/etc/hosts"); /* the smallest of systems have none */
    }
    expect(trial, REFUSED(open("/etc/passwd", O_RDONLY), EACCES), "/etc/passwd");
    expect(trial,
           mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
               MAP_FAILED,
           "executable memory that is no library");
}

static void test_names_are_looked_up_where_a_server_has_one(void **state)
{
    struct place *place = *state;

    strcpy(place->server_url, "http://localhost:9000/");
    place->server.unix_socket = place->secret + strlen(place->secret);
    in_sandbox(place, try_names);
}

static void try_certificates(struct trial *trial)
{
    expect(trial, WORKS(open("/etc/ssl/certs", O_RDONLY | O_DIRECTORY)) || errno == ENOENT,
           "the store");
    expect(trial,
           REFUSED(open("/etc/ssl/private", O_RDONLY | O_DIRECTORY), EACCES) || errno == ENOENT,
           "the keys");
    expect(trial, REFUSED(open("/etc/hosts", O_RDONLY), EACCES) || errno == ENOENT,
           "no name, no hosts");
}

static void test_certificates_are_read_where_a_server_has_some(void **state)
{
    struct place *place = *state;

    strcpy(place->server_url, "https://[::1]:9443/build");
    place->server.unix_socket = place->secret + strlen(place->secret);
    in_sandbox(place, try_certificates);
}

static void try_missing_root(struct trial *trial)
{
    expect(trial, mkdir(trial->place->root_item, 0755) != 0, "make the root");
    expect(trial, REFUSED(open(trial->place->built, O_RDONLY), EACCES), "what is no root now");
    expect(trial, WORKS(open(trial->place->spool, O_TMPFILE | O_RDWR, 0600)),
           "the rest is as ever");
}

static void test_a_root_that_is_missing_is_left_out(void **state)
{
    struct place *place = *state;
    char missing[128];

    snprintf(missing, sizeof(missing), "%s/missing", place->outside);
    place->root_item = missing;
    in_sandbox(place, try_missing_root);
}

static void test_what_has_been_replaced_is_seen(void **state)
{
    const struct place *place = *state;
    struct watchlist list = { 0 };
    char later[96];

    snprintf(later, sizeof(later), "%s/later", place->outside);
    assert_int_equal(watchlist_add(&list, place->root), 0);
    assert_int_equal(watchlist_add(&list, later), 0);
    assert_null(watchlist_changed(&list));
    write_file(place->built, "more"); /* the folder is the same */
    assert_null(watchlist_changed(&list));
    write_file(later, "here");
    assert_string_equal(watchlist_changed(&list), later);
    unlink(later);
    assert_null(watchlist_changed(&list));
    assert_int_equal(rename(place->root, later), 0);
    assert_string_equal(watchlist_changed(&list), place->root);
    assert_int_equal(mkdir(place->root, 0755), 0);
    assert_string_equal(watchlist_changed(&list), place->root);
    watchlist_deinit(&list);
    assert_null(watchlist_changed(&list));
}

static void test_off_is_off(void **state)
{
    struct place *place = *state;
    struct watchlist known = { 0 };
    struct log log;

    log_init(&log, STDERR_FILENO, LOG_WARN, LOG_TEXT);
    place->config.sandbox = SANDBOX_OFF;
    assert_int_equal(sandbox_enter(&place->config, &log, &known), 0);
    assert_int_equal(known.count, 0);
    assert_int_equal(access("/etc/passwd", R_OK), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_file_outside_of_the_roots_cannot_be_opened),
        TEST(test_nothing_is_written_without_a_cache),
        TEST(test_what_is_needed_works),
        TEST(test_calls_that_nothing_makes_are_refused),
        TEST(test_only_configured_ports_are_connected_to),
        TEST(test_the_cache_is_ours),
        TEST(test_names_are_looked_up_where_a_server_has_one),
        TEST(test_certificates_are_read_where_a_server_has_some),
        TEST(test_a_root_that_is_missing_is_left_out),
        TEST(test_what_has_been_replaced_is_seen),
        TEST(test_off_is_off),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
