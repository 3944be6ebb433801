/* SPDX-License-Identifier: MIT */
/* Status page and ping: rows of two relays that answer, do not answer, or answer too late. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/sim/sim.h"

#include <stdio.h>

static char status_path[] = "/status";
static char ping_path[] = "/ping";
static char ping_response[] = "pong";

static void with_pages(struct sim *sim)
{
    sim->relay_options.status_path = status_path;
    sim->relay_options.ping_path = ping_path;
    sim->relay_options.ping_response = ping_response;
}

static void with_two_relays(struct sim *sim)
{
    with_pages(sim);
    sim->relay_count = 2;
}

static void ask(struct sim_front *front, const char *path, const char *query, bool keep)
{
    char uri[400];

    snprintf(uri, sizeof(uri), "%s?%s", path, query);
    front_begin(front, 1, keep);
    front_param(front, "REQUEST_METHOD", "GET");
    front_param(front, "QUERY_STRING", query);
    front_param(front, "SCRIPT_NAME", path);
    front_param(front, "REQUEST_URI", uri);
    front_params_end(front);
    front_stdin_end(front);
}

static bool holds(const struct sim_front *front, const char *text)
{
    struct span answer = buf_span(&front->stdout_);

    return answer.len > 0 && memmem(answer.ptr, answer.len, text, strlen(text)) != NULL;
}

static void expect_page(const struct sim_front *front, const char *text)
{
    sim_expect(front->has_answer && holds(front, "Status: 200 OK\r\n") && holds(front, text));
}

/* Nobody looks after the second relay for a while. */
static void hold_second(struct sim *sim, bool hold)
{
    sim->relay_count = hold ? 1 : 2;
}

static void play_figures(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);

    ask(front, "/status", "", true);
    sim_run(sim);
    expect_page(front, "\nfronts active:        1\n");
    ask(front, "/status", "openmetrics&full", true);
    sim_run(sim);
    expect_page(front, "velox_requests_total{kind=\"own\"} 2\n");
    ask(front, "/ping", "", false);
    sim_expect_no_worker(sim);
    expect_page(front, "\r\n\r\npong");
    sim_expect(front->stream.has_ended);
    sim_expect_number(sim_relay_stat(sim, STAT_REQUESTS_OWN), 3);
}

static void play_rows(struct sim *sim)
{
    struct sim_front *waiting[2] = { sim_connect_to(sim, 0), sim_connect_to(sim, 1) };
    struct sim_front *front = sim_connect_to(sim, 1);

    for (unsigned i = 0; i < 2; i++) {
        ask(waiting[i], i == 0 ? "/zero" : "/one", "", false);
        sim_run(sim);
    }
    sim_pass(sim, 1500);
    ask(front, "/status", "json&full", false);
    sim_run(sim);
    sim_expect(front->has_answer);
    expect_page(front, "{\"state\":\"head\",\"age\":1.500,\"request\":\"GET /zero?\",\"build\":"
                       "\"-\",\"bytes\":0}");
    expect_page(front, "{\"state\":\"head\",\"age\":1.500,\"request\":\"GET /one?\"");
    expect_page(front, "{\"state\":\"status\",\"age\":0.000,\"request\":\"GET /status?json&full\"");
    expect_page(front, "\"exchanges shown\":3,\"exchanges left out\":0,\"threads silent\":0,");
}

static void play_build(struct sim *sim)
{
    const struct sim_step step = { .kind = STEP_HANG };
    struct sim_front *building = sim_connect(sim);
    struct sim_front *front = sim_connect(sim);

    sim_velox_step(&sim->velox, &step);
    ask(building, "/build.php", "a=1", false);
    worker_answer(sim_accept(sim), BUILD_ANSWER);
    sim_pass(sim, 2000);
    ask(front, "/status", "json&full", false);
    sim_run(sim);
    expect_page(front, "{\"state\":\"build\",\"age\":2.000,\"request\":\"GET /build.php?a=1\","
                       "\"build\":\"r-1\",\"bytes\":0}");
}

static void play_silent(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);

    hold_second(sim, true);
    ask(front, "/status", "full", true);
    sim_pass(sim, 999);
    sim_expect(!front->has_answer);
    sim_pass(sim, 1);
    expect_page(front, "\nthreads silent:       1\n");
    hold_second(sim, false);
    ask(front, "/status", "full", true);
    sim_run(sim); /* the answer that is late comes too, and is no answer to this */
    expect_page(front, "\nthreads silent:       0\n");
    expect_page(front, "\nexchanges shown:      1\n");
}

