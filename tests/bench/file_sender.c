/* SPDX-License-Identifier: MIT */
/*
 * Sends a file to everybody who connects, as it is, and closes: what a delivery is compared with.
 * A thread for each connection, which stays for the next, so that its CPU seconds are not lost.
 * Must do nothing that a reader could blame for its slowness.
 *
 *   file-sender SOCKET FILE sendfile|loop [SO_SNDBUF]
 *
 * sendfile: the kernel moves the pages. loop: 10 MB are read, then written, again and again, which
 * is what the plugin for RoadRunner does. SO_SNDBUF: what is asked for; without it the default
 * stays.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/bench/bench_sock.h"

#define THREADS 80
#define LOOP_BYTES ((size_t)10 * 1024 * 1024)

struct sender {
    int file;
    off_t size;
    bool is_loop;
    int send_buffer;
    int listener;
};

static void send_by_kernel(const struct sender *sender, int fd)
{
    struct pollfd room = { .fd = fd, .events = POLLOUT };
    off_t offset = 0;

    while (offset < sender->size) {
        ssize_t sent = sendfile(fd, sender->file, &offset, (size_t)(sender->size - offset));

        if (sent < 0 && errno == EAGAIN) {
            (void)poll(&room, 1, -1);
        } else if (sent <= 0) {
            break;
        }
    }
}

static bool write_all(int fd, const uint8_t *bytes, size_t len)
{
    while (len > 0) {
        ssize_t written = send(fd, bytes, len, MSG_NOSIGNAL);

        if (written <= 0) {
            return false;
        }
        bytes += written;
        len -= (size_t)written;
    }
    return true;
}

static void send_by_loop(const struct sender *sender, int fd)
{
    uint8_t *room = malloc(LOOP_BYTES);
    off_t offset = 0;
    ssize_t got;

    if (room == NULL) {
        return;
    }
    while ((got = pread(sender->file, room, LOOP_BYTES, offset)) > 0 &&
           write_all(fd, room, (size_t)got)) {
        offset += got;
    }
    free(room);
}

static void *run(void *arg)
{
    const struct sender *sender = arg;

    for (;;) {
        int fd = accept4(sender->listener, NULL, NULL, SOCK_CLOEXEC);

        if (fd < 0) {
            continue;
        }
        if (sender->send_buffer > 0 && setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &sender->send_buffer,
                                                  sizeof(sender->send_buffer)) != 0) {
            bench_die("SO_SNDBUF");
        }
        if (!sender->is_loop) {
            (void)fcntl(fd, F_SETFL, O_NONBLOCK); /* as every server has it */
        }
        if (sender->is_loop) {
            send_by_loop(sender, fd);
        } else {
            send_by_kernel(sender, fd);
        }
        close(fd);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    struct sender sender = { .is_loop = argc > 3 && strcmp(argv[3], "loop") == 0 };
    struct stat status;

    if (argc < 4 || argc > 5) {
        fprintf(stderr, "usage: %s SOCKET FILE sendfile|loop [SO_SNDBUF]\n", argv[0]);
        return 64;
    }
    sender.send_buffer = argc > 4 ? atoi(argv[4]) : 0;
    sender.file = open(argv[2], O_RDONLY | O_CLOEXEC);
    if (sender.file < 0 || fstat(sender.file, &status) != 0) {
        bench_die(argv[2]);
    }
    sender.size = status.st_size;
    signal(SIGPIPE, SIG_IGN);
    sender.listener = bench_listen(argv[1]);
    if (fcntl(sender.listener, F_SETFL, 0) != 0) {
        bench_die("fcntl");
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_t thread;

        errno = pthread_create(&thread, NULL, run, &sender);
        if (errno != 0) {
            bench_die("pthread_create");
        }
    }
    for (;;) {
        pause();
    }
}
