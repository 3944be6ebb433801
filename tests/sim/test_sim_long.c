/* SPDX-License-Identifier: MIT */
/* Long answers, whose long records may take a short cut past user space: whatever comes between. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/sim/sim.h"

#include <stdlib.h>

#define RECORD 65528
#define HALF 30000

/* An answer under way: after begin, 20 long records have passed. */
struct answer {
    struct sim_front *front;
    struct sim_worker *worker;
    struct buf expected;
    uint64_t seed;
};

static void say(struct answer *answer, size_t len)
{
    uint8_t bytes[RECORD];

    for (size_t i = 0; i < len; i++) {
        bytes[i] = (uint8_t)draw(&answer->seed, 256);
    }
    worker_stdout_span(answer->worker, span_of(bytes, len));
    assert_int_equal(buf_append(&answer->expected, bytes, len), 0);
}

static void begin(struct sim *sim, struct answer *answer)
{
    *answer = (struct answer){ .front = sim_connect(sim) };
    buf_init(&answer->expected, SIZE_MAX / 2);
    front_get(answer->front, true);
    answer->worker = sim_accept(sim);
    worker_stdout(answer->worker, PAGE);
    assert_int_equal(buf_append_string(&answer->expected, PAGE), 0);
    for (unsigned i = 0; i < 20; i++) {
        say(answer, RECORD);
        sim_run(sim);
    }
}

static void end(struct sim *sim, struct answer *answer)
{
    worker_end(answer->worker, 5);
    sim_run(sim);
    expect_answer_span(answer->front, buf_span(&answer->expected));
    sim_expect_number(answer->front->end.app_status, 5);
    buf_deinit(&answer->expected);
}

/* The rest of a record of RECORD bytes comes later, if at all. */
static void say_half(struct sim *sim, struct answer *answer)
{
    char half[HALF + 1];

    memset(half, 'h', HALF);
    half[HALF] = '\0';
    worker_stdout_part(answer->worker, RECORD, half);
    assert_int_equal(buf_append_string(&answer->expected, half), 0);
    sim_run(sim);
}

static void say_other_half(struct answer *answer)
{
    char half[RECORD - HALF + 1];

    memset(half, 'H', sizeof(half) - 1);
    half[sizeof(half) - 1] = '\0';
    if (answer->worker != NULL && answer->worker->stream.fd >= 0) {
        assert_int_equal(buf_append_string(&answer->worker->stream.out, half), 0);
    }
    assert_int_equal(buf_append_string(&answer->expected, half), 0);
}

static void play_mixed(struct sim *sim)
{
    static const size_t sizes[] = { RECORD, 1, 40001, 40001, 32768, 32767, RECORD, 8, RECORD };
    struct answer answer;

    begin(sim, &answer);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        say(&answer, sizes[i]);
        worker_stderr(answer.worker, "an error;");
    }
    end(sim, &answer);
    sim_expect_number(buf_length(&answer.front->stderr_), 9 * 9);
}

static void play_stalled(struct sim *sim)
{
    struct answer answer;

    begin(sim, &answer);
    answer.front->stream.is_stalled = true;
    for (unsigned i = 0; i < 50; i++) {
        say(&answer, RECORD);
        sim_run(sim);
    }
    sim_expect(worker_unsent(answer.worker) > 0);
    sim_pass(sim, 100000);
    answer.front->stream.is_stalled = false;
    answer.front->stream.read_cut = (struct stream_cut){ .max = 9000, .seed = 7 };
    end(sim, &answer);
}

static void play_pieces(struct sim *sim)
{
    struct answer answer;

    begin(sim, &answer);
    if (answer.worker != NULL) {
        answer.worker->stream.write_cut = (struct stream_cut){ .max = 5000, .seed = 3 };
    }
    for (unsigned i = 0; i < 20; i++) {
        say(&answer, RECORD);
    }
    end(sim, &answer);
}

static void play_half_a_record(struct sim *sim)
{
    struct answer answer;

    begin(sim, &answer);
    say_half(sim, &answer);
    /* Passed on as it comes. */
    sim_expect_number(buf_length(&answer.front->stdout_), buf_length(&answer.expected));
    /* What is said of the connection waits for the record's end. */
    stream_add_record(&answer.front->stream, FCGI_GET_VALUES, 0,
                      span_of("\x0e\0FCGI_MAX_CONNS", 16), 0);
    sim_run(sim);
    sim_expect_number(answer.front->management, 0);
    say_other_half(&answer);
    say(&answer, RECORD);
    end(sim, &answer);
    sim_expect_number(answer.front->management, 1);
}

static void play_abort(struct sim *sim)
{
    struct answer answer;

    begin(sim, &answer);
    say_half(sim, &answer);
    answer.front->stream.is_stalled = sim->number == 1;
    front_abort(answer.front);
    sim_run(sim);
    answer.front->stream.is_stalled = false;
    sim_run(sim);
    sim_expect(answer.front->has_answer);
    sim_expect(worker_is_free(answer.worker));
    /* The record is filled up. */
    sim_expect_number(buf_length(&answer.front->stdout_),
                      buf_length(&answer.expected) + RECORD - HALF);
    buf_deinit(&answer.expected);
    if (!answer.front->stream.has_ended) {
        front_get(answer.front, true);
        worker_answer(sim_accept(sim), PAGE);
        sim_run(sim);
        expect_answer(answer.front, PAGE);
    }
}

