/* SPDX-License-Identifier: MIT */
/* The scripted Velox. It must never answer from within start, as curl's client does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/sim/sim_velox.h"

#include <errno.h>
#include <stdlib.h>

struct velox_call {
    struct sim_velox *velox;
    struct sim_post *post;
    struct velox_answer answer;
    bool is_reply; /* the answer is still to be made of it */
    struct velox_reply reply;
    struct timer timer;
    void (*on_answer)(void *waiter, const struct velox_answer *answer);
    void *waiter;
};

static void call_free(struct velox_call *call)
{
    timer_stop(&call->timer);
    call->velox->running--;
    free(call);
}

static void on_due(struct timer *timer)
{
    struct velox_call *call = list_entry(timer, struct velox_call, timer);
    void (*on_answer)(void *waiter, const struct velox_answer *answer) = call->on_answer;
    struct velox_answer answer = call->answer;
    struct velox_reply reply = call->reply;
    bool is_reply = call->is_reply;
    void *waiter = call->waiter;
    struct buf text;

    buf_init(&text, 0);
    call_free(call);
    if (is_reply) {
        velox_answer_decide(&reply, &text, &answer);
    }
    on_answer(waiter, &answer);
    buf_deinit(&text);
}

static int schedule(struct velox_call *call, const struct sim_step *step, uint64_t timeout_ms)
{
    if (step->kind == STEP_DEAF) {
        return 0;
    }
    if (step->kind != STEP_HANG && step->delay_ms < timeout_ms) {
        call->answer = step->answer;
        call->reply = step->reply;
        call->is_reply = step->kind == STEP_REPLY;
        return timer_start(&call->timer, step->delay_ms);
    }
    call->answer = step_retry(0, VELOX_RETRY_TIMEOUT).answer;
    return timer_start(&call->timer, timeout_ms);
}

static int start(struct velox_client *client, size_t server, struct span body, uint64_t timeout_ms,
                 void (*on_answer)(void *waiter, const struct velox_answer *answer), void *waiter,
                 struct velox_call **started)
{
    struct sim_velox *velox = list_entry(client, struct sim_velox, client);
    size_t next = velox->post_count < velox->step_count ? velox->post_count : velox->step_count - 1;
    struct velox_call *call = calloc(1, sizeof(*call));

    if (call == NULL) {
        return -ENOMEM;
    }
    assert_true(velox->step_count > 0);
    assert_true(velox->post_count < SIM_POSTS_MAX);
    assert_true(body.len > 0 && body.ptr[0] == '{');
    call->velox = velox;
    call->on_answer = on_answer;
    call->waiter = waiter;
    timer_init(&call->timer, velox->loop, on_due);
    velox->running++;
    if (schedule(call, &velox->steps[next], timeout_ms) != 0) {
        call_free(call);
        return -ENOMEM;
    }
    call->post = &velox->posts[velox->post_count++];
    *call->post = (struct sim_post){
        .at_ms = loop_now_ms(velox->loop),
        .server = server,
        .timeout_ms = timeout_ms,
    };
    *started = call;
    return 0;
}

static void cancel(struct velox_client *client, struct velox_call *call)
{
    struct sim_velox *velox = list_entry(client, struct sim_velox, client);

    call->post->was_cancelled = true;
    velox->cancelled++;
    call_free(call);
}

void sim_velox_init(struct sim_velox *velox, struct loop *loop)
{
    *velox = (struct sim_velox){ .client = { start, cancel }, .loop = loop };
}

void sim_velox_step(struct sim_velox *velox, const struct sim_step *step)
{
    assert_true(velox->step_count < SIM_STEPS_MAX);
    velox->steps[velox->step_count++] = *step;
}

struct sim_step step_built(uint64_t delay_ms, const char *path)
{
    return (struct sim_step){
        .kind = STEP_ANSWER,
        .delay_ms = delay_ms,
        .answer = { .outcome = VELOX_BUILT,
                    .status = 200,
                    .path = span_of_string(path),
                    .build_id = span_of_string("b-1") },
    };
}

struct sim_step step_retry(uint64_t delay_ms, enum velox_retry_reason reason)
{
    return (struct sim_step){
        .kind = STEP_ANSWER,
        .delay_ms = delay_ms,
        .answer = { .outcome = VELOX_RETRY,
                    .reason = reason,
                    .is_timeout = reason == VELOX_RETRY_TIMEOUT,
                    .message = span_of_string("the scripted server did not answer") },
    };
}

struct sim_step step_reply(uint64_t delay_ms, const struct velox_reply *reply)
{
    return (struct sim_step){ .kind = STEP_REPLY, .delay_ms = delay_ms, .reply = *reply };
}

struct sim_step step_outcome(uint64_t delay_ms, enum velox_outcome outcome, const char *message)
{
    return (struct sim_step){
        .kind = STEP_ANSWER,
        .delay_ms = delay_ms,
        .answer = { .outcome = outcome, .status = 200, .message = span_of_string(message) },
    };
}
