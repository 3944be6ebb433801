/* SPDX-License-Identifier: MIT */
/*
 * Plays the web server: clients that send one FastCGI request after the other, each on its own
 * connection, kept or made anew for every request. Must never cost so much that it is what is
 * measured.
 *
 *   load-front [-c CLIENTS] [-s SECONDS | -n REQUESTS] [-k] [-u SCRIPT_NAME] [-f SCRIPT_FILENAME]
 *              SOCKET
 *   load-front -i -c CLIENTS [-u ...] [-f ...] SOCKET
 *
 * Prints one line of NAME=VALUE: requests, seconds, per_second, p50_us, p99_us, errors, starved
 * (clients that got no answer at all), bytes. With -i each client sends one request on a connection
 * that is kept, the line is printed, and the connections stay idle until standard input ends.
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
#include <time.h>
#include <unistd.h>

#include "tests/bench/bench_sock.h"

#define READ_SIZE 262144
#define EVENTS_PER_WAIT 128
#define REQUEST_MAX 4096
#define TOO_MANY_ERRORS 1000
/* With -i: how many requests may be under way at once. */
#define IDLE_AT_ONCE 32

struct client {
    uint64_t begun_ns;
    uint64_t answers;
    int fd; /* -1: to be connected */
    uint32_t content_left;
    uint8_t header[FCGI_HEADER_LEN];
    uint8_t header_length;
};

struct load {
    const char *socket_path;
    const char *script_name;
    const char *script_filename;
    struct client *clients;
    uint32_t *samples_ns;
    size_t sample_count;
    size_t sample_room;
    size_t client_count;
    size_t started; /* with -i: clients that have been started */
    uint64_t max_requests;
    double max_seconds;
    uint64_t bytes;
    uint64_t errors;
    bool is_kept;
    bool is_idle;
    bool has_waiting; /* a client could not connect and tries again */
    int epoll_fd;
    size_t request_size;
    uint8_t request[REQUEST_MAX];
    uint8_t room[READ_SIZE];
};

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* ---- the request ---------------------------------------------------------------------------- */

static void put(struct load *load, const void *bytes, size_t size)
{
    if (load->request_size + size > REQUEST_MAX) {
        errno = E2BIG;
        bench_die("request");
    }
    memcpy(load->request + load->request_size, bytes, size);
    load->request_size += size;
}

static void put_header(struct load *load, uint8_t type, size_t content)
{
    const uint8_t header[FCGI_HEADER_LEN] = {
        FCGI_VERSION_1, type, 0, 1, (uint8_t)(content >> 8), (uint8_t)content, 0, 0,
    };

    put(load, header, sizeof(header));
}

static void put_pair(struct load *load, const char *name, const char *value)
{
    const uint8_t lengths[2] = { (uint8_t)strlen(name), (uint8_t)strlen(value) };

    put(load, lengths, sizeof(lengths));
    put(load, name, lengths[0]);
    put(load, value, lengths[1]);
}

/* What nginx sends with its fastcgi_params for a browser's GET. */
static void put_params(struct load *load)
{
    static const char *const pairs[][2] = {
        { "QUERY_STRING", "" },
        { "REQUEST_METHOD", "GET" },
        { "CONTENT_TYPE", "" },
        { "CONTENT_LENGTH", "" },
        { "DOCUMENT_ROOT", "/var/www/html" },
        { "SERVER_PROTOCOL", "HTTP/1.1" },
        { "REQUEST_SCHEME", "https" },
        { "HTTPS", "on" },
        { "GATEWAY_INTERFACE", "CGI/1.1" },
        { "SERVER_SOFTWARE", "nginx/1.22.1" },
        { "REMOTE_ADDR", "192.0.2.17" },
        { "REMOTE_PORT", "51462" },
        { "SERVER_ADDR", "198.51.100.4" },
        { "SERVER_PORT", "443" },
        { "SERVER_NAME", "www.example.org" },
        { "REDIRECT_STATUS", "200" },
        { "HTTP_HOST", "www.example.org" },
        { "HTTP_USER_AGENT", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101" },
        { "HTTP_ACCEPT", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8" },
        { "HTTP_ACCEPT_LANGUAGE", "en-US,en;q=0.5" },
        { "HTTP_ACCEPT_ENCODING", "gzip, deflate, br" },
        { "HTTP_COOKIE", "session=0f3c1a5e9b7d24680f3c1a5e9b7d2468" },
    };

    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        put_pair(load, pairs[i][0], pairs[i][1]);
    }
    put_pair(load, "SCRIPT_NAME", load->script_name);
    put_pair(load, "REQUEST_URI", load->script_name);
    put_pair(load, "DOCUMENT_URI", load->script_name);
    put_pair(load, "SCRIPT_FILENAME", load->script_filename);
}

static void prepare_request(struct load *load)
{
    const uint8_t begin[sizeof(FCGI_BeginRequestBody)] = {
        0,
        FCGI_RESPONDER,
        load->is_kept ? FCGI_KEEP_CONN : 0,
    };
    size_t params_at;
    size_t length;

    put_header(load, FCGI_BEGIN_REQUEST, sizeof(begin));
    put(load, begin, sizeof(begin));
    params_at = load->request_size;
    put_header(load, FCGI_PARAMS, 0);
    put_params(load);
    length = load->request_size - params_at - FCGI_HEADER_LEN;
    load->request[params_at + 4] = (uint8_t)(length >> 8);
    load->request[params_at + 5] = (uint8_t)length;
    put_header(load, FCGI_PARAMS, 0);
    put_header(load, FCGI_STDIN, 0);
}

/* ---- clients -------------------------------------------------------------------------------- */

static void client_fail(struct load *load, struct client *client)
{
    load->errors++;
    if (client->fd >= 0) {
        close(client->fd);
        client->fd = -1;
    }
    load->has_waiting = true;
}

static bool client_connect(struct load *load, struct client *client)
{
    struct epoll_event event = { .events = EPOLLIN };

    client->fd = bench_connect(load->socket_path);
    if (client->fd < 0) {
        client->fd = -1;
        return false;
    }
    event.data.ptr = client;
    return epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD, client->fd, &event) == 0;
}

