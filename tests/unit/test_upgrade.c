/* SPDX-License-Identifier: MIT */

/* The text that one program hands to another: what is written is read again, and nothing else. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sidecar/upgrade.h"

#define CHILDREN 4

struct holder {
    char folder[32];
    char path[64];
    struct upgrade_state state;
    struct child children[CHILDREN];
};

static void set_up(struct holder *holder)
{
    *holder = (struct holder){ .folder = "/tmp/vx-upgrade-XXXXXX" };
    assert_non_null(mkdtemp(holder->folder));
    snprintf(holder->path, sizeof(holder->path), "%s/a socket", holder->folder);
    holder->state = (struct upgrade_state){ .children = holder->children,
                                            .max_children = CHILDREN };
}

static void free_state(struct upgrade_state *state)
{
    for (size_t i = 0; i < state->max_children; i++) {
        if (state->children[i].pid > 0) {
            log_pipe_close(&state->children[i].log);
            close(state->children[i].control_fd);
            state->children[i].pid = 0;
        }
    }
    listeners_close(&state->listeners);
    free(state->pid_file);
    state->pid_file = NULL;
}

static void tear_down(struct holder *holder)
{
    free_state(&holder->state);
    assert_int_equal(rmdir(holder->folder), 0);
}

static bool add_listener(struct holder *holder, const char *text, bool is_scgi)
{
    struct listener listener = { .is_scgi = is_scgi, .is_activated = is_scgi };
    struct stat file = { .st_dev = 0 };

    assert_int_equal(sock_address_parse(text, &listener.address), 0);
    listener.fd = sock_listen(&listener.address, 1);
    if (listener.fd < 0) {
        return false;
    }
    if (sock_address_is_unix(&listener.address)) {
        assert_int_equal(lstat(holder->path, &file), 0);
    }
    listener.device = file.st_dev;
    listener.inode = file.st_ino;
    assert_int_equal(listeners_add(&holder->state.listeners, &listener), 0);
    return true;
}

/* On the first port from there on that nobody else uses now. */
static void add_tcp_listener(struct holder *holder)
{
    unsigned port = 20000 + (unsigned)getpid() % 10000;
    char text[32];

    do {
        snprintf(text, sizeof(text), "127.0.0.1:%u", port++);
        assert_true(port < 32000);
    } while (!add_listener(holder, text, true));
}

static void add_child(struct holder *holder, size_t place, enum child_role role)
{
    struct child *child = &holder->children[place];
    int fds[2];
    int writer;

    *child = (struct child){ .pid = 4711 + (pid_t)place,
                             .role = role,
                             .deadline_ms = 99,
                             .draining_since_ms = (uint64_t)1 << 40 };
    assert_int_equal(log_pipe_open(&child->log, &writer), 0);
    close(writer);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    close(fds[1]);
    child->control_fd = fds[0];
}

