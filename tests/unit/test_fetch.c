/* SPDX-License-Identifier: MIT */

/*
 * Fetching on the real loop, against a scripted server in a process of its own, with each
 * allocation failing once. (What a fetch does for a client: tests/daemon/test_fetch.py.)
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "sidecar/build/fetch.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/sim/faults.h"

#define FILE_BYTES 600000u
#define CUT_AT 200000u
#define WAIT_MS 10000

struct scene {
    struct log log;
    int log_fd;
    struct loop *loop;
    struct fetcher *fetcher;
    struct build_options options;
    char url[64];
    pid_t server;
    struct timer timer;
    /* of one fetch */
    bool wants_file;
    bool leaves_early; /* the reader closes the pipe in the middle */
    struct fetch *fetch;
    unsigned ended; /* on_ready and on_failed */
    bool failed;
    bool failed_for_memory;
    struct artifact artifact;
    struct watch watch;
    uint64_t read_bytes;
    bool is_wrong;
};

static uint8_t byte_at(uint64_t offset)
{
    return (uint8_t)(offset * 31 + offset / 251);
}

/* ---- the server ---- */

static void send_all(int fd, const void *bytes, size_t len)
{
    while (len > 0) {
        ssize_t sent = send(fd, bytes, len, MSG_NOSIGNAL);

        if (sent <= 0) {
            return;
        }
        bytes = (const uint8_t *)bytes + sent;
        len -= (size_t)sent;
    }
}

/* All of it is cut in the middle, the rest comes whole. */
static void serve(int fd)
{
    static uint8_t content[FILE_BYTES];
    char request[4096];
    char head[300];
    ssize_t got = recv(fd, request, sizeof(request) - 1, 0);
    const char *range;
    size_t first = 0;

    for (size_t i = 0; i < FILE_BYTES; i++) {
        content[i] = byte_at(i);
    }
    request[got > 0 ? got : 0] = '\0';
    range = strstr(request, "Range: bytes=");
    if (range != NULL) {
        first = strtoul(range + 13, NULL, 10);
        (void)snprintf(head, sizeof(head),
                       "HTTP/1.1 206 Partial Content\r\nContent-Length: %zu\r\n"
                       "Content-Range: bytes %zu-%u/%u\r\nETag: \"a\"\r\n\r\n",
                       FILE_BYTES - first, first, FILE_BYTES - 1, FILE_BYTES);
    } else {
        (void)snprintf(head, sizeof(head),
                       "HTTP/1.1 200 OK\r\nContent-Length: %u\r\nETag: \"a\"\r\n\r\n", FILE_BYTES);
    }
    send_all(fd, head, strlen(head));
    send_all(fd, content + first, range != NULL ? FILE_BYTES - first : CUT_AT);
    close(fd);
}

static void start_server(struct scene *scene)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(listener, 64), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &length), 0);
    (void)snprintf(scene->url, sizeof(scene->url), "http://127.0.0.1:%u/files{path}",
                   ntohs(address.sin_port));
    scene->server = fork();
    assert_true(scene->server >= 0);
    if (scene->server == 0) {
        for (;;) {
            int fd = accept(listener, NULL, NULL);

            if (fd < 0) {
                _exit(1);
            }
            serve(fd);
        }
    }
    close(listener);
}

/* ---- the owner and the reader ---- */

static void on_timer(struct timer *timer)
{
    loop_stop(list_entry(timer, struct scene, timer)->loop);
}

static bool wants_file(void *owner)
{
    return ((struct scene *)owner)->wants_file;
}

static void reader_stop(struct scene *scene)
{
    watch_stop(&scene->watch);
    artifact_close(&scene->artifact);
}

static void check_bytes(struct scene *scene, const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        scene->is_wrong = scene->is_wrong || bytes[i] != byte_at(scene->read_bytes + i);
    }
    scene->read_bytes += len;
}

/* Slower than the source: a piece a turn. */
static void on_readable(struct watch *watch)
{
    struct scene *scene = list_entry(watch, struct scene, watch);
    uint8_t bytes[20000];
    ssize_t got = read(scene->artifact.fd, bytes, sizeof(bytes));

    if (got > 0) {
        check_bytes(scene, bytes, (size_t)got);
    }
    if (got == 0 || (scene->leaves_early && scene->read_bytes > CUT_AT / 2)) {
        reader_stop(scene);
        loop_stop(scene->loop);
    }
}

static void on_ready(void *owner, struct artifact artifact)
{
    struct scene *scene = owner;

    faults_run(false);
    scene->fetch = NULL;
    scene->ended++;
    scene->artifact = artifact;
    if (artifact.is_stream) {
        assert_int_equal(
            watch_start_level(&scene->watch, scene->loop, artifact.fd, WATCH_READ, on_readable), 0);
        faults_run(true);
    } else {
        loop_stop(scene->loop);
    }
}

static void on_failed(void *owner, const struct fetch_failure *failure)
{
    struct scene *scene = owner;

    scene->fetch = NULL;
    scene->ended++;
    scene->failed = true;
    scene->failed_for_memory = failure->no_memory;
    loop_stop(scene->loop);
}

static const struct fetch_events events = {
    .wants_file = wants_file,
    .on_ready = on_ready,
    .on_failed = on_failed,
};

/* ---- scenes ---- */