/* Sends a request; the time begins before the connection is made. */
static void client_begin(struct load *load, struct client *client)
{
    client->begun_ns = now_ns();
    client->header_length = 0;
    client->content_left = 0;
    if (client->fd < 0 && !client_connect(load, client)) {
        client_fail(load, client);
        return;
    }
    if (send(client->fd, load->request, load->request_size, MSG_NOSIGNAL) !=
        (ssize_t)load->request_size) {
        client_fail(load, client);
    }
}

static void add_sample(struct load *load, uint64_t duration_ns)
{
    if (load->sample_count == load->sample_room) {
        load->sample_room = load->sample_room == 0 ? 65536 : load->sample_room * 2;
        load->samples_ns = realloc(load->samples_ns, load->sample_room * sizeof(uint32_t));
        if (load->samples_ns == NULL) {
            bench_die("realloc");
        }
    }
    load->samples_ns[load->sample_count++] = duration_ns < UINT32_MAX ? (uint32_t)duration_ns
                                                                      : UINT32_MAX;
}

static void client_next(struct load *load, struct client *client)
{
    client->answers++;
    add_sample(load, now_ns() - client->begun_ns);
    if (load->is_idle) {
        if (load->started < load->client_count) {
            client_begin(load, &load->clients[load->started++]);
        }
        return;
    }
    if (!load->is_kept) {
        close(client->fd); /* at END_REQUEST, as nginx does */
        client->fd = -1;
    }
    if (load->sample_count < load->max_requests) {
        client_begin(load, client);
    }
}

/* Walks over records. True: END_REQUEST is complete. */
static bool walk(struct client *client, const uint8_t *at, const uint8_t *end)
{
    const uint8_t *header = client->header;

    while (at < end) {
        size_t available = (size_t)(end - at);
        size_t wanted = client->content_left;

        if (wanted > 0) {
            wanted = wanted < available ? wanted : available;
            client->content_left -= (uint32_t)wanted;
        } else {
            wanted = FCGI_HEADER_LEN - (size_t)client->header_length;
            wanted = wanted < available ? wanted : available;
            memcpy(client->header + client->header_length, at, wanted);
            client->header_length += (uint8_t)wanted;
            if (client->header_length == FCGI_HEADER_LEN) {
                client->header_length = 0;
                client->content_left = ((uint32_t)header[4] << 8 | header[5]) + header[6];
            }
        }
        at += wanted;
        if (header[1] == FCGI_END_REQUEST && client->header_length == 0 &&
            client->content_left == 0) {
            return true;
        }
    }
    return false;
}

static void on_readable(struct load *load, struct client *client)
{
    ssize_t got = recv(client->fd, load->room, READ_SIZE, 0);

    if (got < 0 && errno == EAGAIN) {
        return;
    }
    if (got <= 0) {
        client_fail(load, client);
        return;
    }
    load->bytes += (uint64_t)got;
    if (walk(client, load->room, load->room + got)) {
        client->header[1] = 0;
        client_next(load, client);
    }
}

