/* SPDX-License-Identifier: MIT */

/* A file as STDOUT records: every byte once and in order, however the reader reads, or a result
 * that says why not. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sidecar/io/sock.h"
#include "sidecar/relay/deliver.h"

#define MIB ((size_t)1024 * 1024)
#define FILE_MAX (3 * MIB)
#define NO_LIMIT (UINT64_MAX / 2)

/* The loop's part, setting the bits of the watch, is played by the tests. */
struct scene {
    struct front front;
    struct delivery delivery;
    struct carrier carrier; /* without prefetch, unless a test says otherwise */
    struct loop *loop;      /* then */
    struct prefetch *prefetch;
    unsigned fetched; /* calls of on_pages */
    int peer;
    char path[64];
    int file; /* for writing */
    uint8_t *pattern;
    uint8_t *received;
    size_t received_length;
};

static int set_up(void **state)
{
    struct scene *scene = calloc(1, sizeof(*scene));
    int pair[2];

    assert_non_null(scene);
    scene->pattern = malloc(FILE_MAX);
    scene->received = malloc(FILE_MAX * 2);
    assert_non_null(scene->pattern);
    assert_non_null(scene->received);
    for (size_t i = 0; i < FILE_MAX; i++) {
        scene->pattern[i] = (uint8_t)(i * 31 + i / 253);
    }
    (void)snprintf(scene->path, sizeof(scene->path), "/tmp/test_deliver.XXXXXX");
    scene->file = mkstemp(scene->path);
    assert_true(scene->file >= 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    scene->front = (struct front){ .fd = pair[0], .is_unix = true, .request_id = 0x0102 };
    scene->front.watch = (struct watch){ .fd = pair[0], .ready = WATCH_WRITE };
    outq_init(&scene->front.out, &scene->front.watch, 65536);
    scene->peer = pair[1];
    scene->delivery.artifact.fd = -1;
    scene->carrier.nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    *state = scene;
    return 0;
}

static int tear_down(void **state)
{
    struct scene *scene = *state;

    deliver_stop(&scene->delivery);
    if (scene->prefetch != NULL) {
        prefetch_stop(scene->prefetch);
        carrier_close(&scene->carrier);
        mailbox_deinit(&scene->carrier.pages);
        loop_free(scene->loop);
    }
    close(scene->carrier.nowhere);
    outq_deinit(&scene->front.out);
    close(scene->front.fd);
    close(scene->peer);
    close(scene->file);
    (void)unlink(scene->path);
    free(scene->pattern);
    free(scene->received);
    free(scene);
    return 0;
}

static struct scene *anew(void **state)
{
    tear_down(state);
    set_up(state);
    return *state;
}

static void start(struct scene *scene, size_t size)
{
    struct artifact artifact = { .size_bytes = size };

    for (size_t written = 0; written < size;) {
        ssize_t got = pwrite(scene->file, scene->pattern + written, size - written, (off_t)written);

        assert_true(got > 0);
        written += (size_t)got;
    }
    artifact.fd = open(scene->path, O_RDONLY | O_CLOEXEC);
    assert_true(artifact.fd >= 0);
    deliver_start(&scene->delivery, &scene->carrier, artifact, 0, artifact.size_bytes,
                  &scene->front);
}

/* The web server is connected over TCP. */
static void use_tcp(struct scene *scene)
{
    struct sockaddr_in address = { .sin_family = AF_INET };
    socklen_t length = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, length), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &length), 0);
    close(scene->front.fd);
    close(scene->peer);
    scene->front.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(scene->front.fd, (struct sockaddr *)&address, length), 0);
    assert_int_equal(fcntl(scene->front.fd, F_SETFL, O_NONBLOCK), 0);
    scene->peer = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(scene->peer >= 0);
    close(listener);
    scene->front.watch.fd = scene->front.fd;
    scene->front.is_unix = false;
}

static void make_send_buffer_tiny(struct scene *scene)
{
    int tiny = 1; /* the kernel makes it its minimum, some 4 KiB */

    assert_int_equal(setsockopt(scene->front.fd, SOL_SOCKET, SO_SNDBUF, &tiny, sizeof(tiny)), 0);
}