static int set_up(void **state)
{
    struct scene *scene = calloc(1, sizeof(*scene));

    assert_non_null(scene);
    start_server(scene);
    scene->log_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    log_init(&scene->log, scene->log_fd, LOG_DEBUG, LOG_TEXT);
    assert_int_equal(loop_new(&scene->loop), 0);
    scene->options = (struct build_options){
        .ca_file = strdup(""),
        .retry = { .max_attempts = 3, .initial_delay_ms = 1, .max_delay_ms = 1, .multiplier = 1 },
        .artifact = { .url = scene->url, .spool_directory = "/tmp", .max_spooled_bytes = 1 << 30 },
    };
    assert_int_equal(fetcher_new(&scene->fetcher, scene->loop, &scene->options, &scene->log), 0);
    timer_init(&scene->timer, scene->loop, on_timer);
    scene->artifact.fd = -1;
    *state = scene;
    return 0;
}

static int tear_down(void **state)
{
    struct scene *scene = *state;

    fetcher_stop(scene->fetcher);
    fetcher_free(scene->fetcher);
    loop_free(scene->loop);
    assert_int_equal(kill(scene->server, SIGKILL), 0);
    assert_int_equal(waitpid(scene->server, NULL, 0), scene->server);
    close(scene->log_fd);
    free(scene->options.ca_file);
    free(scene);
    return 0;
}

/* One fetch to its end. False where not even its start was possible. */
static bool run(struct scene *scene)
{
    int error;

    scene->ended = 0;
    scene->failed = false;
    scene->failed_for_memory = false;
    scene->read_bytes = 0;
    assert_int_equal(timer_start(&scene->timer, WAIT_MS), 0);
    faults_run(true);
    error = fetch_start(scene->fetcher, span_of_string("/a b"), "id-1", &events, scene,
                        &scene->fetch);
    if (error == 0) {
        loop_run(scene->loop);
    }
    faults_run(false);
    assert_true(error == 0 || error == -ENOMEM);
    assert_true(error != 0 || scene->ended == 1);
    timer_stop(&scene->timer);
    return error == 0;
}

static void read_file(struct scene *scene)
{
    uint8_t bytes[20000];
    ssize_t got;

    while ((got = pread(scene->artifact.fd, bytes, sizeof(bytes), (off_t)scene->read_bytes)) > 0) {
        check_bytes(scene, bytes, (size_t)got);
    }
}

static void check_whole(struct scene *scene)
{
    assert_false(scene->failed);
    assert_int_equal(scene->artifact.size_bytes, FILE_BYTES);
    assert_int_equal(scene->artifact.is_stream, !scene->wants_file);
    assert_string_equal(scene->artifact.etag, "\"a\"");
    if (scene->wants_file) {
        read_file(scene);
        artifact_close(&scene->artifact);
    }
    assert_int_equal(scene->read_bytes, FILE_BYTES);
    assert_false(scene->is_wrong);
}

static void test_a_cut_is_not_seen(void **state)
{
    struct scene *scene = *state;

    for (int file = 0; file < 2; file++) {
        scene->wants_file = file != 0;
        assert_true(run(scene));
        check_whole(scene);
        assert_true(list_is_empty(&scene->fetcher->fetches));
    }
}

static void test_a_reader_that_leaves(void **state)
{
    struct scene *scene = *state;

    scene->leaves_early = true;
    assert_true(run(scene));
    assert_false(scene->failed);
    assert_int_equal(timer_start(&scene->timer, 5), 0);
    loop_run(scene->loop);
    assert_true(list_is_empty(&scene->fetcher->fetches));
}

static void test_cancel(void **state)
{
    struct scene *scene = *state;

    assert_int_equal(
        fetch_start(scene->fetcher, span_of_string("/x"), "id", &events, scene, &scene->fetch), 0);
    assert_int_equal(timer_start(&scene->timer, 1), 0);
    loop_run(scene->loop);
    if (scene->ended == 0) {
        fetch_cancel(scene->fetch);
    }
    reader_stop(scene);
    fetcher_stop(scene->fetcher);
    assert_true(list_is_empty(&scene->fetcher->fetches));
}

/* Whatever cannot be had, there is one end, no wrong byte and nothing left. */
static void test_without_memory(void **state)
{
    struct scene *scene = *state;
    long blocks;

    assert_true(run(scene)); /* what curl and the loop keep is there from now on */
    blocks = faults_live_blocks();
    for (int file = 0; file < 2; file++) {
        unsigned n = 0;

        scene->wants_file = file != 0;
        do {
            faults_arm(++n);
            if (!run(scene)) {
                continue;
            }
            assert_true(!scene->failed || scene->failed_for_memory);
            if (!scene->failed && scene->wants_file) {
                read_file(scene);
            }
            assert_false(scene->is_wrong);
            assert_true(scene->read_bytes <= FILE_BYTES);
            reader_stop(scene);
            fetcher_stop(scene->fetcher);
            assert_in_range(faults_live_blocks(), 0, (uintmax_t)blocks + 8);
        } while (faults_have_struck());
        assert_true(n > 3);
        assert_int_equal(scene->read_bytes, FILE_BYTES);
    }
    faults_arm(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_cut_is_not_seen, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_reader_that_leaves, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_cancel, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_without_memory, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
