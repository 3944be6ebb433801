/* SPDX-License-Identifier: MIT */
/* Stopping: what runs is finished, who comes late is refused, and at the end the rest is cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/sim/sim.h"

#include <stdio.h>
#include <unistd.h>

/* How long a connection without a request may still send one. */
#define GRACE_MS 200

static bool is_drained(const struct sim *sim)
{
    return sim->relays[0].is_drained;
}

static void play_nothing(struct sim *sim)
{
    sim_drain(sim);
    assert_true(is_drained(sim));
}

static void play_idle(struct sim *sim)
{
    struct sim_front *silent = sim_connect(sim);
    struct sim_front *kept = sim_connect(sim);

    front_get(kept, true);
    worker_answer(sim_accept(sim), PAGE);
    sim_run(sim);
    expect_answer(kept, PAGE);
    sim_drain(sim);
    sim_expect(!silent->stream.has_ended && !kept->stream.has_ended);
    sim_pass(sim, GRACE_MS);
    assert_true(silent->stream.has_ended);
    assert_true(kept->stream.has_ended);
    assert_true(is_drained(sim));
}

static void play_running(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker;

    front_get(front, true);
    worker = sim_accept(sim);
    worker_stdout(worker, PAGE);
    sim_run(sim);
    sim_drain(sim);
    sim_expect(!is_drained(sim));
    sim_pass(sim, 100000);
    worker_stdout(worker, "the end");
    worker_end(worker, 0);
    sim_run(sim);
    expect_answer(front, PAGE "the end");
    sim_expect(front->stream.has_ended); /* its last answer, kept or not */
    assert_true(is_drained(sim));
}

/* Received before the stop, if only by the kernel. */
static void play_unread(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker;

    front_get(front, true);
    (void)front_move(front, sim->now_ms);
    relay_drain(sim->relays[0].relay);
    worker = sim_accept(sim);
    worker_answer(worker, PAGE);
    sim_run(sim);
    expect_answer(front, PAGE);
    sim_pass(sim, GRACE_MS);
    assert_true(is_drained(sim));
}

/* On its way when the order came: the web server has just connected, or taken a kept connection. */
static void play_on_its_way(struct sim *sim)
{
    struct sim_front *fresh = sim_connect(sim);
    struct sim_front *kept = sim_connect(sim);

    front_get(kept, true);
    worker_answer(sim_accept(sim), PAGE);
    sim_run(sim);
    expect_answer(kept, PAGE);
    sim_drain(sim);
    sim_pass(sim, GRACE_MS / 2);
    front_get(fresh, false);
    worker_answer(sim_accept(sim), PAGE);
    sim_run(sim);
    expect_answer(fresh, PAGE);
    front_get(kept, true);
    worker_answer(sim_accept(sim), PAGE);
    sim_run(sim);
    expect_answer(kept, PAGE);
    sim_settle(sim);
    assert_true(is_drained(sim));
}

static void play_half_a_head(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);

    front_begin(front, 1, true);
    front_param(front, "REQUEST_METHOD", "GET");
    sim_run(sim);
    sim_drain(sim);
    sim_expect(!is_drained(sim));
    front_params_end(front);
    front_stdin_end(front);
    worker_answer(sim_accept(sim), PAGE);
    sim_run(sim);
    expect_answer(front, PAGE);
    sim_settle(sim);
    assert_true(is_drained(sim));
}

static void play_late(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    struct sock_address address;
    char text[100];
    int fd;

    front_get(front, true);
    sim_run(sim);
    sim_drain(sim);
    /* The parent's descriptor; the relay must not hold another. */
    close(sim->relays[0].listeners[0]);
    sim->relays[0].listeners[0] = -1;
    snprintf(text, sizeof(text), "unix:%s/front0", sim->folder);
    assert_int_equal(sock_address_parse(text, &address), 0);
    assert_true(sock_connect(&address, &fd) < 0); /* refused, as by a server that is down */
    worker_answer(sim_accept(sim), PAGE);
    sim_run(sim);
    expect_answer(front, PAGE);
}

static void play_build(struct sim *sim)
{
    struct sim_step step = step_built(60000, sim->artifact_path);
    struct sim_front *front = sim_connect(sim);

    sim_velox_step(&sim->velox, &step);
    sim_begin_build(sim, front, true);
    sim_pass(sim, 1000);
    sim_drain(sim);
    sim_expect(!is_drained(sim));
    sim_pass(sim, 59000);
    expect_artifact(sim, front);
    sim_expect_number(front->ended_at_ms, 60000);
    assert_true(is_drained(sim));
}

static void large_artifact(struct sim *sim)
{
    sim->artifact_size = SIM_UNSENDABLE;
}

static void play_cut(struct sim *sim)
{
    struct sim_step steps[] = { step_built(0, sim->artifact_path), { .kind = STEP_HANG } };
    struct sim_front *downloads = sim_connect(sim);
    struct sim_front *builds = sim_connect(sim);
    struct sim_front *relays = sim_connect(sim);
    struct sim_worker *worker;

    sim_velox_step(&sim->velox, &steps[0]);
    sim_velox_step(&sim->velox, &steps[1]);
    sim_begin_build(sim, downloads, true);
    downloads->stream.is_stalled = true;
    sim_begin_build(sim, builds, true);
    front_get(relays, true);
    worker = sim_accept(sim);
    worker_stdout(worker, PAGE);
    sim_run(sim);
    sim_drain(sim);
    sim_pass(sim, 30000);
    sim_expect(!is_drained(sim));
    sim_cut(sim);
    assert_true(is_drained(sim));
    if (!faults_have_struck()) { /* else the first build may not have taken the first step */
        expect_failure(builds, 503, "busy");
    }
    expect_cut(relays, PAGE);
    sim_expect(worker_is_free(worker));
    sim_expect_number(sim->velox.cancelled, 1);
}