/* Reads up to max bytes. Returns how many. */
static size_t receive(struct scene *scene, size_t max)
{
    size_t total = 0;

    while (total < max) {
        size_t room = FILE_MAX * 2 - scene->received_length;
        ssize_t got = read(scene->peer, scene->received + scene->received_length,
                           max - total < room ? max - total : room);

        if (got <= 0) {
            break;
        }
        scene->received_length += (size_t)got;
        total += (size_t)got;
    }
    return total;
}

/* All that has been sent, also what a network has under way. */
static void receive_rest(struct scene *scene)
{
    struct pollfd more = { .fd = scene->peer, .events = POLLIN };

    receive(scene, SIZE_MAX);
    while (!scene->front.is_unix && sock_unread_by_peer(scene->front.fd) > 0) {
        (void)poll(&more, 1, 10);
        receive(scene, SIZE_MAX);
    }
    receive(scene, SIZE_MAX);
}

/* Until the result is another one than PAUSED or BLOCKED; the reader takes up to step bytes each
 * time that nothing goes on. */
static enum deliver_result run(struct scene *scene, uint64_t budget, size_t step)
{
    enum deliver_result result;

    for (;;) {
        uint64_t before = scene->delivery.offset;

        result = deliver_send(&scene->delivery, &scene->front, budget);
        if (result == DELIVER_PAUSED) {
            assert_true(scene->delivery.offset > before);
            assert_true(scene->delivery.offset - before <= budget + scene->delivery.record_size);
            continue;
        }
        if (result != DELIVER_BLOCKED) {
            break;
        }
        assert_true((scene->front.watch.ready & WATCH_WRITE) == 0);
        /* Over TCP what was sent may be on its way. */
        assert_true(receive(scene, step) > 0 || !scene->front.is_unix);
        scene->front.watch.ready |= WATCH_WRITE;
    }
    receive_rest(scene);
    return result;
}

/* Takes the records apart: their contents must be the file's first bytes. The number of bytes that
 * are still owed of the last record is returned. */
static size_t check_records(const struct scene *scene, size_t size)
{
    struct span rest = span_of(scene->received, scene->received_length);
    struct fcgi_header header;
    size_t offset = 0;

    while (rest.len > 0) {
        assert_true(rest.len >= FCGI_HEADER_SIZE);
        assert_true(fcgi_header_read(rest.ptr, &header));
        assert_int_equal(rest.ptr[7], 0);
        span_skip(&rest, FCGI_HEADER_SIZE);
        assert_int_equal(header.type, FCGI_STDOUT);
        assert_int_equal(header.request_id, 0x0102);
        assert_int_equal(header.padding_length, 0);
        assert_in_range(header.content_length, 1, FCGI_CONTENT_MAX);
        struct span content = span_take(&rest, header.content_length);

        assert_true(offset + header.content_length <= size);
        if (content.len > 0) {
            assert_memory_equal(content.ptr, scene->pattern + offset, content.len);
        }
        offset += content.len;
        if (content.len < header.content_length) {
            assert_int_equal(rest.len, 0);
            return header.content_length - content.len;
        }
    }
    assert_int_equal(offset, scene->delivery.offset);
    return 0;
}

static const size_t sizes[] = { 0,     1,     2,     4096,  32767, 32768,   32769, 61439,  61440,
                                61441, 65527, 65528, 65529, 65536, MIB - 1, MIB,   MIB + 1 };
#define SIZES (sizeof(sizes) / sizeof(sizes[0]))

static void test_sizes(void **state)
{
    for (size_t i = 0; i < SIZES; i++) {
        struct scene *scene = anew(state);

        start(scene, sizes[i]);
        assert_int_equal(run(scene, NO_LIMIT, SIZE_MAX), DELIVER_DONE);
        assert_int_equal(check_records(scene, sizes[i]), 0);
        assert_int_equal(scene->delivery.offset, sizes[i]);
        assert_int_equal(scene->front.owed_bytes, 0);
        assert_true(outq_is_empty(&scene->front.out));
        /* Done stays done, and nothing is sent twice. */
        assert_int_equal(deliver_send(&scene->delivery, &scene->front, NO_LIMIT), DELIVER_DONE);
        assert_int_equal(receive(scene, SIZE_MAX), 0);
    }
}

