/* SPDX-License-Identifier: MIT */
/*
 * The least that a hop can cost: copies bytes between two unix sockets and understands nothing of
 * them. Must never do more than that; it is what the sidecar is measured against.
 *
 *   bare-relay LISTEN TARGET
 */
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/bench_sock.h"

#define READ_SIZE 65536
#define EVENTS_PER_WAIT 128

struct pair;

/* One of the two sockets. Edge-triggered: readable is remembered until a read came back short. */
struct side {
    struct pair *pair;
    uint8_t *unsent; /* for this socket; NULL: nothing waits */
    size_t unsent_size;
    size_t unsent_sent;
    int fd;
    bool is_readable;
    bool is_ending; /* the peer has shut down writing, so a short read is not the last one */
    bool has_ended;
    bool waits_for_room; /* EPOLLOUT is asked for, and stays */
};

struct pair {
    struct side front;
    struct side back;
    struct pair *next_closed;
    bool is_closed;
};

struct bare_relay {
    const char *target;
    struct pair *closed; /* until the events of this turn, which may name them, are through */
    int epoll_fd;
    int listen_fd;
    uint8_t room[READ_SIZE];
};

static struct side *other_side(struct side *side)
{
    return side == &side->pair->front ? &side->pair->back : &side->pair->front;
}

static void pair_close(struct bare_relay *relay, struct pair *pair)
{
    if (pair->is_closed) {
        return;
    }
    pair->is_closed = true;
    close(pair->front.fd);
    close(pair->back.fd);
    pair->next_closed = relay->closed;
    relay->closed = pair;
}

static void free_closed(struct bare_relay *relay)
{
    while (relay->closed != NULL) {
        struct pair *pair = relay->closed;

        relay->closed = pair->next_closed;
        free(pair->front.unsent);
        free(pair->back.unsent);
        free(pair);
    }
}

static int watch(struct bare_relay *relay, struct side *side, int operation, uint32_t more)
{
    struct epoll_event event = { .events = EPOLLIN | EPOLLRDHUP | EPOLLET | more };

    event.data.ptr = side;
    return epoll_ctl(relay->epoll_fd, operation, side->fd, &event);
}

/* Bytes sent at once, or -1 where the peer has gone. */
static ssize_t send_some(int fd, const uint8_t *bytes, size_t size)
{
    ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);

    return sent < 0 && errno == EAGAIN ? 0 : sent;
}

/* Keeps what the socket did not take. */
static bool keep_unsent(struct bare_relay *relay, struct side *to, size_t begin, size_t end)
{
    to->unsent = malloc(end - begin);
    if (to->unsent == NULL) {
        return false;
    }
    memcpy(to->unsent, relay->room + begin, end - begin);
    to->unsent_size = end - begin;
    to->unsent_sent = 0;
    if (!to->waits_for_room) {
        to->waits_for_room = true;
        return watch(relay, to, EPOLL_CTL_MOD, EPOLLOUT) == 0;
    }
    return true;
}

static bool send_unsent(struct side *to)
{
    ssize_t sent = send_some(to->fd, to->unsent + to->unsent_sent,
                             to->unsent_size - to->unsent_sent);

    if (sent < 0) {
        return false;
    }
    to->unsent_sent += (size_t)sent;
    if (to->unsent_sent == to->unsent_size) {
        free(to->unsent);
        to->unsent = NULL;
    }
    return true;
}

/* One read and its write. False: the pair is to be closed. */
static bool copy_once(struct bare_relay *relay, struct side *from, struct side *to)
{
    ssize_t got = recv(from->fd, relay->room, READ_SIZE, 0);
    ssize_t sent;

    if (got < 0) {
        from->is_readable = false;
        return errno == EAGAIN;
    }
    if (got == 0) {
        from->is_readable = false;
        from->has_ended = true;
        return true;
    }
    from->is_readable = got == READ_SIZE || from->is_ending;
    sent = send_some(to->fd, relay->room, (size_t)got);
    if (sent < 0) {
        return false;
    }
    return sent == got || keep_unsent(relay, to, (size_t)sent, (size_t)got);
}

/* Moves what can be moved one way. The target's end is the end; the front's is passed on. */
static void pump(struct bare_relay *relay, struct side *from)
{
    struct side *to = other_side(from);

    while (from->is_readable && to->unsent == NULL) {
        if (!copy_once(relay, from, to)) {
            pair_close(relay, from->pair);
            return;
        }
    }
    if (!from->has_ended || to->unsent != NULL) {
        return;
    }
    if (from == &from->pair->back) {
        pair_close(relay, from->pair);
    } else {
        (void)shutdown(to->fd, SHUT_WR);
    }
}

static void on_event(struct bare_relay *relay, struct side *side, uint32_t events)
{
    if (side->pair->is_closed) {
        return;
    }
    if ((events & EPOLLHUP) != 0 && side == &side->pair->front) {
        pair_close(relay, side->pair);
        return;
    }
    if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
        side->is_ending = true;
    }
    side->is_readable = side->is_readable || (events & ~(uint32_t)EPOLLOUT) != 0;
    if ((events & EPOLLOUT) != 0 && side->unsent != NULL) {
        if (!send_unsent(side)) {
            pair_close(relay, side->pair);
            return;
        }
        pump(relay, other_side(side));
    }
    if (!side->pair->is_closed) {
        pump(relay, side);
    }
}

static void begin_pair(struct bare_relay *relay, int front_fd)
{
    struct pair *pair = calloc(1, sizeof(*pair));
    int back_fd = bench_connect(relay->target);

    if (pair == NULL || back_fd < 0) {
        close(front_fd);
        free(pair);
        return;
    }
    pair->front = (struct side){ .pair = pair, .fd = front_fd, .is_readable = true };
    pair->back = (struct side){ .pair = pair, .fd = back_fd };
    if (watch(relay, &pair->back, EPOLL_CTL_ADD, 0) != 0 ||
        watch(relay, &pair->front, EPOLL_CTL_ADD, 0) != 0) {
        pair_close(relay, pair);
        return;
    }
    pump(relay, &pair->front); /* the request is often here by now */
}

static void accept_fronts(struct bare_relay *relay)
{
    int fd;

    while ((fd = accept4(relay->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        begin_pair(relay, fd);
    }
}

static void turn(struct bare_relay *relay)
{
    struct epoll_event events[EVENTS_PER_WAIT];
    int count = epoll_wait(relay->epoll_fd, events, EVENTS_PER_WAIT, -1);

    for (int i = 0; i < count; i++) {
        if (events[i].data.ptr == NULL) {
            accept_fronts(relay);
        } else {
            on_event(relay, events[i].data.ptr, events[i].events);
        }
    }
    free_closed(relay);
}

int main(int argc, char **argv)
{
    struct epoll_event event = { .events = EPOLLIN };
    struct bare_relay *relay = calloc(1, sizeof(*relay));

    if (argc != 3 || relay == NULL) {
        fprintf(stderr, "usage: bare-relay LISTEN TARGET\n");
        return 64;
    }
    bench_raise_descriptors();
    relay->target = argv[2];
    relay->listen_fd = bench_listen(argv[1]);
    relay->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (relay->epoll_fd < 0 ||
        epoll_ctl(relay->epoll_fd, EPOLL_CTL_ADD, relay->listen_fd, &event) != 0) {
        bench_die("epoll");
    }
    for (;;) {
        turn(relay);
    }
}
