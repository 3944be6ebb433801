/* SPDX-License-Identifier: MIT */
/*
 * Finding and setting the rights of socket files. Must never follow a link: the folder may belong
 * to somebody with fewer rights than we have.
 */
#include "sidecar/socket_rights.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *unix_path(const struct sock_address *address)
{
    return ((const struct sockaddr_un *)(const void *)&address->storage)->sun_path;
}

/* False where PHP-FPM has no unix socket, or none that is there. */
static bool find_php_group(const struct config *config, gid_t *group, bool *may_come)
{
    struct stat file;

    for (size_t i = 0; i < config->relay.address_count; i++) {
        const struct sock_address *address = &config->relay.addresses[i];

        if (!sock_address_is_unix(address)) {
            continue;
        }
        if (stat(unix_path(address), &file) == 0) {
            *group = file.st_gid;
            return true;
        }
        *may_come = true;
    }
    return false;
}

/* The web server's usual group, by distribution: Debian, Fedora, Arch. */
static bool guess_group(gid_t *group)
{
    static const char *const names[] = { "www-data", "nginx", "http" };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const struct group *found = getgrnam(names[i]);

        if (found != NULL) {
            *group = found->gr_gid;
            return true;
        }
    }
    return false;
}

/* Whether we may give a file of ours to the group. */
static bool may_give_to(gid_t group)
{
    int count = getgroups(0, NULL);
    gid_t *groups;
    bool found = geteuid() == 0 || group == getegid();

    if (found || count <= 0) {
        return found;
    }
    groups = calloc((size_t)count, sizeof(*groups));
    count = groups == NULL ? 0 : getgroups(count, groups);
    for (int i = 0; i < count && !found; i++) {
        found = groups[i] == group;
    }
    free(groups);
    return found;
}

static void choose_group(struct socket_rights *rights, const struct config *config, struct log *log)
{
    bool may_come = false;
    gid_t group = (gid_t)-1;
    bool is_known = find_php_group(config, &group, &may_come);

    if (!is_known && !guess_group(&group)) {
        group = (gid_t)-1;
    }
    if (group != (gid_t)-1 && may_give_to(group)) {
        rights->group = group;
    }
    rights->is_chosen = true;
    rights->is_guessed = !is_known && may_come;
    if (!is_known && geteuid() == 0 && log != NULL) {
        log_warn(log,
                 "no PHP-FPM socket to take the group of our socket from: the web server may not "
                 "be able to connect; set [listen] socket_group",
                 log_int("gid_taken", (int64_t)(int32_t)rights->group),
                 log_str("tried_again", may_come ? "yes" : "no"));
    }
}

struct socket_rights socket_rights_of(const struct config *config, struct log *log)
{
    struct socket_rights rights = {
        .owner = config->listen.socket_owner,
        .group = config->listen.socket_group,
        .mode = config->listen.socket_mode,
    };

    if (rights.group == (gid_t)-1) {
        choose_group(&rights, config, log);
    }
    return rights;
}

/* Linux has no chmod for an O_PATH descriptor but by this name, which needs /proc. */
static int change_mode(int fd, const char *path, unsigned mode)
{
    char name[sizeof("/proc/self/fd/") + 12];

    snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
    if (chmod(name, mode) == 0) {
        return 0;
    }
    return errno == ENOENT && chmod(path, mode) == 0 ? 0 : -errno;
}

/* A group that nobody asked for may be refused: in a container root may lack the right. */
static int change_owner(int fd, const struct socket_rights *rights)
{
    if (rights->owner == (uid_t)-1 && rights->group == (gid_t)-1) {
        return 0;
    }
    if (fchownat(fd, "", rights->owner, rights->group, AT_EMPTY_PATH) == 0) {
        return 0;
    }
    return rights->is_chosen && rights->owner == (uid_t)-1 ? 0 : -errno;
}

int socket_rights_set(const struct socket_rights *rights, const char *path)
{
    int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    struct stat file;
    int error = 0;

    if (fd < 0) {
        return -errno;
    }
    if (fstat(fd, &file) != 0) {
        error = -errno;
    } else if (!S_ISSOCK(file.st_mode)) {
        error = -ENOTSOCK;
    } else {
        error = change_owner(fd, rights);
    }
    if (error == 0) {
        error = change_mode(fd, path, rights->mode);
    }
    close(fd);
    return error;
}
