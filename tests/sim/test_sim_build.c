/* SPDX-License-Identifier: MIT */
/* Build requests: hits, misses, waits, retries and limits, to the millisecond. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/sim/sim.h"

#include <stdio.h>
#include <unistd.h>

static void expect_post(const struct sim *sim, size_t number, uint64_t at_ms)
{
    sim_expect(number < sim->velox.post_count);
    if (number < sim->velox.post_count) {
        sim_expect_number(sim->velox.posts[number].at_ms - LOOP_MANUAL_BEGIN_MS, at_ms);
    }
}

static bool answer_has(const struct sim_front *front, const char *text)
{
    struct span answer = buf_span(&front->stdout_);

    return answer.len > 0 && memmem(answer.ptr, answer.len, text, strlen(text)) != NULL;
}

static void play_build(struct sim *sim)
{
    struct sim_step step = step_built(60000, sim->artifact_path);
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker;

    sim_velox_step(&sim->velox, &step);
    worker = sim_begin_build(sim, front, true);
    sim_expect(worker_is_free(worker));
    sim_expect_number(sim_relay_stat(sim, STAT_WORKERS_ACTIVE), 0);
    sim_pass(sim, 59999);
    expect_nothing(front);
    sim_pass(sim, 1);
    expect_artifact(sim, front);
    sim_expect_number(front->ended_at_ms, 60000);
    sim_expect(answer_has(front, "X-Build-Time: 60.0\r\n"));
    sim_expect(answer_has(front, "X-Build-Request-ID: r-1\r\n"));
    sim_expect(answer_has(front, "Set-Cookie: a=b\r\n"));
    sim_expect(!answer_has(front, "X-Velox-Build"));
    sim_expect_number(sim->velox.post_count, 1);
    sim_expect_number(sim_builder_stat(sim, STAT_BUILDS_SUCCESS), 1);
    /* The connection goes on. */
    front_get(front, true);
    worker_answer(sim_accept(sim), PAGE);
    sim_run(sim);
    expect_answer(front, PAGE);
}

static void play_pieces(struct sim *sim)
{
    static const char answer[] = BUILD_ANSWER;
    struct sim_step step = step_built(10, sim->artifact_path);
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker;

    sim_velox_step(&sim->velox, &step);
    front_get(front, true);
    worker = sim_accept(sim);
    for (size_t i = 0; i + 1 < sizeof(answer); i++) {
        worker_stdout_span(worker, span_of(answer + i, 1));
        sim_run(sim);
        sim_expect_number(sim->velox.post_count, i + 2 == sizeof(answer));
    }
    worker_stdout(worker, "\n trailing output");
    worker_end(worker, 0);
    sim_pass(sim, 10);
    expect_artifact(sim, front);
    sim_expect(worker_is_free(worker));
}

static void play_stderr(struct sim *sim)
{
    struct sim_step step = step_built(1000, sim->artifact_path);
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker;

    sim_velox_step(&sim->velox, &step);
    front_get(front, true);
    worker = sim_accept(sim);
    worker_stdout(worker, BUILD_HEAD);
    worker_stderr(worker, "in the capture;");
    sim_run(sim);
    sim_expect_number(buf_length(&front->stderr_), 15);
    worker_stdout(worker, BUILD_JSON);
    sim_run(sim);
    worker_stderr(worker, "in the build;");
    sim_run(sim);
    sim_expect_number(buf_length(&front->stderr_), 28);
    worker_end(worker, 0);
    sim_pass(sim, 1000);
    expect_artifact(sim, front);
}

/* Far more than any socket buffer takes. */
static void large_artifact(struct sim *sim)
{
    sim->artifact_size = SIM_UNSENDABLE;
    sim->relay_options.chunk_size = 100000;
}

static void play_slow_client(struct sim *sim)
{
    struct sim_step step = step_built(0, sim->artifact_path);
    struct sim_front *front = sim_connect(sim);

    sim_velox_step(&sim->velox, &step);
    front->stream.is_stalled = true;
    sim_begin_build(sim, front, true);
    sim_pass(sim, 3600000);
    sim_expect_number(sim_relay_stat(sim, STAT_FRONTS_ACTIVE), 1);
    (void)unlink(sim->artifact_path);
    front->stream.is_stalled = false;
    front->stream.read_cut = (struct stream_cut){ .max = 10000 };
    sim_run(sim);
    expect_artifact(sim, front);
}

