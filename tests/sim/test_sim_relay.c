/* SPDX-License-Identifier: MIT */
/* Ordinary requests: heads, bodies, kept connections, what one side says too early or too late. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/sim/sim.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#define LARGE ((size_t)1500 * 1000 + 1)

/* Bytes that look the same in every run; the caller frees. */
static struct span noise(size_t len)
{
    uint8_t *bytes = malloc(len);
    uint64_t seed = len;

    assert_non_null(bytes);
    for (size_t i = 0; i < len; i++) {
        bytes[i] = (uint8_t)draw(&seed, 256);
    }
    return span_of(bytes, len);
}

static void free_noise(struct span span)
{
    free((void *)(uintptr_t)span.ptr);
}

static bool has_body(const struct sim_worker *worker, struct span body)
{
    return worker != NULL && worker->body_ended && span_equal(buf_span(&worker->body), body);
}

static bool has_length(const struct sim_worker *worker, const char *length)
{
    struct span value;

    return worker_param(worker, "CONTENT_LENGTH", &value) && span_is(value, length);
}

static void play_get(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker;
    struct span value;

    front_get(front, false);
    worker = sim_accept(sim);
    sim_expect(worker_param(worker, "VELOX_SIDECAR", &value));
    sim_expect(!worker_param(worker, "HTTP_PROXY", &value));
    sim_expect(has_length(worker, ""));
    sim_expect(has_body(worker, span_of(NULL, 0)));
    worker_answer(worker, PAGE);
    sim_run(sim);
    expect_answer(front, PAGE);
    sim_expect(worker_is_free(worker));
    sim_expect(front->stream.has_ended);
}

static void play_kept(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);

    for (unsigned i = 0; i < 3; i++) {
        struct sim_worker *worker;

        front->id = (uint16_t)(i * 30000 + 1);
        front_get(front, true);
        worker = sim_accept(sim);
        worker_stdout(worker, PAGE);
        worker_end(worker, i * 70000);
        sim_run(sim);
        expect_answer(front, PAGE);
        sim_expect_number(front->end.app_status, i * 70000);
        sim_expect(worker_is_free(worker));
        sim_expect(!front->stream.has_ended);
    }
    sim_expect_number(sim_relay_stat(sim, STAT_FRONTS_ACCEPTED), 1);
    sim_expect_number(sim_relay_stat(sim, STAT_REQUESTS_RELAYED), 3);
}

static void play_post(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    struct span body = noise(LARGE);
    struct sim_worker *worker;

    front_post(front, true, body);
    worker = sim_accept(sim);
    sim_expect(has_body(worker, body));
    worker_answer(worker, PAGE);
    sim_run(sim);
    expect_answer(front, PAGE);
    free_noise(body);
}

static void play_unannounced(struct sim *sim)
{
    static const size_t sizes[] = { 0, 5, 200000 };

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct sim_front *front = sim_connect(sim);
        struct span body = noise(sizes[i]);
        struct sim_worker *worker;
        char length[24] = "";

        if (sizes[i] > 0) {
            snprintf(length, sizeof(length), "%zu", sizes[i]);
        }
        front_post_unannounced(front, false, body);
        worker = sim_accept(sim);
        sim_expect(has_length(worker, length));
        sim_expect(has_body(worker, body));
        worker_answer(worker, PAGE);
        sim_run(sim);
        expect_answer(front, PAGE);
        free_noise(body);
    }
}

static void small_spool(struct sim *sim)
{
    sim->relay_options.max_spooled_body = 1000;
}

static void play_unannounced_too_large(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    struct span body = noise(1001);

    front_post_unannounced(front, true, body);
    sim_expect_no_worker(sim);
    expect_failure(front, 413, "too_large");
    sim_expect(!front->stream.has_ended);
    free_noise(body);
}

static void play_large_answer(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    struct span body = noise(LARGE);
    struct sim_worker *worker;
    struct buf expected;

    buf_init(&expected, SIZE_MAX);
    assert_int_equal(buf_append_string(&expected, PAGE), 0);
    assert_int_equal(buf_append_span(&expected, body), 0);
    front_get(front, true);
    worker = sim_accept(sim);
    front->stream.is_stalled = true;
    worker_stdout(worker, PAGE);
    worker_stdout_span(worker, body);
    worker_end(worker, 0);
    sim_run(sim);
    /* What the front does not read is not read from PHP either. */
    sim_expect(worker_unsent(worker) > LARGE / 4);
    front->stream.is_stalled = false;
    sim_run(sim);
    expect_answer_span(front, buf_span(&expected));
    buf_deinit(&expected);
    free_noise(body);
}