static void test_records_of_every_allowed_size(void **state)
{
    static const size_t record_sizes[] = { 1, 7, 4096, 65527, FCGI_CONTENT_MAX };

    for (size_t i = 0; i < sizeof(record_sizes) / sizeof(record_sizes[0]); i++) {
        struct scene *scene = anew(state);
        size_t size = record_sizes[i] * 3 + 1;

        start(scene, size);
        scene->delivery.record_size = record_sizes[i];
        assert_int_equal(run(scene, NO_LIMIT, SIZE_MAX), DELIVER_DONE);
        assert_int_equal(check_records(scene, size), 0);
        assert_int_equal(scene->received_length, size + 4 * FCGI_HEADER_SIZE);
    }
}

/* Over SCGI the file goes out as it is. */
static void test_scgi_has_no_records(void **state)
{
    for (size_t i = 0; i < SIZES; i++) {
        struct scene *scene = anew(state);

        scene->front.is_scgi = true;
        start(scene, sizes[i]);
        make_send_buffer_tiny(scene);
        assert_int_equal(run(scene, 10000, SIZE_MAX), DELIVER_DONE);
        assert_int_equal(scene->received_length, sizes[i]);
        assert_memory_equal(scene->received, scene->pattern, sizes[i]);
    }
}

static void test_readers_that_take_little(void **state)
{
    static const size_t steps[] = { 1, 7, 8, 100, 4096, 50000 };

    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        struct scene *scene = anew(state);
        size_t size = steps[i] < 100 ? 50000 : 500000;

        start(scene, size);
        make_send_buffer_tiny(scene);
        assert_int_equal(run(scene, NO_LIMIT, steps[i]), DELIVER_DONE);
        assert_int_equal(check_records(scene, size), 0);
    }
}

/* A reader that does not read costs nothing but its connection: no progress, no attempts. */
static void test_reader_that_does_not_read(void **state)
{
    struct scene *scene = *state;
    uint64_t offset;

    start(scene, FILE_MAX);
    while (deliver_send(&scene->delivery, &scene->front, MIB) == DELIVER_PAUSED) {}
    offset = scene->delivery.offset;
    assert_true(offset > 0 && offset < FILE_MAX);
    assert_true((scene->front.watch.ready & WATCH_WRITE) == 0);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(deliver_send(&scene->delivery, &scene->front, MIB), DELIVER_BLOCKED);
        assert_int_equal(scene->delivery.offset, offset);
        scene->front.watch.ready = i == 1 ? WATCH_WRITE : 0; /* told of room that is not there */
    }
    assert_true(buf_length(&scene->front.out.kept) < FCGI_HEADER_SIZE);
    scene->front.watch.ready = WATCH_WRITE;
    assert_int_equal(run(scene, MIB, SIZE_MAX), DELIVER_DONE);
    assert_int_equal(check_records(scene, FILE_MAX), 0);
}

/* Each turn has its share: at least some bytes, at most what it may and the record that has
 * begun. */
static void test_budgets(void **state)
{
    static const uint64_t budgets[] = { 0, 1, 2, 4096, 61440, 100000, MIB };

    for (size_t i = 0; i < sizeof(budgets) / sizeof(budgets[0]); i++) {
        struct scene *scene = anew(state);
        size_t size = 500000;

        start(scene, size);
        assert_int_equal(run(scene, budgets[i], SIZE_MAX), DELIVER_DONE); /* checks the shares */
        assert_int_equal(check_records(scene, size), 0);
    }
}

