/* SPDX-License-Identifier: MIT */
/* SCGI fronts get the same service. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/sim/sim.h"

#include <sys/socket.h>

static void play_get(struct sim *sim)
{
    struct sim_front *front = sim_connect_scgi(sim);
    struct sim_worker *worker;
    struct span value;

    front_scgi_head(front, "GET", NULL);
    worker = sim_accept(sim);
    sim_expect(worker != NULL && worker->body_ended && buf_length(&worker->body) == 0);
    sim_expect(worker_param(worker, "CONTENT_LENGTH", &value) && span_is(value, "0"));
    sim_expect(worker_param(worker, "VELOX_SIDECAR", &value));
    sim_expect(!worker_param(worker, "SCGI", &value));
    sim_expect(!worker_param(worker, "HTTP_PROXY", &value));
    worker_stderr(worker, "goes to the log");
    worker_answer(worker, PAGE);
    sim_run(sim);
    expect_answer(front, PAGE);
    sim_expect(worker_is_free(worker));
}

static void play_bytes(struct sim *sim)
{
    struct sim_front *front = sim_connect_scgi(sim);
    struct sim_worker *worker;

    front->stream.write_cut.max = 1;
    front->stream.read_cut.max = 1;
    front_scgi_head(front, "POST", "12");
    front_scgi_body(front, span_of_string("twelve bytes"));
    worker = sim_accept(sim);
    sim_expect(worker != NULL && span_is(buf_span(&worker->body), "twelve bytes"));
    worker_answer(worker, PAGE);
    sim_run(sim);
    expect_answer(front, PAGE);
}

static void play_early_answer(struct sim *sim)
{
    struct sim_front *front = sim_connect_scgi(sim);
    struct sim_worker *worker;

    front_scgi_head(front, "POST", "12");
    front_scgi_body(front, span_of_string("twelve"));
    worker = sim_accept(sim);
    worker_answer(worker, PAGE);
    sim_run(sim);
    expect_answer(front, PAGE);
    front_scgi_body(front, span_of_string(" bytes"));
    sim_pass(sim, 5000);
    sim_expect_number(sim_relay_stat(sim, STAT_FRONTS_ACTIVE), 0);
}

/* The rest of a body is no request, whatever it looks like. */
static void play_rest_like_a_head(struct sim *sim)
{
    struct sim_front *front = sim_connect_scgi(sim);
    struct sim_worker *worker;

    front_scgi_head(front, "POST", "1000");
    front_scgi_body(front, span_of_string("twelve"));
    worker = sim_accept(sim);
    worker_answer(worker, PAGE);
    sim_run(sim);
    expect_answer(front, PAGE);
    front_scgi_head(front, "POST", NULL);
    sim_expect_no_worker(sim);
    sim_pass(sim, 4999);
    sim_expect_number(sim_relay_stat(sim, STAT_FRONTS_ACTIVE), 1);
    sim_pass(sim, 1);
    sim_expect_number(sim_relay_stat(sim, STAT_FRONTS_ACTIVE), 0);
}

static void play_short_body(struct sim *sim)
{
    struct sim_front *front = sim_connect_scgi(sim);
    struct sim_worker *worker;

    front_scgi_head(front, "POST", "12");
    front_scgi_body(front, span_of_string("twelve"));
    worker = sim_accept(sim);
    (void)shutdown(front->stream.fd, SHUT_WR);
    sim_run(sim);
    assert_true(front->stream.has_ended);
    sim_expect(worker_is_free(worker));
}

static void play_malformed(struct sim *sim)
{
    struct sim_front *front = sim_connect_scgi(sim);

    front_scgi_body(front, span_of_string("GET / HTTP/1.1\r\n\r\n"));
    sim_expect_no_worker(sim);
    assert_true(front->stream.has_ended);
    assert_int_equal(buf_length(&front->stdout_), 0);
}

