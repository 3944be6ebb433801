/* SPDX-License-Identifier: MIT */
/*
 * Many exchanges at once, drawn at random from a seed: kinds, sizes, leaves, and how every stream
 * is cut. Whatever arrives must be right to the byte. A failure names its seed; SIM_SEED plays it
 * alone, SIM_SEEDS more of them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>

#define SLOTS 6
#define REQUESTS 8 /* of each slot */
#define SEEDS 30
#define FAULT_MAX 800 /* about as many allocations as there are */
#define BUILD_MS_MAX 5000

enum kind {
    RELAYED,
    UNANNOUNCED,
    STRIPPED,
    BUILT,
    BUILT_APART, /* not to be shared with others */
    REFUSED,
    KINDS,
};

/* One request: what is said and what must come. */
struct plan {
    enum kind kind;
    bool keep;
    unsigned leave_in; /* rounds; 0: stays */
    bool by_abort;
    struct buf body;
    struct buf answer; /* PHP's */
    size_t head_size;
    struct buf error_output;
    struct buf expected; /* by the front, where the answer is PHP's */
};

/* One web server's place: a connection after the other. */
struct slot {
    struct sim_front *front; /* NULL: none */
    struct plan plan;
    bool is_busy;
    bool has_left;
    unsigned requests;
};

struct play {
    uint64_t seed;
    struct slot slots[SLOTS];
};

static void fill(struct buf *buf, uint64_t *seed, size_t len)
{
    uint8_t *room;

    assert_int_equal(buf_reserve(buf, len + 1, &room), 0);
    for (size_t i = 0; i < len; i++) {
        room[i] = (uint8_t)draw(seed, 256);
    }
    buf_commit(buf, len);
}

static void add(struct buf *buf, const char *text)
{
    assert_int_equal(buf_append_string(buf, text), 0);
}

static struct stream_cut draw_cut(struct play *play)
{
    static const size_t sizes[] = { 0, 0, 1, 7, 100, 5000 };

    return (struct stream_cut){
        .max = sizes[draw(&play->seed, sizeof(sizes) / sizeof(sizes[0]))],
        .seed = draw(&play->seed, 2) == 0 ? 0 : play->seed,
    };
}

/* Small where the pieces are, or it would take for ever. */
static size_t draw_size(struct play *play, const struct stream *stream)
{
    size_t cut = stream->write_cut.max;
    size_t read_cut = stream->read_cut.max;

    if (cut == 0 || (read_cut != 0 && read_cut < cut)) {
        cut = read_cut;
    }
    if (draw(&play->seed, 4) == 0) {
        return 0;
    }
    return draw(&play->seed, cut == 0 || cut > 100 ? 600000 : cut * 50);
}

static void plan_free(struct plan *plan)
{
    buf_deinit(&plan->body);
    buf_deinit(&plan->answer);
    buf_deinit(&plan->error_output);
    buf_deinit(&plan->expected);
}

static void draw_answer(struct play *play, struct plan *plan, const struct stream *stream)
{
    char json[128];

    switch (plan->kind) {
    case STRIPPED:
        add(&plan->answer, "X-Velox-Build: 0\r\n");
        /* fall through */
    case RELAYED:
    case UNANNOUNCED:
    case KINDS:
        add(&plan->answer, "Content-type: a/b\r\n\r\n");
        add(&plan->expected, "Content-type: a/b\r\n\r\n");
        plan->head_size = buf_length(&plan->answer);
        fill(&plan->answer, &play->seed, draw_size(play, stream));
        assert_int_equal(buf_append(&plan->expected, plan->answer.bytes + plan->head_size,
                                    buf_length(&plan->answer) - plan->head_size),
                         0);
        break;
    case BUILT:
        add(&plan->answer, BUILD_ANSWER);
        break;
    case BUILT_APART:
        snprintf(json, sizeof(json), "{\"rr_version\":\"%llu\",\"plugins\":[]}",
                 (unsigned long long)draw(&play->seed, 1000000));
        add(&plan->answer, BUILD_HEAD);
        add(&plan->answer, json);
        break;
    case REFUSED:
        add(&plan->answer, BUILD_HEAD "{\"rr_version\":1}");
        break;
    }
}

