/* SPDX-License-Identifier: MIT */
/*
 * Every answer of Velox, on the simulated clock: what the client gets, how often Velox is asked,
 * and when. Each answer comes 100 ms after its POST and stays the same; delays double from one
 * second.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/sim/sim.h"

#include <stdio.h>

#define DELAY_MS 100

enum course {
    ONCE,       /* one POST, the end with its answer */
    THREE,      /* max_attempts of them, 1 s and 2 s apart */
    THREE_SLOW, /* likewise, as far apart as Retry-After says: 5 s */
    ASKED_ON,   /* every max_delay until build_timeout */
};

struct row {
    const char *name;
    enum velox_transport transport;
    unsigned http_status;
    const char *body; /* %s: the path of a file that is there */
    uint64_t retry_after_ms;
    unsigned status; /* 200: the file */
    const char *error;
    enum course course;
};

#define CODE(text) "{\"code\":\"" text "\",\"message\":\"why\"}"
#define ANSWER(name, http, body, status, error, course)                                            \
    {                                                                                              \
        name, VELOX_ANSWERED, http, body, 0, status, error, course                                 \
    }
#define LOST(name, transport, status, error, course)                                               \
    {                                                                                              \
        name, transport, 0, "", 0, status, error, course                                           \
    }

static const struct row rows[] = {
    ANSWER("a path", 200, "{\"path\":\"%s\",\"logs\":\"\"}", 200, "", ONCE),
    ANSWER("success and a path", 200, "{\"success\":true,\"path\":\"%s\",\"build_id\":\"b\"}", 200,
           "", ONCE),
    ANSWER("success false", 200, "{\"success\":false,\"error\":\"no\",\"code\":\"BUILD_ERROR\"}",
           500, "build_failed", ONCE),
    ANSWER("success false and a path", 200, "{\"success\":false,\"path\":\"%s\"}", 500,
           "build_failed", ONCE),
    ANSWER("no path", 200, "{\"logs\":\"\"}", 502, "velox_unavailable", ONCE),
    ANSWER("an empty path", 200, "{\"path\":\"\"}", 502, "velox_unavailable", ONCE),
    ANSWER("a path with another status", 201, "{\"path\":\"%s\"}", 502, "velox_unavailable", ONCE),
    ANSWER("an empty 200", 200, "", 502, "velox_unavailable", ONCE),
    ANSWER("a page", 200, "<html>hello</html>", 502, "velox_unavailable", ONCE),
    ANSWER("no object", 200, "[1]", 502, "velox_unavailable", ONCE),
    ANSWER("half a JSON", 200, "{\"path\":\"/tm", 502, "velox_unavailable", THREE),
    ANSWER("a redirect", 302, "", 502, "velox_unavailable", ONCE),
    ANSWER("not found, a page", 404, "<html>", 502, "velox_unavailable", ONCE),
    ANSWER("forbidden, a page", 403, "<html>", 502, "velox_unavailable", ONCE),
    ANSWER("a 500 page", 500, "<html>", 502, "velox_unavailable", THREE),
    ANSWER("an empty 500", 500, "", 502, "velox_unavailable", THREE),
    ANSWER("a 429 page", 429, "", 502, "velox_unavailable", THREE),
    ANSWER("a 502 page", 502, "<html>", 502, "velox_unavailable", THREE),
    ANSWER("a 503 page", 503, "<html>", 502, "velox_unavailable", THREE),
    ANSWER("a 504 page", 504, "<html>", 502, "velox_unavailable", THREE),
    { "a 503 with Retry-After", VELOX_ANSWERED, 503, "", 5000, 502, "velox_unavailable",
      THREE_SLOW },
    { "a code with Retry-After", VELOX_ANSWERED, 429, CODE("resource_exhausted"), 5000, 502,
      "velox_unavailable", THREE_SLOW },
    ANSWER("unavailable", 503, CODE("unavailable"), 502, "velox_unavailable", THREE),
    ANSWER("aborted", 409, CODE("aborted"), 502, "velox_unavailable", THREE),
    ANSWER("resource_exhausted", 429, CODE("resource_exhausted"), 502, "velox_unavailable", THREE),
    ANSWER("deadline_exceeded", 504, CODE("deadline_exceeded"), 504, "timeout", THREE),
    ANSWER("deadline_exceeded of old", 408, CODE("deadline_exceeded"), 504, "timeout", THREE),
    ANSWER("already_exists", 409, CODE("already_exists"), 504, "timeout", ASKED_ON),
    ANSWER("invalid_argument", 400, CODE("invalid_argument"), 400, "invalid_request", ONCE),
    ANSWER("internal", 500, CODE("internal"), 500, "build_failed", ONCE),
    ANSWER("unknown", 500, CODE("unknown"), 500, "build_failed", ONCE),
    ANSWER("failed_precondition", 400, CODE("failed_precondition"), 500, "build_failed", ONCE),
    ANSWER("not_found", 404, CODE("not_found"), 500, "build_failed", ONCE),
    ANSWER("canceled", 499, CODE("canceled"), 502, "velox_unavailable", ONCE),
    ANSWER("unauthenticated", 401, CODE("unauthenticated"), 502, "velox_unavailable", ONCE),
    ANSWER("permission_denied", 403, CODE("permission_denied"), 502, "velox_unavailable", ONCE),
    ANSWER("unimplemented", 501, CODE("unimplemented"), 502, "velox_unavailable", ONCE),
    ANSWER("out_of_range", 400, CODE("out_of_range"), 502, "velox_unavailable", ONCE),
    ANSWER("data_loss", 500, CODE("data_loss"), 502, "velox_unavailable", ONCE),
    ANSWER("an unknown code, 503", 503, CODE("new_code"), 502, "velox_unavailable", THREE),
    ANSWER("an unknown code, 400", 400, CODE("new_code"), 502, "velox_unavailable", ONCE),
    LOST("not connected", VELOX_NOT_CONNECTED, 502, "velox_unavailable", THREE),
    LOST("cut", VELOX_CUT, 502, "velox_unavailable", THREE),
    LOST("timed out", VELOX_TIMED_OUT, 504, "timeout", THREE),
    LOST("too large", VELOX_TOO_LARGE, 502, "velox_unavailable", ONCE),
    LOST("no HTTP", VELOX_NOT_HTTP, 502, "velox_unavailable", ONCE),
    LOST("out of memory", VELOX_OUT_OF_MEMORY, 503, "busy", ONCE),
};

