/* SPDX-License-Identifier: MIT */

/* A file that comes through a pipe as STDOUT records: every byte once and in order, however it
 * comes and however the reader reads, and no record that waits for the source. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "sidecar/relay/deliver_stream.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fcgi/record.h"

#define SIZE 300000u
#define NO_LIMIT (UINT64_MAX / 2)

/* The loop's part, setting the bits of the watches, is played by the tests. */
struct scene {
    struct front front;
    struct delivery delivery;
    struct deliver_stream stream;
    struct loop *loop;
    int source; /* the pipe's other end; -1: closed */
    int peer;
    uint8_t content[SIZE];
    size_t written;
    uint8_t got[SIZE * 2];
    size_t got_bytes;
    uint8_t scratch[4096];
    unsigned random;
};

static unsigned draw(struct scene *scene, unsigned below)
{
    scene->random = scene->random * 1103515245u + 12345u;
    return (scene->random >> 16) % below;
}

static void on_ready(struct watch *watch)
{
    (void)watch;
}

static int set_up(void **state)
{
    struct scene *scene = calloc(1, sizeof(*scene));
    int ends[2], pair[2];

    assert_non_null(scene);
    for (size_t i = 0; i < SIZE; i++) {
        scene->content[i] = (uint8_t)(i * 31 + i / 253);
    }
    assert_int_equal(loop_new(&scene->loop), 0);
    assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    scene->source = ends[1];
    scene->front = (struct front){ .fd = pair[0], .is_unix = true, .request_id = 0x0102 };
    scene->front.watch = (struct watch){ .fd = pair[0], .ready = WATCH_WRITE };
    outq_init(&scene->front.out, &scene->front.watch, 65536);
    scene->peer = pair[1];
    scene->delivery = (struct delivery){
        .artifact = { .fd = ends[0], .is_stream = true, .size_bytes = SIZE },
        .end = SIZE,
        .record_size = 61440,
    };
    scene->random = 1;
    *state = scene;
    return 0;
}

static int tear_down(void **state)
{
    struct scene *scene = *state;

    deliver_stream_stop(&scene->stream);
    deliver_stop(&scene->delivery);
    outq_deinit(&scene->front.out);
    loop_free(scene->loop);
    close(scene->front.fd);
    close(scene->peer);
    if (scene->source >= 0) {
        close(scene->source);
    }
    free(scene);
    return 0;
}

static void start(struct scene *scene, uint64_t first, uint64_t end)
{
    scene->delivery.first = first;
    scene->delivery.offset = first;
    scene->delivery.end = end;
    assert_int_equal(deliver_stream_start(&scene->stream, &scene->delivery, scene->loop, on_ready),
                     0);
}

static void put(struct scene *scene, size_t len)
{
    ssize_t put;

    len = len < SIZE - scene->written ? len : SIZE - scene->written;
    put = write(scene->source, scene->content + scene->written, len);
    if (put > 0) {
        scene->written += (size_t)put;
        scene->stream.watch.ready |= WATCH_READ;
    }
}

static void end_source(struct scene *scene)
{
    close(scene->source);
    scene->source = -1;
    scene->stream.watch.ready |= WATCH_READ;
}

static void take(struct scene *scene, size_t len)
{
    ssize_t got = read(scene->peer, scene->got + scene->got_bytes, len);

    if (got > 0) {
        scene->got_bytes += (size_t)got;
        scene->front.watch.ready |= WATCH_WRITE;
    }
}

static enum deliver_result send_some(struct scene *scene, uint64_t budget)
{
    return deliver_stream_send(&scene->stream, &scene->delivery, &scene->front, scene->scratch,
                               sizeof(scene->scratch), budget);
}

/* The content of the records, compared from first on; the bytes of it. */
static size_t check_records(const struct scene *scene, size_t first)
{
    size_t at = 0;
    size_t content = 0;

    while (at < scene->got_bytes) {
        struct fcgi_header header;

        assert_true(at + FCGI_HEADER_SIZE <= scene->got_bytes);
        assert_true(fcgi_header_read(scene->got + at, &header));
        assert_int_equal(header.type, FCGI_STDOUT);
        assert_int_equal(header.request_id, 0x0102);
        assert_int_equal(header.padding_length, 0);
        assert_in_range(header.content_length, 1, 65528);
        at += FCGI_HEADER_SIZE;
        assert_true(at + header.content_length <= scene->got_bytes);
        assert_memory_equal(scene->got + at, scene->content + first + content,
                            header.content_length);
        at += header.content_length;
        content += header.content_length;
    }
    return content;
}

