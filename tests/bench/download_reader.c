/* SPDX-License-Identifier: MIT */
/*
 * Downloads as fast as it can and throws away what comes: sends what standard input holds on each
 * of its connections, and reads to the end. Must cost the same, whatever is sent to it.
 *
 *   download-reader [-c CLIENTS] [-s STOPPED] SOCKET < REQUEST
 *
 * Prints one line of NAME=VALUE: bytes, seconds (from the first byte that any client got to the
 * last), slowest and quickest (of one client, from its own first byte). With -s that many more
 * clients stop reading after their first bytes, and are not counted.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/bench/bench_sock.h"

#define READ_SIZE ((size_t)512 * 1024)
#define REQUEST_MAX 8192
#define EVENTS_PER_WAIT 64

struct client {
    int fd;
    bool stops;
    uint64_t first_ns; /* 0: nothing has come */
    uint64_t last_ns;
    uint64_t bytes;
};

struct reader {
    struct client *clients;
    size_t client_count; /* those that stop come last */
    size_t running;
    int epoll_fd;
    size_t request_size;
    char request[REQUEST_MAX];
    uint8_t *room;
};

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void begin(struct reader *reader, struct client *client, const char *path)
{
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = client };

    client->fd = bench_connect(path);
    if (client->fd < 0) {
        errno = -client->fd;
        bench_die(path);
    }
    if (reader->request_size > 0 && send(client->fd, reader->request, reader->request_size,
                                         MSG_NOSIGNAL) != (ssize_t)reader->request_size) {
        bench_die("send");
    }
    if (epoll_ctl(reader->epoll_fd, EPOLL_CTL_ADD, client->fd, &event) != 0) {
        bench_die("epoll_ctl");
    }
    reader->running += !client->stops;
}

static void end(struct reader *reader, struct client *client)
{
    close(client->fd);
    client->fd = -1;
    reader->running -= !client->stops;
}

static void read_some(struct reader *reader, struct client *client)
{
    ssize_t got = recv(client->fd, reader->room, client->stops ? 4096 : READ_SIZE, MSG_DONTWAIT);

    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (got <= 0) {
        end(reader, client);
        return;
    }
    client->last_ns = now_ns();
    if (client->first_ns == 0) {
        client->first_ns = client->last_ns;
    }
    client->bytes += (uint64_t)got;
    if (client->stops) {
        (void)epoll_ctl(reader->epoll_fd, EPOLL_CTL_DEL, client->fd, NULL);
    }
}

static void run(struct reader *reader)
{
    struct epoll_event events[EVENTS_PER_WAIT];

    while (reader->running > 0) {
        int count = epoll_wait(reader->epoll_fd, events, EVENTS_PER_WAIT, -1);

        for (int i = 0; i < count; i++) {
            read_some(reader, events[i].data.ptr);
        }
    }
}

static double seconds(const struct client *client)
{
    return (double)(client->last_ns - client->first_ns) / 1e9;
}

static void report(const struct reader *reader)
{
    struct client all = { .first_ns = UINT64_MAX };
    double slowest = 0;
    double quickest = 1e9;

    for (size_t i = 0; i < reader->client_count && !reader->clients[i].stops; i++) {
        const struct client *client = &reader->clients[i];

        all.bytes += client->bytes;
        all.first_ns = client->first_ns < all.first_ns ? client->first_ns : all.first_ns;
        all.last_ns = client->last_ns > all.last_ns ? client->last_ns : all.last_ns;
        slowest = seconds(client) > slowest ? seconds(client) : slowest;
        quickest = seconds(client) < quickest ? seconds(client) : quickest;
    }
    printf("bytes=%llu seconds=%.6f slowest=%.6f quickest=%.6f\n", (unsigned long long)all.bytes,
           seconds(&all), slowest, quickest);
}

int main(int argc, char **argv)
{
    struct reader reader = { .client_count = 1 };
    size_t stopped = 0;
    int option;

    while ((option = getopt(argc, argv, "c:s:")) != -1) {
        if (option == 'c') {
            reader.client_count = (size_t)atol(optarg);
        } else if (option == 's') {
            stopped = (size_t)atol(optarg);
        } else {
            return 64;
        }
    }
    if (optind + 1 != argc || reader.client_count == 0) {
        fprintf(stderr, "usage: %s [-c CLIENTS] [-s STOPPED] SOCKET < REQUEST\n", argv[0]);
        return 64;
    }
    bench_raise_descriptors();
    reader.request_size = fread(reader.request, 1, sizeof(reader.request), stdin);
    reader.room = malloc(READ_SIZE);
    reader.client_count += stopped;
    reader.clients = calloc(reader.client_count, sizeof(*reader.clients));
    reader.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (reader.room == NULL || reader.clients == NULL || reader.epoll_fd < 0) {
        bench_die("memory");
    }
    for (size_t i = 0; i < reader.client_count; i++) {
        reader.clients[i].stops = i >= reader.client_count - stopped;
        begin(&reader, &reader.clients[i], argv[optind]);
    }
    run(&reader);
    report(&reader);
    return 0;
}