static void play_stalled_upload(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    struct span body = noise(LARGE);
    struct sim_worker *worker;

    front_post(front, true, body);
    sim_run(sim);
    /* Accepted by the kernel only: nothing is read. */
    sim_expect(buf_length(&front->stream.out) > LARGE / 4);
    worker = sim_accept(sim);
    sim_expect(has_body(worker, body));
    worker_answer(worker, PAGE);
    sim_run(sim);
    expect_answer(front, PAGE);
    free_noise(body);
}

static void play_stderr(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker;
    static char text[10001];

    memset(text, 'e', sizeof(text) - 1);
    front_get(front, true);
    worker = sim_accept(sim);
    worker_stderr(worker, "before;");
    worker_stdout(worker, "Content-type: text/ht");
    worker_stderr(worker, "in the head;");
    worker_stdout(worker, "ml\r\n\r\nhalf");
    worker_stderr(worker, text);
    worker_stdout(worker, " whole");
    worker_end(worker, 0);
    sim_run(sim);
    expect_answer(front, "Content-type: text/html\r\n\r\nhalf whole");
    sim_expect_number(buf_length(&front->stderr_), 7 + 12 + sizeof(text) - 1);
}

static void play_header_removed(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker;

    front_get(front, true);
    worker = sim_accept(sim);
    worker_answer(worker, "X-Velox-Build: off\r\nContent-type: a/b\r\n\r\nbody");
    sim_run(sim);
    expect_answer(front, "Content-type: a/b\r\n\r\nbody");
    front_head(front, false, "HEAD", "0");
    front_stdin_end(front);
    worker = sim_accept(sim);
    worker_answer(worker, BUILD_HEAD);
    sim_run(sim);
    expect_answer(front, "Set-Cookie: a=b\r\nContent-type: application/json\r\n\r\n");
    sim_expect_number(sim->velox.post_count, 0);
}

static void play_short_body(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker;

    front_head(front, true, "POST", "10");
    front_stdin(front, span_of_string("12345"));
    worker = sim_accept(sim);
    front_stdin_end(front);
    sim_run(sim);
    expect_failure(front, 400, "invalid_request");
    sim_expect(worker_is_free(worker));
    sim_expect(!front->stream.has_ended);
}

static void play_short_body_in_answer(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker;

    front_head(front, true, "POST", "10");
    worker = sim_accept(sim);
    worker_stdout(worker, PAGE);
    sim_run(sim);
    front_stdin_end(front);
    sim_run(sim);
    expect_cut(front, PAGE);
    sim_expect(worker_is_free(worker));
}

static void play_long_body(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker;

    front_head(front, true, "POST", "4");
    front_stdin(front, span_of_string("12345"));
    front_stdin(front, span_of_string("67"));
    front_stdin_end(front);
    worker = sim_accept(sim);
    sim_expect(has_body(worker, span_of_string("1234")));
    worker_answer(worker, PAGE);
    sim_run(sim);
    expect_answer(front, PAGE);
}

static void play_large_params(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    char value[1000];

    memset(value, 'v', sizeof(value));
    value[sizeof(value) - 1] = '\0';
    front_begin(front, 1, true);
    for (unsigned i = 0; i < 270; i++) {
        front_param(front, "NAME", value);
    }
    front_params_end(front);
    front_stdin_end(front);
    sim_expect_no_worker(sim);
    expect_failure(front, 431, "too_large");
    sim_expect(!front->stream.has_ended);
    front_get(front, true);
    worker_answer(sim_accept(sim), PAGE);
    sim_run(sim);
    expect_answer(front, PAGE);
}

static void play_end_in_head(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker;

    front_get(front, true);
    worker = sim_accept(sim);
    worker_answer(worker, "Content-type: text/html\r\nX-Vel");
    sim_run(sim);
    expect_answer(front, "Content-type: text/html\r\nX-Vel");
    front_get(front, true);
    worker = sim_accept(sim);
    worker_end(worker, 255);
    sim_run(sim);
    expect_answer(front, "");
    sim_expect_number(front->end.app_status, 255);
}