static void play_build(struct sim *sim)
{
    struct sim_step step = step_built(60000, sim->artifact_path);
    struct sim_front *front = sim_connect_scgi(sim);
    struct sim_worker *worker;

    sim_velox_step(&sim->velox, &step);
    front_scgi_head(front, "POST", NULL);
    worker = sim_accept(sim);
    worker_answer(worker, BUILD_ANSWER);
    sim_pass(sim, 59999);
    expect_nothing(front);
    sim_expect(worker_is_free(worker));
    sim_pass(sim, 1);
    expect_artifact(sim, front);
    sim_expect_number(front->ended_at_ms, 60000);
}

static void play_leave_build(struct sim *sim)
{
    struct sim_step step = step_built(60000, sim->artifact_path);
    struct sim_front *front = sim_connect_scgi(sim);

    sim_velox_step(&sim->velox, &step);
    front_scgi_head(front, "POST", NULL);
    worker_answer(sim_accept(sim), BUILD_ANSWER);
    sim_pass(sim, 1000);
    stream_close(&front->stream);
    sim_run(sim);
    sim_expect_number(sim->velox.cancelled, 1);
    sim_expect_number(sim_relay_stat(sim, STAT_FRONTS_ACTIVE), 0);
}

static void play_death(struct sim *sim)
{
    struct sim_front *front = sim_connect_scgi(sim);
    struct sim_worker *worker;

    front_scgi_head(front, "GET", NULL);
    worker = sim_accept(sim);
    worker_die(worker);
    sim_run(sim);
    assert_true(front->stream.has_ended);
    sim_expect_number(buf_length(&front->stdout_), 0);
}

static void large_artifact(struct sim *sim)
{
    sim->artifact_size = SIM_UNSENDABLE;
}

/* Half the file, then the end: the web server sees it by Content-Length. */
static void play_cut(struct sim *sim)
{
    struct sim_step step = step_built(0, sim->artifact_path);
    struct sim_front *front = sim_connect_scgi(sim);

    sim_velox_step(&sim->velox, &step);
    front->stream.is_stalled = true;
    front_scgi_head(front, "GET", NULL);
    worker_answer(sim_accept(sim), BUILD_ANSWER);
    sim_run(sim);
    sim_drain(sim);
    sim_expect_number(sim_relay_stat(sim, STAT_FRONTS_ACTIVE), 1);
    sim_cut(sim);
    front->stream.is_stalled = false;
    sim_run(sim);
    assert_true(front->stream.has_ended);
    assert_true(buf_length(&front->stdout_) < buf_length(&sim->artifact));
}

static void play_slow_head(struct sim *sim)
{
    struct sim_front *front = sim_connect_scgi(sim);

    sim_pass(sim, 1000);
    front_scgi_body(front, span_of_string("24:CONTENT_LENGTH"));
    sim_pass(sim, 9999);
    sim_expect(!front->stream.has_ended);
    sim_pass(sim, 1);
    assert_true(front->stream.has_ended);
    sim_expect_number(front->stream.ended_at_ms, 11000);
}

static const struct scenario scenarios[] = {
    { "a GET", NULL, play_get, 0 },
    { "a POST byte by byte", NULL, play_bytes, 0 },
    { "an answer before the end of the body", NULL, play_early_answer, 0 },
    { "a rest of a body that looks like a head", NULL, play_rest_like_a_head, 0 },
    { "a body that ends short", NULL, play_short_body, 0 },
    { "no SCGI", NULL, play_malformed, 0 },
    { "header_timeout", NULL, play_slow_head, 0 },
    { "a build of a minute", NULL, play_build, 0 },
    { "leaves in the build", NULL, play_leave_build, 0 },
    { "PHP dies", NULL, play_death, 0 },
    { "a cut in a download", large_artifact, play_cut, 0 },
};

int main(void)
{
    return sim_main("sim_scgi", scenarios, sizeof(scenarios) / sizeof(scenarios[0]));
}