static void test_pause_is_between_records(void **state)
{
    struct scene *scene = *state;

    start(scene, MIB);
    assert_int_equal(deliver_send(&scene->delivery, &scene->front, 1), DELIVER_PAUSED);
    assert_int_equal(scene->front.owed_bytes, 0);
    assert_int_equal(scene->delivery.offset, scene->delivery.record_size);
}

/* What waits in the queue, the head of the answer, goes first. */
static void test_queued_bytes_go_first(void **state)
{
    struct scene *scene = *state;

    start(scene, 10);
    assert_int_equal(buf_append_string(&scene->front.out.kept, "head"), 0);
    scene->front.watch.ready = 0;
    assert_int_equal(deliver_send(&scene->delivery, &scene->front, MIB), DELIVER_BLOCKED);
    assert_int_equal(receive(scene, SIZE_MAX), 0);
    scene->front.watch.ready = WATCH_WRITE;
    assert_int_equal(deliver_send(&scene->delivery, &scene->front, MIB), DELIVER_DONE);
    receive(scene, SIZE_MAX);
    assert_int_equal(scene->received_length, 4 + FCGI_HEADER_SIZE + 10);
    assert_memory_equal(scene->received, "head\1\6\1\2\0\x0a\0\0", 12);
    assert_memory_equal(scene->received + 12, scene->pattern, 10);
}

/* Several who wait for one build get descriptors of one open file, whose offset they share. */
static void test_offset_of_the_descriptor_does_not_count(void **state)
{
    struct scene *scene = *state;

    start(scene, 200000);
    while (deliver_send(&scene->delivery, &scene->front, 1) == DELIVER_PAUSED) {
        receive(scene, SIZE_MAX);
        assert_true(lseek(scene->delivery.artifact.fd, 12345, SEEK_SET) == 12345);
    }
    assert_int_equal(lseek(scene->delivery.artifact.fd, 0, SEEK_CUR), 12345);
    receive(scene, SIZE_MAX);
    assert_int_equal(check_records(scene, 200000), 0);
    assert_int_equal(scene->delivery.offset, 200000);
}

static void test_file_that_is_removed_meanwhile(void **state)
{
    struct scene *scene = *state;

    start(scene, MIB);
    assert_int_equal(deliver_send(&scene->delivery, &scene->front, 1), DELIVER_PAUSED);
    assert_int_equal(unlink(scene->path), 0);
    assert_int_equal(run(scene, MIB, SIZE_MAX), DELIVER_DONE);
    assert_int_equal(check_records(scene, MIB), 0);
}

/* What was promised in Content-Length is the end, however much the file grows. */
static void test_file_that_grows(void **state)
{
    struct scene *scene = *state;

    start(scene, 100000);
    assert_int_equal(pwrite(scene->file, "more", 4, 100000), 4);
    assert_int_equal(run(scene, MIB, SIZE_MAX), DELIVER_DONE);
    assert_int_equal(check_records(scene, 100000), 0);
    assert_int_equal(scene->delivery.offset, 100000);
}

/* ---- the carriers ---- */

static void test_tcp(void **state)
{
    static const size_t more[] = { 2 * 65528, 15 * 65528 - 1, 16 * 65528, 16 * 65528 + 1,
                                   FILE_MAX };

    for (size_t i = 0; i < SIZES + sizeof(more) / sizeof(more[0]); i++) {
        size_t size = i < SIZES ? sizes[i] : more[i - SIZES];
        struct scene *scene = anew(state);

        use_tcp(scene);
        scene->front.is_scgi = i % 2 == 1 && size > 65536;
        start(scene, size);
        assert_int_equal(run(scene, i % 3 == 0 ? 100000 : NO_LIMIT, SIZE_MAX), DELIVER_DONE);
        if (scene->front.is_scgi) {
            assert_int_equal(scene->received_length, size);
            assert_memory_equal(scene->received, scene->pattern, size);
        } else {
            assert_int_equal(check_records(scene, size), 0);
        }
    }
}

