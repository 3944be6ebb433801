/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

/*
 * A whole sidecar in one thread with a clock of its own: relays and builder on simulated loops,
 * between scripted web servers, PHP-FPM children and a scripted Velox. A scenario is played once as
 * it is, and then again with the first, the second, … allocation failing until it passes untouched.
 */

#include "sidecar/build/cache.h"
#include "sidecar/relay/limit.h"
#include "sidecar/relay/relay.h"
#include "tests/sim/faults.h"
#include "tests/sim/loop_manual.h"
#include "tests/sim/sim_front.h"
#include "tests/sim/sim_velox.h"
#include "tests/sim/sim_worker.h"

#define SIM_RELAYS_MAX 2
#define SIM_FRONTS_MAX 512
#define SIM_WORKERS_MAX 512
#define SIM_FILLERS_MAX 32
/* More than a socket takes for a front that does not read (2 MiB, sidecar/relay/deliver.c). */
#define SIM_UNSENDABLE 3000001

struct sim_relay {
    struct loop *loop;
    struct relay *relay;
    struct stats stats;
    int listeners[2]; /* FastCGI, SCGI */
    bool is_drained;
    uint64_t drained_at_ms; /* since the begin */
};

struct sim {
    /* May be changed by a scenario's adjust. */
    struct relay_options relay_options;
    struct build_options build_options;
    struct velox_server servers[3];
    unsigned relay_count;
    unsigned front_limit;
    int fpm_backlog; /* -1: no PHP-FPM listens */
    size_t artifact_size;

    struct limit front_places; /* of which there are front_limit */
    struct limit limit;        /* in use where worker_max_connections is set */
    struct status_board board; /* the page is on where status_path is set */
    const struct stats *blocks[SIM_RELAYS_MAX + 1];
    _Atomic(struct survey *) surveys[SIM_RELAYS_MAX];
    struct sim_relay relays[SIM_RELAYS_MAX];
    struct loop *builder_loop;
    struct builder *builder;
    struct stats builder_stats;
    struct loop *cache_loop; /* NULL, as is the next, unless build_options.cache.enabled */
    struct cache *cache;
    struct stats cache_stats;
    bool is_cache_stuck; /* its thread waits for the disk */
    struct sim_velox velox;
    struct log log;
    int log_fd;
    char folder[64];
    char artifact_path[96];
    char cache_folder[96];
    struct buf artifact; /* what is in it */
    char *roots[1];
    struct sock_address fpm_address;
    int fpm_listener;
    struct sim_front *fronts[SIM_FRONTS_MAX];
    size_t front_count;
    struct sim_worker *workers[SIM_WORKERS_MAX];
    size_t worker_count;
    uint64_t now_ms; /* since the begin */
    unsigned number; /* of the scenario */
    int fillers[SIM_FILLERS_MAX];
    size_t filler_count;
    /* Called in each round; true when it did anything. */
    bool (*on_round)(struct sim *sim);
    void *script; /* of on_round */
};

struct scenario {
    const char *name;
    void (*adjust)(struct sim *sim); /* or NULL */
    void (*play)(struct sim *sim);
    unsigned number; /* sim->number, where one play serves several scenarios */
};

/* Runs the scenarios as a group of cmocka tests; what main returns. */
int sim_main(const char *group, const struct scenario *scenarios, size_t count);

/* Before the first sim_play, where sim_main is not used. */
void sim_prepare(void);
/*
 * For tests that play by other rules than sim_main's: once, with allocation number fault failing
 * (from 1; 0: none). True: it has failed. Checks that neither descriptors nor memory are lost.
 */
bool sim_play(const struct scenario *scenario, unsigned fault);

struct sim *sim_start(void (*adjust)(struct sim *sim));
/* Everybody leaves, then the sidecar ends; checks that nothing of it stays. */
void sim_stop(struct sim *sim);

/* Goes on until nothing happens any more, in no time. */
void sim_run(struct sim *sim);
/* Lets delay_ms pass, from one timer that is due to the next. */
void sim_pass(struct sim *sim, uint64_t delay_ms);
/* Where an allocation has failed, things may have begun later: gives builds the time to end. */
void sim_settle(struct sim *sim);

struct sim_front *sim_connect(struct sim *sim);
struct sim_front *sim_connect_to(struct sim *sim, unsigned relay);
struct sim_front *sim_connect_scgi(struct sim *sim);
/* Without letting the relay accept it yet. */
struct sim_front *sim_open(struct sim *sim, unsigned relay);
/* The next connection that PHP-FPM's listener holds. NULL, and a failed test where no allocation
 * has failed, if there is none. */
struct sim_worker *sim_accept(struct sim *sim);
/* The same, and NULL is no failure. */
struct sim_worker *sim_try_accept(struct sim *sim);
void sim_expect_no_worker(struct sim *sim);
/* A GET whose answer asks for a build; its worker, which has said all of it. */
struct sim_worker *sim_begin_build(struct sim *sim, struct sim_front *front, bool keep);

/* Fills PHP-FPM's backlog to the brim, and empties it again. */
void sim_fill_backlog(struct sim *sim);
void sim_empty_backlog(struct sim *sim);

void sim_drain(struct sim *sim);
void sim_cut(struct sim *sim);

uint64_t sim_relay_stat(const struct sim *sim, enum statistic statistic);
uint64_t sim_builder_stat(const struct sim *sim, enum statistic statistic);
uint64_t sim_cache_stat(const struct sim *sim, enum statistic statistic);

/* A script's expectation: must hold, unless an allocation has failed. */
#define sim_expect(condition)                                                                      \
    do {                                                                                           \
        if (!(condition) && !faults_have_struck()) {                                               \
            fail_msg("%s", #condition);                                                            \
        }                                                                                          \
    } while (0)
#define sim_expect_number(number, expected)                                                        \
    do {                                                                                           \
        if (!faults_have_struck()) {                                                               \
            assert_int_equal(number, expected);                                                    \
        }                                                                                          \
    } while (0)

/*
 * What a front has got. Where an allocation has failed, a 503 or a closed connection will do too,
 * but nothing else, and an answer that never comes will not.
 */
void expect_answer(const struct sim_front *front, const char *stdout_content);
void expect_answer_span(const struct sim_front *front, struct span stdout_content);
void expect_failure(const struct sim_front *front, unsigned status, const char *error);
void expect_artifact(const struct sim *sim, const struct sim_front *front);
/* Closed without END_REQUEST, after exactly these bytes. */
void expect_cut(const struct sim_front *front, const char *stdout_content);
/* Nothing yet: the request goes on. */
void expect_nothing(const struct sim_front *front);

/* PHP's answers: an ordinary page, and one that asks for a build. */
#define PAGE "Content-type: text/html\r\n\r\n<p>Hello</p>"
#define BUILD_HEAD "X-Velox-Build: 1\r\nSet-Cookie: a=b\r\nContent-type: application/json\r\n\r\n"
#define BUILD_JSON                                                                                 \
    "{\"request_id\":\"r-1\",\"rr_version\":\"v2025.1.0\",\"plugins\":[{\"module_name\":"          \
    "\"github.com/roadrunner-server/http/v5\",\"tag\":\"v5.0.1\"}],\"target_platform\":"           \
    "{\"os\":\"linux\",\"arch\":\"amd64\"}}"
#define BUILD_ANSWER BUILD_HEAD BUILD_JSON

#endif