static void play(struct scene *scene)
{
    enum deliver_result result = DELIVER_BLOCKED;

    while (result != DELIVER_DONE) {
        if (draw(scene, 3) > 0 && scene->source >= 0) {
            put(scene, 1 + draw(scene, 30000));
        }
        if (draw(scene, 3) > 0) {
            take(scene, 1 + draw(scene, 30000));
        }
        result = send_some(scene, 1 + draw(scene, 50000));
        assert_true(result == DELIVER_DONE || result == DELIVER_BLOCKED ||
                    result == DELIVER_PAUSED);
    }
    for (size_t before = 0; before != scene->got_bytes || before == 0;) {
        before = scene->got_bytes;
        take(scene, 100000);
    }
}

static void test_random_plays(void **state)
{
    static const uint64_t parts[][2] = { { 0, SIZE },        { 1, SIZE },   { SIZE - 1, SIZE },
                                         { 100000, 100001 }, { 5, 200000 }, { 0, 1 } };

    for (unsigned seed = 0; seed < 60; seed++) {
        const uint64_t *part = parts[seed % 6];
        struct scene *scene;

        tear_down(state);
        set_up(state);
        scene = *state;
        scene->random = seed;
        start(scene, part[0], part[1]);
        play(scene);
        assert_int_equal(check_records(scene, part[0]), part[1] - part[0]);
    }
}

/* Over SCGI there are no records. */
static void test_scgi(void **state)
{
    struct scene *scene = *state;

    scene->front.is_scgi = true;
    start(scene, 0, SIZE);
    play(scene);
    assert_int_equal(scene->got_bytes, SIZE);
    assert_memory_equal(scene->got, scene->content, SIZE);
}

static void test_nothing_is_announced_that_is_not_there(void **state)
{
    struct scene *scene = *state;

    start(scene, 0, SIZE);
    assert_int_equal(send_some(scene, NO_LIMIT), DELIVER_BLOCKED);
    put(scene, 10);
    assert_int_equal(send_some(scene, NO_LIMIT), DELIVER_BLOCKED);
    assert_int_equal(scene->front.owed_bytes, 0);
    take(scene, 1000);
    assert_int_equal(scene->got_bytes, FCGI_HEADER_SIZE + 10);
    assert_int_equal(check_records(scene, 0), 10);
}

static void test_a_source_that_ends_early(void **state)
{
    struct scene *scene = *state;

    start(scene, 0, SIZE);
    put(scene, 1000);
    end_source(scene);
    assert_int_equal(send_some(scene, NO_LIMIT), DELIVER_TRUNCATED);
    assert_int_equal(scene->delivery.offset, 1000);
    assert_int_equal(scene->front.owed_bytes, 0);
    take(scene, 2000);
    assert_int_equal(check_records(scene, 0), 1000);
}

static void test_a_source_that_ends_before_the_part(void **state)
{
    struct scene *scene = *state;

    start(scene, 5000, SIZE);
    put(scene, 1000);
    assert_int_equal(send_some(scene, NO_LIMIT), DELIVER_BLOCKED);
    end_source(scene);
    assert_int_equal(send_some(scene, NO_LIMIT), DELIVER_TRUNCATED);
    assert_int_equal(scene->delivery.offset, 5000);
}

/* A source may be as fast as we are: what is skipped counts as what is sent does. */
static void test_what_is_skipped_uses_up_the_share(void **state)
{
    struct scene *scene = *state;

    start(scene, 50000, 60000);
    put(scene, 60000);
    assert_int_equal(send_some(scene, 20000), DELIVER_PAUSED);
    assert_int_equal(scene->stream.skip_bytes, 30000);
    assert_int_equal(send_some(scene, 20000), DELIVER_PAUSED);
    assert_int_equal(scene->stream.skip_bytes, 10000);
    assert_int_equal(send_some(scene, 20000), DELIVER_DONE);
    take(scene, 100000);
    assert_int_equal(check_records(scene, 50000), 10000);
}

static void test_a_reader_that_is_gone(void **state)
{
    struct scene *scene = *state;

    start(scene, 0, SIZE);
    put(scene, 1000);
    close(scene->peer);
    scene->peer = dup(STDERR_FILENO);
    assert_int_equal(send_some(scene, NO_LIMIT), DELIVER_LOST);
}

static void test_no_part_needs_no_byte(void **state)
{
    struct scene *scene = *state;

    start(scene, 0, 0);
    assert_int_equal(send_some(scene, NO_LIMIT), DELIVER_DONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_random_plays, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_scgi, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nothing_is_announced_that_is_not_there, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_source_that_ends_early, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_source_that_ends_before_the_part, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_skipped_uses_up_the_share, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_reader_that_is_gone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_part_needs_no_byte, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