static void write_script(const struct holder *holder, char *program, size_t size)
{
    int fd;

    snprintf(program, size, "%s/program", holder->folder);
    fd = open(program, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
    assert_true(fd >= 0);
    assert_true(dprintf(fd, "#!/bin/sh\ncat /proc/self/fd/$VELOX_SIDECAR_STATE\n") > 0);
    close(fd);
}

/* What a program that is tried gets to see, in a descriptor of its own. */
static int hand_over(const struct holder *holder)
{
    int fd = memfd_create("copy", 0);
    struct upgrade_trial trial;
    struct span text;
    char program[64];
    int status;

    write_script(holder, program, sizeof(program));
    assert_int_equal(upgrade_trial_start(&trial, program, "ini", &holder->state), 0);
    assert_int_equal(waitpid(trial.pid, &status, 0), trial.pid);
    assert_int_equal(status, 0);
    upgrade_trial_read(&trial);
    trial.pid = 0;
    text = buf_span(&trial.output);
    assert_int_equal(write(fd, text.ptr, text.len), text.len);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    upgrade_trial_end(&trial);
    assert_int_equal(unlink(program), 0);
    return fd;
}

static void all_that_is_written_is_read(void **state)
{
    struct child children[CHILDREN] = { { .pid = 0 } };
    struct upgrade_state read = { .children = children, .max_children = CHILDREN };
    struct holder holder;
    char text[80];

    (void)state;
    set_up(&holder);
    snprintf(text, sizeof(text), "unix:%s", holder.path);
    assert_true(add_listener(&holder, text, false));
    add_tcp_listener(&holder);
    add_child(&holder, 1, CHILD_SERVING);
    add_child(&holder, 3, CHILD_DRAINING);
    snprintf(holder.state.version, sizeof(holder.state.version), "1.2.3");
    holder.state.pid_file = strdup("/run/a folder/pid");

    assert_int_equal(upgrade_read(hand_over(&holder), &read), 0);
    assert_string_equal(read.version, "1.2.3");
    assert_string_equal(read.pid_file, "/run/a folder/pid");
    assert_int_equal(read.listeners.count, 2);
    for (size_t i = 0; i < 2; i++) {
        const struct listener *is = &read.listeners.items[i];
        const struct listener *was = &holder.state.listeners.items[i];

        assert_int_equal(is->fd, was->fd);
        assert_int_equal(is->is_scgi, was->is_scgi);
        assert_int_equal(is->is_activated, was->is_activated);
        assert_int_equal(is->inode, was->inode);
        assert_int_equal(is->device, was->device);
        assert_string_equal(is->address.text, was->address.text);
    }
    assert_int_equal(children[0].pid, 4712);
    assert_int_equal(children[0].role, CHILD_SERVING);
    assert_int_equal(children[1].pid, 4714);
    assert_int_equal(children[1].role, CHILD_DRAINING);
    assert_int_equal(children[1].log.fd, holder.children[3].log.fd);
    assert_int_equal(children[1].control_fd, holder.children[3].control_fd);
    assert_int_equal(children[1].draining_since_ms, (uint64_t)1 << 40);
    assert_int_equal(children[1].deadline_ms, 99);
    /* The descriptors are the same: closed once. */
    free(read.pid_file);
    free(read.listeners.items);
    tear_down(&holder);
}

static int make_text(const char *text)
{
    int fd = memfd_create("text", 0);

    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

static void a_trial_needs_no_descriptors(void **state)
{
    (void)state;
    assert_int_equal(upgrade_check(make_text("velox-sidecar-state 1\nversion 1.2\npid_file \n"
                                             "listener 1000000 fastcgi 0 1 2 unix:/run/a b\n"
                                             "child 12 1000000 1000001 serving 0 0\n")),
                     0);
}

static void what_is_not_understood_is_refused(void **state)
{
    static const char *const texts[] = {
        "",
        "velox-sidecar-state 2\n",
        "velox-sidecar-state 1\nunknown 3\n",
        "velox-sidecar-state 1\nlistener\n",
        "velox-sidecar-state 1\nlistener 1 fastcgi 0 1\n",
        "velox-sidecar-state 1\nchild 12 3\n",
        "velox-sidecar-state 1\nchild 12 1000000 1000000 dancing 0 0\n",
        "velox-sidecar-state 1\nchild -1 1000000 1000000 serving 0 0\n",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct child children[CHILDREN] = { { .pid = 0 } };
        struct upgrade_state read = { .children = children, .max_children = CHILDREN };

        assert_int_equal(upgrade_read(make_text(texts[i]), &read), -EPROTO);
        /* A trial knows before it is too late. */
        assert_int_equal(upgrade_check(make_text(texts[i])), -EPROTO);
        assert_int_equal(children[0].pid, 0);
        free_state(&read);
    }
}

static void a_descriptor_that_is_none_is_refused(void **state)
{
    static const char text[] = "velox-sidecar-state 1\nlistener 1000000 fastcgi 0 1 1 unix:/a\n";
    struct upgrade_state read = { .max_children = 0 };
    int fd = memfd_create("text", 0);

    (void)state;
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    assert_int_equal(upgrade_read(fd, &read), -EBADF);
    free_state(&read);
}

static void the_variable_is_told_once(void **state)
{
    (void)state;
    assert_int_equal(upgrade_handed_fd(), -1);
    setenv("VELOX_SIDECAR_STATE", "17", 1);
    assert_int_equal(upgrade_handed_fd(), 17);
    assert_int_equal(upgrade_handed_fd(), -1);
    setenv("VELOX_SIDECAR_STATE", "nonsense", 1);
    assert_int_equal(upgrade_handed_fd(), -1);
}

static void our_name(void **state)
{
    char *name = upgrade_own_name();

    (void)state;
    assert_non_null(name);
    assert_int_equal(name[0], '/');
    assert_int_equal(access(name, X_OK), 0);
    free(name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_that_is_written_is_read),
        cmocka_unit_test(what_is_not_understood_is_refused),
        cmocka_unit_test(a_trial_needs_no_descriptors),
        cmocka_unit_test(a_descriptor_that_is_none_is_refused),
        cmocka_unit_test(the_variable_is_told_once),
        cmocka_unit_test(our_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
