/* SPDX-License-Identifier: MIT */
/* Clients that leave: in every state, by closing, by ABORT_REQUEST, by ending their half. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/sim/sim.h"

#include <sys/socket.h>

enum place {
    IN_PARAMS,
    IN_SPOOL,
    IN_QUEUE,
    IN_CONNECT,
    IN_UPLOAD,
    IN_HEAD,
    IN_RELAY,
    IN_RECORD,
    IN_CAPTURE,
    IN_BUILD,
    IN_DELIVERY,
    PLACES,
};

enum way {
    BY_CLOSE,
    BY_RESET, /* with bytes of the answer unread */
    BY_ABORT,
};

#define LEAVE(place, way) ((way)*PLACES + (place))

static enum place place_of(const struct sim *sim)
{
    return (enum place)(sim->number % PLACES);
}

static enum way way_of(const struct sim *sim)
{
    return (enum way)(sim->number / PLACES);
}

static void adjust(struct sim *sim)
{
    sim->artifact_size = SIM_UNSENDABLE;
}

static void adjust_for_connect(struct sim *sim)
{
    sim->fpm_backlog = 1;
}

static void adjust_for_queue(struct sim *sim)
{
    sim->relay_options.worker_max_connections = 1;
}

/* Says what comes before the place. The worker, where there is one. */
static struct sim_worker *begin(struct sim *sim, struct sim_front *front)
{
    switch (place_of(sim)) {
    case IN_PARAMS:
        front_begin(front, 1, true);
        front_param(front, "REQUEST_METHOD", "GET");
        return NULL;
    case IN_SPOOL:
        front_head(front, true, "POST", NULL);
        front_stdin(front, span_of_string("the begin of a body"));
        return NULL;
    case IN_CONNECT:
        sim_fill_backlog(sim);
        front_get(front, true);
        return NULL;
    case IN_QUEUE:
        front_get(front, true);
        return NULL;
    case IN_UPLOAD:
        front_head(front, true, "POST", "1000");
        front_stdin(front, span_of_string("the begin of a body"));
        return sim_accept(sim);
    default:
        front_get(front, true);
        return sim_accept(sim);
    }
}

static void go_on(struct sim *sim, struct sim_front *front, struct sim_worker *worker)
{
    switch (place_of(sim)) {
    case IN_HEAD:
        worker_stdout(worker, "Content-type: te");
        break;
    case IN_RELAY:
        worker_stdout(worker, PAGE);
        break;
    case IN_RECORD:
        worker_stdout(worker, PAGE);
        worker_stdout_part(worker, 40000, "part of a record");
        break;
    case IN_CAPTURE:
        worker_stdout(worker, BUILD_HEAD "{\"rr_ver");
        break;
    case IN_BUILD:
        worker_answer(worker, BUILD_ANSWER);
        break;
    case IN_DELIVERY:
        worker_answer(worker, BUILD_ANSWER);
        sim_run(sim);
        front->stream.is_stalled = true;
        sim_pass(sim, 60000);
        break;
    default:
        break;
    }
    sim_run(sim);
}

static void leave(struct sim *sim, struct sim_front *front)
{
    switch (way_of(sim)) {
    case BY_CLOSE:
        stream_close(&front->stream);
        break;
    case BY_RESET:
        stream_close(&front->stream); /* its script has not read since front_begin */
        break;
    case BY_ABORT:
        front->stream.is_stalled = false;
        front_abort(front);
        break;
    }
    sim_run(sim);
}

static void expect_statistics(const struct sim *sim)
{
    sim_expect_number(sim_relay_stat(sim, STAT_WORKERS_ACTIVE), place_of(sim) == IN_QUEUE ? 1 : 0);
    sim_expect_number(sim_relay_stat(sim, STAT_WORKERS_QUEUED), 0);
    sim_expect_number(sim->velox.running, 0);
    sim_expect_number(sim->velox.cancelled, place_of(sim) == IN_BUILD ? 1 : 0);
    sim_expect_number(sim_builder_stat(sim, STAT_CLIENTS_LEFT_BUILD),
                      place_of(sim) == IN_BUILD ? 1 : 0);
    sim_expect_number(sim_builder_stat(sim, STAT_BUILDS_CANCELLED),
                      place_of(sim) == IN_BUILD ? 1 : 0);
    sim_expect_number(sim_relay_stat(sim, STAT_CLIENTS_LEFT_STREAM),
                      place_of(sim) == IN_DELIVERY ? 1 : 0);
}

