/* SPDX-License-Identifier: MIT */
/*
 * A FastCGI responder that costs next to nothing, so that the hop before it is what is measured.
 * Answers every request with the same small page; where a request's first bytes hold "/big", with
 * SIZE bytes in records of 65528. Must never look further into a request than to its end.
 *
 *   cheap-responder LISTEN SIZE
 *
 * SIZE is rounded down to whole records, which take 65536 bytes with their header. Each is sent
 * with one call: PHP-FPM uses two, for header and content (main/fastcgi.c:fcgi_write).
 */
#include <errno.h>
#include <fastcgi.h>
#include <stdbool.h>
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
#define RECORD_SIZE 65536
#define SMALL_MAX 256

struct connection {
    uint64_t big_left; /* bytes of records still to be sent */
    int fd;
    uint32_t content_left; /* of the request's current record, padding included */
    uint8_t header[FCGI_HEADER_LEN];
    uint8_t header_length;
    bool is_first_read;
    bool is_big;
    bool is_kept;
};

struct responder {
    int epoll_fd;
    int listen_fd;
    uint64_t big_size;
    size_t small_size;
    size_t end_size;
    uint8_t small[SMALL_MAX]; /* a whole answer */
    uint8_t end[SMALL_MAX];   /* END_REQUEST */
    uint8_t room[READ_SIZE];
    uint8_t record[RECORD_SIZE]; /* of a big answer */
};

static size_t put_header(uint8_t *to, uint8_t type, size_t content, size_t padding)
{
    const uint8_t header[FCGI_HEADER_LEN] = {
        FCGI_VERSION_1, type, 0, 1, (uint8_t)(content >> 8), (uint8_t)content, (uint8_t)padding, 0,
    };

    memcpy(to, header, sizeof(header));
    return sizeof(header);
}

static size_t put_end(uint8_t *to)
{
    size_t size = put_header(to, FCGI_END_REQUEST, sizeof(FCGI_EndRequestBody), 0);

    memset(to + size, 0, sizeof(FCGI_EndRequestBody));
    return size + sizeof(FCGI_EndRequestBody);
}

static void prepare_answers(struct responder *responder)
{
    static const char page[] =
        "Content-type: text/html; charset=UTF-8\r\n\r\n<p>A small page.</p>\n";
    size_t length = sizeof(page) - 1;
    size_t padding = (8 - length % 8) % 8;
    size_t size = put_header(responder->small, FCGI_STDOUT, length, padding);

    memcpy(responder->small + size, page, length);
    size += length + padding;
    responder->small_size = size + put_end(responder->small + size);
    responder->end_size = put_end(responder->end);
    size = put_header(responder->record, FCGI_STDOUT, RECORD_SIZE - FCGI_HEADER_LEN, 0);
    memset(responder->record + size, 'x', RECORD_SIZE - FCGI_HEADER_LEN);
    /* The first record begins with the head. So does each, where it is part of the body. */
    memcpy(responder->record + size, page, length);
}

static void close_connection(struct connection *connection)
{
    close(connection->fd);
    free(connection);
}

static int watch(struct responder *responder, struct connection *connection, int operation,
                 uint32_t events)
{
    struct epoll_event event = { .events = events };

    event.data.ptr = connection;
    return epoll_ctl(responder->epoll_fd, operation, connection->fd, &event);
}

/* False: closed. */
static bool end_answer(struct connection *connection)
{
    if (!connection->is_kept) {
        close_connection(connection);
        return false;
    }
    connection->is_first_read = true;
    connection->is_big = false;
    return true;
}

/* Goes on with records. False: closed. */
static bool send_big(struct responder *responder, struct connection *connection)
{
    while (connection->big_left > 0) {
        size_t offset = (size_t)((responder->big_size - connection->big_left) % RECORD_SIZE);
        ssize_t sent = send(connection->fd, responder->record + offset, RECORD_SIZE - offset,
                            MSG_NOSIGNAL);

        if (sent < 0 && errno == EAGAIN) {
            return true;
        }
        if (sent < 0) {
            close_connection(connection);
            return false;
        }
        connection->big_left -= (uint64_t)sent;
    }
    /* 16 bytes may find no room; waiting for them is cheaper to write than a state. */
    while (send(connection->fd, responder->end, responder->end_size, MSG_NOSIGNAL) < 0 &&
           errno == EAGAIN) {
        (void)usleep(100);
    }
    (void)watch(responder, connection, EPOLL_CTL_MOD, EPOLLIN);
    return end_answer(connection);
}

