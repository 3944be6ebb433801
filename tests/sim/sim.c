/* SPDX-License-Identifier: MIT */
/*
 * Setting up, running and ending a simulated sidecar. It must never let time pass while anything
 * can still happen, nor let a failed allocation hit the scripts themselves.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/sim/sim.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define ROUNDS_MAX 10000000
/* Longer than a relay rests when it has no memory for another connection. */
#define ACCEPT_PAUSE_MS 200
#define ARTIFACT_SIZE ((size_t)300 * 1000 + 7)

static char nothing[] = "";

static void set_options(struct sim *sim)
{
    sim->relay_options = (struct relay_options){
        .idle_timeout_ms = 600000,
        .header_timeout_ms = 10000,
        .max_params_size = 256 * 1024,
        .addresses = &sim->fpm_address,
        .address_count = 1,
        .connect_timeout_ms = 5000,
        .queue_timeout_ms = 10000,
        .max_spooled_body = 1 << 30,
        .spool_directory = sim->folder,
        .max_response_head = 64 * 1024,
        .finish_timeout_ms = 10000,
        .intercept = true,
        .max_request_size = 1024 * 1024,
        .accel_prefix = nothing,
        .chunk_size = 1024 * 1024,
        .status_path = nothing,
        .ping_path = nothing,
        .ping_response = nothing,
    };
    sim->build_options = (struct build_options){
        .servers = sim->servers,
        .server_count = 1,
        .build_timeout_ms = 300000,
        .request_timeout_ms = 180000,
        .max_queued_builds = 1000,
        .on_client_abort = CLIENT_ABORT_CANCEL,
        .failure_ttl_ms = 10000,
        .token_file = nothing,
        .ca_file = nothing,
        .retry = { .max_attempts = 3,
                   .initial_delay_ms = 1000,
                   .max_delay_ms = 10000,
                   .multiplier = 2.0 },
        .policy = { .max_plugins = 200 },
        .artifact = { .roots = { sim->roots, 1 }, .url = nothing },
        .cache = { .directory = sim->cache_folder,
                   .max_age_mutable_ms = 600000,
                   .cleanup_interval_ms = 3600000,
                   .access_update_interval_ms = 300000 },
    };
    for (size_t i = 0; i < 3; i++) {
        sim->servers[i] = (struct velox_server){ .url = nothing, .unix_socket = nothing };
    }
}

static void write_artifact(struct sim *sim)
{
    uint64_t seed = 1;
    uint8_t *room;
    int fd;

    snprintf(sim->artifact_path, sizeof(sim->artifact_path), "%s/rr", sim->folder);
    buf_init(&sim->artifact, sim->artifact_size);
    assert_int_equal(buf_reserve(&sim->artifact, sim->artifact_size, &room), 0);
    for (size_t i = 0; i < sim->artifact_size; i++) {
        room[i] = (uint8_t)(i % 8 == 0 ? draw(&seed, 256) : room[i - 1] * 5u + 1);
    }
    buf_commit(&sim->artifact, sim->artifact_size);
    fd = open(sim->artifact_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, room, sim->artifact_size), sim->artifact_size);
    close(fd);
}

static void socket_path(const struct sim *sim, const char *name, unsigned index,
                        struct sock_address *address)
{
    char text[100];

    snprintf(text, sizeof(text), "unix:%s/%s%u", sim->folder, name, index);
    assert_int_equal(sock_address_parse(text, address), 0);
}

static int listen_at(const struct sim *sim, const char *name, unsigned index, int backlog)
{
    struct sock_address address;
    int fd;

    socket_path(sim, name, index, &address);
    fd = sock_listen(&address, backlog);
    assert_true(fd >= 0);
    return fd;
}

static void on_drained(struct relay *relay, void *owner)
{
    struct sim *sim = owner;

    for (unsigned i = 0; i < sim->relay_count; i++) {
        if (sim->relays[i].relay == relay) {
            assert_false(sim->relays[i].is_drained);
            sim->relays[i].is_drained = true;
            sim->relays[i].drained_at_ms = sim->now_ms;
        }
    }
}

static void start_relay(struct sim *sim, unsigned index)
{
    struct sim_relay *made = &sim->relays[index];
    struct relay_init init = {
        .options = &sim->relay_options,
        .version = "0.0.1",
        .index = index,
        .fronts = &sim->front_places,
        .limit = sim->relay_options.worker_max_connections > 0 ? &sim->limit : NULL,
        .builder = sim->builder,
        .board = &sim->board,
        .policy = &sim->build_options.policy,
        .log = &sim->log,
        .stats = &made->stats,
        .listeners = made->listeners,
        .listener_count = 2,
        .scgi_count = 1,
        .on_drained = on_drained,
        .owner = sim,
    };

    made->listeners[0] = listen_at(sim, "front", index, 64);
    made->listeners[1] = listen_at(sim, "scgi", index, 64);
    assert_int_equal(loop_new(&made->loop), 0);
    init.loop = made->loop;
    assert_int_equal(relay_new(&made->relay, &init), 0);
}

