/* SPDX-License-Identifier: MIT */
/*
 * Plays scenarios and judges answers. It must never call an answer right that a client could take
 * for whole and that is not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/sim/sim.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#define SCENARIOS_MAX 64
/* More allocations than any scenario makes. */
#define FAULTS_MAX 20000

/* ---- answers --------------------------------------------------------------------------------- */

static bool begins_with(struct span span, const char *text)
{
    return span.len >= strlen(text) && memcmp(span.ptr, text, strlen(text)) == 0;
}

static bool contains(struct span span, const char *text)
{
    return memmem(span.ptr == NULL ? (const void *)"" : span.ptr, span.len, text, strlen(text)) !=
           NULL;
}

static bool is_failure(const struct sim_front *front, unsigned status, const char *error)
{
    struct span answer = buf_span(&front->stdout_);
    char line[32];
    char member[64];

    snprintf(line, sizeof(line), "Status: %u ", status);
    snprintf(member, sizeof(member), "\"error\": \"%s\"", error);
    return front->has_answer && begins_with(answer, line) && contains(answer, member) &&
           front->end.protocol_status == FCGI_REQUEST_COMPLETE;
}

/* Whether an allocation has failed and this is how it may end. */
static bool is_excused(const struct sim_front *front)
{
    if (!faults_have_struck()) {
        return false;
    }
    if (front->is_scgi) {
        return front->stream.has_ended; /* which cannot be told from a cut */
    }
    return front->has_answer ? is_failure(front, 503, "busy") : front->stream.has_ended;
}

static bool is_answer(const struct sim_front *front, struct span stdout_content)
{
    return front->has_answer && span_equal(buf_span(&front->stdout_), stdout_content);
}

static void tell(const struct sim_front *front)
{
    struct span answer = buf_span(&front->stdout_);

    print_error("front has %s%s, %zu bytes: %.*s\n",
                front->has_answer ? "an answer" : "no END_REQUEST",
                front->stream.has_ended ? ", closed" : "", answer.len,
                (int)(answer.len < 600 ? answer.len : 600), (const char *)answer.ptr);
}

static void judge(const struct sim_front *front, bool is_right)
{
    if (!is_right && !is_excused(front)) {
        tell(front);
        fail();
    }
}

void expect_answer_span(const struct sim_front *front, struct span stdout_content)
{
    judge(front, is_answer(front, stdout_content));
}

void expect_answer(const struct sim_front *front, const char *stdout_content)
{
    expect_answer_span(front, span_of_string(stdout_content));
}

void expect_failure(const struct sim_front *front, unsigned status, const char *error)
{
    judge(front, is_failure(front, status, error));
}

static bool is_artifact(const struct sim *sim, const struct sim_front *front)
{
    struct span answer = buf_span(&front->stdout_);
    const uint8_t *end = answer.len == 0 ? NULL : memmem(answer.ptr, answer.len, "\r\n\r\n", 4);
    char length[64];

    if (!front->has_answer || end == NULL || !begins_with(answer, "Status: 200 OK\r\n")) {
        return false;
    }
    snprintf(length, sizeof(length), "Content-Length: %zu\r\n", buf_length(&sim->artifact));
    span_skip(&answer, (size_t)(end - answer.ptr) + 4);
    return contains(buf_span(&front->stdout_), length) &&
           span_equal(answer, buf_span(&sim->artifact));
}

void expect_artifact(const struct sim *sim, const struct sim_front *front)
{
    judge(front, is_artifact(sim, front));
}

void expect_cut(const struct sim_front *front, const char *stdout_content)
{
    judge(front, !front->has_answer && front->stream.has_ended &&
                     span_is(buf_span(&front->stdout_), stdout_content));
}

void expect_nothing(const struct sim_front *front)
{
    judge(front,
          !front->has_answer && !front->stream.has_ended && buf_length(&front->stdout_) == 0);
}

/* ---- playing --------------------------------------------------------------------------------- */

static unsigned count_descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    unsigned count = 0;

    assert_non_null(folder);
    while (readdir(folder) != NULL) {
        count++;
    }
    closedir(folder);
    return count;
}

bool sim_play(const struct scenario *scenario, unsigned fault)
{
    unsigned descriptors = count_descriptors();
    long blocks = faults_live_blocks();
    struct sim *sim = sim_start(scenario->adjust);
    bool struck;

    sim->number = scenario->number;
    faults_arm(fault);
    scenario->play(sim);
    sim_stop(sim);
    struck = faults_have_struck();
    faults_arm(0);
    assert_int_equal(count_descriptors(), descriptors);
    assert_int_equal(faults_live_blocks(), blocks);
    return struck;
}

static void test_scenario(void **state)
{
    sim_play(*state, 0);
}

static unsigned first_fault(void)
{
    const char *first = getenv("SIM_FAULT");

    return first == NULL ? 1 : (unsigned)atoi(first);
}

static void test_faults(void **state)
{
    bool verbose = getenv("SIM_VERBOSE") != NULL;
    unsigned fault;

    for (fault = first_fault(); fault < FAULTS_MAX; fault++) {
        if (verbose) {
            print_message("fault %u\n", fault);
        }
        if (!sim_play(*state, fault)) {
            break;
        }
    }
    assert_true(fault < FAULTS_MAX);
}

void sim_prepare(void)
{
    /* The linker makes these the allocator in between. */
    cJSON_Hooks hooks = { .malloc_fn = malloc, .free_fn = free };

    cJSON_InitHooks(&hooks);
    (void)signal(SIGPIPE, SIG_IGN); /* as the daemon does; sendfile knows no flag for it */
}

int sim_main(const char *group, const struct scenario *scenarios, size_t count)
{
    static const char suffix[] = ", allocations failing";
    struct CMUnitTest tests[2 * SCENARIOS_MAX];
    char names[SCENARIOS_MAX][100];
    size_t used = 0;

    assert_true(count <= SCENARIOS_MAX);
    sim_prepare();
    for (size_t i = 0; i < count; i++) {
        void *state = (void *)(uintptr_t)&scenarios[i];

        tests[used++] = (struct CMUnitTest){ scenarios[i].name, test_scenario, NULL, NULL, state };
        snprintf(names[i], sizeof(names[i]), "%s%s", scenarios[i].name, suffix);
        tests[used++] = (struct CMUnitTest){ names[i], test_faults, NULL, NULL, state };
    }
    return _cmocka_run_group_tests(group, tests, used, NULL, NULL);
}