static void small_head(struct sim *sim)
{
    sim->relay_options.max_response_head = 100;
}

static void play_large_head(struct sim *sim)
{
    static const char line[] = "X-Line: 0123456789012345678901234567890123456789\r\n";
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker;

    front_get(front, true);
    worker = sim_accept(sim);
    worker_stdout(worker, line);
    worker_stdout(worker, line);
    worker_stdout(worker, "X-Velox-");
    sim_run(sim);
    worker_stdout(worker, "Build: 1\r\n");
    worker_stdout(worker, line);
    worker_answer(worker, "\r\nX-Velox-Build: 1");
    sim_run(sim);
    expect_answer(front, "X-Line: 0123456789012345678901234567890123456789\r\n"
                         "X-Line: 0123456789012345678901234567890123456789\r\n"
                         "X-Line: 0123456789012345678901234567890123456789\r\n"
                         "\r\nX-Velox-Build: 1");
    sim_expect_number(sim->velox.post_count, 0);
}

static void add_begin(struct sim_front *front, uint16_t id, uint8_t role)
{
    uint8_t body[FCGI_BODY_SIZE] = { 0, role, FCGI_KEEP_CONN };

    stream_add_record(&front->stream, FCGI_BEGIN_REQUEST, id, span_of(body, sizeof(body)), 0);
}

static void play_management(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker;

    stream_add_record(&front->stream, FCGI_GET_VALUES, 0, span_of("\x0e\0FCGI_MAX_CONNS", 16), 0);
    stream_add_record(&front->stream, 77, 0, span_of("what?", 5), 3);
    add_begin(front, 9, FCGI_FILTER);
    sim_run(sim);
    sim_expect_number(front->management, 2);
    sim_expect_number(front->refused, 1);
    front_get(front, true);
    add_begin(front, 2, FCGI_RESPONDER);
    stream_add_record(&front->stream, FCGI_PARAMS, 2, span_of(NULL, 0), 0);
    worker = sim_accept(sim);
    sim_expect_number(front->refused, 2);
    /* In the middle of a record of the answer, what is said of the connection waits. */
    worker_stdout(worker, PAGE);
    worker_stdout_part(worker, 8, "1234");
    sim_run(sim);
    stream_add_record(&front->stream, FCGI_GET_VALUES, 0, span_of("\x0e\0FCGI_MAX_CONNS", 16), 0);
    sim_run(sim);
    sim_expect_number(front->management, 2);
    if (worker != NULL && worker->stream.fd >= 0) {
        assert_int_equal(buf_append_string(&worker->stream.out, "5678"), 0);
    }
    worker_end(worker, 0);
    sim_run(sim);
    expect_answer(front, PAGE "12345678");
    sim_expect_number(front->management, 3);
}

static void play_malformed(struct sim *sim)
{
    struct sim_front *good = sim_connect(sim);
    struct sim_front *bad = sim_connect(sim);
    struct sim_worker *worker;

    front_get(good, true);
    worker = sim_accept(sim);
    assert_int_equal(buf_append_string(&bad->stream.out, "GET / HTTP/1.1\r\n\r\n"), 0);
    sim_pass(sim, 200);
    assert_true(bad->stream.has_ended);
    worker_answer(worker, PAGE);
    sim_run(sim);
    expect_answer(good, PAGE);
}

static void play_half_closed(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker;

    front_get(front, false);
    worker = sim_accept(sim);
    (void)shutdown(front->stream.fd, SHUT_WR);
    sim_pass(sim, 1000);
    expect_nothing(front);
    worker_answer(worker, PAGE);
    sim_run(sim);
    expect_answer(front, PAGE);
}

static void play_early_answer(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker;

    front_head(front, false, "POST", "1000");
    front_stdin(front, span_of_string("the first bytes"));
    worker = sim_accept(sim);
    worker_answer(worker, PAGE);
    sim_run(sim);
    expect_answer(front, PAGE);
    sim_expect(worker_is_free(worker));
    sim_expect(front->stream.has_ended); /* the sidecar has shut down writing … */
    sim_pass(sim, 4999);
    sim_expect_number(sim_relay_stat(sim, STAT_FRONTS_ACTIVE), 1); /* … and still reads */
    sim_pass(sim, 1);
    sim_expect_number(sim_relay_stat(sim, STAT_FRONTS_ACTIVE), 0);
}

