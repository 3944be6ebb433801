/* SPDX-License-Identifier: MIT */
/*
 * Taking over sockets of a service manager. Must never take a descriptor that was not meant for us.
 */
#include "sidecar/activation.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdlib.h>
#include <unistd.h>

#define FIRST_FD 3
/* More than anybody needs, and a bound for what a number in the environment may make us do. */
#define FDS_MAX 256

/* How many are for us. */
static int passed_count(void)
{
    const char *pid = getenv("LISTEN_PID");
    const char *count = getenv("LISTEN_FDS");
    long number = count == NULL ? 0 : strtol(count, NULL, 10);

    if (pid == NULL || strtol(pid, NULL, 10) != (long)getpid() || number < 1) {
        return 0;
    }
    return number > FDS_MAX ? FDS_MAX : (int)number;
}

static bool option_is(int fd, int option, int wanted)
{
    int value = 0;
    socklen_t length = sizeof(value);

    return getsockopt(fd, SOL_SOCKET, option, &value, &length) == 0 && value == wanted;
}

static bool is_listening(int fd)
{
    bool has_family = option_is(fd, SO_DOMAIN, AF_UNIX) || option_is(fd, SO_DOMAIN, AF_INET) ||
                      option_is(fd, SO_DOMAIN, AF_INET6);

    return has_family && option_is(fd, SO_TYPE, SOCK_STREAM) && option_is(fd, SO_ACCEPTCONN, 1);
}

/* As the configuration would write it. */
static void print_address(struct sock_address *address)
{
    const struct sockaddr *socket = (const struct sockaddr *)&address->storage;
    const char *path = ((const struct sockaddr_un *)(const void *)socket)->sun_path;
    bool is_inet6 = socket->sa_family == AF_INET6;
    char host[64];
    char port[8];

    if (socket->sa_family == AF_UNIX) {
        bool is_abstract = path[0] == '\0';

        snprintf(address->text, sizeof(address->text), "unix:%s%.100s", is_abstract ? "@" : "",
                 is_abstract && address->length > sizeof(sa_family_t) ? path + 1 : path);
    } else if (getnameinfo(socket, address->length, host, sizeof(host), port, sizeof(port),
                           NI_NUMERICHOST | NI_NUMERICSERV) == 0) {
        snprintf(address->text, sizeof(address->text), "%s%s%s:%s", is_inet6 ? "[" : "", host,
                 is_inet6 ? "]" : "", port);
    }
}

static int take_one(struct listeners *listeners, int fd, struct span name, struct log *log)
{
    struct listener listener = { .fd = fd, .is_activated = true };
    struct sock_address *address = &listener.address;

    if (!span_is(name, "fastcgi") && !span_is(name, "scgi")) {
        log_error(log,
                  "a socket of the service manager has an unknown name; allowed are fastcgi and "
                  "scgi (systemd: FileDescriptorName=)",
                  log_span("name", name), log_int("descriptor", fd));
        return -EINVAL;
    }
    address->length = sizeof(address->storage);
    if (!is_listening(fd) ||
        getsockname(fd, (struct sockaddr *)&address->storage, &address->length) != 0) {
        log_error(log,
                  "what the service manager passes is no listening stream socket (systemd: "
                  "ListenStream= with Accept=no)",
                  log_span("name", name), log_int("descriptor", fd));
        return -EINVAL;
    }
    (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    listener.is_scgi = span_is(name, "scgi");
    print_address(address);
    log_info(log, "socket of the service manager", log_span("name", name),
             log_str("address", address->text));
    return listeners_add(listeners, &listener);
}

int activation_take(struct listeners *listeners, struct log *log)
{
    int count = passed_count();
    const char *names = getenv("LISTEN_FDNAMES");
    struct span rest = span_of_string(names == NULL ? "" : names);
    int error = 0;

    for (int i = 0; i < count && error == 0; i++) {
        const uint8_t *colon = rest.len == 0 ? NULL : memchr(rest.ptr, ':', rest.len);
        struct span name = span_take(&rest, colon == NULL ? rest.len : (size_t)(colon - rest.ptr));

        span_skip(&rest, colon == NULL ? 0 : 1);
        error = take_one(listeners, FIRST_FD + i, name, log);
    }
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    return error;
}