static void set_board(struct sim *sim)
{
    sim->blocks[0] = &sim->builder_stats;
    for (unsigned i = 0; i < sim->relay_count; i++) {
        sim->blocks[i + 1] = &sim->relays[i].stats;
    }
    sim->board = (struct status_board){
        .version = "0.0.1",
        .workers = &sim->limit,
        .blocks = sim->blocks,
        .block_count = sim->relay_count + 1,
        .surveys = sim->surveys,
        .survey_count = sim->relay_count,
    };
}

static void start_cache(struct sim *sim)
{
    if (!sim->build_options.cache.enabled) {
        return;
    }
    assert_int_equal(loop_new(&sim->cache_loop), 0);
    assert_int_equal(cache_new(&sim->cache, sim->cache_loop, &sim->build_options.cache, &sim->log,
                               &sim->cache_stats),
                     0);
    assert_int_equal(builder_use_cache(sim->builder, sim->cache), 0);
}

struct sim *sim_start(void (*adjust)(struct sim *sim))
{
    struct sim *sim = calloc(1, sizeof(*sim));

    assert_non_null(sim);
    strcpy(sim->folder, "/tmp/velox-sim-XXXXXX");
    assert_non_null(mkdtemp(sim->folder));
    sim->roots[0] = sim->folder;
    snprintf(sim->cache_folder, sizeof(sim->cache_folder), "%s/cache", sim->folder);
    sim->relay_count = 1;
    sim->front_limit = 1000;
    sim->fpm_backlog = 64;
    sim->artifact_size = ARTIFACT_SIZE;
    set_options(sim);
    socket_path(sim, "fpm", 0, &sim->fpm_address);
    sim->log_fd = getenv("SIM_LOG") != NULL ? dup(2) : memfd_create("log", MFD_CLOEXEC);
    log_init(&sim->log, sim->log_fd, LOG_DEBUG, LOG_TEXT);
    assert_int_equal(loop_new(&sim->builder_loop), 0);
    sim_velox_init(&sim->velox, sim->builder_loop);
    if (adjust != NULL) {
        adjust(sim);
    }
    write_artifact(sim);
    sim->fpm_listener = sim->fpm_backlog < 0 ? -1 : listen_at(sim, "fpm", 0, sim->fpm_backlog);
    assert_int_equal(builder_new_with_client(&sim->builder, sim->builder_loop, &sim->build_options,
                                             &sim->log, &sim->builder_stats, &sim->velox.client),
                     0);
    start_cache(sim);
    limit_init(&sim->front_places, sim->front_limit);
    limit_init(&sim->limit, (unsigned)sim->relay_options.worker_max_connections);
    set_board(sim);
    for (unsigned i = 0; i < sim->relay_count; i++) {
        start_relay(sim, i);
    }
    return sim;
}

/* ---- time ------------------------------------------------------------------------------------ */

/* Also fires what is due now: a timer of no time needs no time to pass. */
static bool turn(struct loop *loop, uint64_t now_ms)
{
    bool any = loop_manual_turn(loop);
    uint64_t due_ms;

    if (loop_manual_next_due(loop, &due_ms) && due_ms <= LOOP_MANUAL_BEGIN_MS + now_ms) {
        loop_manual_advance(loop, LOOP_MANUAL_BEGIN_MS + now_ms);
        any = true;
    }
    return any;
}

static bool turn_loops(struct sim *sim)
{
    bool any = false;

    faults_run(true);
    for (unsigned i = 0; i < sim->relay_count; i++) {
        any |= turn(sim->relays[i].loop, sim->now_ms);
    }
    any |= turn(sim->builder_loop, sim->now_ms);
    if (sim->cache != NULL && !sim->is_cache_stuck) {
        any |= turn(sim->cache_loop, sim->now_ms);
    }
    faults_run(false);
    return any;
}

static bool move_peers(struct sim *sim)
{
    bool any = false;

    for (size_t i = 0; i < sim->front_count; i++) {
        any |= front_move(sim->fronts[i], sim->now_ms);
    }
    for (size_t i = 0; i < sim->worker_count; i++) {
        any |= worker_move(sim->workers[i], sim->now_ms);
    }
    return any;
}

void sim_run(struct sim *sim)
{
    for (unsigned rounds = 0; rounds < ROUNDS_MAX; rounds++) {
        bool any = move_peers(sim);

        any |= turn_loops(sim);
        any |= sim->on_round != NULL && sim->on_round(sim);
        if (!any) {
            return;
        }
    }
    fail_msg("something goes round in circles");
}

