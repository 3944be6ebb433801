/* SPDX-License-Identifier: MIT */
/* PHP-FPM that cannot be reached, is busy, or dies: at every stage, on fresh and served
 * connections. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/sim/sim.h"

enum stage {
    IN_BACKLOG, /* before it has read anything */
    BEFORE_HEAD,
    IN_HEAD,
    IN_BODY,
    IN_RECORD,
    IN_CAPTURE,
    IN_BUILD,
    IN_DELIVERY,
    STAGES,
};

/* sim->number: the stage, and STAGES more where the connection has served a request before. */
static enum stage stage_of(const struct sim *sim)
{
    return (enum stage)(sim->number % STAGES);
}

static bool has_served(const struct sim *sim)
{
    return sim->number >= STAGES;
}

static struct sim_front *connect_front(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);

    if (has_served(sim)) {
        front_get(front, true);
        worker_answer(sim_accept(sim), PAGE);
        sim_run(sim);
        expect_answer(front, PAGE);
    }
    return front;
}

static void bring_to(enum stage stage, struct sim_worker *worker)
{
    switch (stage) {
    case IN_BACKLOG:
    case BEFORE_HEAD:
    case STAGES:
        break;
    case IN_HEAD:
        worker_stdout(worker, "Content-type: te");
        break;
    case IN_BODY:
        worker_stdout(worker, PAGE);
        break;
    case IN_RECORD:
        worker_stdout(worker, PAGE);
        worker_stdout_part(worker, 100, "part of a record");
        break;
    case IN_CAPTURE:
        worker_stdout(worker, BUILD_HEAD "{\"rr_ver");
        break;
    case IN_BUILD:
    case IN_DELIVERY:
        worker_stdout(worker, BUILD_ANSWER);
        break;
    }
}

static void expect_right(const struct sim *sim, const struct sim_front *front)
{
    switch (stage_of(sim)) {
    case IN_BACKLOG:
    case BEFORE_HEAD:
    case IN_HEAD:
    case IN_CAPTURE:
    case STAGES:
        if (has_served(sim)) {
            expect_failure(front, 502, "worker_failed");
        } else {
            expect_cut(front, "");
        }
        break;
    case IN_BODY:
        expect_cut(front, PAGE);
        break;
    case IN_RECORD:
        expect_cut(front, PAGE "part of a record");
        break;
    case IN_BUILD:
    case IN_DELIVERY:
        expect_artifact(sim, front);
        break;
    }
}

static void play_death(struct sim *sim)
{
    struct sim_step step = step_built(60000, sim->artifact_path);
    struct sim_front *front = connect_front(sim);
    enum stage stage = stage_of(sim);
    struct sim_worker *worker;

    sim_velox_step(&sim->velox, &step);
    front_get(front, true);
    if (stage == IN_BACKLOG) {
        sim_run(sim);
        worker = sim_try_accept(sim);
        sim_expect(worker != NULL);
    } else {
        worker = sim_accept(sim);
    }
    bring_to(stage, worker);
    sim_run(sim);
    if (stage == IN_DELIVERY) {
        front->stream.is_stalled = true;
        sim_pass(sim, 60000);
    }
    worker_die(worker);
    sim_run(sim);
    front->stream.is_stalled = false;
    sim_pass(sim, 60000);
    expect_right(sim, front);
    if (stage < IN_BUILD) {
        sim_expect_number(sim_relay_stat(sim, STAT_WORKER_ERRORS_DIED), 1);
    }
}

static void small_head(struct sim *sim)
{
    sim->relay_options.max_response_head = 20;
    sim->relay_options.response_timeout_ms = 1000;
}

/* Part of a head that is too long to be held is out: no answer of ours may follow it. */
static void play_long_head(struct sim *sim)
{
    struct sim_front *front = connect_front(sim);
    struct sim_worker *worker;

    front_get(front, true);
    worker = sim_accept(sim);
    worker_stdout(worker, "X-Line: 0123456789\r\nX-Line: 0123456789\r\n");
    sim_run(sim);
    worker_die(worker);
    sim_run(sim);
    expect_cut(front, "X-Line: 0123456789\r\nX-Line: 0123456789\r\n");
}

/* It has begun, so response_timeout has been kept. */
static void play_long_head_stalls(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker;

    front_get(front, true);
    worker = sim_accept(sim);
    worker_stdout(worker, "X-Line: 0123456789\r\nX-Line: 0123456789\r\n");
    sim_pass(sim, 100000);
    sim_expect(!front->has_answer && !front->stream.has_ended);
    worker_answer(worker, "\r\nbody");
    sim_run(sim);
    expect_answer(front, "X-Line: 0123456789\r\nX-Line: 0123456789\r\n\r\nbody");
}

static void play_long_head_short_body(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker;

    front_head(front, true, "POST", "10");
    worker = sim_accept(sim);
    worker_stdout(worker, "X-Line: 0123456789\r\nX-Line: 0123456789\r\n");
    sim_run(sim);
    front_stdin_end(front);
    sim_run(sim);
    expect_cut(front, "X-Line: 0123456789\r\nX-Line: 0123456789\r\n");
    sim_expect(worker_is_free(worker));
}

