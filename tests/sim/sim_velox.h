/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SIM_SIM_VELOX_H
#define TESTS_SIM_SIM_VELOX_H

/* A scripted Velox in place of curl's client: answers each POST by the next step of a list. */

#include "sidecar/build/velox.h"

#define SIM_STEPS_MAX 8
#define SIM_POSTS_MAX 256

enum sim_step_kind {
    STEP_ANSWER, /* answer, delay_ms after the POST */
    STEP_REPLY,  /* what velox_answer_decide makes of reply, likewise */
    STEP_HANG,   /* request_timeout ends it, as curl would */
    STEP_DEAF,   /* not even that */
};

struct sim_step {
    enum sim_step_kind kind;
    uint64_t delay_ms;
    struct velox_answer answer;
    struct velox_reply reply;
};

struct sim_post {
    uint64_t at_ms; /* loop time */
    size_t server;
    uint64_t timeout_ms;
    bool was_cancelled;
};

struct sim_velox {
    struct velox_client client;
    struct loop *loop;
    struct sim_step steps[SIM_STEPS_MAX]; /* the last one stays */
    size_t step_count;
    struct sim_post posts[SIM_POSTS_MAX];
    size_t post_count;
    unsigned running;
    unsigned cancelled;
};

/* Borrows loop, the builder's. */
void sim_velox_init(struct sim_velox *velox, struct loop *loop);
void sim_velox_step(struct sim_velox *velox, const struct sim_step *step);

/* Steps: a file named path; a failure worth another attempt; any other outcome. Borrows. */
struct sim_step step_built(uint64_t delay_ms, const char *path);
struct sim_step step_retry(uint64_t delay_ms, enum velox_retry_reason reason);
struct sim_step step_reply(uint64_t delay_ms, const struct velox_reply *reply);
struct sim_step step_outcome(uint64_t delay_ms, enum velox_outcome outcome, const char *message);

#endif
