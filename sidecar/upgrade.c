/* SPDX-License-Identifier: MIT */
/*
 * Handing over to another version of the program. Must never execute anything but the file of our
 * own name, and must leave everything as it was where that fails.
 */
#include "sidecar/upgrade.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define VARIABLE "VELOX_SIDECAR_STATE"
#define TITLE "velox-sidecar-state 1"
/* From Linux 6.3 on; where vm.memfd_noexec asks for it, nothing else is given. */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
/* What a program that is tried may say. */
#define OUTPUT_MAX ((size_t)64 * 1024)

/* In the state, where numbers could mean something else to another version. */
static const char *const role_names[] = { "starting", "serving", "closing", "draining" };
static_assert(CHILD_STARTING == 0 && CHILD_SERVING == 1 && CHILD_CLOSING == 2 &&
                  CHILD_DRAINING == 3,
              "names of roles");

/* ---- our name -------------------------------------------------------------------------------- */

static bool is_own_file(const char *name)
{
    struct stat file;
    struct stat own;

    return stat(name, &file) == 0 && stat("/proc/self/exe", &own) == 0 &&
           file.st_dev == own.st_dev && file.st_ino == own.st_ino;
}

char *upgrade_own_name(void)
{
    /* The name that was executed, as the kernel got it; behind fexecve, or in a wrapper such as
     * valgrind, it is not ours. */
    const char *given = (const char *)getauxval(AT_EXECFN); // NOLINT: the kernel's pointer
    char *folder;
    char *name = NULL;

    if (given == NULL || strncmp(given, "/dev/fd/", 8) == 0 || !is_own_file(given)) {
        return realpath("/proc/self/exe", NULL);
    }
    if (given[0] == '/') {
        return strdup(given);
    }
    folder = getcwd(NULL, 0);
    if (folder != NULL && asprintf(&name, "%s/%s", folder, given) < 0) {
        name = NULL;
    }
    free(folder);
    return name;
}

/* ---- writing --------------------------------------------------------------------------------- */

static void print_state(const struct upgrade_state *state, FILE *file)
{
    fprintf(file, TITLE "\nversion %s\npid_file %s\n", state->version,
            state->pid_file == NULL ? "" : state->pid_file);
    for (size_t i = 0; i < state->listeners.count; i++) {
        const struct listener *listener = &state->listeners.items[i];

        fprintf(file, "listener %d %s %d %ju %ju %s\n", listener->fd,
                listener->is_scgi ? "scgi" : "fastcgi", listener->is_activated,
                (uintmax_t)listener->device, (uintmax_t)listener->inode, listener->address.text);
    }
    for (size_t i = 0; i < state->max_children; i++) {
        const struct child *child = &state->children[i];

        if (child->pid > 0) {
            fprintf(file, "child %ld %d %d %s %" PRIu64 " %" PRIu64 "\n", (long)child->pid,
                    child->log.fd, child->control_fd, role_names[child->role],
                    child->draining_since_ms, child->deadline_ms);
        }
    }
}

static int make_file(void)
{
    int fd = memfd_create("velox-sidecar-state", MFD_NOEXEC_SEAL);

    return fd < 0 && errno == EINVAL ? memfd_create("velox-sidecar-state", 0) : fd;
}

/* A memory file that survives an exec. The descriptor or -errno. */
static int write_state(const struct upgrade_state *state)
{
    int fd = make_file();
    int copy = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
    FILE *file = copy < 0 ? NULL : fdopen(copy, "w");
    int error;

    if (file == NULL) {
        error = -errno;
        if (copy >= 0) {
            close(copy);
        }
    } else {
        print_state(state, file);
        error = fclose(file) != 0 ? -errno : 0;
    }
    if (error != 0) {
        if (fd >= 0) {
            close(fd);
        }
        return error;
    }
    (void)lseek(fd, 0, SEEK_SET);
    return fd;
}

