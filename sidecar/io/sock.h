/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_IO_SOCK_H
#define SIDECAR_IO_SOCK_H

/*
 * Sockets: addresses as the configuration writes them, and the few calls on descriptors that need
 * more than one line. Every descriptor made here is nonblocking and close-on-exec.
 */

#include <sys/socket.h>
#include <sys/un.h>

#include "fcgi/span.h"

struct sock_address {
    struct sockaddr_storage storage;
    socklen_t length;
    char text[120]; /* as written in the configuration */
};

/* An address block such as 10.0.0.0/8 or ::1. IPv4 is kept as ::ffff:a.b.c.d, so that a client of a
 * dual-stack listener is compared in all 16 bytes. */
struct sock_network {
    uint8_t bytes[16];
    uint8_t prefix; /* 0 to 128 */
};

/*
 * Reads "unix:/path" or "host:port" ("[::1]:9000" for IPv6; a name is looked up once, here).
 * 0, -EINVAL, -ENAMETOOLONG (a unix path of 108 bytes and more) or -EHOSTUNREACH (no such host).
 */
int sock_address_parse(const char *text, struct sock_address *address);
bool sock_address_is_unix(const struct sock_address *address);

/* 0 or -EINVAL. */
int sock_network_parse(const char *text, struct sock_network *network);

/*
 * Whether a peer may talk to a TCP listener: it is in one of the networks or, where there are none,
 * on the loopback interface (127.0.0.0/8, ::1). Peers on unix sockets may always.
 */
bool sock_is_allowed(const struct sockaddr_storage *peer, const struct sock_network *networks,
                     size_t count);

/* A bound and listening socket, or -errno. A unix path must be free. */
int sock_listen(const struct sock_address *address, int backlog);

/*
 * Begins to connect. Gives the descriptor in *fd and returns 0 where it is connected, -EINPROGRESS
 * where writability will tell (sock_error then says how it went). Any other -errno: no descriptor.
 * -EAGAIN from a unix socket means that its backlog is full and that nothing is in progress.
 */
int sock_connect(const struct sock_address *address, int *fd);

/* The pending error of a socket, as -errno, or 0. */
int sock_error(int fd);

/* True when the peer has closed both directions or reset the connection (POLLHUP, POLLERR), as
 * opposed to having ended its own direction only. */
bool sock_is_hung_up(int fd);

/* A measure of what a peer has not taken yet out of what we sent; it shrinks whenever the peer
 * reads (or its system acknowledges, over TCP). 0 where the system does not tell. */
uint64_t sock_unread_by_peer(int fd);

/* Switches Nagle's algorithm off on TCP sockets; does nothing on others. */
void sock_set_nodelay(int fd);

/* Raises SO_SNDBUF, as far as the system lets us, and returns the bytes that it then is (the kernel
 * doubles what is asked for; this is the doubled figure), or -errno. */
int sock_raise_send_buffer(int fd, int bytes);

#endif
