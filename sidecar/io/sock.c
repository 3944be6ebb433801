/* SPDX-License-Identifier: MIT */
/*
 * Addresses and descriptors of sockets. Nothing here waits for a peer; only sock_address_parse
 * may wait, for the resolver, and it is called while the configuration is read.
 */

#include "sidecar/io/sock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const char sock_unix_prefix[] = "unix:";

static int sock_parse_unix(const char *path, struct sockaddr_storage *storage, socklen_t *length)
{
    struct sockaddr_un *address = (struct sockaddr_un *)(void *)storage;
    size_t path_length = strlen(path);

    if (path[0] != '/') {
        return -EINVAL;
    }
    if (path_length >= sizeof(address->sun_path)) {
        return -ENAMETOOLONG;
    }
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, path, path_length + 1);
    *length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path_length + 1);
    return 0;
}

/* Cuts "host:port" or "[host]:port" in two, in place. */
static int sock_split(char *text, const char **host, const char **port)
{
    char *colon = strrchr(text, ':');
    char *end;
    unsigned long number;

    if (colon == NULL || colon[1] < '0' || colon[1] > '9') {
        return -EINVAL;
    }
    number = strtoul(colon + 1, &end, 10);
    if (*end != '\0' || number < 1 || number > 65535) {
        return -EINVAL;
    }
    *colon = '\0';
    *port = colon + 1;
    *host = text;
    if (text[0] == '[') {
        if (colon - text < 3 || colon[-1] != ']') {
            return -EINVAL;
        }
        colon[-1] = '\0';
        *host = text + 1;
    } else if (strchr(text, ':') != NULL) {
        /* An IPv6 address without brackets: where it ends cannot be told. */
        return -EINVAL;
    }
    return **host == '\0' ? -EINVAL : 0;
}

static int sock_look_up(const char *host, const char *port, bool numeric,
                        struct sockaddr_storage *storage, socklen_t *length)
{
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC,
        .ai_socktype = SOCK_STREAM,
        .ai_flags = AI_NUMERICSERV | (numeric ? AI_NUMERICHOST : 0),
    };
    struct addrinfo *found = NULL;
    int result = getaddrinfo(host, port, &hints, &found);

    if (result == EAI_MEMORY) {
        return -ENOMEM;
    }
    if (result != 0 || found == NULL) {
        return numeric ? -EINVAL : -EHOSTUNREACH;
    }
    memcpy(storage, found->ai_addr, found->ai_addrlen);
    *length = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

static int sock_parse_inet(const char *text, struct sockaddr_storage *storage, socklen_t *length)
{
    char copy[sizeof(((struct sock_address *)NULL)->text)];
    const char *host;
    const char *port;
    int error;

    snprintf(copy, sizeof(copy), "%s", text);
    error = sock_split(copy, &host, &port);
    if (error != 0) {
        return error;
    }
    /* What stands in brackets is an address, never a name. */
    return sock_look_up(host, port, text[0] == '[', storage, length);
}

int sock_address_parse(const char *text, struct sock_address *address)
{
    struct sock_address parsed = { .length = 0 };
    size_t prefix = sizeof(sock_unix_prefix) - 1;
    int error;

    if (strlen(text) >= sizeof(parsed.text)) {
        return -ENAMETOOLONG;
    }
    strcpy(parsed.text, text);
    if (strncmp(text, sock_unix_prefix, prefix) == 0) {
        error = sock_parse_unix(text + prefix, &parsed.storage, &parsed.length);
    } else {
        error = sock_parse_inet(text, &parsed.storage, &parsed.length);
    }
    if (error == 0) {
        *address = parsed;
    }
    return error;
}

bool sock_address_is_unix(const struct sock_address *address)
{
    return address->storage.ss_family == AF_UNIX;
}

static void sock_map_ipv4(const void *ipv4, uint8_t bytes[16])
{
    memset(bytes, 0, 10);
    bytes[10] = 0xff;
    bytes[11] = 0xff;
    memcpy(bytes + 12, ipv4, 4);
}

/* A decimal number of at most max; -1 if it is none. */
static int sock_parse_prefix(const char *text, unsigned max)
{
    size_t digits = strspn(text, "0123456789");
    unsigned value;

    if (digits < 1 || digits > 3 || text[digits] != '\0') {
        return -1;
    }
    value = (unsigned)strtoul(text, NULL, 10);
    return value <= max ? (int)value : -1;
}

static void sock_clear_host_bits(struct sock_network *network)
{
    for (unsigned bit = network->prefix; bit < 128; bit++) {
        network->bytes[bit / 8] &= (uint8_t) ~(0x80u >> bit % 8);
    }
}

