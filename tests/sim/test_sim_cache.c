/* SPDX-License-Identifier: MIT */
/* The cache beside builds: hits, misses, and what goes wrong while a file is copied. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/sim/sim.h"

#include <unistd.h>

#define BUILD_FORCED                                                                               \
    BUILD_HEAD "{\"request_id\":\"r-2\",\"force_rebuild\":true,\"rr_version\":\"v2025.1.0\","      \
               "\"plugins\":[{\"module_name\":\"github.com/roadrunner-server/http/v5\",\"tag\":"   \
               "\"v5.0.1\"}],\"target_platform\":{\"os\":\"linux\",\"arch\":\"amd64\"}}"

static void with_cache(struct sim *sim)
{
    sim->build_options.cache.enabled = true;
    sim->artifact_size = 50007;
}

static void with_finish(struct sim *sim)
{
    with_cache(sim);
    sim->build_options.on_client_abort = CLIENT_ABORT_FINISH;
}

static void with_small_cache(struct sim *sim)
{
    with_cache(sim);
    sim->build_options.cache.max_size = 1000;
}

static void with_scrub(struct sim *sim)
{
    with_cache(sim);
    sim->build_options.cache.scrub_interval_ms = 1200000;
}

static bool answer_has(const struct sim_front *front, const char *text)
{
    struct span answer = buf_span(&front->stdout_);

    return answer.len > 0 && memmem(answer.ptr, answer.len, text, strlen(text)) != NULL;
}

static struct sim_front *ask(struct sim *sim, const char *answer)
{
    struct sim_front *front = sim_connect(sim);

    front_get(front, true);
    worker_answer(sim_accept(sim), answer);
    sim_run(sim);
    return front;
}

static void expect_hit(const struct sim *sim, const struct sim_front *front)
{
    expect_artifact(sim, front);
    sim_expect(answer_has(front, "X-Cache-Status: HIT\r\nX-Cache-Age: "));
    sim_expect(!answer_has(front, "X-Build-Time"));
}

static void expect_miss(const struct sim *sim, const struct sim_front *front)
{
    expect_artifact(sim, front);
    sim_expect(answer_has(front, "X-Cache-Status: MISS\r\nX-Build-Time: "));
}

/* Where an allocation has failed it may have the file already: the cache never holds one up for
 * want of memory. */
static void expect_waiting(const struct sim_front *front)
{
    sim_expect(!front->has_answer && buf_length(&front->stdout_) == 0);
}

/* Its first build is kept. */
static void fill(struct sim *sim)
{
    struct sim_step step = step_built(1000, sim->artifact_path);
    struct sim_front *front;

    sim_velox_step(&sim->velox, &step);
    front = ask(sim, BUILD_ANSWER);
    sim_pass(sim, 1000);
    sim_settle(sim);
    expect_miss(sim, front);
    sim_expect_number(sim_cache_stat(sim, STAT_CACHE_ENTRIES), 1);
    sim_expect_number(sim_cache_stat(sim, STAT_CACHE_SIZE_BYTES), sim->artifact_size);
}

static void play_hit(struct sim *sim)
{
    struct sim_front *front;

    fill(sim);
    front = ask(sim, BUILD_ANSWER);
    sim_settle(sim);
    expect_hit(sim, front);
    sim_expect_number(front->ended_at_ms, 1000);
    sim_expect_number(sim->velox.post_count, 1);
    sim_expect_number(sim_builder_stat(sim, STAT_CACHE_HITS), 1);
    sim_expect_number(sim_builder_stat(sim, STAT_CACHE_MISSES), 1);
    sim_expect_number(sim_builder_stat(sim, STAT_BUILDS_SUCCESS), 1);
}

static void play_forced(struct sim *sim)
{
    struct sim_front *front;

    fill(sim);
    front = ask(sim, BUILD_FORCED);
    sim_pass(sim, 1000);
    sim_settle(sim);
    expect_miss(sim, front);
    sim_expect_number(sim->velox.post_count, 2);
    sim_expect_number(sim_builder_stat(sim, STAT_CACHE_MISSES), 1);
    sim_expect_number(sim_cache_stat(sim, STAT_CACHE_ENTRIES), 1);
}

/* Who comes while the file is copied joins the build. */
static void play_join_the_copy(struct sim *sim)
{
    struct sim_step step = step_built(1000, sim->artifact_path);
    struct sim_front *first;
    struct sim_front *second;

    sim_velox_step(&sim->velox, &step);
    first = ask(sim, BUILD_ANSWER);
    sim->is_cache_stuck = true;
    sim_pass(sim, 5000);
    expect_waiting(first);
    second = ask(sim, BUILD_ANSWER);
    expect_waiting(second);
    sim->is_cache_stuck = false;
    sim_run(sim);
    sim_settle(sim);
    expect_miss(sim, first);
    expect_miss(sim, second);
    sim_expect_number(sim->velox.post_count, 1);
    sim_expect_number(sim_builder_stat(sim, STAT_BUILDS_COALESCED), 1);
}