/* The request is complete. False: closed. */
static bool answer(struct responder *responder, struct connection *connection)
{
    if (connection->is_big) {
        connection->big_left = responder->big_size;
        (void)watch(responder, connection, EPOLL_CTL_MOD, EPOLLOUT);
        return send_big(responder, connection);
    }
    if (send(connection->fd, responder->small, responder->small_size, MSG_NOSIGNAL) < 0) {
        close_connection(connection);
        return false;
    }
    return end_answer(connection);
}

/* Takes one header or some content off *at. True: that was the end of the request. */
static bool take(struct connection *connection, const uint8_t **at, const uint8_t *end)
{
    const uint8_t *header = connection->header;
    size_t available = (size_t)(end - *at);
    size_t wanted;

    if (connection->content_left > 0) {
        wanted = connection->content_left < available ? connection->content_left : available;
        if (header[1] == FCGI_BEGIN_REQUEST && connection->content_left == 8 && wanted > 2) {
            connection->is_kept = ((*at)[2] & FCGI_KEEP_CONN) != 0;
        }
        connection->content_left -= (uint32_t)wanted;
        *at += wanted;
        return false;
    }
    wanted = FCGI_HEADER_LEN - (size_t)connection->header_length;
    wanted = wanted < available ? wanted : available;
    memcpy(connection->header + connection->header_length, *at, wanted);
    connection->header_length += (uint8_t)wanted;
    *at += wanted;
    if (connection->header_length < FCGI_HEADER_LEN) {
        return false;
    }
    connection->header_length = 0;
    connection->content_left = ((uint32_t)header[4] << 8 | header[5]) + header[6];
    return header[1] == FCGI_STDIN && connection->content_left == 0;
}

static void on_readable(struct responder *responder, struct connection *connection)
{
    ssize_t got = recv(connection->fd, responder->room, READ_SIZE, 0);
    const uint8_t *at = responder->room;
    const uint8_t *end = at + (got > 0 ? got : 0);

    if (got <= 0) {
        if (got == 0 || errno != EAGAIN) {
            close_connection(connection);
        }
        return;
    }
    if (connection->is_first_read) {
        connection->is_first_read = false;
        connection->is_big = memmem(responder->room, (size_t)got, "/big", 4) != NULL;
    }
    while (at < end) {
        if (take(connection, &at, end) && !answer(responder, connection)) {
            return;
        }
    }
}

static void accept_connections(struct responder *responder)
{
    int fd;

    while ((fd = accept4(responder->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct connection *connection = calloc(1, sizeof(*connection));

        if (connection == NULL) {
            bench_die("calloc");
        }
        connection->fd = fd;
        connection->is_first_read = true;
        if (watch(responder, connection, EPOLL_CTL_ADD, EPOLLIN) != 0) {
            bench_die("epoll_ctl");
        }
    }
}

static void turn(struct responder *responder)
{
    struct epoll_event events[EVENTS_PER_WAIT];
    int count = epoll_wait(responder->epoll_fd, events, EVENTS_PER_WAIT, -1);

    for (int i = 0; i < count; i++) {
        struct connection *connection = events[i].data.ptr;

        if (connection == NULL) {
            accept_connections(responder);
        } else if (connection->big_left > 0) {
            (void)send_big(responder, connection);
        } else {
            on_readable(responder, connection);
        }
    }
}

int main(int argc, char **argv)
{
    struct epoll_event event = { .events = EPOLLIN };
    struct responder *responder = calloc(1, sizeof(*responder));

    if (argc != 3 || responder == NULL) {
        fprintf(stderr, "usage: cheap-responder LISTEN SIZE\n");
        return 64;
    }
    bench_raise_descriptors();
    responder->big_size = strtoull(argv[2], NULL, 10) / RECORD_SIZE * RECORD_SIZE;
    prepare_answers(responder);
    responder->listen_fd = bench_listen(argv[1]);
    responder->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (responder->epoll_fd < 0 ||
        epoll_ctl(responder->epoll_fd, EPOLL_CTL_ADD, responder->listen_fd, &event) != 0) {
        bench_die("epoll");
    }
    for (;;) {
        turn(responder);
    }
}
