/* SPDX-License-Identifier: MIT */

/* Bytes on their way to a socket that takes little at a time: all of them, in order, or an
 * error. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sidecar/io/outq.h"

#define KEPT_MAX 300000
#define BYTES_MAX 300000
#define RANDOM_BYTES ((size_t)150000)

/* The watch is never given to a loop: the tests play the loop's part and set its bits. */
struct scene {
    struct watch watch;
    struct outq outq;
    struct gather gather;
    int peer;
    uint8_t *received;
    size_t received_length;
    uint8_t *pattern;
};

static int set_up(void **state)
{
    struct scene *scene = calloc(1, sizeof(*scene));
    int pair[2];
    int tiny = 1; /* the kernel makes it its minimum, some 4 KiB */

    assert_non_null(scene);
    scene->received = malloc(BYTES_MAX + 1);
    scene->pattern = malloc(BYTES_MAX);
    assert_non_null(scene->received);
    assert_non_null(scene->pattern);
    for (size_t i = 0; i < BYTES_MAX; i++) {
        scene->pattern[i] = (uint8_t)(i * 7 + i / 251);
    }
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    assert_int_equal(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &tiny, sizeof(tiny)), 0);
    scene->watch = (struct watch){ .fd = pair[0], .ready = WATCH_WRITE };
    scene->peer = pair[1];
    outq_init(&scene->outq, &scene->watch, KEPT_MAX);
    *state = scene;
    return 0;
}

static void close_peer(struct scene *scene)
{
    close(scene->peer);
    scene->peer = -1;
}

static int tear_down(void **state)
{
    struct scene *scene = *state;

    outq_deinit(&scene->outq);
    close(scene->watch.fd);
    if (scene->peer >= 0) {
        close_peer(scene);
    }
    free(scene->received);
    free(scene->pattern);
    free(scene);
    return 0;
}

/* The peer reads what there is. */
static void receive(struct scene *scene)
{
    ssize_t got;

    while ((got = read(scene->peer, scene->received + scene->received_length,
                       BYTES_MAX + 1 - scene->received_length)) > 0) {
        scene->received_length += (size_t)got;
    }
    assert_true(got < 0 && errno == EAGAIN);
}

/* Until nothing is kept: the peer reads, the loop tells that there is room, the queue sends. */
static void drain(struct scene *scene)
{
    receive(scene);
    while (!outq_is_empty(&scene->outq)) {
        size_t before = scene->received_length;

        scene->watch.ready |= WATCH_WRITE;
        assert_int_equal(outq_send(&scene->outq), 0);
        receive(scene);
        assert_true(scene->received_length > before);
    }
}

static void assert_received(struct scene *scene, const void *expected, size_t len)
{
    drain(scene);
    assert_int_equal(scene->received_length, len);
    assert_memory_equal(scene->received, expected, len);
}

static void fill_socket(struct scene *scene)
{
    gather_begin(&scene->gather, &scene->outq);
    gather_add(&scene->gather, scene->pattern, 100000);
    assert_int_equal(gather_flush(&scene->gather), 0);
    assert_false(outq_is_empty(&scene->outq));
}

static void test_small_pieces_go_straight_out(void **state)
{
    struct scene *scene = *state;

    gather_begin(&scene->gather, &scene->outq);
    gather_add(&scene->gather, "one ", 4);
    memcpy(gather_add_small(&scene->gather, 4), "two ", 4);
    gather_add(&scene->gather, "", 0);
    gather_add(&scene->gather, "three", 5);
    receive(scene);
    assert_int_equal(scene->received_length, 0); /* nothing before the flush */
    assert_int_equal(gather_flush(&scene->gather), 0);
    assert_true(outq_is_empty(&scene->outq));
    assert_null(scene->outq.kept.bytes);
    receive(scene);
    assert_received(scene, "one two three", 13);
}

static void test_kept_pieces_go_out_with_the_next(void **state)
{
    struct scene *scene = *state;

    gather_begin(&scene->gather, &scene->outq);
    gather_add(&scene->gather, "one ", 4);
    assert_int_equal(gather_keep(&scene->gather), 0);
    assert_int_equal(buf_append(&scene->outq.kept, "two ", 4), 0);
    receive(scene);
    assert_int_equal(scene->received_length, 0);
    gather_add(&scene->gather, "three", 5);
    assert_int_equal(gather_flush(&scene->gather), 0);
    assert_true(outq_is_empty(&scene->outq));
    assert_int_equal(scene->outq.sent_bytes, 13);
    assert_received(scene, "one two three", 13);
}

static void test_nothing_to_send_is_no_error(void **state)
{
    struct scene *scene = *state;

    assert_int_equal(outq_send(&scene->outq), 0);
    gather_begin(&scene->gather, &scene->outq);
    assert_int_equal(gather_flush(&scene->gather), 0);
    assert_int_equal(gather_flush(&scene->gather), 0);
    assert_received(scene, "", 0);
}