static void test_tcp_readers_that_take_little(void **state)
{
    static const size_t steps[] = { 7, 4096, 50000 };

    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        struct scene *scene = anew(state);
        size_t size = steps[i] < 100 ? 50000 : 2 * MIB;

        use_tcp(scene);
        start(scene, size);
        make_send_buffer_tiny(scene);
        assert_int_equal(run(scene, NO_LIMIT, steps[i]), DELIVER_DONE);
        assert_int_equal(check_records(scene, size), 0);
    }
}

/* Where no pipe can be had bytes are copied. */
static void test_no_pipe(void **state)
{
    for (size_t i = 0; i < SIZES; i++) {
        struct scene *scene = anew(state);

        scene->carrier.is_hopeless = true;
        start(scene, sizes[i]);
        make_send_buffer_tiny(scene);
        assert_int_equal(run(scene, 100000, 30000), DELIVER_DONE);
        assert_int_equal(check_records(scene, sizes[i]), 0);
    }
}

/* A range that begins anywhere: the records behind its first one begin with a page. */
static void test_range(void **state)
{
    static const uint64_t firsts[] = { 1, 4095, 4096, 61439, 61441, 1000001 };

    for (size_t i = 0; i < sizeof(firsts) / sizeof(firsts[0]); i++) {
        struct scene *scene = anew(state);
        struct fcgi_header header;
        uint64_t first = firsts[i];

        start(scene, 2 * MIB);
        scene->delivery.first = scene->delivery.offset = scene->delivery.cached_end = first;
        assert_int_equal(run(scene, MIB, SIZE_MAX), DELIVER_DONE);
        assert_true(fcgi_header_read(scene->received, &header));
        assert_int_equal((first + header.content_length) % 4096, 0);
        for (size_t at = 0, offset = first; at < scene->received_length;) {
            assert_true(fcgi_header_read(scene->received + at, &header));
            assert_memory_equal(scene->received + at + FCGI_HEADER_SIZE, scene->pattern + offset,
                                header.content_length);
            at += FCGI_HEADER_SIZE + header.content_length;
            offset += header.content_length;
            assert_true(at < scene->received_length || offset == 2 * MIB);
        }
    }
}

/* Each has some bytes in the pipe when the other's turn comes. */
static void test_downloads_share_the_carrier(void **state)
{
    struct scene *scene = *state;
    struct scene *other;
    void *others;
    bool done = false;

    set_up(&others);
    other = others;
    start(scene, FILE_MAX);
    start(other, FILE_MAX);
    carrier_leave(&other->carrier, &other->delivery);
    other->delivery.carrier = &scene->carrier;
    carrier_enter(&scene->carrier);
    other->front.request_id = 0x0103;
    while (!done) {
        done = true;
        for (unsigned i = 0; i < 2; i++) {
            struct scene *each = i == 0 ? scene : other;

            done &= deliver_send(&each->delivery, &each->front, 200000) == DELIVER_DONE;
            if ((each->front.watch.ready & WATCH_WRITE) == 0 && receive(each, 150000) > 0) {
                each->front.watch.ready = WATCH_WRITE;
            }
        }
    }
    receive(scene, SIZE_MAX);
    receive(other, SIZE_MAX);
    assert_int_equal(check_records(scene, FILE_MAX), 0);
    for (size_t at = 0; at < other->received_length;) {
        other->received[at + 3] = 0x02; /* the id that check_records wants */
        at += FCGI_HEADER_SIZE + ((size_t)other->received[at + 4] << 8) + other->received[at + 5];
    }
    assert_int_equal(check_records(other, FILE_MAX), 0);
    tear_down(&others);
    assert_int_equal(scene->carrier.deliveries, 1);
}

/* With the last download pipe and buffer go, too. */
static void test_carrier_holds_nothing_when_idle(void **state)
{
    struct scene *scene = *state;

    for (unsigned i = 0; i < 2; i++) {
        scene->front.is_unix = i == 0;
        start(scene, MIB);
        assert_int_equal(deliver_send(&scene->delivery, &scene->front, 100000), DELIVER_PAUSED);
        assert_true(scene->carrier.is_open || scene->carrier.room != NULL);
        deliver_stop(&scene->delivery);
        assert_true(!scene->carrier.is_open && scene->carrier.room == NULL);
        assert_int_equal(scene->carrier.in_pipe, 0);
        receive(scene, SIZE_MAX);
        scene->front.owed_bytes = 0;
        scene->front.watch.ready = WATCH_WRITE;
    }
}