#define ROWS (sizeof(rows) / sizeof(rows[0]))

/* When POST number n goes out, counted from 0, if the course has one of that number. */
static uint64_t post_at_ms(enum course course, size_t n)
{
    static const uint64_t growing[] = { 0, DELAY_MS + 1000, 2 * DELAY_MS + 3000 };

    switch (course) {
    case THREE:
        return growing[n];
    case THREE_SLOW:
        return n * (DELAY_MS + 5000);
    case ASKED_ON:
        return n * (DELAY_MS + 10000);
    default:
        return 0;
    }
}

static void expect_posts(const struct sim *sim, const struct row *row, uint64_t ended_at_ms)
{
    size_t count = row->course == ONCE ? 1 : row->course == ASKED_ON ? sim->velox.post_count : 3;

    sim_expect_number(sim->velox.post_count, count);
    for (size_t i = 0; i < count && i < sim->velox.post_count; i++) {
        sim_expect_number(sim->velox.posts[i].at_ms - LOOP_MANUAL_BEGIN_MS,
                          post_at_ms(row->course, i));
    }
    if (row->course == ASKED_ON) {
        sim_expect_number(count, 30);
        sim_expect_number(ended_at_ms, 300000);
    } else {
        sim_expect_number(ended_at_ms, post_at_ms(row->course, count - 1) + DELAY_MS);
    }
}

static void play(struct sim *sim)
{
    const struct row *row = &rows[sim->number];
    char body[1024];
    struct velox_reply reply = {
        .transport = row->transport,
        .status = row->http_status,
        .retry_after_ms = row->retry_after_ms,
        .detail = span_of_string("the scripted transport"),
    };
    struct sim_front *front = sim_connect(sim);
    const char *path = strstr(row->body, "%s");
    struct sim_step step;

    (void)snprintf(body, sizeof(body), "%.*s%s%s",
                   path == NULL ? (int)strlen(row->body) : (int)(path - row->body), row->body,
                   path == NULL ? "" : sim->artifact_path, path == NULL ? "" : path + 2);
    reply.body = span_of_string(body);
    step = step_reply(DELAY_MS, &reply);
    sim_velox_step(&sim->velox, &step);
    sim_begin_build(sim, front, true);
    sim_pass(sim, 300000);
    if (row->status == 200) {
        expect_artifact(sim, front);
    } else {
        expect_failure(front, row->status, row->error);
    }
    expect_posts(sim, row, front->ended_at_ms);
}

int main(void)
{
    struct scenario scenarios[ROWS];

    for (unsigned i = 0; i < ROWS; i++) {
        scenarios[i] = (struct scenario){ rows[i].name, NULL, play, i };
    }
    return sim_main("sim_answers", scenarios, ROWS);
}