static void draw_plan(struct play *play, struct plan *plan, const struct stream *stream)
{
    *plan = (struct plan){
        .kind = (enum kind)draw(&play->seed, KINDS),
        .keep = draw(&play->seed, 3) > 0,
        .leave_in = draw(&play->seed, 8) > 0 ? 0 : 1 + (unsigned)draw(&play->seed, 200),
        .by_abort = draw(&play->seed, 2) == 0,
    };
    buf_init(&plan->body, SIZE_MAX / 2);
    buf_init(&plan->answer, SIZE_MAX / 2);
    buf_init(&plan->error_output, SIZE_MAX / 2);
    buf_init(&plan->expected, SIZE_MAX / 2);
    draw_answer(play, plan, stream);
    if (plan->kind != BUILT) {
        fill(&plan->body, &play->seed, draw_size(play, stream));
    }
    if (draw(&play->seed, 3) == 0) {
        fill(&plan->error_output, &play->seed, draw_size(play, stream) / 10);
    }
}

static void send_request(struct slot *slot, size_t number)
{
    struct plan *plan = &slot->plan;
    char text[24];

    front_begin(slot->front, slot->front->id, plan->keep);
    snprintf(text, sizeof(text), "%zu", number);
    front_param(slot->front, "PLAN", text);
    front_param(slot->front, "REQUEST_METHOD", "POST");
    if (plan->kind != UNANNOUNCED) {
        snprintf(text, sizeof(text), "%zu", buf_length(&plan->body));
        front_param(slot->front, "CONTENT_LENGTH", text);
    }
    front_params_end(slot->front);
    front_stdin(slot->front, buf_span(&plan->body));
    front_stdin_end(slot->front);
}

static void begin_request(struct sim *sim, struct play *play, size_t number)
{
    struct slot *slot = &play->slots[number];

    if (slot->front == NULL) {
        slot->front = sim_open(sim, (unsigned)(number % sim->relay_count));
        slot->front->stream.write_cut = draw_cut(play);
        slot->front->stream.read_cut = draw_cut(play);
    }
    slot->front->id = draw(&play->seed, 2) == 0 ? 1 : (uint16_t)(1 + draw(&play->seed, 65535));
    draw_plan(play, &slot->plan, &slot->front->stream);
    send_request(slot, number);
    slot->is_busy = true;
    slot->has_left = false;
    slot->requests++;
}

/* ---- PHP ---- */

static struct slot *slot_of(struct play *play, const struct sim_worker *worker)
{
    struct span value;

    assert_true(worker_param(worker, "PLAN", &value));
    assert_int_equal(value.len, 1);
    return &play->slots[value.ptr[0] - '0'];
}

/* STDOUT and STDERR in turns, in records of any size. */
static void say(struct play *play, struct sim_worker *worker, const struct plan *plan)
{
    struct span out = buf_span(&plan->answer);
    struct span error_output = buf_span(&plan->error_output);

    while (out.len + error_output.len > 0) {
        size_t size = 1 + (size_t)draw(&play->seed, 70000);

        if (out.len > 0) {
            worker_stdout_span(worker, span_take(&out, size));
        }
        if (error_output.len > 0) {
            stream_add_content(&worker->stream, FCGI_STDERR, 1, span_take(&error_output, size));
        }
    }
    worker_end(worker, 0);
}

static bool serve(struct play *play, struct sim_worker *worker)
{
    struct slot *slot;

    if (!worker->body_ended || worker->has_ended || worker->stream.fd < 0) {
        return false;
    }
    slot = slot_of(play, worker);
    if (!slot->is_busy || slot->has_left) {
        worker_end(worker, 0);
        return true;
    }
    assert_true(span_equal(buf_span(&worker->body), buf_span(&slot->plan.body)));
    worker->stream.write_cut = slot->front->stream.read_cut;
    say(play, worker, &slot->plan);
    return true;
}

static void leave(struct slot *slot)
{
    slot->has_left = true;
    if (slot->plan.by_abort) {
        front_abort(slot->front);
    } else {
        stream_close(&slot->front->stream);
    }
}

static bool on_round(struct sim *sim)
{
    struct play *play = sim->script;
    struct sim_worker *worker;
    bool any = false;

    while ((worker = sim_try_accept(sim)) != NULL) {
        worker->stream.read_cut = (struct stream_cut){ .max = 5000, .seed = play->seed };
        any = true;
    }
    for (size_t i = 0; i < sim->worker_count; i++) {
        any |= serve(play, sim->workers[i]);
    }
    for (size_t i = 0; i < SLOTS; i++) {
        struct slot *slot = &play->slots[i];

        if (slot->is_busy && !slot->has_left && slot->plan.leave_in > 0) {
            any = true;
            if (--slot->plan.leave_in == 0) {
                leave(slot);
            }
        }
    }
    return any;
}