static void play_leave(struct sim *sim)
{
    struct sim_front *leaving = sim_connect(sim);
    struct sim_front *aborting = sim_connect(sim);
    struct sim_front *front = sim_connect(sim);

    hold_second(sim, true);
    ask(leaving, "/status", "full", false);
    ask(aborting, "/status", "full", true);
    sim_run(sim);
    stream_close(&leaving->stream);
    front_abort(aborting);
    sim_run(sim);
    sim_expect(aborting->has_answer && buf_length(&aborting->stdout_) == 0);
    hold_second(sim, false);
    sim_run(sim);
    ask(front, "/status", "full", false);
    sim_run(sim);
    expect_page(front, "\nexchanges shown:      1\n");
}

/* Who asks during a round gets the next one, so that he sees what was there when he asked. */
static void play_rounds(struct sim *sim)
{
    struct sim_front *fronts[3];
    struct sim_front *waiting = sim_connect(sim);

    for (unsigned i = 0; i < 3; i++) {
        fronts[i] = sim_connect(sim);
    }
    hold_second(sim, true);
    ask(fronts[0], "/status", "json&full", false);
    sim_run(sim);
    ask(waiting, "/later", "", false);
    sim_run(sim);
    ask(fronts[1], "/status", "json&full", false);
    ask(fronts[2], "/status", "xml&full", false);
    sim_run(sim);
    hold_second(sim, false);
    sim_run(sim);
    expect_page(fronts[0], "\"exchanges shown\":1,");
    expect_page(fronts[1], "\"exchanges shown\":3,");
    expect_page(fronts[2], "<exchanges-shown>3</exchanges-shown>");
}

static void play_drain(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);

    hold_second(sim, true);
    ask(front, "/status", "full", true);
    sim_run(sim);
    relay_drain(sim->relays[0].relay);
    sim_run(sim);
    sim_expect(!sim->relays[0].is_drained);
    hold_second(sim, false);
    sim_run(sim);
    expect_page(front, "\nexchanges shown:      1\n");
    sim_expect(front->stream.has_ended && sim->relays[0].is_drained);
}

static void play_cut(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);

    hold_second(sim, true);
    ask(front, "/status", "full", true);
    sim_run(sim);
    relay_cut(sim->relays[0].relay);
    sim_run(sim);
    assert_true(front->stream.has_ended);
    hold_second(sim, false);
    sim_run(sim);
}

/* A page of several pieces to a front that reads now and then. */
static void play_pieces(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);
    char query[301];

    memset(query, '<', sizeof(query) - 1);
    query[sizeof(query) - 1] = '\0';
    for (unsigned i = 0; i < 40; i++) {
        ask(sim_connect_to(sim, i % 2), "/waits", query, false);
    }
    sim_run(sim);
    front->stream.read_cut.max = 1000;
    ask(front, "/status", "html&full", false);
    sim_run(sim);
    sim_expect(buf_length(&front->stdout_) > (size_t)40 * 256 * strlen("&lt;"));
    expect_page(front, "Exchanges: 41 shown, 0 left out");
    expect_page(front, "</html>\n");
}

static void play_body(struct sim *sim)
{
    struct sim_front *front = sim_connect(sim);

    hold_second(sim, true);
    front_begin(front, 1, true);
    front_param(front, "REQUEST_METHOD", "POST");
    front_param(front, "CONTENT_LENGTH", "10");
    front_param(front, "QUERY_STRING", "json&full");
    front_param(front, "SCRIPT_NAME", "/status");
    front_params_end(front);
    front_stdin(front, span_of_string("01234"));
    sim_run(sim);
    hold_second(sim, false);
    sim_run(sim);
    expect_page(front, "\"request\":\"POST /status\"");
    front_stdin(front, span_of_string("56789"));
    front_stdin_end(front);
    ask(front, "/ping", "", true);
    sim_run(sim);
    expect_page(front, "\r\n\r\npong");
}

static const struct scenario scenarios[] = {
    { "figures, metrics and ping", with_pages, play_figures, 0 },
    { "rows of two relays", with_two_relays, play_rows, 0 },
    { "a row through a build", with_pages, play_build, 0 },
    { "a relay that does not answer", with_two_relays, play_silent, 0 },
    { "who asked leaves", with_two_relays, play_leave, 0 },
    { "who asks meanwhile gets the next round", with_two_relays, play_rounds, 0 },
    { "a drain waits for the page", with_two_relays, play_drain, 0 },
    { "a cut does not", with_two_relays, play_cut, 0 },
    { "a page in pieces", with_two_relays, play_pieces, 0 },
    { "a body is dropped", with_two_relays, play_body, 0 },
};

int main(void)
{
    return sim_main("sim_status", scenarios, sizeof(scenarios) / sizeof(scenarios[0]));
}