/* No END_REQUEST with the promised length: the client must not take the file for whole. */
static void play_truncated(struct sim *sim)
{
    struct sim_step step = step_built(0, sim->artifact_path);
    struct sim_front *front = sim_connect(sim);

    sim_velox_step(&sim->velox, &step);
    front->stream.is_stalled = true;
    sim_begin_build(sim, front, true);
    assert_int_equal(truncate(sim->artifact_path, SIM_UNSENDABLE - 100000), 0);
    front->stream.is_stalled = false;
    sim_run(sim);
    sim_expect(front->stream.has_ended);
    assert_true(buf_length(&front->stdout_) < buf_length(&sim->artifact));
}

static void play_artifact_missing(struct sim *sim)
{
    struct sim_step step = step_built(0, "/nowhere/rr");
    struct sim_front *front = sim_connect(sim);

    sim_velox_step(&sim->velox, &step);
    sim_begin_build(sim, front, true);
    expect_failure(front, 500, "artifact_unavailable");
    sim_expect(!answer_has(front, "/nowhere"));
}

static void play_not_json(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker;

    front_get(front, true);
    worker = sim_accept(sim);
    worker_answer(worker, BUILD_HEAD "Warning: something {}");
    sim_run(sim);
    expect_failure(front, 400, "invalid_request");
    sim_expect(answer_has(front, "Set-Cookie: a=b\r\n"));
    sim_expect(worker_is_free(worker));
    front_get(front, true);
    worker = sim_accept(sim);
    worker_answer(worker, BUILD_HEAD);
    sim_run(sim);
    expect_failure(front, 400, "invalid_request");
}

static void small_request(struct sim *sim)
{
    sim->relay_options.max_request_size = 100;
}

static void play_too_large(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);

    front_get(front, true);
    worker_answer(sim_accept(sim), BUILD_ANSWER);
    sim_run(sim);
    expect_failure(front, 400, "invalid_request");
}

/* sim->number: the row. */
static void play_outcome(struct sim *sim)
{
    static const struct {
        enum velox_outcome outcome;
        unsigned status;
        const char *error;
    } rows[] = {
        { VELOX_BUILD_FAILED, 500, "build_failed" },
        { VELOX_REQUEST_INVALID, 400, "invalid_request" },
        { VELOX_UNUSABLE, 502, "velox_unavailable" },
        { VELOX_NO_MEMORY, 503, "busy" },
    };
    struct sim_step step = step_outcome(500, rows[sim->number].outcome,
                                        "go build: \x1b[31mno\x1b[0m");
    struct sim_front *front = sim_connect(sim);

    sim_velox_step(&sim->velox, &step);
    sim_begin_build(sim, front, true);
    sim_pass(sim, 500);
    expect_failure(front, rows[sim->number].status, rows[sim->number].error);
    sim_expect(!answer_has(front, "\x1b"));
    sim_expect(answer_has(front, "\"request_id\": \"r-1\""));
    sim_expect(!front->stream.has_ended);
}

/* ---- retries ---- */

static void two_servers(struct sim *sim)
{
    sim->build_options.server_count = 2;
}

static void play_retries(struct sim *sim)
{
    struct sim_step steps[] = { step_retry(100, VELOX_RETRY_CONNECT),
                                step_retry(100, VELOX_RETRY_CUT),
                                step_built(100, sim->artifact_path) };
    struct sim_front *front = sim_connect(sim);

    for (size_t i = 0; i < 3; i++) {
        sim_velox_step(&sim->velox, &steps[i]);
    }
    sim_begin_build(sim, front, true);
    sim_pass(sim, 4000);
    expect_artifact(sim, front);
    expect_post(sim, 0, 0);
    expect_post(sim, 1, 100 + 1000);
    expect_post(sim, 2, 1200 + 2000);
    sim_expect_number(front->ended_at_ms, 3300);
    sim_expect(sim->velox.posts[0].server != sim->velox.posts[1].server);
    sim_expect_number(sim->velox.posts[2].server, sim->velox.posts[0].server);
    sim_expect_number(sim_builder_stat(sim, STAT_RETRIES_CONNECT), 1);
    sim_expect_number(sim_builder_stat(sim, STAT_RETRIES_CUT), 1);
}