static void play_early_answer_kept(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker;

    front_head(front, true, "POST", "1000");
    front_stdin(front, span_of_string("the first bytes"));
    worker = sim_accept(sim);
    worker_answer(worker, PAGE);
    sim_run(sim);
    expect_answer(front, PAGE);
    front_stdin(front, span_of_string("the rest"));
    front_stdin_end(front);
    front_get(front, true);
    worker = sim_accept(sim);
    sim_expect(has_body(worker, span_of(NULL, 0)));
    worker_answer(worker, PAGE);
    sim_run(sim);
    expect_answer(front, PAGE);
}

static void three_fronts(struct sim *sim)
{
    sim->front_limit = 2;
}

static void play_front_limit(struct sim *sim)
{
    struct sim_front *fronts[3];
    unsigned answered = 0;

    for (unsigned i = 0; i < 3; i++) {
        fronts[i] = sim_connect(sim);
        front_get(fronts[i], false);
    }
    sim_run(sim);
    sim_expect_number(sim_relay_stat(sim, STAT_FRONTS_ACTIVE), 2);
    for (unsigned i = 0; i < 10; i++) {
        struct sim_worker *worker = sim_try_accept(sim);

        if (worker != NULL) {
            sim_run(sim);
            worker_answer(worker, PAGE);
            answered++;
        }
        sim_pass(sim, 200); /* the third one waits in the backlog until it is looked for */
    }
    sim_expect_number(answered, 3);
    for (unsigned i = 0; i < 3; i++) {
        expect_answer(fronts[i], PAGE);
    }
}

static void one_front_two_relays(struct sim *sim)
{
    sim->front_limit = 1;
    sim->relay_count = 2;
}

/* The place becomes free in another thread than the one that lacks it. */
static void play_front_limit_of_two(struct sim *sim)
{
    struct sim_front *first = sim_connect_to(sim, 0);
    struct sim_front *second;
    struct sim_worker *worker;

    front_get(first, false);
    worker = sim_accept(sim);
    second = sim_connect_to(sim, 1);
    front_get(second, false);
    sim_run(sim);
    worker_answer(worker, PAGE);
    sim_run(sim);
    expect_answer(first, PAGE);
    stream_close(&first->stream);
    sim_pass(sim, 200);
    worker = sim_try_accept(sim);
    sim_run(sim);
    worker_answer(worker, PAGE);
    sim_pass(sim, 200);
    expect_answer(second, PAGE);
}

static const struct scenario scenarios[] = {
    { "a GET is relayed, its connection closed", NULL, play_get, 0 },
    { "three requests on a kept connection", NULL, play_kept, 0 },
    { "a large body of announced length", NULL, play_post, 0 },
    { "bodies of unannounced length", NULL, play_unannounced, 0 },
    { "a body over max_spooled_body", small_spool, play_unannounced_too_large, 0 },
    { "a large answer to a front that stops reading", NULL, play_large_answer, 0 },
    { "an upload to a PHP that does not read", NULL, play_stalled_upload, 0 },
    { "error output before, in and behind the head", NULL, play_stderr, 0 },
    { "the header is taken out", NULL, play_header_removed, 0 },
    { "a body that ends short", NULL, play_short_body, 0 },
    { "a body that ends short in mid-answer", NULL, play_short_body_in_answer, 0 },
    { "a body that goes on too long", NULL, play_long_body, 0 },
    { "params over max_params_size", NULL, play_large_params, 0 },
    { "END_REQUEST before the end of the head", NULL, play_end_in_head, 0 },
    { "a head over max_response_head", small_head, play_large_head, 0 },
    { "management records, refused requests", NULL, play_management, 0 },
    { "a malformed record closes its connection only", NULL, play_malformed, 0 },
    { "a half-closed front gets its answer", NULL, play_half_closed, 0 },
    { "an answer before the end of the body", NULL, play_early_answer, 0 },
    { "the same on a kept connection", NULL, play_early_answer_kept, 0 },
    { "more connections than the limit", three_fronts, play_front_limit, 0 },
    { "the limit over two relays", one_front_two_relays, play_front_limit_of_two, 0 },
};

int main(void)
{
    return sim_main("sim_relay", scenarios, sizeof(scenarios) / sizeof(scenarios[0]));
}