/* The deadline of the build is that of the copy, but a built file is never lost by it. */
static void play_slow_copy(struct sim *sim)
{
    struct sim_step step = step_built(1000, sim->artifact_path);
    struct sim_front *front;

    sim_velox_step(&sim->velox, &step);
    front = ask(sim, BUILD_ANSWER);
    sim->is_cache_stuck = true;
    sim_pass(sim, 299999);
    expect_waiting(front);
    sim_pass(sim, 1);
    sim_settle(sim);
    expect_miss(sim, front);
    sim_expect_number(front->ended_at_ms, 300000);
    sim_expect_number(sim_builder_stat(sim, STAT_BUILDS_SUCCESS), 1);
    /* The copy comes after all, and is kept for the next one. */
    sim->is_cache_stuck = false;
    sim_run(sim);
    front = ask(sim, BUILD_ANSWER);
    sim_settle(sim);
    expect_hit(sim, front);
}

/* Nobody waits any more: the file is there, so it may as well be kept. */
static void play_leave_the_copy(struct sim *sim)
{
    struct sim_step step = step_built(1000, sim->artifact_path);
    struct sim_front *front;

    sim_velox_step(&sim->velox, &step);
    front = ask(sim, BUILD_ANSWER);
    sim->is_cache_stuck = true;
    sim_pass(sim, 1000);
    stream_close(&front->stream);
    sim_run(sim);
    sim_expect_number(sim_builder_stat(sim, STAT_BUILDS_CANCELLED),
                      sim->build_options.on_client_abort == CLIENT_ABORT_CANCEL);
    sim->is_cache_stuck = false;
    sim_run(sim);
    front = ask(sim, BUILD_ANSWER);
    sim_settle(sim);
    sim_pass(sim, 1000);
    expect_hit(sim, front);
}

/* The end of everything comes while the cache waits for the disk; sim_stop checks the rest. */
static void play_stop_in_the_copy(struct sim *sim)
{
    struct sim_step step = step_built(1000, sim->artifact_path);
    struct sim_front *front;

    sim_velox_step(&sim->velox, &step);
    front = ask(sim, BUILD_ANSWER);
    sim->is_cache_stuck = true;
    sim_pass(sim, 1000);
    expect_waiting(front);
    sim_cut(sim);
    sim_run(sim);
    sim_settle(sim);
    if (answer_has(front, "Status: 200 OK")) {
        sim_expect(false);
        expect_miss(sim, front);
    } else {
        expect_failure(front, 503, "busy");
    }
}

static void play_too_large(struct sim *sim)
{
    struct sim_step step = step_built(1000, sim->artifact_path);
    struct sim_front *front;

    sim_velox_step(&sim->velox, &step);
    for (unsigned i = 0; i < 2; i++) {
        front = ask(sim, BUILD_ANSWER);
        sim_pass(sim, 1000);
        sim_settle(sim);
        expect_miss(sim, front);
    }
    sim_expect_number(sim->velox.post_count, 2);
    sim_expect_number(sim_cache_stat(sim, STAT_CACHE_ENTRIES), 0);
}

/* Passes over what is there change nothing, and end. */
static void play_days(struct sim *sim)
{
    struct sim_front *front;

    fill(sim);
    sim_pass(sim, (uint64_t)2 * 3600 * 1000);
    front = ask(sim, BUILD_ANSWER);
    sim_settle(sim);
    expect_hit(sim, front);
    sim_expect_number(sim_cache_stat(sim, STAT_CACHE_ENTRIES), 1);
    sim_expect_number(sim_cache_stat(sim, STAT_CACHE_EVICTIONS_CORRUPT), 0);
}

static const struct scenario scenarios[] = {
    { "a miss, then a hit", with_cache, play_hit, 0 },
    { "a forced build replaces what is kept", with_cache, play_forced, 0 },
    { "joining a build whose file is copied", with_cache, play_join_the_copy, 0 },
    { "a copy that takes longer than build_timeout", with_cache, play_slow_copy, 0 },
    { "the client leaves during the copy", with_cache, play_leave_the_copy, 0 },
    { "the same with on_client_abort = finish", with_finish, play_leave_the_copy, 0 },
    { "the end during the copy", with_cache, play_stop_in_the_copy, 0 },
    { "a file larger than the cache", with_small_cache, play_too_large, 0 },
    { "looks through the folder and checks for two hours", with_scrub, play_days, 0 },
};

int main(void)
{
    return sim_main("sim_cache", scenarios, sizeof(scenarios) / sizeof(scenarios[0]));
}