static void test_small_file_goes_with_the_head(void **state)
{
    static const size_t small[] = { 1, 100, 65528 };

    for (size_t i = 0; i < sizeof(small) / sizeof(small[0]); i++) {
        struct scene *scene = anew(state);

        outq_deinit(&scene->front.out);
        outq_init(&scene->front.out, &scene->front.watch, MIB);
        start(scene, small[i]);
        deliver_small(&scene->delivery, &scene->front);
        assert_int_equal(scene->delivery.queued_bytes, small[i]);
        assert_int_equal(buf_length(&scene->front.out.kept), FCGI_HEADER_SIZE + small[i]);
        assert_int_equal(deliver_send(&scene->delivery, &scene->front, MIB), DELIVER_DONE);
        assert_int_equal(outq_send(&scene->front.out), 0);
        receive(scene, SIZE_MAX);
        assert_int_equal(check_records(scene, small[i]), 0);
    }
}

static void test_small_file_goes_alone(void **state)
{
    struct scene *scene = *state;

    start(scene, 65529); /* not small */
    deliver_small(&scene->delivery, &scene->front);
    assert_int_equal(scene->delivery.offset, 0);
    scene = anew(state);
    start(scene, 1000); /* shorter than promised */
    assert_int_equal(ftruncate(scene->file, 999), 0);
    deliver_small(&scene->delivery, &scene->front);
    assert_int_equal(scene->delivery.offset, 0);
    assert_true(outq_is_empty(&scene->front.out));
}

/* ---- files that are not in memory ---- */

static bool never_cached(int fd, uint64_t offset, uint64_t end)
{
    (void)fd;
    return offset >= end;
}

static void on_pages(struct delivery *delivery)
{
    struct scene *scene = list_entry(delivery, struct scene, delivery);

    scene->fetched++;
    loop_stop(scene->loop);
}

static void use_prefetch(struct scene *scene)
{
    close(scene->carrier.nowhere);
    assert_int_equal(loop_new(&scene->loop), 0);
    assert_int_equal(prefetch_new(&scene->prefetch, 2), 0);
    assert_int_equal(carrier_init(&scene->carrier, scene->loop, scene->prefetch, on_pages), 0);
    scene->carrier.is_cached = never_cached;
}

static void test_cold_file_is_fetched_by_another_thread(void **state)
{
    for (unsigned i = 0; i < 2; i++) {
        struct scene *scene = anew(state);
        enum deliver_result result;

        if (i == 1) {
            use_tcp(scene);
        }
        use_prefetch(scene);
        start(scene, FILE_MAX);
        deliver_small(&scene->delivery, &scene->front);
        assert_int_equal(deliver_send(&scene->delivery, &scene->front, MIB), DELIVER_WAITING);
        /* However often it is asked, nothing is sent and no second job made. */
        assert_int_equal(deliver_send(&scene->delivery, &scene->front, MIB), DELIVER_WAITING);
        assert_true(deliver_awaits_disk(&scene->delivery));
        assert_int_equal(scene->delivery.offset, 0);
        assert_int_equal(prefetch_run(scene->prefetch), 0);
        while ((result = deliver_send(&scene->delivery, &scene->front, MIB)) != DELIVER_DONE) {
            if (result == DELIVER_WAITING) {
                loop_run(scene->loop);
            } else if (result == DELIVER_BLOCKED) {
                receive(scene, SIZE_MAX);
                scene->front.watch.ready |= WATCH_WRITE;
            } else {
                assert_int_equal(result, DELIVER_PAUSED);
            }
        }
        receive_rest(scene);
        assert_true(scene->fetched >= 1 && scene->fetched <= FILE_MAX / MIB);
        assert_int_equal(check_records(scene, FILE_MAX), 0);
    }
}