static void test_adjacent_pieces_become_one(void **state)
{
    struct scene *scene = *state;

    gather_begin(&scene->gather, &scene->outq);
    for (size_t i = 0; i < 1000; i++) {
        gather_add(&scene->gather, scene->pattern + i, 1);
    }
    assert_int_equal(scene->gather.count, 1);
    assert_int_equal(gather_flush(&scene->gather), 0);
    assert_received(scene, scene->pattern, 1000);
}

/* What the socket does not take is kept, and the WRITE bit tells that it is full. */
static void test_rest_is_kept(void **state)
{
    struct scene *scene = *state;

    gather_begin(&scene->gather, &scene->outq);
    gather_add(&scene->gather, scene->pattern, 150000);
    gather_add(&scene->gather, scene->pattern + 200000, 100000);
    assert_int_equal(gather_flush(&scene->gather), 0);
    assert_true(buf_length(&scene->outq.kept) > 200000);
    assert_int_equal(outq_send(&scene->outq), 0);
    assert_true((scene->watch.ready & WATCH_WRITE) == 0);
    memmove(scene->pattern + 150000, scene->pattern + 200000, 100000);
    assert_received(scene, scene->pattern, 250000);
    assert_null(scene->outq.kept.bytes);
}

/* Not a single system call is made while the bit is not set. */
static void test_nothing_is_sent_without_the_bit(void **state)
{
    struct scene *scene = *state;

    scene->watch.ready = WATCH_READ | WATCH_END;
    gather_begin(&scene->gather, &scene->outq);
    gather_add(&scene->gather, "abc", 3);
    assert_int_equal(gather_flush(&scene->gather), 0);
    assert_int_equal(buf_length(&scene->outq.kept), 3);
    assert_int_equal(outq_send(&scene->outq), 0);
    receive(scene);
    assert_int_equal(scene->received_length, 0);
    assert_received(scene, "abc", 3);
}

static void test_later_pieces_wait_behind_kept_ones(void **state)
{
    struct scene *scene = *state;

    fill_socket(scene);
    /* The peer has made room, but what comes now is behind what waits. */
    receive(scene);
    scene->watch.ready |= WATCH_WRITE;
    gather_begin(&scene->gather, &scene->outq);
    gather_add(&scene->gather, scene->pattern + 100000, 50000);
    gather_add(&scene->gather, scene->pattern + 150000, 50000);
    assert_int_equal(gather_flush(&scene->gather), 0);
    assert_received(scene, scene->pattern, 200000);
}

/* Each with a header in front, as records are sent: more pieces than a round has room for. */
static void check_many_pieces(struct scene *scene, size_t count, size_t header, size_t content)
{
    uint8_t *expected = malloc(count * (header + content) + 1);
    size_t len = 0;

    assert_non_null(expected);
    gather_begin(&scene->gather, &scene->outq);
    for (size_t i = 0; i < count; i++) {
        /* Contents do not follow each other in memory, so that none are joined. */
        const uint8_t *bytes = scene->pattern + (i % 7) * 1000;
        uint8_t *room = gather_add_small(&scene->gather, header);

        memset(room, (int)('A' + i % 26), header);
        gather_add(&scene->gather, bytes, content);
        memset(expected + len, (int)('A' + i % 26), header);
        memcpy(expected + len + header, bytes, content);
        len += header + content;
    }
    assert_int_equal(gather_flush(&scene->gather), 0);
    assert_received(scene, expected, len);
    free(expected);
}

static void test_more_pieces_than_a_round_holds(void **state)
{
    static const struct {
        size_t count;
        size_t header;
        size_t content;
    } cases[] = {
        { GATHER_PIECES / 2 - 1, 8, 10 },
        { GATHER_PIECES / 2, 8, 10 },
        { GATHER_PIECES / 2 + 1, 8, 10 },
        { GATHER_PIECES, 8, 10 },
        { 500, 8, 10 },
        { 500, GATHER_SMALL_SIZE, 500 },
        { GATHER_PIECES + 1, GATHER_SMALL_SIZE, 0 }, /* small ones alone: adjacent, and joined */
        { GATHER_PIECES * 3, 8, 0 },                 /* small ones alone, with gaps */
        { 100, 1, 1 },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        tear_down(state);
        set_up(state);
        check_many_pieces(*state, cases[i].count, cases[i].header, cases[i].content);
    }
}

/* Adds up to 50 pieces of the pattern from offset on, to RANDOM_BYTES at most. The new offset. */
static size_t add_random_pieces(struct scene *scene, size_t offset, unsigned *seed)
{
    unsigned pieces = 1 + (unsigned)rand_r(seed) % 50;

    for (unsigned i = 0; i < pieces; i++) {
        size_t len = (size_t)rand_r(seed) % (rand_r(seed) % 8 == 0 ? 20000 : 20);

        len = len < RANDOM_BYTES - offset ? len : RANDOM_BYTES - offset;
        if (len <= GATHER_SMALL_SIZE && rand_r(seed) % 2 == 0) {
            memcpy(gather_add_small(&scene->gather, len), scene->pattern + offset, len);
        } else {
            gather_add(&scene->gather, scene->pattern + offset, len);
        }
        offset += len;
    }
    return offset;
}

