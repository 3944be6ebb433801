/* SPDX-License-Identifier: MIT */
/*
 * Opening, keeping and removing listeners. Must never take a socket away from an instance that
 * runs, nor leave one that the web server may not use.
 */
#include "sidecar/listeners.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sidecar/socket_rights.h"

static const char *unix_path(const struct sock_address *address)
{
    return ((const struct sockaddr_un *)(const void *)&address->storage)->sun_path;
}

/* Compared field by field: what getsockname gives may be padded otherwise. */
static bool is_same_address(const struct sock_address *a, const struct sock_address *b)
{
    const struct sockaddr_in *a4 = (const void *)&a->storage;
    const struct sockaddr_in *b4 = (const void *)&b->storage;
    const struct sockaddr_in6 *a6 = (const void *)&a->storage;
    const struct sockaddr_in6 *b6 = (const void *)&b->storage;

    if (a->storage.ss_family != b->storage.ss_family) {
        return false;
    }
    switch (a->storage.ss_family) {
    case AF_UNIX:
        return strcmp(unix_path(a), unix_path(b)) == 0;
    case AF_INET:
        return a4->sin_port == b4->sin_port && a4->sin_addr.s_addr == b4->sin_addr.s_addr;
    case AF_INET6:
        return a6->sin6_port == b6->sin6_port && a6->sin6_scope_id == b6->sin6_scope_id &&
               memcmp(&a6->sin6_addr, &b6->sin6_addr, sizeof(a6->sin6_addr)) == 0;
    default:
        return false;
    }
}

/* Whether the file of a unix listener is still the one that we made. */
static bool has_its_file(const struct listener *listener)
{
    struct stat file;

    return lstat(unix_path(&listener->address), &file) == 0 && file.st_dev == listener->device &&
           file.st_ino == listener->inode;
}

/* 0 when the path is free now; -EADDRINUSE when somebody answers there, -ENOTSOCK when it is no
 * socket. */