static void test_client_leaves_while_the_disk_works(void **state)
{
    for (unsigned i = 0; i < 2; i++) {
        struct scene *scene = anew(state);

        use_prefetch(scene);
        start(scene, FILE_MAX);
        assert_int_equal(deliver_send(&scene->delivery, &scene->front, MIB), DELIVER_WAITING);
        if (i == 1) {
            assert_int_equal(prefetch_run(scene->prefetch), 0);
        }
        deliver_stop(&scene->delivery); /* tear_down sees that nothing is left */
        assert_int_equal(scene->fetched, 0);
    }
}

static void test_disk_that_fails(void **state)
{
    struct scene *scene = *state;
    int write_only;

    use_prefetch(scene);
    start(scene, MIB);
    write_only = open(scene->path, O_WRONLY | O_CLOEXEC);
    assert_true(dup3(write_only, scene->delivery.artifact.fd, O_CLOEXEC) >= 0);
    close(write_only);
    assert_int_equal(prefetch_run(scene->prefetch), 0);
    assert_int_equal(deliver_send(&scene->delivery, &scene->front, MIB), DELIVER_WAITING);
    loop_run(scene->loop);
    assert_int_equal(scene->fetched, 1);
    assert_int_equal(deliver_send(&scene->delivery, &scene->front, MIB), DELIVER_TRUNCATED);
    assert_int_equal(scene->delivery.error, EBADF);
    assert_int_equal(receive(scene, SIZE_MAX), 0);
}

/* ---- what goes wrong ---- */

/* A record is not even announced where the file has become too short for it. */
static void test_file_that_shrinks_between_records(void **state)
{
    static const struct {
        size_t left;    /* of the file */
        size_t records; /* that still go out, of 1000 bytes */
    } cases[] = {
        { 0, 1 }, { 1000, 1 }, { 1999, 1 }, { 2000, 2 }, { 2001, 2 }, { 9999, 9 },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct scene *scene = anew(state);

        start(scene, 10000);
        scene->delivery.record_size = 1000;
        assert_int_equal(deliver_send(&scene->delivery, &scene->front, 1), DELIVER_PAUSED);
        assert_int_equal(ftruncate(scene->file, (off_t)cases[i].left), 0);
        assert_int_equal(run(scene, MIB, SIZE_MAX), DELIVER_TRUNCATED);
        assert_int_equal(scene->delivery.error, 0);
        assert_int_equal(check_records(scene, 10000), 0);
        assert_int_equal(scene->delivery.offset, cases[i].records * 1000);
        assert_int_equal(scene->front.owed_bytes, 0);
    }
}

static void test_file_that_is_empty_from_the_start(void **state)
{
    struct scene *scene = *state;

    start(scene, 1000);
    assert_int_equal(ftruncate(scene->file, 0), 0);
    assert_int_equal(run(scene, MIB, SIZE_MAX), DELIVER_TRUNCATED);
    assert_int_equal(scene->received_length, 0);
    assert_int_equal(scene->front.owed_bytes, 0);
}

/* Starts a file of two MiB whose reader makes it wait in mid-record. The records are of the largest
 * size: a kernel may put up to 17 pages into a unix socket at once, whatever SO_SNDBUF says. */
static void block_within_record(struct scene *scene)
{
    enum deliver_result result;

    start(scene, 2 * MIB);
    scene->delivery.record_size = FCGI_CONTENT_MAX;
    make_send_buffer_tiny(scene);
    while ((result = deliver_send(&scene->delivery, &scene->front, MIB)) != DELIVER_BLOCKED ||
           scene->front.owed_bytes == 0 || !outq_is_empty(&scene->front.out)) {
        assert_int_not_equal(result, DELIVER_DONE);
        receive(scene, 100);
        scene->front.watch.ready = WATCH_WRITE;
    }
}