static void play_cut_download(struct sim *sim)
{
    struct sim_step step = step_built(0, sim->artifact_path);
    struct sim_front *front = sim_connect(sim);

    sim_velox_step(&sim->velox, &step);
    front->stream.is_stalled = true;
    sim_begin_build(sim, front, true);
    sim_drain(sim);
    sim_expect(!is_drained(sim));
    sim_cut(sim);
    assert_true(is_drained(sim));
    front->stream.is_stalled = false;
    sim_run(sim);
    sim_expect(!front->has_answer);
    assert_true(front->stream.has_ended);
}

/* At once, without a drain before. */
static void play_cut_only(struct sim *sim)
{
    struct sim_front *idle = sim_connect(sim);
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker;

    front_get(front, true);
    worker = sim_accept(sim);
    sim_cut(sim);
    assert_true(is_drained(sim));
    assert_true(idle->stream.has_ended);
    expect_cut(front, "");
    sim_expect(worker_is_free(worker));
}

/* The builder ends first: those who wait are told. */
static void play_builder_stops(struct sim *sim)
{
    struct sim_step step = { .kind = STEP_HANG };
    struct sim_front *waiting = sim_connect(sim);
    struct sim_front *late = sim_connect(sim);

    sim_velox_step(&sim->velox, &step);
    sim_begin_build(sim, waiting, true);
    builder_stop(sim->builder);
    sim_run(sim);
    expect_failure(waiting, 503, "busy");
    front_get(late, true);
    worker_answer(sim_accept(sim), BUILD_ANSWER);
    sim_run(sim);
    expect_failure(late, 503, "busy");
}

static void two_relays(struct sim *sim)
{
    sim->relay_count = 2;
}

static void play_two(struct sim *sim)
{
    struct sim_step step = step_built(60000, sim->artifact_path);
    struct sim_front *first = sim_connect_to(sim, 0);
    struct sim_front *second = sim_connect_to(sim, 1);

    sim_velox_step(&sim->velox, &step);
    sim_begin_build(sim, first, true);
    front_get(second, true);
    sim_run(sim);
    sim_drain(sim);
    sim_expect(!sim->relays[0].is_drained && !sim->relays[1].is_drained);
    worker_answer(sim_accept(sim), PAGE);
    sim_run(sim);
    expect_answer(second, PAGE);
    sim_pass(sim, GRACE_MS);
    sim_expect(!sim->relays[0].is_drained);
    assert_true(sim->relays[1].is_drained);
    sim_pass(sim, 60000);
    expect_artifact(sim, first);
    assert_true(sim->relays[0].is_drained);
}

static int start_another(struct sim *sim, struct loop *loop, struct builder **builder,
                         struct relay **relay)
{
    struct relay_init init = {
        .loop = loop,
        .options = &sim->relay_options,
        .policy = &sim->build_options.policy,
        .version = "0.0.1",
        .index = 1,
        .board = &sim->board,
        .fronts = &sim->front_places,
        .log = &sim->log,
        .stats = &sim->relays[1].stats,
        .listeners = sim->relays[0].listeners,
        .listener_count = 2,
        .scgi_count = 1,
    };
    int error = builder_new_with_client(builder, loop, &sim->build_options, &sim->log,
                                        &sim->builder_stats, &sim->velox.client);

    if (error != 0) {
        return error;
    }
    init.builder = *builder;
    error = relay_new(relay, &init);
    if (error != 0) {
        builder_stop(*builder);
        builder_free(*builder);
    }
    return error;
}

/* A builder and a relay that are never used, or never come to be. */
static void play_start(struct sim *sim)
{
    struct builder *builder;
    struct relay *relay;
    struct loop *loop;
    int error;

    assert_int_equal(loop_new(&loop), 0);
    faults_run(true);
    error = start_another(sim, loop, &builder, &relay);
    faults_run(false);
    assert_int_equal(error != 0, faults_have_struck());
    if (error == 0) {
        builder_stop(builder);
        relay_free(relay);
        builder_free(builder);
    }
    loop_free(loop);
}

static const struct scenario scenarios[] = {
    { "a start that fails leaves nothing", NULL, play_start, 0 },
    { "nobody is there", NULL, play_nothing, 0 },
    { "idle connections are closed", NULL, play_idle, 0 },
    { "a running answer is finished", NULL, play_running, 0 },
    { "a request that the kernel holds is served", NULL, play_unread, 0 },
    { "a request on its way is served", NULL, play_on_its_way, 0 },
    { "half a head may go on", NULL, play_half_a_head, 0 },
    { "who comes late is refused", NULL, play_late, 0 },
    { "a build is finished", NULL, play_build, 0 },
    { "a cut: 503 to who waits for a build", large_artifact, play_cut, 0 },
    { "a cut in a download", large_artifact, play_cut_download, 0 },
    { "a cut at once", NULL, play_cut_only, 0 },
    { "the builder stops", NULL, play_builder_stops, 0 },
    { "two relays drain, each by itself", two_relays, play_two, 0 },
};

int main(void)
{
    return sim_main("sim_stop", scenarios, sizeof(scenarios) / sizeof(scenarios[0]));
}