static int clear_stale(const struct sock_address *address)
{
    struct stat file;
    int error;
    int fd;

    if (lstat(unix_path(address), &file) != 0) {
        return errno == ENOENT ? 0 : -errno;
    }
    if (!S_ISSOCK(file.st_mode)) {
        return -ENOTSOCK;
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

static int open_unix(struct listener *listener, const struct config *config,
                     const struct socket_rights *rights)
{
    const char *path = unix_path(&listener->address);
    struct stat file;
    int error = clear_stale(&listener->address);
    mode_t mask;
    int fd;

    if (error != 0) {
        return error;
    }
    mask = umask(0177); /* until the rights are set, nobody else connects */
    fd = sock_listen(&listener->address, config->listen.backlog);
    umask(mask);
    if (fd < 0) {
        return fd;
    }
    error = socket_rights_set(rights, path);
    if (error == 0 && lstat(path, &file) != 0) {
        error = -errno;
    }
    if (error != 0) {
        close(fd);
        (void)unlink(path);
        return error;
    }
    listener->device = file.st_dev;
    listener->inode = file.st_ino;
    return fd;
}

static const char *advice(int error)
{
    switch (error) {
    case -EADDRINUSE:
        return "another process uses this address; stop it, or change [listen] in this instance";
    case -ENOTSOCK:
        return "something that is no socket has this name; remove it, or choose another path";
    case -EPERM:
        return "this user may not give the socket to [listen] socket_owner or socket_group, or "
               "remove an old one of another user; start as root, or change them";
    case -EACCES:
        return "this user may not create it; start as root, or choose another path or port";
    case -ENOENT:
        return "its folder does not exist; create it";
    default:
        return "";
    }
}

static int open_one(struct listeners *listeners, const struct sock_address *address, bool is_scgi,
                    const struct config *config, const struct socket_rights *rights,
                    struct log *log)
{
    struct listener listener = { .is_scgi = is_scgi, .address = *address };
    int error;

    listener.fd = sock_address_is_unix(address) ? open_unix(&listener, config, rights)
                                                : sock_listen(address, config->listen.backlog);
    if (listener.fd < 0) {
        log_error(log, "cannot listen", log_str("address", address->text),
                  log_errno("error", listener.fd), log_str("advice", advice(listener.fd)));
        return listener.fd;
    }
    error = listeners_add(listeners, &listener);
    if (error != 0) {
        close(listener.fd);
    }
    return error;
}

/* The one of the address that can go on; a unix socket whose file is gone reaches nobody. */
static const struct listener *find(const struct listeners *current,
                                   const struct sock_address *address)
{
    for (size_t i = 0; i < current->count; i++) {
        const struct listener *listener = &current->items[i];

        if (!listener->is_activated && is_same_address(&listener->address, address) &&
            (!sock_address_is_unix(address) || has_its_file(listener))) {
            return listener;
        }
    }
    return NULL;
}

/* Those that the service manager passed, if any, or else the configured ones. */
static int open_kind(struct listeners *listeners, const struct listeners *current, bool is_scgi,
                     const struct config *config, const struct socket_rights *rights,
                     struct log *log)
{
    const struct listen_options *listen = &config->listen;
    const struct sock_address *addresses = is_scgi ? listen->scgi : listen->fastcgi;
    size_t count = is_scgi ? listen->scgi_count : listen->fastcgi_count;
    bool is_activated = false;
    int error = 0;

    for (size_t i = 0; error == 0 && i < current->count; i++) {
        if (current->items[i].is_activated && current->items[i].is_scgi == is_scgi) {
            is_activated = true;
            error = listeners_add(listeners, &current->items[i]);
        }
    }
    for (size_t i = 0; error == 0 && !is_activated && i < count; i++) {
        const struct listener *kept = find(current, &addresses[i]);

        if (kept == NULL) {
            error = open_one(listeners, &addresses[i], is_scgi, config, rights, log);
        } else {
            struct listener listener = *kept;

            listener.is_scgi = is_scgi;
            error = listeners_add(listeners, &listener);
        }
    }
    return error;
}

int listeners_open(struct listeners *listeners, const struct listeners *current,
                   const struct config *config, struct log *log)
{
    struct socket_rights rights = socket_rights_of(config, log);
    int error;

    *listeners = (struct listeners){ .awaits_group = rights.is_guessed };
    error = open_kind(listeners, current, false, config, &rights, log);
    if (error == 0) {
        error = open_kind(listeners, current, true, config, &rights, log);
    }
    if (error == -ENOMEM) {
        log_error(log, "cannot listen", log_errno("error", error));
    }
    if (error != 0) {
        listeners_abandon(listeners, current);
    }
    return error;
}

static void close_one(const struct listener *listener)
{
    if (!listener->is_activated && sock_address_is_unix(&listener->address) &&
        has_its_file(listener)) {
        (void)unlink(unix_path(&listener->address));
    }
    close(listener->fd);
}

/* Closes all that are not in kept, and frees the list. */
static void close_but(struct listeners *listeners, const struct listeners *kept)
{
    for (size_t i = 0; i < listeners->count; i++) {
        if (kept == NULL || !listeners_have_fd(kept, listeners->items[i].fd)) {
            close_one(&listeners->items[i]);
        }
    }
    free(listeners->items);
    *listeners = (struct listeners){ .count = 0 };
}

void listeners_abandon(struct listeners *listeners, const struct listeners *current)
{
    close_but(listeners, current);
}

void listeners_replace(struct listeners *current, struct listeners *next)
{
    close_but(current, next);
    *current = *next;
    *next = (struct listeners){ .count = 0 };
}

void listeners_close(struct listeners *listeners)
{
    close_but(listeners, NULL);
}

static void apply_rights(const struct listeners *listeners, const struct socket_rights *rights,
                         struct log *log)
{
    for (size_t i = 0; i < listeners->count; i++) {
        const struct listener *listener = &listeners->items[i];
        int error = 0;

        if (!listener->is_activated && sock_address_is_unix(&listener->address)) {
            error = socket_rights_set(rights, unix_path(&listener->address));
        }
        if (error != 0) {
            log_error(log, "cannot set owner, group or mode of a socket",
                      log_str("address", listener->address.text), log_errno("error", error));
        }
    }
}

void listeners_apply(struct listeners *listeners, const struct config *config, struct log *log)
{
    struct socket_rights rights = socket_rights_of(config, NULL);

    apply_rights(listeners, &rights, log);
    for (size_t i = 0; i < listeners->count; i++) {
        if (!listeners->items[i].is_activated) {
            (void)listen(listeners->items[i].fd, config->listen.backlog);
        }
    }
}

void listeners_retry_group(struct listeners *listeners, const struct config *config,
                           struct log *log)
{
    struct socket_rights rights = socket_rights_of(config, NULL);

    if (rights.is_guessed) {
        return;
    }
    apply_rights(listeners, &rights, log);
    listeners->awaits_group = false;
    log_info(log, "PHP-FPM's socket is there: its group has been taken over",
             log_uint("gid", rights.group));
}

int listeners_add(struct listeners *listeners, const struct listener *listener)
{
    size_t place = listeners->count;
    struct listener *grown = realloc(listeners->items,
                                     (listeners->count + 1) * sizeof(*listeners->items));

    if (grown == NULL) {
        return -ENOMEM;
    }
    listeners->items = grown;
    while (!listener->is_scgi && place > 0 && grown[place - 1].is_scgi) {
        grown[place] = grown[place - 1];
        place--;
    }
    grown[place] = *listener;
    listeners->count++;
    return 0;
}

size_t listeners_scgi_count(const struct listeners *listeners)
{
    size_t count = 0;

    for (size_t i = 0; i < listeners->count; i++) {
        count += listeners->items[i].is_scgi;
    }
    return count;
}

bool listeners_have_fd(const struct listeners *listeners, int fd)
{
    for (size_t i = 0; i < listeners->count; i++) {
        if (listeners->items[i].fd == fd) {
            return true;
        }
    }
    return false;
}