static void set_cloexec(int fd, bool closes)
{
    (void)fcntl(fd, F_SETFD, closes ? FD_CLOEXEC : 0);
}

static void set_all_cloexec(const struct upgrade_state *state, bool closes)
{
    for (size_t i = 0; i < state->listeners.count; i++) {
        set_cloexec(state->listeners.items[i].fd, closes);
    }
    for (size_t i = 0; i < state->max_children; i++) {
        if (state->children[i].pid > 0) {
            set_cloexec(state->children[i].log.fd, closes);
            set_cloexec(state->children[i].control_fd, closes);
        }
    }
}

static int name_state(int fd)
{
    char number[16];

    snprintf(number, sizeof(number), "%d", fd);
    return setenv(VARIABLE, number, 1) == 0 ? 0 : -errno;
}

int upgrade_execute(const char *program, char **argv, const struct upgrade_state *state)
{
    int fd = write_state(state);
    int error = fd < 0 ? fd : name_state(fd);

    if (error == 0) {
        set_all_cloexec(state, false);
        execv(program, argv);
        error = -errno;
        set_all_cloexec(state, true);
    }
    if (fd >= 0) {
        close(fd);
    }
    unsetenv(VARIABLE);
    return error;
}

/* ---- the trial ------------------------------------------------------------------------------- */

static _Noreturn void try_program(const char *program, const char *config_path, int state_fd,
                                  int output_fd)
{
    const char *const argv[] = { program, "-t", "-c", config_path, NULL };
    sigset_t none;

    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGPIPE, SIG_DFL);
    if (dup2(output_fd, STDOUT_FILENO) >= 0 && dup2(output_fd, STDERR_FILENO) >= 0 &&
        name_state(state_fd) == 0) {
        execv(program, (char *const *)(uintptr_t)argv);
    }
    dprintf(output_fd, "%s: %s\n", program, strerror(errno));
    _exit(127);
}

int upgrade_trial_start(struct upgrade_trial *trial, const char *program, const char *config_path,
                        const struct upgrade_state *state)
{
    int fds[2];
    int state_fd = write_state(state);
    int error = 0;
    pid_t pid;

    if (state_fd < 0) {
        return state_fd;
    }
    if (pipe2(fds, O_CLOEXEC) != 0) {
        error = -errno;
        close(state_fd);
        return error;
    }
    pid = fork();
    if (pid == 0) {
        try_program(program, config_path, state_fd, fds[1]);
    }
    error = pid < 0 ? -errno : 0;
    close(state_fd);
    close(fds[1]);
    if (error != 0) {
        close(fds[0]);
        return error;
    }
    (void)fcntl(fds[0], F_SETFL, O_NONBLOCK);
    *trial = (struct upgrade_trial){ .pid = pid, .output_fd = fds[0] };
    buf_init(&trial->output, OUTPUT_MAX);
    return 0;
}

void upgrade_trial_read(struct upgrade_trial *trial)
{
    uint8_t bytes[4096];
    ssize_t got;

    while (trial->pid > 0 && (got = read(trial->output_fd, bytes, sizeof(bytes))) > 0) {
        (void)buf_append(&trial->output, bytes, (size_t)got); /* what is too much is lost */
    }
}

void upgrade_trial_end(struct upgrade_trial *trial)
{
    if (trial->output_fd >= 0) {
        close(trial->output_fd);
        buf_deinit(&trial->output);
    }
    if (trial->pid > 0) {
        kill(trial->pid, SIGKILL);
        (void)waitpid(trial->pid, NULL, 0);
    }
    *trial = (struct upgrade_trial){ .output_fd = -1 };
}

/* ---- reading --------------------------------------------------------------------------------- */

int upgrade_handed_fd(void)
{
    const char *text = getenv(VARIABLE);
    int fd = text == NULL ? -1 : (int)strtol(text, NULL, 10);

    unsetenv(VARIABLE);
    return fd > STDERR_FILENO ? fd : -1;
}

