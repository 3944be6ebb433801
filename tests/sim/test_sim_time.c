/* SPDX-License-Identifier: MIT */
/* Time limits of the relay, to the millisecond. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/sim/sim.h"

static void with_response_timeout(struct sim *sim)
{
    sim->relay_options.response_timeout_ms = 30000;
}

static void play_response_timeout(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker;

    front_head(front, true, "POST", "5");
    worker = sim_accept(sim);
    sim_pass(sim, 60000); /* not on PHP's clock: the body is not complete */
    expect_nothing(front);
    front_stdin(front, span_of_string("12345"));
    front_stdin_end(front);
    sim_run(sim);
    worker_stdout(worker, "Content-type: text/plain\r\n");
    sim_pass(sim, 29999);
    expect_nothing(front);
    sim_pass(sim, 1);
    expect_failure(front, 504, "timeout");
    sim_expect_number(front->ended_at_ms, 90000);
    sim_expect(worker_is_free(worker));
    sim_expect_number(sim_relay_stat(sim, STAT_WORKER_ERRORS_RESPONSE_TIMEOUT), 1);
}

static void play_response_in_time(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker;

    front_get(front, true);
    worker = sim_accept(sim);
    sim_pass(sim, 29999);
    worker_stdout(worker, PAGE);
    sim_pass(sim, 400000); /* the body may take as long as it likes */
    worker_stdout(worker, "more");
    worker_end(worker, 0);
    sim_run(sim);
    expect_answer(front, PAGE "more");
}

static void play_header_timeout(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);

    sim_pass(sim, 5000);
    front_begin(front, 1, true);
    front_param(front, "SCRIPT_FILENAME", "/srv/www/page.php");
    sim_pass(sim, 6000);
    front_param(front, "REQUEST_METHOD", "GET");
    sim_pass(sim, 3999);
    sim_expect(!front->stream.has_ended);
    sim_pass(sim, 1);
    expect_cut(front, "");
    sim_expect_number(front->stream.ended_at_ms, 15000);
    sim_expect_no_worker(sim);
}

/* Half a record header is the begin of a request, too. */
static void play_header_timeout_in_header(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);

    sim_pass(sim, 100);
    assert_int_equal(buf_append(&front->stream.out, "\1\1\0", 3), 0);
    sim_pass(sim, 20000);
    expect_cut(front, "");
    sim_expect_number(front->stream.ended_at_ms, 10100);
}

static void play_idle_timeout(struct sim *sim)
{
    struct sim_front *silent = sim_connect(sim);
    struct sim_front *used = sim_connect(sim);

    sim_pass(sim, 400000);
    front_get(used, true);
    worker_answer(sim_accept(sim), PAGE);
    sim_pass(sim, 50);
    expect_answer(used, PAGE);
    sim_pass(sim, 199949);
    sim_expect(!silent->stream.has_ended);
    sim_pass(sim, 1);
    assert_true(silent->stream.has_ended);
    sim_expect_number(silent->stream.ended_at_ms, 600000);
    sim_pass(sim, 399999);
    sim_expect(!used->stream.has_ended);
    sim_pass(sim, 1);
    sim_expect_number(used->stream.ended_at_ms, 1000000);
    assert_true(used->stream.has_ended);
}

/* A request that takes longer than idle_timeout is not idle. */
static void play_long_request(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker;

    front_get(front, true);
    worker = sim_accept(sim);
    sim_pass(sim, 3600000);
    worker_answer(worker, PAGE);
    sim_pass(sim, 599999);
    expect_answer(front, PAGE);
    sim_expect(!front->stream.has_ended);
    sim_pass(sim, 1);
    sim_expect(front->stream.has_ended);
}

static void no_limits(struct sim *sim)
{
    sim->relay_options.idle_timeout_ms = 0;
    sim->relay_options.header_timeout_ms = 0;
}

static void play_no_limits(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker;

    sim_pass(sim, 10000000);
    front_begin(front, 1, true);
    sim_pass(sim, 10000000);
    front_param(front, "REQUEST_METHOD", "GET");
    front_params_end(front);
    front_stdin_end(front);
    worker = sim_accept(sim);
    sim_pass(sim, 10000000);
    worker_answer(worker, PAGE);
    sim_run(sim);
    expect_answer(front, PAGE);
}

static void play_finish_timeout(struct sim *sim)
{
    struct sim_step step = step_built(60000, sim->artifact_path);
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker;

    sim_velox_step(&sim->velox, &step);
    front_get(front, true);
    worker = sim_accept(sim);
    worker_stdout(worker, BUILD_ANSWER);
    sim_pass(sim, 9999);
    sim_expect(!worker_is_free(worker));
    sim_pass(sim, 1);
    sim_expect(worker_is_free(worker));
    sim_expect_number(worker == NULL ? 0 : worker->stream.ended_at_ms, 10000);
    sim_pass(sim, 50000);
    expect_artifact(sim, front);
    sim_expect_number(front->ended_at_ms, 60000);
}

/* The answer leaves before the worker ends: finish_timeout goes on from where it began. */
static void play_finish_timeout_behind_the_answer(struct sim *sim)
{
    struct sim_step step = step_built(4000, sim->artifact_path);
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker;

    sim_velox_step(&sim->velox, &step);
    front_get(front, false);
    worker = sim_accept(sim);
    worker_stdout(worker, BUILD_ANSWER "trailing");
    sim_pass(sim, 4000);
    expect_artifact(sim, front);
    sim_expect(front->stream.has_ended);
    worker_stdout(worker, "what nobody wants");
    worker_stderr(worker, "nor this");
    sim_pass(sim, 5999);
    sim_expect(!worker_is_free(worker));
    sim_pass(sim, 1);
    sim_expect(worker_is_free(worker));
    sim_expect_number(sim_relay_stat(sim, STAT_WORKERS_ACTIVE), 0);
}