/* It says what belongs to no request of ours. */
static void play_wrong_id(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker;

    front_get(front, true);
    worker = sim_accept(sim);
    if (worker != NULL) {
        stream_add_content(&worker->stream, FCGI_STDOUT, 2, span_of_string(PAGE));
    }
    sim_run(sim);
    expect_cut(front, "");
    sim_expect(worker_is_free(worker));
}

static void play_garbage(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker;

    front_get(front, true);
    worker = sim_accept(sim);
    worker_stdout(worker, PAGE);
    sim_run(sim);
    if (worker != NULL && worker->stream.fd >= 0) {
        assert_int_equal(buf_append_string(&worker->stream.out, "HTTP/1.1 200 OK\r\n"), 0);
    }
    sim_run(sim);
    expect_cut(front, PAGE);
}

static void no_fpm(struct sim *sim)
{
    sim->fpm_backlog = -1;
}

static void play_unreachable(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);

    front_get(front, true);
    sim_run(sim);
    expect_cut(front, "");
    sim_expect_number(sim_relay_stat(sim, STAT_WORKER_ERRORS_CONNECT), 1);
}

static void small_backlog(struct sim *sim)
{
    sim->fpm_backlog = 1;
    sim->relay_options.connect_timeout_ms = 203; /* a try every 10 ms, and a last one */
}

static void play_backlog_full(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);

    sim_fill_backlog(sim);
    front_get(front, true);
    sim_pass(sim, 202);
    expect_nothing(front);
    sim_pass(sim, 1);
    expect_failure(front, 503, "busy");
    sim_expect_number(front->ended_at_ms, 203);
    sim_expect_number(sim_relay_stat(sim, STAT_WORKER_ERRORS_BACKLOG), 1);
    sim_expect(!front->stream.has_ended);
}

static void play_backlog_full_for_a_while(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker;

    sim_fill_backlog(sim);
    front_post(front, true, span_of_string("a body that waits with it"));
    sim_pass(sim, 123);
    expect_nothing(front);
    sim_empty_backlog(sim);
    sim_pass(sim, 10);
    worker = sim_accept(sim);
    sim_expect(worker != NULL && worker->body_ended && buf_length(&worker->body) == 25);
    worker_answer(worker, PAGE);
    sim_run(sim);
    expect_answer(front, PAGE);
}

static void no_connect_timeout(struct sim *sim)
{
    sim->relay_options.connect_timeout_ms = 0;
    sim->fpm_backlog = 1;
}

static void play_all_patience(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);

    sim_fill_backlog(sim);
    front_get(front, true);
    sim_pass(sim, 300);
    expect_nothing(front);
    sim_empty_backlog(sim);
    sim_pass(sim, 10);
    worker_answer(sim_accept(sim), PAGE);
    sim_run(sim);
    expect_answer(front, PAGE);
}

static const struct scenario scenarios[] = {
    { "dies unread, fresh connection", NULL, play_death, IN_BACKLOG },
    { "dies before the head, fresh", NULL, play_death, BEFORE_HEAD },
    { "dies in the head, fresh", NULL, play_death, IN_HEAD },
    { "dies in the body, fresh", NULL, play_death, IN_BODY },
    { "dies in a record, fresh", NULL, play_death, IN_RECORD },
    { "dies in the build request, fresh", NULL, play_death, IN_CAPTURE },
    { "dies during the build, fresh", NULL, play_death, IN_BUILD },
    { "dies during the delivery, fresh", NULL, play_death, IN_DELIVERY },
    { "dies unread, served connection", NULL, play_death, STAGES + IN_BACKLOG },
    { "dies before the head, served", NULL, play_death, STAGES + BEFORE_HEAD },
    { "dies in the head, served", NULL, play_death, STAGES + IN_HEAD },
    { "dies in the body, served", NULL, play_death, STAGES + IN_BODY },
    { "dies in a record, served", NULL, play_death, STAGES + IN_RECORD },
    { "dies in the build request, served", NULL, play_death, STAGES + IN_CAPTURE },
    { "dies during the build, served", NULL, play_death, STAGES + IN_BUILD },
    { "dies during the delivery, served", NULL, play_death, STAGES + IN_DELIVERY },
    { "dies in a head too long to be held, fresh", small_head, play_long_head, 0 },
    { "dies in a head too long to be held, served", small_head, play_long_head, STAGES },
    { "stalls in a head too long to be held", small_head, play_long_head_stalls, 0 },
    { "a short body behind such a head", small_head, play_long_head_short_body, 0 },
    { "answers to an id not asked", NULL, play_wrong_id, 0 },
    { "goes on in another protocol", NULL, play_garbage, 0 },
    { "no PHP-FPM", no_fpm, play_unreachable, 0 },
    { "backlog full past connect_timeout", small_backlog, play_backlog_full, 0 },
    { "backlog full for a while", small_backlog, play_backlog_full_for_a_while, 0 },
    { "backlog full, connect_timeout off", no_connect_timeout, play_all_patience, 0 },
};

int main(void)
{
    return sim_main("sim_death", scenarios, sizeof(scenarios) / sizeof(scenarios[0]));
}