static int read_listener(const char *line, struct upgrade_state *state, bool is_trial)
{
    struct listener listener = { .fd = -1 };
    struct sock_address *address = &listener.address;
    char kind[16];
    int is_activated;
    uintmax_t device;
    uintmax_t inode;

    if (sscanf(line, "listener %d %15s %d %ju %ju %119[^\n]", &listener.fd, kind, &is_activated,
               &device, &inode, address->text) != 6) {
        return -EPROTO;
    }
    if (is_trial) {
        return 0;
    }
    address->length = sizeof(address->storage);
    if (getsockname(listener.fd, (struct sockaddr *)&address->storage, &address->length) != 0) {
        return -errno;
    }
    listener.is_scgi = strcmp(kind, "scgi") == 0;
    listener.is_activated = is_activated != 0;
    listener.device = (dev_t)device;
    listener.inode = (ino_t)inode;
    return listeners_add(&state->listeners, &listener);
}

static bool read_role(const char *name, enum child_role *role)
{
    for (size_t i = 0; i < sizeof(role_names) / sizeof(role_names[0]); i++) {
        if (strcmp(name, role_names[i]) == 0) {
            *role = (enum child_role)i;
            return true;
        }
    }
    return false;
}

static int read_child(const char *line, struct upgrade_state *state, bool is_trial)
{
    struct child child = { .pid = 0 };
    char role[16];
    long pid;
    int log_fd;

    if (sscanf(line, "child %ld %d %d %15s %" SCNu64 " %" SCNu64, &pid, &log_fd, &child.control_fd,
               role, &child.draining_since_ms, &child.deadline_ms) != 6 ||
        pid <= 0 || !read_role(role, &child.role)) {
        return -EPROTO;
    }
    if (is_trial) {
        return 0;
    }
    child.pid = (pid_t)pid;
    log_pipe_adopt(&child.log, log_fd);
    for (size_t i = 0; i < state->max_children; i++) {
        if (state->children[i].pid == 0) {
            state->children[i] = child;
            return 0;
        }
    }
    return -ENOSPC;
}

static int read_line(char *line, struct upgrade_state *state, bool is_trial)
{
    if (strncmp(line, "listener ", 9) == 0) {
        return read_listener(line, state, is_trial);
    }
    if (strncmp(line, "child ", 6) == 0) {
        return read_child(line, state, is_trial);
    }
    line[strcspn(line, "\n")] = '\0';
    if (strncmp(line, "version ", 8) == 0) {
        snprintf(state->version, sizeof(state->version), "%s", line + 8);
        return 0;
    }
    if (strncmp(line, "pid_file ", 9) == 0) {
        free(state->pid_file);
        state->pid_file = strdup(line + 9);
        return state->pid_file == NULL ? -ENOMEM : 0;
    }
    return -EPROTO;
}

/* In a trial the descriptors that the text names are not ours. */
static int read_lines(FILE *file, struct upgrade_state *state, bool is_trial)
{
    char *line = NULL;
    size_t size = 0;
    int error = 0;

    if (getline(&line, &size, file) < 0 || strcmp(line, TITLE "\n") != 0) {
        error = -EPROTO;
    }
    while (error == 0 && getline(&line, &size, file) >= 0) {
        error = read_line(line, state, is_trial);
    }
    free(line);
    return error;
}

int upgrade_check(int fd)
{
    struct upgrade_state state = { .pid_file = NULL };
    FILE *file = fdopen(fd, "r");
    int error = file == NULL ? -errno : read_lines(file, &state, true);

    if (file != NULL) {
        fclose(file);
    }
    free(state.pid_file);
    return error;
}

int upgrade_read(int fd, struct upgrade_state *state)
{
    FILE *file = fdopen(fd, "r");
    int error;

    if (file == NULL) {
        return -errno;
    }
    error = read_lines(file, state, false);
    fclose(file);
    if (error == 0) {
        set_all_cloexec(state, true);
    }
    return error;
}