/* After ABORT_REQUEST the connection is as good as new. */
static void expect_usable(struct sim *sim, struct sim_front *front, struct sim_worker *other)
{
    sim_expect(front->has_answer || front->stream.has_ended);
    sim_expect_number(front->end.app_status, 0);
    sim_expect_number(front->end.protocol_status, FCGI_REQUEST_COMPLETE);
    if (place_of(sim) == IN_RECORD) {
        /* The record is filled up, for nobody to read. */
        sim_expect_number(buf_length(&front->stdout_), strlen(PAGE) + 40000);
    }
    sim_empty_backlog(sim);
    while (sim_try_accept(sim) != NULL) {
        sim_run(sim); /* what was given up before PHP took it */
    }
    worker_answer(other, PAGE);
    sim_run(sim);
    if (front->stream.has_ended) {
        sim_expect(!front->stream.has_ended);
        return;
    }
    front_get(front, true);
    worker_answer(sim_accept(sim), PAGE);
    sim_run(sim);
    expect_answer(front, PAGE);
}

static void play_leave(struct sim *sim)
{
    struct sim_step step = step_built(60000, sim->artifact_path);
    struct sim_worker *other = NULL;
    struct sim_worker *worker;
    struct sim_front *front;

    sim_velox_step(&sim->velox, &step);
    if (place_of(sim) == IN_QUEUE) { /* somebody has the only place */
        front_get(sim_connect(sim), true);
        other = sim_accept(sim);
    }
    front = sim_connect(sim);
    worker = begin(sim, front);
    sim_run(sim);
    front->stream.is_stalled = way_of(sim) == BY_RESET;
    go_on(sim, front, worker);
    sim_pass(sim, 1000);
    leave(sim, front);
    expect_statistics(sim);
    sim_expect(worker_is_free(worker));
    if (way_of(sim) == BY_ABORT) {
        expect_usable(sim, front, other);
    } else {
        sim_expect_number(sim_relay_stat(sim, STAT_FRONTS_ACTIVE), other == NULL ? 0 : 1);
    }
    if (place_of(sim) == IN_CONNECT && way_of(sim) == BY_CLOSE) {
        sim_empty_backlog(sim);
        sim_pass(sim, 1000);
        sim_expect_no_worker(sim); /* PHP never sees it */
    }
}

/* A half-close in mid-request is a leave. */
static void play_half_close(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    struct sim_worker *worker = begin(sim, front);

    sim_run(sim);
    (void)shutdown(front->stream.fd, SHUT_WR);
    sim_run(sim);
    expect_cut(front, "");
    sim_expect(worker_is_free(worker));
}

static void finish(struct sim *sim)
{
    sim->build_options.on_client_abort = CLIENT_ABORT_FINISH;
}

static void play_finish(struct sim *sim)
{
    struct sim_step step = step_built(60000, sim->artifact_path);
    struct sim_front *front = sim_connect(sim);

    sim_velox_step(&sim->velox, &step);
    sim_begin_build(sim, front, false);
    stream_close(&front->stream);
    sim_pass(sim, 59999);
    sim_expect_number(sim->velox.running, 1);
    sim_pass(sim, 1);
    sim_expect_number(sim->velox.running, 0);
    sim_expect_number(sim->velox.cancelled, 0);
    sim_expect_number(sim_builder_stat(sim, STAT_BUILDS_SUCCESS), 1);
}