static void test_random_pieces_and_readers(void **state)
{
    struct scene *scene = *state;
    unsigned seed = 20260101;

    for (unsigned round = 0; round < 20; round++) {
        size_t offset = 0;

        scene->received_length = 0;
        while (offset < RANDOM_BYTES) {
            gather_begin(&scene->gather, &scene->outq);
            offset = add_random_pieces(scene, offset, &seed);
            assert_int_equal(gather_flush(&scene->gather), 0);
            if (rand_r(&seed) % 3 == 0) {
                receive(scene);
                scene->watch.ready |= WATCH_WRITE;
            }
        }
        assert_received(scene, scene->pattern, RANDOM_BYTES);
    }
}

/* A small piece of no bytes is no piece; its scratch may be written all the same. */
static void test_small_piece_of_no_bytes(void **state)
{
    struct scene *scene = *state;

    gather_begin(&scene->gather, &scene->outq);
    for (unsigned i = 0; i < GATHER_PIECES * 2; i++) {
        memset(gather_add_small(&scene->gather, 0), 'x', GATHER_SMALL_SIZE);
    }
    memcpy(gather_add_small(&scene->gather, 2), "ok", 2);
    assert_int_equal(gather_flush(&scene->gather), 0);
    assert_received(scene, "ok", 2);
}

/* ---- limits and errors ---- */

static void test_maximum_of_kept_bytes(void **state)
{
    static const size_t maxima[] = { 999, 1000, 1001 };

    for (size_t i = 0; i < sizeof(maxima) / sizeof(maxima[0]); i++) {
        tear_down(state);
        set_up(state);
        struct scene *scene = *state;

        outq_init(&scene->outq, &scene->watch, maxima[i]);
        scene->watch.ready = 0;
        gather_begin(&scene->gather, &scene->outq);
        gather_add(&scene->gather, scene->pattern, 400);
        gather_add(&scene->gather, scene->pattern + 500, 600);
        assert_int_equal(gather_flush(&scene->gather), maxima[i] < 1000 ? -ENOBUFS : 0);
        assert_true(buf_length(&scene->outq.kept) <= maxima[i]);
    }
}

/* The socket takes some of it before the rest proves too much. */
static void test_maximum_of_kept_bytes_behind_sent_ones(void **state)
{
    struct scene *scene = *state;

    outq_init(&scene->outq, &scene->watch, 1000);
    gather_begin(&scene->gather, &scene->outq);
    gather_add(&scene->gather, scene->pattern, 200000);
    assert_int_equal(gather_flush(&scene->gather), -ENOBUFS);
    assert_int_equal(gather_flush(&scene->gather), -ENOBUFS); /* the round's first error stays */
    gather_begin(&scene->gather, &scene->outq);
    assert_int_equal(gather_flush(&scene->gather), 0);
}

/* An error within the round (there were more pieces than it holds) is told at its end, and nothing
 * more is sent. */
static void test_error_within_the_round_is_kept(void **state)
{
    struct scene *scene = *state;

    outq_init(&scene->outq, &scene->watch, 10);
    scene->watch.ready = 0;
    gather_begin(&scene->gather, &scene->outq);
    for (unsigned i = 0; i <= GATHER_PIECES; i++) {
        gather_add(&scene->gather, scene->pattern + i * 2, 1);
    }
    scene->watch.ready = WATCH_WRITE;
    gather_add(&scene->gather, "too late", 8);
    assert_int_equal(gather_flush(&scene->gather), -ENOBUFS);
    receive(scene);
    assert_int_equal(scene->received_length, 0);
}

static void test_lost_connection(void **state)
{
    struct scene *scene = *state;

    fill_socket(scene);
    close_peer(scene);
    scene->watch.ready |= WATCH_WRITE;
    /* No SIGPIPE either: it would end this test. The first error is that of the unread bytes. */
    int error = outq_send(&scene->outq);

    assert_true(error == -ECONNRESET || error == -EPIPE);
    outq_deinit(&scene->outq);
    gather_begin(&scene->gather, &scene->outq);
    gather_add(&scene->gather, "x", 1);
    assert_int_equal(gather_flush(&scene->gather), -EPIPE);
    assert_true(outq_is_empty(&scene->outq));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_small_pieces_go_straight_out),
        TEST(test_kept_pieces_go_out_with_the_next),
        TEST(test_nothing_to_send_is_no_error),
        TEST(test_adjacent_pieces_become_one),
        TEST(test_rest_is_kept),
        TEST(test_nothing_is_sent_without_the_bit),
        TEST(test_later_pieces_wait_behind_kept_ones),
        TEST(test_more_pieces_than_a_round_holds),
        TEST(test_random_pieces_and_readers),
        TEST(test_small_piece_of_no_bytes),
        TEST(test_maximum_of_kept_bytes),
        TEST(test_maximum_of_kept_bytes_behind_sent_ones),
        TEST(test_error_within_the_round_is_kept),
        TEST(test_lost_connection),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