static void play_attempts_used(struct sim *sim)
{
    struct sim_step step = step_retry(0, VELOX_RETRY_CONNECT);
    struct sim_front *front = sim_connect(sim);

    sim_velox_step(&sim->velox, &step);
    sim_begin_build(sim, front, true);
    sim_pass(sim, 10000);
    expect_failure(front, 502, "velox_unavailable");
    sim_expect_number(front->ended_at_ms, 3000);
    sim_expect_number(sim->velox.post_count, 3);
}

static void many_attempts(struct sim *sim)
{
    sim->build_options.retry.max_attempts = 30;
    sim->build_options.retry.jitter = 0.5;
    sim->build_options.build_timeout_ms = 3600000;
}

static void play_jitter(struct sim *sim)
{
    struct sim_step step = step_retry(0, VELOX_RETRY_HTTP_STATUS);
    struct sim_front *front = sim_connect(sim);
    uint64_t delay_ms = 1000;

    sim_velox_step(&sim->velox, &step);
    sim_begin_build(sim, front, true);
    sim_pass(sim, 3600000);
    expect_failure(front, 502, "velox_unavailable");
    sim_expect_number(sim->velox.post_count, 30);
    for (size_t i = 1; i < sim->velox.post_count; i++) {
        uint64_t waited_ms = sim->velox.posts[i].at_ms - sim->velox.posts[i - 1].at_ms;

        sim_expect(waited_ms >= delay_ms / 2 && waited_ms <= delay_ms + delay_ms / 2);
        delay_ms = delay_ms * 2 < 10000 ? delay_ms * 2 : 10000;
    }
}

static void play_retry_after(struct sim *sim)
{
    struct sim_step busy = step_retry(0, VELOX_RETRY_HTTP_STATUS);
    struct sim_step step = step_built(0, sim->artifact_path);
    struct sim_front *front = sim_connect(sim);

    busy.answer.retry_after_ms = 77000;
    sim_velox_step(&sim->velox, &busy);
    sim_velox_step(&sim->velox, &step);
    sim_begin_build(sim, front, true);
    sim_pass(sim, 77000);
    expect_artifact(sim, front);
    expect_post(sim, 1, 77000);
}

/* Waiting that long would pass the deadline: said at once. */
static void play_retry_after_too_long(struct sim *sim)
{
    struct sim_step busy = step_retry(0, VELOX_RETRY_HTTP_STATUS);
    struct sim_front *front = sim_connect(sim);

    busy.answer.retry_after_ms = 300000;
    sim_velox_step(&sim->velox, &busy);
    sim_begin_build(sim, front, true);
    expect_failure(front, 504, "timeout");
    sim_expect_number(front->ended_at_ms, 0);
}

static void play_already_exists(struct sim *sim)
{
    struct sim_step step = step_outcome(0, VELOX_ALREADY_RUNS, "the same build is running");
    struct sim_front *front = sim_connect(sim);

    sim_velox_step(&sim->velox, &step);
    sim_begin_build(sim, front, true);
    sim_pass(sim, 299999);
    expect_nothing(front);
    sim_expect_number(sim->velox.post_count, 30);
    for (size_t i = 0; i < sim->velox.post_count; i++) {
        expect_post(sim, i, i * 10000);
    }
    sim_pass(sim, 1);
    expect_failure(front, 504, "timeout");
    sim_expect_number(front->ended_at_ms, 300000);
}

static void short_requests(struct sim *sim)
{
    sim->build_options.request_timeout_ms = 20000;
}

