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
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sidecar/relay/deliver.h"

#define MIB ((size_t)1024 * 1024)
#define FILE_MAX (3 * MIB)
#define NO_LIMIT (UINT64_MAX / 2)

/* The loop's part, setting the bits of the watch, is played by the tests. */
struct scene {
    struct front front;
    struct delivery delivery;
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
    *state = scene;
    return 0;
}

static int tear_down(void **state)
{
    struct scene *scene = *state;

    deliver_stop(&scene->delivery);
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
    deliver_start(&scene->delivery, artifact, 0, artifact.size_bytes, &scene->front);
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
        assert_true(receive(scene, step) > 0);
        scene->front.watch.ready |= WATCH_WRITE;
    }
    receive(scene, SIZE_MAX);
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
    assert_int_equal(check_records(scene, 1000), 1000);
    assert_int_equal(scene->front.owed_bytes, 1000);
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
