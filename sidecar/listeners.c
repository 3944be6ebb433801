/* SPDX-License-Identifier: MIT */
/*
 * Opening and removing listeners. Must never take a socket away from an instance that runs, nor
 * leave one that the web server may not use.
 */
#include "sidecar/listeners.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *unix_path(const struct sock_address *address)
{
    return ((const struct sockaddr_un *)(const void *)&address->storage)->sun_path;
}

/* 0 when the path is free now; -EADDRINUSE when somebody answers there or it is no socket. */
static int clear_stale(const struct sock_address *address)
{
    struct stat file;
    int error;
    int fd;

    if (lstat(unix_path(address), &file) != 0) {
        return errno == ENOENT ? 0 : -errno;
    }
    if (!S_ISSOCK(file.st_mode)) {
        return -EADDRINUSE;
    }
    error = sock_connect(address, &fd);
    if (error == 0) {
        close(fd);
    }
    if (error != -ECONNREFUSED) {
        return -EADDRINUSE; /* a full backlog is somebody, too */
    }
    return unlink(unix_path(address)) == 0 ? 0 : -errno;
}

/* The group of PHP-FPM's socket: the web server is in it, since it has used that one so far. */
static gid_t group_of_php_fpm(const struct config *config, struct log *log)
{
    struct stat file;

    if (geteuid() != 0) {
        return (gid_t)-1;
    }
    for (size_t i = 0; i < config->relay.address_count; i++) {
        const struct sock_address *address = &config->relay.addresses[i];

        if (sock_address_is_unix(address) && stat(unix_path(address), &file) == 0) {
            return file.st_gid;
        }
    }
    log_warn(log,
             "no PHP-FPM socket to take the group from: the web server may not be able to connect; "
             "set [listen] socket_group",
             log_uint("php_fpm_addresses", config->relay.address_count));
    return (gid_t)-1;
}

static int set_rights(const char *path, const struct config *config, struct log *log)
{
    uid_t owner = config->listen.socket_owner;
    gid_t group = config->listen.socket_group;

    if (group == (gid_t)-1) {
        group = group_of_php_fpm(config, log);
    }
    if ((owner != (uid_t)-1 || group != (gid_t)-1) && chown(path, owner, group) != 0) {
        return -errno;
    }
    return chmod(path, config->listen.socket_mode) == 0 ? 0 : -errno;
}

static int open_unix(const struct sock_address *address, const struct config *config,
                     struct log *log)
{
    int error = clear_stale(address);
    mode_t mask;
    int fd;

    if (error != 0) {
        return error;
    }
    mask = umask(0177); /* until the rights are set, nobody else connects */
    fd = sock_listen(address, config->listen.backlog);
    umask(mask);
    if (fd < 0) {
        return fd;
    }
    error = set_rights(unix_path(address), config, log);
    if (error != 0) {
        close(fd);
        (void)unlink(unix_path(address));
        return error;
    }
    return fd;
}

static const char *advice(int error)
{
    switch (error) {
    case -EADDRINUSE:
        return "another process uses this address; stop it, or change [listen] in this instance";
    case -EACCES:
    case -EPERM:
        return "this user may not create it; start as root, or choose another path or port";
    case -ENOENT:
        return "its folder does not exist; create it";
    default:
        return "";
    }
}

static int open_one(struct listeners *listeners, const struct sock_address *address,
                    const struct config *config, struct log *log)
{
    int fd = sock_address_is_unix(address) ? open_unix(address, config, log)
                                           : sock_listen(address, config->listen.backlog);

    if (fd < 0) {
        log_error(log, "cannot listen", log_str("address", address->text), log_errno("error", fd),
                  log_str("advice", advice(fd)));
        return fd;
    }
    listeners->fds[listeners->count] = fd;
    listeners->addresses[listeners->count] = *address;
    listeners->count++;
    return 0;
}

int listeners_open(struct listeners *listeners, const struct config *config, struct log *log)
{
    const struct listen_options *listen = &config->listen;
    size_t count = listen->fastcgi_count + listen->scgi_count;
    int error = 0;

    *listeners = (struct listeners){ .count = 0 };
    listeners->fds = calloc(count, sizeof(*listeners->fds));
    listeners->addresses = calloc(count, sizeof(*listeners->addresses));
    if (listeners->fds == NULL || listeners->addresses == NULL) {
        error = -ENOMEM;
    }
    for (size_t i = 0; error == 0 && i < listen->fastcgi_count; i++) {
        error = open_one(listeners, &listen->fastcgi[i], config, log);
    }
    for (size_t i = 0; error == 0 && i < listen->scgi_count; i++) {
        error = open_one(listeners, &listen->scgi[i], config, log);
    }
    if (error != 0) {
        listeners_close(listeners);
    }
    return error;
}

void listeners_close(struct listeners *listeners)
{
    for (size_t i = 0; i < listeners->count; i++) {
        if (sock_address_is_unix(&listeners->addresses[i])) {
            (void)unlink(unix_path(&listeners->addresses[i]));
        }
        close(listeners->fds[i]);
    }
    free(listeners->fds);
    free(listeners->addresses);
    *listeners = (struct listeners){ .count = 0 };
}