/* Clients that could not connect try again, a millisecond later at the earliest. */
static void restart_waiting(struct load *load)
{
    load->has_waiting = false;
    for (size_t i = 0; i < load->started; i++) {
        if (load->clients[i].fd < 0) {
            client_begin(load, &load->clients[i]);
        }
    }
}

static void turn(struct load *load)
{
    struct epoll_event events[EVENTS_PER_WAIT];
    int count = epoll_wait(load->epoll_fd, events, EVENTS_PER_WAIT, load->has_waiting ? 1 : 100);

    for (int i = 0; i < count; i++) {
        on_readable(load, events[i].data.ptr);
    }
    if (load->has_waiting) {
        restart_waiting(load);
    }
}

/* ---- the whole ------------------------------------------------------------------------------ */

static bool is_over(const struct load *load, uint64_t begun_ns)
{
    return load->sample_count >= load->max_requests || load->errors > TOO_MANY_ERRORS ||
           (load->max_seconds > 0 && (double)(now_ns() - begun_ns) / 1e9 >= load->max_seconds);
}

static void run(struct load *load)
{
    size_t at_once = load->is_idle && load->client_count > IDLE_AT_ONCE ? IDLE_AT_ONCE
                                                                        : load->client_count;
    uint64_t begun_ns = now_ns();

    load->started = at_once;
    for (size_t i = 0; i < at_once; i++) {
        client_begin(load, &load->clients[i]);
    }
    while (!is_over(load, begun_ns)) {
        turn(load);
    }
    load->max_seconds = (double)(now_ns() - begun_ns) / 1e9;
}

static int compare(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left;
    uint32_t b = *(const uint32_t *)right;

    return (a > b) - (a < b);
}

static double percentile_us(const struct load *load, size_t percent)
{
    if (load->sample_count == 0) {
        return 0;
    }
    return (double)load->samples_ns[(load->sample_count - 1) * percent / 100] / 1e3;
}

static void print_result(struct load *load)
{
    size_t starved = 0;

    for (size_t i = 0; i < load->client_count; i++) {
        starved += load->clients[i].answers == 0;
    }
    if (load->sample_count > 0) {
        qsort(load->samples_ns, load->sample_count, sizeof(uint32_t), compare);
    }
    printf("requests=%zu seconds=%.6f per_second=%.1f p50_us=%.2f p99_us=%.2f errors=%llu "
           "starved=%zu bytes=%llu\n",
           load->sample_count, load->max_seconds, (double)load->sample_count / load->max_seconds,
           percentile_us(load, 50), percentile_us(load, 99), (unsigned long long)load->errors,
           starved, (unsigned long long)load->bytes);
    fflush(stdout);
}

static bool read_options(struct load *load, int argc, char **argv)
{
    int option;

    while ((option = getopt(argc, argv, "c:s:n:kiu:f:")) != -1) {
        switch (option) {
        case 'c':
            load->client_count = (size_t)strtoul(optarg, NULL, 10);
            break;
        case 's':
            load->max_seconds = strtod(optarg, NULL);
            break;
        case 'n':
            load->max_requests = strtoull(optarg, NULL, 10);
            break;
        case 'k':
            load->is_kept = true;
            break;
        case 'i':
            load->is_idle = load->is_kept = true;
            break;
        case 'u':
            load->script_name = optarg;
            break;
        case 'f':
            load->script_filename = optarg;
            break;
        default:
            return false;
        }
    }
    load->socket_path = argv[optind];
    return optind + 1 == argc && load->client_count > 0;
}

int main(int argc, char **argv)
{
    struct load *load = calloc(1, sizeof(*load));

    if (load == NULL) {
        bench_die("calloc");
    }
    load->client_count = 1;
    load->max_requests = UINT64_MAX;
    load->script_name = "/index.php";
    load->script_filename = "/var/www/html/index.php";
    if (!read_options(load, argc, argv)) {
        fprintf(stderr, "usage: load-front [-c CLIENTS] [-s SECONDS | -n REQUESTS] [-k | -i]\n"
                        "                  [-u SCRIPT_NAME] [-f SCRIPT_FILENAME] SOCKET\n");
        return 64;
    }
    bench_raise_descriptors();
    if (load->is_idle) {
        load->max_requests = load->client_count;
    }
    load->clients = calloc(load->client_count, sizeof(*load->clients));
    load->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (load->clients == NULL || load->epoll_fd < 0) {
        bench_die("start");
    }
    for (size_t i = 0; i < load->client_count; i++) {
        load->clients[i].fd = -1;
    }
    prepare_request(load);
    run(load);
    print_result(load);
    while (load->is_idle && read(STDIN_FILENO, load->room, READ_SIZE) > 0) {}
    return load->errors > TOO_MANY_ERRORS;
}