static void next_due(const struct loop *loop, uint64_t *due_ms)
{
    uint64_t due;

    if (loop_manual_next_due(loop, &due) && due - LOOP_MANUAL_BEGIN_MS < *due_ms) {
        *due_ms = due - LOOP_MANUAL_BEGIN_MS;
    }
}

static void move_clock(struct sim *sim, uint64_t now_ms)
{
    sim->now_ms = now_ms;
    faults_run(true);
    for (unsigned i = 0; i < sim->relay_count; i++) {
        loop_manual_advance(sim->relays[i].loop, LOOP_MANUAL_BEGIN_MS + now_ms);
    }
    loop_manual_advance(sim->builder_loop, LOOP_MANUAL_BEGIN_MS + now_ms);
    if (sim->cache != NULL && !sim->is_cache_stuck) {
        loop_manual_advance(sim->cache_loop, LOOP_MANUAL_BEGIN_MS + now_ms);
    }
    faults_run(false);
}

void sim_pass(struct sim *sim, uint64_t delay_ms)
{
    uint64_t until_ms = sim->now_ms + delay_ms;

    sim_run(sim);
    while (sim->now_ms < until_ms) {
        uint64_t due_ms = until_ms;

        for (unsigned i = 0; i < sim->relay_count; i++) {
            next_due(sim->relays[i].loop, &due_ms);
        }
        next_due(sim->builder_loop, &due_ms);
        if (sim->cache != NULL && !sim->is_cache_stuck) {
            next_due(sim->cache_loop, &due_ms);
        }
        move_clock(sim, due_ms);
        sim_run(sim);
    }
}

void sim_settle(struct sim *sim)
{
    if (faults_have_struck()) {
        sim_pass(sim, sim->build_options.build_timeout_ms);
    }
}

/* ---- peers ----------------------------------------------------------------------------------- */

static struct sim_front *open_front(struct sim *sim, const char *name, unsigned relay)
{
    struct sim_front *front = calloc(1, sizeof(*front));
    struct sock_address address;
    int fd;

    assert_non_null(front);
    assert_true(sim->front_count < SIM_FRONTS_MAX);
    socket_path(sim, name, relay, &address);
    assert_int_equal(sock_connect(&address, &fd), 0);
    front_open(front, fd);
    sim->fronts[sim->front_count++] = front;
    return front;
}

static void let_accept(struct sim *sim)
{
    sim_run(sim);
    if (faults_have_struck()) {
        sim_pass(sim, ACCEPT_PAUSE_MS); /* it may have been accepting that failed */
    }
}

struct sim_front *sim_open(struct sim *sim, unsigned relay)
{
    return open_front(sim, "front", relay);
}

struct sim_front *sim_connect_to(struct sim *sim, unsigned relay)
{
    struct sim_front *front = sim_open(sim, relay);

    let_accept(sim);
    return front;
}

struct sim_front *sim_connect_scgi(struct sim *sim)
{
    struct sim_front *front = open_front(sim, "scgi", 0);

    front->is_scgi = true;
    let_accept(sim);
    return front;
}

struct sim_front *sim_connect(struct sim *sim)
{
    return sim_connect_to(sim, 0);
}

struct sim_worker *sim_try_accept(struct sim *sim)
{
    int fd = accept4(sim->fpm_listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct sim_worker *worker;

    if (fd < 0) {
        return NULL;
    }
    worker = calloc(1, sizeof(*worker));
    assert_non_null(worker);
    assert_true(sim->worker_count < SIM_WORKERS_MAX);
    worker_open(worker, fd);
    sim->workers[sim->worker_count++] = worker;
    return worker;
}

struct sim_worker *sim_accept(struct sim *sim)
{
    struct sim_worker *worker;

    sim_run(sim);
    worker = sim_try_accept(sim);
    sim_expect(worker != NULL);
    if (worker != NULL) {
        sim_run(sim);
    }
    return worker;
}

void sim_expect_no_worker(struct sim *sim)
{
    sim_run(sim);
    assert_null(sim_try_accept(sim));
}

struct sim_worker *sim_begin_build(struct sim *sim, struct sim_front *front, bool keep)
{
    struct sim_worker *worker;