static void one_worker(struct sim *sim)
{
    sim->relay_options.worker_max_connections = 1;
    sim->relay_count = 2;
}

static void play_queue_timeout(struct sim *sim)
{
    struct sim_front *first = sim_connect_to(sim, 0);
    struct sim_front *second = sim_connect_to(sim, 1);
    struct sim_worker *worker;

    front_get(first, true);
    worker = sim_accept(sim);
    sim_pass(sim, 500);
    front_get(second, true);
    sim_pass(sim, 9999);
    expect_nothing(second);
    sim_expect_number(sim_relay_stat(sim, STAT_WORKERS_QUEUED), 1);
    sim_pass(sim, 1);
    sim_expect_number(second->ended_at_ms, 10500);
    sim_expect_number(sim_relay_stat(sim, STAT_WORKERS_QUEUED), 0);
    if (!faults_have_struck()) {
        expect_failure(second, 503, "busy");
    }
    worker_answer(worker, PAGE);
    sim_run(sim);
    expect_answer(first, PAGE);
}

/* First come, first served, over all relays. */
static void play_queue(struct sim *sim)
{
    struct sim_front *fronts[5];

    for (unsigned i = 0; i < 5; i++) {
        fronts[i] = sim_connect_to(sim, i % 2);
        front_get(fronts[i], true);
        sim_run(sim);
    }
    sim_expect_number(sim_relay_stat(sim, STAT_WORKERS_QUEUED), 4);
    for (unsigned i = 0; i < 5; i++) {
        struct sim_worker *worker;

        sim_run(sim);
        while ((worker = sim_try_accept(sim)) != NULL) {
            sim_run(sim);
            worker_answer(worker, PAGE);
            sim_run(sim);
        }
        expect_answer(fronts[i], PAGE);
    }
}

static void with_stall_timeout(struct sim *sim)
{
    sim->relay_options.stall_timeout_ms = 4000;
    sim->artifact_size = SIM_UNSENDABLE;
}

static bool is_cut_in_time(const struct sim *sim)
{
    return sim_relay_stat(sim, STAT_FRONTS_ACTIVE) == 0;
}

static void play_stalled_upload(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker;

    front_head(front, true, "POST", "10");
    worker = sim_accept(sim);
    for (unsigned i = 0; i < 5; i++) {
        sim_pass(sim, 3000);
        front_stdin(front, span_of_string("1"));
        sim_run(sim);
    }
    expect_nothing(front);
    sim_pass(sim, 4000);
    sim_expect(!is_cut_in_time(sim) || front->stream.ended_at_ms >= 19000);
    sim_pass(sim, 2004); /* its step is a quarter */
    sim_expect(is_cut_in_time(sim));
    sim_expect(worker_is_free(worker));
}

/* PHP may take its time: the front is not what holds it up. */
static void play_slow_php(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker;

    /* In two pieces, so that one timer after the other is asked for. */
    front_begin(front, 1, true);
    front_param(front, "REQUEST_METHOD", "GET");
    sim_run(sim);
    front_params_end(front);
    front_stdin_end(front);
    worker = sim_accept(sim);
    sim_pass(sim, 60000);
    worker_stdout(worker, PAGE);
    sim_pass(sim, 60000);
    worker_stdout(worker, "more");
    worker_end(worker, 0);
    sim_run(sim);
    expect_answer(front, PAGE "more");
}

static void play_stalled_download(struct sim *sim)
{
    struct sim_step step = step_built(60000, sim->artifact_path);
    struct sim_front *front = sim_connect(sim);

    sim_velox_step(&sim->velox, &step);
    sim_begin_build(sim, front, true);
    front->stream.is_stalled = true;
    sim_pass(sim, 63999);
    sim_expect(!is_cut_in_time(sim));
    sim_pass(sim, 2004);
    sim_expect(is_cut_in_time(sim));
    sim_expect_number(sim_relay_stat(sim, STAT_CLIENTS_LEFT_STREAM), 1);
}

static const struct scenario scenarios[] = {
    { "response_timeout", with_response_timeout, play_response_timeout, 0 },
    { "a head within response_timeout", with_response_timeout, play_response_in_time, 0 },
    { "header_timeout", NULL, play_header_timeout, 0 },
    { "header_timeout in a record's header", NULL, play_header_timeout_in_header, 0 },
    { "idle_timeout", NULL, play_idle_timeout, 0 },
    { "a request longer than idle_timeout", NULL, play_long_request, 0 },
    { "all limits off", no_limits, play_no_limits, 0 },
    { "queue_timeout", one_worker, play_queue_timeout, 0 },
    { "a queue over two relays", one_worker, play_queue, 0 },
    { "stall_timeout in an upload", with_stall_timeout, play_stalled_upload, 0 },
    { "stall_timeout and a slow PHP", with_stall_timeout, play_slow_php, 0 },
    { "stall_timeout in a download", with_stall_timeout, play_stalled_download, 0 },
    { "finish_timeout during the build", NULL, play_finish_timeout, 0 },
    { "finish_timeout behind the answer", NULL, play_finish_timeout_behind_the_answer, 0 },
};

int main(void)
{
    return sim_main("sim_time", scenarios, sizeof(scenarios) / sizeof(scenarios[0]));
}