/* The result and the leave cross each other on their ways. */
static void play_crossing(struct sim *sim)
{
    struct sim_step step = step_built(60000, sim->artifact_path);
    struct sim_front *front = sim_connect(sim);

    sim_velox_step(&sim->velox, &step);
    sim_begin_build(sim, front, false);
    sim_pass(sim, 59999);
    stream_close(&front->stream);
    sim->now_ms++;
    faults_run(true);
    loop_manual_advance(sim->builder_loop, LOOP_MANUAL_BEGIN_MS + sim->now_ms);
    loop_manual_turn(sim->builder_loop);
    faults_run(false);
    sim_run(sim);
    sim_expect_number(sim_relay_stat(sim, STAT_FRONTS_ACTIVE), 0);
    sim_expect_number(sim_builder_stat(sim, STAT_BUILDS_SUCCESS), 1);
}

static const struct scenario scenarios[] = {
    { "closes in the params", NULL, play_leave, LEAVE(IN_PARAMS, BY_CLOSE) },
    { "closes in a body being collected", NULL, play_leave, LEAVE(IN_SPOOL, BY_CLOSE) },
    { "closes in the queue", adjust_for_queue, play_leave, LEAVE(IN_QUEUE, BY_CLOSE) },
    { "closes before PHP takes the connection", adjust_for_connect, play_leave,
      LEAVE(IN_CONNECT, BY_CLOSE) },
    { "closes in the upload", NULL, play_leave, LEAVE(IN_UPLOAD, BY_CLOSE) },
    { "closes in the head", NULL, play_leave, LEAVE(IN_HEAD, BY_CLOSE) },
    { "closes in the answer", NULL, play_leave, LEAVE(IN_RELAY, BY_CLOSE) },
    { "closes in a record of the answer", NULL, play_leave, LEAVE(IN_RECORD, BY_CLOSE) },
    { "closes in the build request", NULL, play_leave, LEAVE(IN_CAPTURE, BY_CLOSE) },
    { "closes in the build", NULL, play_leave, LEAVE(IN_BUILD, BY_CLOSE) },
    { "closes in the delivery", adjust, play_leave, LEAVE(IN_DELIVERY, BY_CLOSE) },
    { "resets in the answer", NULL, play_leave, LEAVE(IN_RELAY, BY_RESET) },
    { "resets in a record of the answer", NULL, play_leave, LEAVE(IN_RECORD, BY_RESET) },
    { "resets in the delivery", adjust, play_leave, LEAVE(IN_DELIVERY, BY_RESET) },
    { "aborts in the params", NULL, play_leave, LEAVE(IN_PARAMS, BY_ABORT) },
    { "aborts in a body being collected", NULL, play_leave, LEAVE(IN_SPOOL, BY_ABORT) },
    { "aborts in the queue", adjust_for_queue, play_leave, LEAVE(IN_QUEUE, BY_ABORT) },
    { "aborts before PHP takes the connection", adjust_for_connect, play_leave,
      LEAVE(IN_CONNECT, BY_ABORT) },
    { "aborts in the upload", NULL, play_leave, LEAVE(IN_UPLOAD, BY_ABORT) },
    { "aborts in the head", NULL, play_leave, LEAVE(IN_HEAD, BY_ABORT) },
    { "aborts in the answer", NULL, play_leave, LEAVE(IN_RELAY, BY_ABORT) },
    { "aborts in a record of the answer", NULL, play_leave, LEAVE(IN_RECORD, BY_ABORT) },
    { "aborts in the build request", NULL, play_leave, LEAVE(IN_CAPTURE, BY_ABORT) },
    { "aborts in the build", NULL, play_leave, LEAVE(IN_BUILD, BY_ABORT) },
    { "aborts in the delivery", adjust, play_leave, LEAVE(IN_DELIVERY, BY_ABORT) },
    { "half-closes in the params", NULL, play_half_close, IN_PARAMS },
    { "half-closes in a body being collected", NULL, play_half_close, IN_SPOOL },
    { "half-closes in the upload", NULL, play_half_close, IN_UPLOAD },
    { "on_client_abort = finish", finish, play_finish, 0 },
    { "leave and result cross", NULL, play_crossing, 0 },
};

int main(void)
{
    return sim_main("sim_leave", scenarios, sizeof(scenarios) / sizeof(scenarios[0]));
}