/* ---- the end of a request ---- */

static void judge(const struct sim *sim, const struct slot *slot)
{
    switch (slot->plan.kind) {
    case RELAYED:
    case UNANNOUNCED:
    case STRIPPED:
    case KINDS:
        expect_answer_span(slot->front, buf_span(&slot->plan.expected));
        break;
    case BUILT:
    case BUILT_APART:
        expect_artifact(sim, slot->front);
        break;
    case REFUSED:
        expect_failure(slot->front, 400, "invalid_request");
        break;
    }
    /* Behind the build request, error output may come too late for the answer. */
    if (slot->plan.kind < BUILT) {
        sim_expect(span_equal(buf_span(&slot->front->stderr_), buf_span(&slot->plan.error_output)));
    }
}

static void end_request(const struct sim *sim, struct slot *slot)
{
    const struct sim_front *front = slot->front;
    bool is_over = front->has_answer || front->stream.has_ended || front->stream.fd < 0;

    if (!slot->is_busy) {
        return;
    }
    assert_true(is_over);
    if (!slot->has_left) {
        judge(sim, slot);
        sim_expect(slot->plan.keep != front->stream.has_ended);
    }
    if (front->stream.fd < 0 || front->stream.has_ended) {
        stream_close(&slot->front->stream);
        slot->front = NULL;
    }
    plan_free(&slot->plan);
    slot->is_busy = false;
}

static void play_random(struct sim *sim)
{
    struct sim_step step = step_built(1000, sim->artifact_path);
    struct play play = { .seed = sim->number };

    sim_velox_step(&sim->velox, &step);
    sim->script = &play;
    sim->on_round = on_round;
    for (size_t i = 0; i < REQUESTS; i++) {
        for (size_t number = 0; number < SLOTS; number++) {
            begin_request(sim, &play, number);
        }
        sim_pass(sim, BUILD_MS_MAX);
        for (size_t number = 0; number < SLOTS; number++) {
            end_request(sim, &play.slots[number]);
        }
    }
}

static void adjust(struct sim *sim)
{
    sim->relay_count = 2;
    sim->artifact_size = 1200; /* one byte a round must not take for ever */
    sim->relay_options.chunk_size = 500;
    sim->relay_options.worker_max_connections = 3;
}

static unsigned from_environment(const char *name, unsigned otherwise)
{
    const char *number = getenv(name);

    return number == NULL ? otherwise : (unsigned)atoi(number);
}

struct seed {
    struct scenario scenario;
    unsigned fault;
    char name[64];
};

static void test_seed(void **state)
{
    const struct seed *seed = *state;

    sim_play(&seed->scenario, seed->fault);
}

static void seed_init(struct seed *seed, unsigned number, bool with_fault)
{
    uint64_t random = number;

    seed->scenario = (struct scenario){ "random", adjust, play_random, number };
    snprintf(seed->name, sizeof(seed->name), "seed %u", number);
    if (with_fault) {
        seed->fault = 1 + (unsigned)draw(&random, FAULT_MAX);
        snprintf(seed->name, sizeof(seed->name), "seed %u, allocation %u failing", number,
                 seed->fault);
    }
}

int main(void)
{
    unsigned first = from_environment("SIM_SEED", 1);
    unsigned count = from_environment("SIM_SEEDS", getenv("SIM_SEED") == NULL ? SEEDS : 1);
    struct seed *seeds = calloc(2 * (size_t)count, sizeof(*seeds));
    struct CMUnitTest *tests = calloc(2 * (size_t)count, sizeof(*tests));
    int result;

    assert_non_null(seeds);
    assert_non_null(tests);
    sim_prepare();
    for (unsigned i = 0; i < 2 * count; i++) {
        seed_init(&seeds[i], first + i / 2, i % 2 == 1);
        tests[i] = (struct CMUnitTest){ seeds[i].name, test_seed, NULL, NULL, &seeds[i] };
    }
    result = _cmocka_run_group_tests("sim_random", tests, 2 * (size_t)count, NULL, NULL);
    free(seeds);
    free(tests);
    return result;
}