int sock_network_parse(const char *text, struct sock_network *network)
{
    struct sock_network parsed = { .prefix = 0 };
    const char *slash = strchr(text, '/');
    size_t length = slash == NULL ? strlen(text) : (size_t)(slash - text);
    char host[INET6_ADDRSTRLEN];
    struct in_addr ipv4;
    unsigned mapped = 0;
    int prefix;

    if (length >= sizeof(host)) {
        return -EINVAL;
    }
    memcpy(host, text, length);
    host[length] = '\0';
    if (inet_pton(AF_INET, host, &ipv4) == 1) {
        sock_map_ipv4(&ipv4, parsed.bytes);
        mapped = 96;
    } else if (inet_pton(AF_INET6, host, parsed.bytes) != 1) {
        return -EINVAL;
    }
    prefix = slash == NULL ? (int)(128 - mapped) : sock_parse_prefix(slash + 1, 128 - mapped);
    if (prefix < 0) {
        return -EINVAL;
    }
    parsed.prefix = (uint8_t)(mapped + (unsigned)prefix);
    sock_clear_host_bits(&parsed);
    *network = parsed;
    return 0;
}

static bool sock_network_has(const struct sock_network *network, const uint8_t bytes[16])
{
    unsigned whole = network->prefix / 8;
    unsigned rest = network->prefix % 8;

    if (memcmp(network->bytes, bytes, whole) != 0) {
        return false;
    }
    return rest == 0 || (network->bytes[whole] ^ bytes[whole]) >> (8 - rest) == 0;
}

bool sock_is_allowed(const struct sockaddr_storage *peer, const struct sock_network *networks,
                     size_t count)
{
    static const struct sock_network loopback[] = {
        { { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127 }, 104 },
        { { [15] = 1 }, 128 },
    };
    uint8_t bytes[16];

    if (peer->ss_family == AF_UNIX) {
        return true;
    }
    if (peer->ss_family == AF_INET) {
        sock_map_ipv4(&((const struct sockaddr_in *)(const void *)peer)->sin_addr, bytes);
    } else if (peer->ss_family == AF_INET6) {
        memcpy(bytes, &((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr, 16);
    } else {
        return false;
    }
    if (count == 0) {
        networks = loopback;
        count = sizeof(loopback) / sizeof(loopback[0]);
    }
    for (size_t i = 0; i < count; i++) {
        if (sock_network_has(&networks[i], bytes)) {
            return true;
        }
    }
    return false;
}

static int sock_open(const struct sock_address *address)
{
    int fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    return fd < 0 ? -errno : fd;
}

static int sock_prepare_listener(int fd, const struct sock_address *address)
{
    int on = 1;

    if (sock_address_is_unix(address)) {
        /* Linux gives the file the mode of the unbound socket, less the umask: so nobody else gets
         * in before the caller has set owner and mode. */
        return fchmod(fd, S_IRUSR | S_IWUSR) != 0 ? -errno : 0;
    }
    return setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ? -errno : 0;
}

int sock_listen(const struct sock_address *address, int backlog)
{
    int fd = sock_open(address);
    int error;

    if (fd < 0) {
        return fd;
    }
    error = sock_prepare_listener(fd, address);
    if (error == 0 && bind(fd, (const struct sockaddr *)&address->storage, address->length) != 0) {
        error = -errno;
    }
    if (error == 0 && listen(fd, backlog) != 0) {
        error = -errno;
    }
    if (error != 0) {
        close(fd);
        return error;
    }
    return fd;
}

int sock_connect(const struct sock_address *address, int *fd)
{
    int opened = sock_open(address);
    int error;

    if (opened < 0) {
        return opened;
    }
    if (connect(opened, (const struct sockaddr *)&address->storage, address->length) == 0) {
        *fd = opened;
        return 0;
    }
    /* An interrupted connect goes on in the background (connect(2)). */
    error = errno == EINTR ? EINPROGRESS : errno;
    if (error == EINPROGRESS) {
        *fd = opened;
        return -EINPROGRESS;
    }
    close(opened);
    return -error;
}

int sock_error(int fd)
{
    int error = 0;
    socklen_t length = sizeof(error);

    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) {
        return -errno;
    }
    return -error;
}

bool sock_is_hung_up(int fd)
{
    struct pollfd poll_fd = { .fd = fd, .events = 0 };

    return poll(&poll_fd, 1, 0) > 0 && (poll_fd.revents & (POLLHUP | POLLERR | POLLNVAL)) != 0;
}

uint64_t sock_unread_by_peer(int fd)
{
    int bytes = 0;

    return ioctl(fd, SIOCOUTQ, &bytes) == 0 && bytes > 0 ? (uint64_t)bytes : 0;
}

void sock_set_nodelay(int fd)
{
    int on = 1;

    /* Fails on unix sockets, which have no such delay. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

int sock_raise_send_buffer(int fd, int bytes)
{
    int current = 0;
    socklen_t length = sizeof(current);

    if (getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &current, &length) != 0) {
        return -errno;
    }
    if (current / 2 >= bytes) {
        return current;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)) != 0 ||
        getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &current, &length) != 0) {
        return -errno;
    }
    return current;
}