static void play_request_timeout(struct sim *sim)
{
    struct sim_step step = { .kind = STEP_HANG };
    struct sim_front *front = sim_connect(sim);

    sim_velox_step(&sim->velox, &step);
    sim_begin_build(sim, front, true);
    sim_pass(sim, 62999);
    expect_nothing(front);
    sim_pass(sim, 1);
    expect_failure(front, 504, "timeout");
    expect_post(sim, 0, 0);
    expect_post(sim, 1, 21000);
    expect_post(sim, 2, 43000);
    sim_expect_number(sim_builder_stat(sim, STAT_BUILDS_TIMEOUT), 1);
}

/* What is left of build_timeout is all that the next attempt gets. */
static void play_last_attempt(struct sim *sim)
{
    struct sim_step step = { .kind = STEP_HANG };
    struct sim_front *front = sim_connect(sim);

    sim_velox_step(&sim->velox, &step);
    sim_begin_build(sim, front, true);
    sim_pass(sim, 299999);
    expect_nothing(front);
    sim_expect_number(sim->velox.posts[0].timeout_ms, 180000);
    sim_expect_number(sim->velox.posts[1].timeout_ms, 119000);
    sim_pass(sim, 1);
    expect_failure(front, 504, "timeout");
    sim_expect_number(front->ended_at_ms, 300000);
}

static void play_build_timeout(struct sim *sim)
{
    struct sim_step step = { .kind = STEP_DEAF };
    struct sim_front *front = sim_connect(sim);

    sim_velox_step(&sim->velox, &step);
    sim_pass(sim, 1000);
    sim_begin_build(sim, front, true);
    sim_pass(sim, 299999);
    expect_nothing(front);
    sim_pass(sim, 1);
    expect_failure(front, 504, "timeout");
    sim_expect_number(front->ended_at_ms, 301000);
    sim_expect_number(sim->velox.cancelled, 1);
}

/* ---- what is not built ---- */

static char denied[] = "github.com/roadrunner-server/*";
static char *denied_modules[] = { denied };

static void deny(struct sim *sim)
{
    sim->build_options.policy.deny_modules = (struct string_list){ denied_modules, 1 };
}

static void play_denied(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);

    sim_begin_build(sim, front, true);
    expect_failure(front, 403, "forbidden");
    sim_expect(answer_has(front, "\"request_id\": \"r-1\""));
    sim_expect_number(sim->velox.post_count, 0);
}

static void play_failure_ttl(struct sim *sim)
{
    struct sim_step steps[] = { step_outcome(500, VELOX_BUILD_FAILED, "no such module"),
                                step_built(500, sim->artifact_path) };
    struct sim_front *front = sim_connect(sim);

    sim_velox_step(&sim->velox, &steps[0]);
    sim_velox_step(&sim->velox, &steps[1]);
    sim_begin_build(sim, front, true);
    sim_pass(sim, 500);
    expect_failure(front, 500, "build_failed");
    sim_pass(sim, 9999);
    if (faults_have_struck()) {
        return; /* what follows depends on what has failed */
    }
    sim_begin_build(sim, front, true);
    expect_failure(front, 500, "build_failed");
    sim_expect(answer_has(front, "no such module"));
    sim_expect_number(front->ended_at_ms, 10499);
    sim_expect_number(sim->velox.post_count, 1);
    sim_pass(sim, 1);
    sim_begin_build(sim, front, true);
    sim_pass(sim, 500);
    expect_artifact(sim, front);
}

/* ---- sharing, queue ---- */

static void two_relays(struct sim *sim)
{
    sim->relay_count = 2;
}

static void play_shared(struct sim *sim)
{
    struct sim_step step = step_built(60000, sim->artifact_path);
    struct sim_front *fronts[4];

    sim_velox_step(&sim->velox, &step);
    for (unsigned i = 0; i < 4; i++) {
        fronts[i] = sim_connect_to(sim, i % 2);
        sim_begin_build(sim, fronts[i], true);
        sim_pass(sim, 10000);
    }
    sim_expect_number(sim->velox.post_count, 1);
    sim_expect_number(sim_builder_stat(sim, STAT_BUILDS_COALESCED), 3);
    stream_close(&fronts[0]->stream); /* the first one leaves, the others stay */
    sim_pass(sim, 20000);
    sim_settle(sim);
    for (unsigned i = 1; i < 4; i++) {
        expect_artifact(sim, fronts[i]);
    }
    sim_expect_number(sim->velox.cancelled, 0);
}

