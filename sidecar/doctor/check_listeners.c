/* SPDX-License-Identifier: MIT */
/*
 * Our own unix sockets: is the service there, and may the web server connect? Must not connect
 * itself, since a connection starts a service whose socket systemd holds.
 */
#include "sidecar/doctor/checks.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SUBJECT_SIZE 256
/* __SO_ACCEPTCON of net/unix/af_unix.c:unix_seq_show: somebody listens. */
#define FLAG_LISTENS 0x10000U

typedef void check_socket_fn(struct report *report, const char *subject, const char *path,
                             const void *argument);

static void for_each_socket(struct report *report, const struct sock_address *addresses,
                            size_t count, check_socket_fn *check, const void *argument)
{
    for (size_t i = 0; i < count; i++) {
        char subject[SUBJECT_SIZE];

        if (strncmp(addresses[i].text, "unix:", 5) == 0) {
            (void)snprintf(subject, sizeof(subject), "our socket %s", addresses[i].text);
            check(report, subject, addresses[i].text + 5, argument);
        }
    }
}

static void for_each_listener(struct report *report, const struct config *config,
                              check_socket_fn *check, const void *argument)
{
    const struct listen_options *listen = &config->listen;

    for_each_socket(report, listen->fastcgi, listen->fastcgi_count, check, argument);
    for_each_socket(report, listen->scgi, listen->scgi_count, check, argument);
}

/* ---- is the service there? ------------------------------------------------------------------- */

/* A line is "NUMBER: REFERENCES PROTOCOL FLAGS TYPE STATE INODE PATH". */
static bool is_listener(const char *line, const char *path)
{
    unsigned flags = 0;
    int at = 0;
    size_t length;

    if (sscanf(line, "%*s %*s %*s %x %*s %*s %*s %n", &flags, &at) < 1 || at == 0) {
        return false;
    }
    length = strcspn(line + at, "\n");
    return (flags & FLAG_LISTENS) != 0 && strlen(path) == length &&
           strncmp(line + at, path, length) == 0;
}

static bool is_listened_on(const char *path)
{
    FILE *table = fopen("/proc/net/unix", "re");
    char line[512];
    bool is_found = table == NULL; /* nobody can tell */

    while (!is_found && fgets(line, sizeof(line), table) != NULL) {
        is_found = is_listener(line, path);
    }
    if (table != NULL) {
        (void)fclose(table);
    }
    return is_found;
}

static void check_presence(struct report *report, const char *subject, const char *path,
                           const void *argument)
{
    struct stat info;

    (void)argument;
    if (stat(path, &info) != 0 && errno == EACCES) {
        report_line(report, FINDING_WARN, subject,
                    "you may not look at it; run the doctor as root");
    } else if (stat(path, &info) != 0) {
        report_line(report, FINDING_WARN, subject,
                    "%s: the service does not run; start it: systemctl start velox-sidecar, and "
                    "see its log",
                    strerror(errno));
    } else if (!S_ISSOCK(info.st_mode) || !is_listened_on(path)) {
        report_line(report, FINDING_WARN, subject,
                    "nobody listens: the service does not run; start it: systemctl start "
                    "velox-sidecar, and see its log");
    } else {
        report_line(report, FINDING_OK, subject, "the service listens");
    }
}

void check_listeners(struct report *report, const struct config *config)
{
    for_each_listener(report, config, check_presence, NULL);
}

/* ---- may the web server connect? ------------------------------------------------------------- */

/* In a process of its own, which cannot go back to its rights: 0 or an errno. Connecting takes the
 * right to write (net/unix/af_unix.c:unix_find_bsd). */
static int try_as(const struct passwd *user, const char *path)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        if (initgroups(user->pw_name, user->pw_gid) != 0 || setgid(user->pw_gid) != 0 ||
            setuid(user->pw_uid) != 0) {
            _exit(EPERM);
        }
        _exit(access(path, W_OK) == 0 ? 0 : errno);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) {
        return ECHILD;
    }
    return WEXITSTATUS(status);
}

static void check_rights(struct report *report, const char *subject, const char *path,
                         const void *argument)
{
    const struct passwd *user = argument;
    const struct group *group;
    struct stat info;

    if (stat(path, &info) != 0) {
        return; /* that it is missing has been said */
    }
    switch (try_as(user, path)) {
    case 0:
        report_line(report, FINDING_OK, subject, "nginx's user %s may connect", user->pw_name);
        break;
    case EACCES:
        group = getgrgid(info.st_gid);
        report_line(report, FINDING_FAIL, subject,
                    "nginx's user %s may not connect (group %s, mode %04o): set [listen] "
                    "socket_group to a group that it is in, or give it the right to enter the "
                    "socket's folder",
                    user->pw_name, group != NULL ? group->gr_name : "of an unknown name",
                    (unsigned)(info.st_mode & 07777));
        break;
    default:
        break;
    }
}

void check_front_rights(struct report *report, const struct config *config, const char *user)
{
    const struct passwd *found = geteuid() == 0 ? getpwnam(user) : NULL;

    if (found != NULL) {
        for_each_listener(report, config, check_rights, found);
    }
}