/* In mid-record the rest of it is owed, so that the caller knows that it must not go on. */
static void test_file_that_shrinks_within_a_record(void **state)
{
    struct scene *scene = *state;
    size_t owed;

    block_within_record(scene);
    assert_int_equal(ftruncate(scene->file, (off_t)scene->delivery.offset), 0);
    scene->front.watch.ready = WATCH_WRITE;
    assert_int_equal(run(scene, MIB, SIZE_MAX), DELIVER_TRUNCATED);
    assert_int_equal(scene->delivery.error, 0);
    owed = check_records(scene, 2 * MIB);
    assert_true(owed > 0);
    assert_int_equal(scene->front.owed_bytes, owed);
}

static void test_file_that_cannot_be_read(void **state)
{
    struct scene *scene = *state;
    int write_only;

    start(scene, 1000);
    write_only = open(scene->path, O_WRONLY | O_CLOEXEC);
    assert_true(write_only >= 0);
    assert_true(dup3(write_only, scene->delivery.artifact.fd, O_CLOEXEC) >= 0);
    close(write_only);
    assert_int_equal(run(scene, MIB, SIZE_MAX), DELIVER_TRUNCATED);
    assert_int_equal(scene->delivery.error, EBADF);
    assert_int_equal(scene->received_length, 0); /* not even a header */
    assert_int_equal(scene->front.owed_bytes, 0);
}

static void test_reader_that_leaves(void **state)
{
    struct scene *scene = *state;

    /* before a record */
    start(scene, MIB);
    assert_int_equal(deliver_send(&scene->delivery, &scene->front, 1), DELIVER_PAUSED);
    assert_int_equal(shutdown(scene->peer, SHUT_RD), 0);
    assert_int_equal(deliver_send(&scene->delivery, &scene->front, 1), DELIVER_LOST);

    /* within one */
    scene = anew(state);
    block_within_record(scene);
    assert_int_equal(shutdown(scene->peer, SHUT_RD), 0);
    scene->front.watch.ready = WATCH_WRITE;
    assert_int_equal(deliver_send(&scene->delivery, &scene->front, MIB), DELIVER_LOST);

    /* while something else waits in the queue */
    scene = anew(state);
    start(scene, MIB);
    assert_int_equal(buf_append_string(&scene->front.out.kept, "head"), 0);
    assert_int_equal(shutdown(scene->peer, SHUT_RD), 0);
    assert_int_equal(deliver_send(&scene->delivery, &scene->front, MIB), DELIVER_LOST);
}

static void test_stop_closes_the_file(void **state)
{
    struct scene *scene = *state;
    int fd;

    start(scene, 10);
    fd = scene->delivery.artifact.fd;
    deliver_stop(&scene->delivery);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    deliver_stop(&scene->delivery);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_sizes),
        TEST(test_records_of_every_allowed_size),
        TEST(test_scgi_has_no_records),
        TEST(test_readers_that_take_little),
        TEST(test_reader_that_does_not_read),
        TEST(test_budgets),
        TEST(test_pause_is_between_records),
        TEST(test_queued_bytes_go_first),
        TEST(test_offset_of_the_descriptor_does_not_count),
        TEST(test_file_that_is_removed_meanwhile),
        TEST(test_file_that_grows),
        TEST(test_tcp),
        TEST(test_tcp_readers_that_take_little),
        TEST(test_no_pipe),
        TEST(test_range),
        TEST(test_downloads_share_the_carrier),
        TEST(test_carrier_holds_nothing_when_idle),
        TEST(test_small_file_goes_with_the_head),
        TEST(test_small_file_goes_alone),
        TEST(test_cold_file_is_fetched_by_another_thread),
        TEST(test_client_leaves_while_the_disk_works),
        TEST(test_disk_that_fails),
        TEST(test_file_that_shrinks_between_records),
        TEST(test_file_that_is_empty_from_the_start),
        TEST(test_file_that_shrinks_within_a_record),
        TEST(test_file_that_cannot_be_read),
        TEST(test_reader_that_leaves),
        TEST(test_stop_closes_the_file),
    };

    signal(SIGPIPE, SIG_IGN); /* as the daemon does: sendfile has no MSG_NOSIGNAL */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