    front_get(front, keep);
    worker = sim_accept(sim);
    worker_answer(worker, BUILD_ANSWER);
    sim_run(sim);
    return worker;
}

void sim_fill_backlog(struct sim *sim)
{
    int fd;

    while (sock_connect(&sim->fpm_address, &fd) == 0) {
        assert_true(sim->filler_count < SIM_FILLERS_MAX);
        sim->fillers[sim->filler_count++] = fd;
    }
}

void sim_empty_backlog(struct sim *sim)
{
    while (sim->filler_count > 0) {
        int fd = accept4(sim->fpm_listener, NULL, NULL, SOCK_CLOEXEC);

        assert_true(fd >= 0);
        close(fd);
        close(sim->fillers[--sim->filler_count]);
    }
}

void sim_drain(struct sim *sim)
{
    for (unsigned i = 0; i < sim->relay_count; i++) {
        relay_drain(sim->relays[i].relay);
    }
    sim_run(sim);
}

void sim_cut(struct sim *sim)
{
    for (unsigned i = 0; i < sim->relay_count; i++) {
        relay_cut(sim->relays[i].relay);
    }
    sim_run(sim);
}

uint64_t sim_relay_stat(const struct sim *sim, enum statistic statistic)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < sim->relay_count; i++) {
        sum += atomic_load(&sim->relays[i].stats.values[statistic]);
    }
    return sum;
}

uint64_t sim_cache_stat(const struct sim *sim, enum statistic statistic)
{
    return atomic_load(&sim->cache_stats.values[statistic]);
}

uint64_t sim_builder_stat(const struct sim *sim, enum statistic statistic)
{
    return atomic_load(&sim->builder_stats.values[statistic]);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void check_gauges(const struct sim *sim)
{
    static const enum statistic gauges[] = { STAT_FRONTS_ACTIVE, STAT_WORKERS_ACTIVE,
                                             STAT_WORKERS_QUEUED, STAT_BUILDS_ACTIVE,
                                             STAT_BUILDS_QUEUED };

    for (size_t i = 0; i < sizeof(gauges) / sizeof(gauges[0]); i++) {
        assert_int_equal(sim_relay_stat(sim, gauges[i]), 0);
        assert_int_equal(sim_builder_stat(sim, gauges[i]), 0);
    }
    assert_int_equal(sim->velox.running, 0);
}

static void free_peers(struct sim *sim)
{
    for (size_t i = 0; i < sim->front_count; i++) {
        front_free(sim->fronts[i]);
        free(sim->fronts[i]);
    }
    for (size_t i = 0; i < sim->worker_count; i++) {
        worker_deinit(sim->workers[i]);
        free(sim->workers[i]);
    }
}

/* What a failed allocation may have left there, too. */
static void remove_cache(struct sim *sim)
{
    DIR *folder = opendir(sim->cache_folder);
    const struct dirent *entry;

    while (folder != NULL && (entry = readdir(folder)) != NULL) {
        (void)unlinkat(dirfd(folder), entry->d_name, 0);
    }
    if (folder != NULL) {
        closedir(folder);
        assert_int_equal(rmdir(sim->cache_folder), 0);
    }
}

static void remove_files(struct sim *sim)
{
    static const char *const names[] = { "rr", "fpm0", "front0", "front1", "scgi0", "scgi1" };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char path[100];

        snprintf(path, sizeof(path), "%s/%s", sim->folder, names[i]);
        (void)unlink(path);
    }
    remove_cache(sim);
    assert_int_equal(rmdir(sim->folder), 0);
}

static void stop_sidecar(struct sim *sim)
{
    sim_drain(sim);
    for (unsigned i = 0; i < sim->relay_count; i++) {
        assert_true(sim->relays[i].is_drained);
    }
    builder_stop(sim->builder);
    for (unsigned i = 0; i < sim->relay_count; i++) {
        relay_free(sim->relays[i].relay);
        if (sim->relays[i].listeners[0] >= 0) {
            close(sim->relays[i].listeners[0]);
        }
        close(sim->relays[i].listeners[1]);
        loop_free(sim->relays[i].loop);
    }
    if (sim->cache != NULL) {
        cache_stop(sim->cache);
    }
    builder_free(sim->builder);
    loop_free(sim->builder_loop);
    if (sim->cache != NULL) {
        cache_free(sim->cache);
        loop_free(sim->cache_loop);
    }
    limit_deinit(&sim->front_places);
    limit_deinit(&sim->limit);
}

void sim_stop(struct sim *sim)
{
    sim->on_round = NULL;
    sim_empty_backlog(sim);
    for (size_t i = 0; i < sim->front_count; i++) {
        stream_close(&sim->fronts[i]->stream);
    }
    /* Longer than any build or worker may go on without a client. */
    sim_pass(sim, sim->build_options.build_timeout_ms + sim->relay_options.finish_timeout_ms +
                      sim->relay_options.connect_timeout_ms);
    check_gauges(sim);
    stop_sidecar(sim);
    free_peers(sim);
    remove_files(sim);
    if (sim->fpm_listener >= 0) {
        close(sim->fpm_listener);
    }
    close(sim->log_fd);
    buf_deinit(&sim->artifact);
    free(sim);
}