static void one_at_a_time(struct sim *sim)
{
    sim->build_options.max_concurrent_builds = 1;
    sim->build_options.max_queued_builds = 1;
}

static void begin_another(struct sim *sim, struct sim_front *front, unsigned number)
{
    char answer[256];

    snprintf(answer, sizeof(answer), BUILD_HEAD "{\"rr_version\":\"v%u\",\"plugins\":[]}", number);
    front_get(front, true);
    worker_answer(sim_accept(sim), answer);
    sim_run(sim);
}

static void play_queue(struct sim *sim)
{
    struct sim_step step = step_built(60000, sim->artifact_path);
    struct sim_front *fronts[3];

    sim_velox_step(&sim->velox, &step);
    for (unsigned i = 0; i < 3; i++) {
        fronts[i] = sim_connect(sim);
        begin_another(sim, fronts[i], i);
    }
    sim_expect(answer_has(fronts[2], "Status: 503 "));
    sim_expect(answer_has(fronts[2], "Retry-After: "));
    sim_pass(sim, 120000);
    sim_settle(sim);
    expect_artifact(sim, fronts[0]);
    expect_artifact(sim, fronts[1]);
    sim_expect_number(fronts[1]->ended_at_ms, 120000);
    expect_post(sim, 1, 60000);
}

/* Its deadline runs in the queue, too. */
static void play_queue_deadline(struct sim *sim)
{
    struct sim_step step = { .kind = STEP_DEAF };
    struct sim_front *first = sim_connect(sim);
    struct sim_front *second = sim_connect(sim);

    sim_velox_step(&sim->velox, &step);
    begin_another(sim, first, 1);
    sim_pass(sim, 100);
    begin_another(sim, second, 2);
    sim_pass(sim, 300000);
    sim_settle(sim);
    expect_failure(first, 504, "timeout");
    expect_failure(second, 504, "timeout");
    sim_expect_number(first->ended_at_ms, 300000);
    sim_expect_number(second->ended_at_ms, 300100);
    sim_expect_number(sim->velox.post_count, 2);
}

static const struct scenario scenarios[] = {
    { "a build of a minute", NULL, play_build, 0 },
    { "a build request byte by byte", NULL, play_pieces, 0 },
    { "error output during capture and build", NULL, play_stderr, 0 },
    { "a client that reads nothing for an hour", large_artifact, play_slow_client, 0 },
    { "a file that becomes shorter", large_artifact, play_truncated, 0 },
    { "a file that is not there", NULL, play_artifact_missing, 0 },
    { "no JSON", NULL, play_not_json, 0 },
    { "a build request over max_request_size", small_request, play_too_large, 0 },
    { "Velox: the build failed", NULL, play_outcome, 0 },
    { "Velox: the request is invalid", NULL, play_outcome, 1 },
    { "Velox: no usable answer", NULL, play_outcome, 2 },
    { "Velox: out of memory", NULL, play_outcome, 3 },
    { "retries, exact without jitter", two_servers, play_retries, 0 },
    { "all attempts used", NULL, play_attempts_used, 0 },
    { "jitter keeps to its bounds", many_attempts, play_jitter, 0 },
    { "Retry-After", NULL, play_retry_after, 0 },
    { "Retry-After past the deadline", NULL, play_retry_after_too_long, 0 },
    { "already_exists until build_timeout", NULL, play_already_exists, 0 },
    { "request_timeout", short_requests, play_request_timeout, 0 },
    { "the last attempt gets what is left", NULL, play_last_attempt, 0 },
    { "build_timeout", NULL, play_build_timeout, 0 },
    { "denied by policy", deny, play_denied, 0 },
    { "failure_ttl", NULL, play_failure_ttl, 0 },
    { "equal requests share a build", two_relays, play_shared, 0 },
    { "queue and full queue", one_at_a_time, play_queue, 0 },
    { "build_timeout in the queue", one_at_a_time, play_queue_deadline, 0 },
};

int main(void)
{
    return sim_main("sim_build", scenarios, sizeof(scenarios) / sizeof(scenarios[0]));
}
