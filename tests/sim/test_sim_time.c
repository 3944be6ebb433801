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

static const struct scenario scenarios[] = {
    { "response_timeout", with_response_timeout, play_response_timeout, 0 },
    { "a head within response_timeout", with_response_timeout, play_response_in_time, 0 },
    { "header_timeout", NULL, play_header_timeout, 0 },
    { "header_timeout in a record's header", NULL, play_header_timeout_in_header, 0 },
    { "idle_timeout", NULL, play_idle_timeout, 0 },
    { "a request longer than idle_timeout", NULL, play_long_request, 0 },
    { "all limits off", no_limits, play_no_limits, 0 },
    { "finish_timeout during the build", NULL, play_finish_timeout, 0 },
    { "finish_timeout behind the answer", NULL, play_finish_timeout_behind_the_answer, 0 },
};

int main(void)
{
    return sim_main("sim_time", scenarios, sizeof(scenarios) / sizeof(scenarios[0]));
}