static void play_abort_stalled(struct sim *sim)
{
    struct answer answer;

    begin(sim, &answer);
    answer.front->stream.is_stalled = true;
    for (unsigned i = 0; i < 50; i++) {
        say(&answer, RECORD);
        sim_run(sim);
    }
    front_abort(answer.front);
    sim_run(sim);
    answer.front->stream.is_stalled = false;
    sim_run(sim);
    sim_expect(answer.front->has_answer);
    sim_expect(worker_is_free(answer.worker));
    buf_deinit(&answer.expected);
    if (!answer.front->stream.has_ended) {
        front_get(answer.front, true);
        worker_answer(sim_accept(sim), PAGE);
        sim_run(sim);
        expect_answer(answer.front, PAGE);
    }
}

static void play_leave(struct sim *sim)
{
    struct answer answer;

    begin(sim, &answer);
    answer.front->stream.is_stalled = sim->number == 1;
    for (unsigned i = 0; i < 50; i++) {
        say(&answer, RECORD);
        sim_run(sim);
    }
    say_half(sim, &answer);
    stream_close(&answer.front->stream);
    sim_run(sim);
    sim_expect_number(sim_relay_stat(sim, STAT_FRONTS_ACTIVE), 0);
    sim_expect(worker_is_free(answer.worker));
    buf_deinit(&answer.expected);
}

static void play_death(struct sim *sim)
{
    struct answer answer;

    begin(sim, &answer);
    if (sim->number == 1) {
        say_half(sim, &answer);
    }
    worker_die(answer.worker);
    sim_run(sim);
    sim_expect(answer.front->stream.has_ended);
    assert_false(answer.front->has_answer && !faults_have_struck());
    sim_expect_number(buf_length(&answer.front->stdout_), buf_length(&answer.expected));
    buf_deinit(&answer.expected);
}

static void play_other_protocol(struct sim *sim)
{
    struct answer answer;

    begin(sim, &answer);
    if (answer.worker != NULL) {
        stream_add_record(&answer.worker->stream, FCGI_STDOUT, (uint16_t)(sim->number == 1 ? 2 : 1),
                          buf_span(&answer.expected).len > RECORD
                              ? span_of(buf_span(&answer.expected).ptr, RECORD)
                              : span_of(NULL, 0),
                          0);
        if (sim->number == 0 && answer.worker->stream.fd >= 0) {
            assert_int_equal(buf_append_string(&answer.worker->stream.out, "HTTP/1.1 200 OK"), 0);
        }
    }
    sim_run(sim);
    sim_expect(answer.front->stream.has_ended);
    sim_expect(!answer.front->has_answer);
    buf_deinit(&answer.expected);
}

static void play_short_body(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    struct answer answer = { .front = front };

    buf_init(&answer.expected, SIZE_MAX / 2);
    front_head(front, true, "POST", "10");
    answer.worker = sim_accept(sim);
    worker_stdout(answer.worker, PAGE);
    for (unsigned i = 0; i < 20; i++) {
        say(&answer, RECORD);
        sim_run(sim);
    }
    say_half(sim, &answer);
    front_stdin_end(front);
    sim_run(sim);
    sim_expect(front->stream.has_ended);
    sim_expect(!front->has_answer);
    sim_expect(worker_is_free(answer.worker));
    buf_deinit(&answer.expected);
}

static void play_cut(struct sim *sim)
{
    struct answer answer;

    begin(sim, &answer);
    say_half(sim, &answer);
    sim_drain(sim);
    sim_expect(!sim->relays[0].is_drained);
    if (sim->number == 1) {
        sim_cut(sim);
        sim_expect(!answer.front->has_answer);
        buf_deinit(&answer.expected);
    } else {
        say_other_half(&answer);
        end(sim, &answer);
    }
    sim_pass(sim, 200); /* where an allocation failed the connection may be without a request */
    sim_expect(answer.front->stream.has_ended);
    assert_true(sim->relays[0].is_drained);
}

static const struct scenario scenarios[] = {
    { "records of all sizes, error output between", NULL, play_mixed, 0 },
    { "a front that stops reading", NULL, play_stalled, 0 },
    { "records in pieces", NULL, play_pieces, 0 },
    { "half a record waits for its other half", NULL, play_half_a_record, 0 },
    { "ABORT_REQUEST in a record", NULL, play_abort, 0 },
    { "ABORT_REQUEST in a record, not reading", NULL, play_abort, 1 },
    { "ABORT_REQUEST when nothing more fits", NULL, play_abort_stalled, 0 },
    { "the front leaves in a record", NULL, play_leave, 0 },
    { "the front leaves without reading", NULL, play_leave, 1 },
    { "PHP dies between two records", NULL, play_death, 0 },
    { "PHP dies in a record", NULL, play_death, 1 },
    { "another protocol behind a record", NULL, play_other_protocol, 0 },
    { "a record for another id", NULL, play_other_protocol, 1 },
    { "the request's body ends short in a record", NULL, play_short_body, 0 },
    { "a drain in a record", NULL, play_cut, 0 },
    { "a cut in a record", NULL, play_cut, 1 },
};

int main(void)
{
    return sim_main("sim_long", scenarios, sizeof(scenarios) / sizeof(scenarios[0]));
}
