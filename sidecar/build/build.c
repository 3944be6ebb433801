/* SPDX-License-Identifier: MIT */
/*
 * The states of one build. It must never outlive its deadline, never post more often than
 * max_attempts allows, and never tell a client a path or an address of this machine.
 */
#include "sidecar/build/build.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "sidecar/build/backoff.h"
#include "sidecar/build/builder.h"
#include "sidecar/build/json_scan.h"

/* already_exists is asked about again no faster than this, whatever max_delay says. */
#define ASK_AGAIN_MIN_MS 100
/* Of Velox's build_id, for the log. */
#define VELOX_ID_MAX ((size_t)256)

#define EDGE(state) (1u << (state))

static void build_set_state(struct build *build, enum build_state state)
{
    static const unsigned edges[BUILD_STATE_COUNT] = {
        [BUILD_QUEUED] = EDGE(BUILD_ATTEMPT) | EDGE(BUILD_FAILED) | EDGE(BUILD_CANCELLED),
        [BUILD_ATTEMPT] = EDGE(BUILD_BACKOFF) | EDGE(BUILD_OPEN) | EDGE(BUILD_FAILED) |
                          EDGE(BUILD_CANCELLED),
        [BUILD_BACKOFF] = EDGE(BUILD_ATTEMPT) | EDGE(BUILD_FAILED) | EDGE(BUILD_CANCELLED),
        [BUILD_OPEN] = EDGE(BUILD_FETCH) | EDGE(BUILD_KEEP) | EDGE(BUILD_READY) |
                       EDGE(BUILD_FAILED) | EDGE(BUILD_CANCELLED),
        [BUILD_FETCH] = EDGE(BUILD_KEEP) | EDGE(BUILD_READY) | EDGE(BUILD_FAILED) |
                        EDGE(BUILD_CANCELLED),
        [BUILD_KEEP] = EDGE(BUILD_READY) | EDGE(BUILD_CANCELLED),
    };

    assert((edges[build->state] & EDGE(state)) != 0);
    build->state = state;
}

bool build_is_under_way(const struct build *build)
{
    return build->state <= BUILD_KEEP;
}

bool build_may_be_joined(const struct build *build)
{
    return build_is_under_way(build) && !build->is_stream;
}

static uint64_t time_left_ms(const struct build *build)
{
    uint64_t now_ms = loop_now_ms(build->services->loop);

    return build->deadline.due_ms > now_ms ? build->deadline.due_ms - now_ms : 0;
}

/* From 0 up to, not including, 1 (splitmix64: jitter needs no secret). */
static double next_random(struct build_services *services)
{
    uint64_t z = services->random_state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    z ^= z >> 31;
    return (double)(z >> 11) / (double)(UINT64_C(1) << 53);
}

/* Nothing of it may come back any more. */
static void build_quiet(struct build *build)
{
    timer_stop(&build->deadline);
    timer_stop(&build->retry);
    task_stop(&build->end);
    if (build->call != NULL) {
        build->services->client->cancel(build->services->client, build->call);
        build->call = NULL;
    }
    if (build->fetch != NULL) {
        fetch_cancel(build->fetch);
        build->fetch = NULL;
    }
}

/* With the first count fields: those that may be missing come last. */
static void log_some(const struct build *build, enum log_level level, const char *message,
                     const struct log_field *fields, size_t count)
{
    if (log_enabled(build->services->log, level)) {
        log_event(build->services->log, level, message, fields, count);
    }
}

/* ---- the end --------------------------------------------------------------------------------- */

static void build_end(struct build *build, enum build_state state)
{
    build_quiet(build);
    build_set_state(build, state);
    if (state == BUILD_FAILED) {
        build->duration_ms = loop_now_ms(build->services->loop) - build->submitted_ms;
    }
    task_defer(&build->end, build->services->loop);
}

static void on_end_task(struct task *task)
{
    struct build *build = list_entry(task, struct build, end);

    build->on_end(build);
}

/* Adds as much as fits; a message that gets no memory stays shorter. */
static void say_span(struct build *build, struct span text)
{
    size_t room = build->message.max - buf_length(&build->message);

    (void)buf_append_span(&build->message, json_utf8_cut(text, room));
}

static void say(struct build *build, const char *text)
{
    say_span(build, span_of_string(text));
}

/* The message must be there. detail is for the log only. */
static void build_fail(struct build *build, enum failure failure, struct span detail)
{
    build->failure = failure;
    build_end(build, BUILD_FAILED);
    log_some(build, LOG_INFO, "build failed",
             (const struct log_field[]){
                 log_str("request_id", build->request.id),
                 log_str("error", failure_info(failure)->error),
                 log_span("message", buf_span(&build->message)),
                 log_uint("attempts", build->attempts),
                 log_uint("duration_ms", build->duration_ms),
                 log_span("detail", detail),
             },
             detail.len > 0 ? 6 : 5);
}

static void fail_by_deadline(struct build *build, const char *why)
{
    uint64_t timeout_ms = build->services->options->build_timeout_ms;

    say(build, why);
    (void)buf_printf(&build->message, " build_timeout (%" PRIu64 "%s)",
                     timeout_ms % 1000 == 0 ? timeout_ms / 1000 : timeout_ms,
                     timeout_ms % 1000 == 0 ? " s" : " ms");
    build_fail(build, FAILURE_TIMEOUT, span_of("", 0));
}

static void build_deliver(struct build *build)
{
    build->order = 0;
    build_end(build, BUILD_READY);
}

static void on_deadline(struct timer *timer)
{
    struct build *build = list_entry(timer, struct build, deadline);

    if (build->state == BUILD_KEEP) {
        log_warn(build->services->log, "the cache takes too long, the built file is delivered",
                 log_str("request_id", build->request.id));
        build_deliver(build);
        return;
    }
    fail_by_deadline(build, build->state == BUILD_FETCH
                                ? "the built file did not begin to arrive within"
                                : "the build did not end within");
}

static void fail_without_memory(struct build *build)
{
    say(build, "the sidecar is out of memory or descriptors");
    build_fail(build, FAILURE_BUSY, span_of("", 0));
}

/* ---- the artifact ---------------------------------------------------------------------------- */

static void fail_by_artifact(struct build *build, struct span path, enum artifact_result result,
                             int error)
{
    const char *text = artifact_result_text(result);

    log_some(build, LOG_ERROR, "the built file cannot be delivered",
             (const struct log_field[]){
                 log_str("request_id", build->request.id),
                 log_span("file_path", path),
                 log_str("reason", text),
                 log_errno("error", error),
             },
             error != 0 ? 4 : 3);
    if (error == EMFILE || error == ENFILE || error == ENOMEM) {
        fail_without_memory(build);
        return;
    }
    say(build, "Velox has built the file, but the sidecar cannot deliver it: ");
    say(build, text);
    say(build, ". The path is in the sidecar's log; see [artifact] root and path_map");
    build_fail(build, FAILURE_ARTIFACT_UNAVAILABLE, span_of_string(text));
}

static bool is_wanted_by_cache(const struct build *build)
{
    struct cache *cache = build->services->cache;

    return cache != NULL && cache_wants(cache, build->request.is_mutable);
}

/* False: there is nothing to wait for. */
static bool build_keep(struct build *build)
{
    struct build_services *services = build->services;
    int error;

    if (build->artifact.is_stream || !is_wanted_by_cache(build)) {
        return false;
    }
    error = cache_keep(services->cache, &build->request, &build->artifact, services->orders + 1,
                       services->kept_to);
    if (error < 0) {
        log_warn(services->log, "the built file cannot be kept in the cache",
                 log_str("request_id", build->request.id), log_errno("error", error));
        return false;
    }
    build->order = ++services->orders;
    build_set_state(build, BUILD_KEEP);
    return true;
}

void build_on_kept(struct build *build, struct artifact *copy)
{
    if (copy->fd >= 0) {
        artifact_close(&build->artifact);
        build->artifact = *copy;
        copy->fd = -1;
    }
    build_deliver(build);
}

static void build_complete(struct build *build, struct span path, struct span build_id)
{
    build->duration_ms = loop_now_ms(build->services->loop) - build->submitted_ms;
    log_some(build, LOG_INFO, "build completed",
             (const struct log_field[]){
                 log_str("request_id", build->request.id),
                 log_uint("duration_ms", build->duration_ms),
                 log_span("file_path", path),
                 log_uint("file_size", build->artifact.size_bytes),
                 log_uint("attempts", build->attempts),
                 log_span("build_id", build_id),
             },
             build_id.len > 0 ? 6 : 5);
    if (!build_keep(build)) {
        build_deliver(build);
    }
}

/* ---- a file that is not on this machine ------------------------------------------------------ */

/* More than one can have it only when all of it is there. */
static bool wants_file(void *owner)
{
    struct build *build = owner;

    build->is_stream = !is_wanted_by_cache(build) && build->tickets.next == build->tickets.prev;
    return !build->is_stream;
}

static void on_fetched(void *owner, struct artifact artifact)
{
    struct build *build = owner;

    build->fetch = NULL;
    build->artifact = artifact;
    build_complete(build, buf_span(&build->path), buf_span(&build->velox_id));
}

static void on_fetch_failed(void *owner, const struct fetch_failure *failure)
{
    struct build *build = owner;

    build->fetch = NULL;
    log_some(build, LOG_ERROR, "the built file cannot be fetched",
             (const struct log_field[]){
                 log_str("request_id", build->request.id),
                 log_span("file_path", buf_span(&build->path)),
                 log_str("reason", failure->reason),
                 log_uint("status", failure->status),
                 log_span("detail", failure->detail),
             },
             failure->detail.len > 0 ? 5 : 4);
    if (failure->no_memory) {
        fail_without_memory(build);
        return;
    }
    say(build, "Velox has built the file, but the sidecar cannot fetch it: ");
    say(build, failure->reason);
    if (failure->status != 0) {
        (void)buf_printf(&build->message, " (HTTP %u)", failure->status);
    }
    say(build, ". The path is in the sidecar's log; see [artifact] artifact_url");
    build_fail(build, FAILURE_ARTIFACT_UNAVAILABLE, failure->detail);
}

/* Whether a path that could not be opened is to be looked for at the source: it would be allowed
 * here, but there is nothing of that name. */
static bool is_elsewhere(const struct build *build, enum artifact_result result, int error,
                         struct span path)
{
    char text[PATH_MAX];

    return build->services->fetcher != NULL && result == ARTIFACT_MISSING && error == ENOENT &&
           artifact_path_text(path, text) && text[strlen(text) - 1] != '/';
}

static void build_fetch(struct build *build, struct span path, struct span build_id)
{
    static const struct fetch_events events = {
        .wants_file = wants_file,
        .on_ready = on_fetched,
        .on_failed = on_fetch_failed,
    };

    build_set_state(build, BUILD_FETCH);
    build_id = span_take(&build_id, VELOX_ID_MAX);
    log_debug(build->services->log, "the built file is fetched",
              log_str("request_id", build->request.id), log_span("file_path", path));
    if (buf_append_span(&build->path, path) < 0 ||
        buf_append_span(&build->velox_id, build_id) < 0 ||
        fetch_start(build->services->fetcher, path, build->request.id, &events, build,
                    &build->fetch) < 0) {
        build->fetch = NULL;
        fail_without_memory(build);
    }
}

static void build_open(struct build *build, const struct velox_answer *answer)
{
    enum artifact_result result;
    int error;

    build_set_state(build, BUILD_OPEN);
    result = artifact_open(&build->services->options->artifact, answer->path, &build->artifact,
                           &error);
    if (is_elsewhere(build, result, error, answer->path)) {
        build_fetch(build, answer->path, answer->build_id);
    } else if (result != ARTIFACT_OPENED) {
        fail_by_artifact(build, answer->path, result, error);
    } else {
        build_complete(build, answer->path, answer->build_id);
    }
}

/* ---- attempts -------------------------------------------------------------------------------- */

static void on_answer(void *waiter, const struct velox_answer *answer);

static const char *server_name(const struct build *build)
{
    const struct velox_server *server = &build->services->options->servers[build->server];

    return server->unix_socket[0] != '\0' ? server->unix_socket : server->url;
}

static void build_attempt(struct build *build)
{
    const struct build_options *options = build->services->options;
    struct velox_client *client = build->services->client;
    uint64_t timeout_ms = time_left_ms(build);

    /* Without a limit of its own the request has the build's. */
    if (options->request_timeout_ms > 0 && timeout_ms > options->request_timeout_ms) {
        timeout_ms = options->request_timeout_ms;
    }
    build_set_state(build, BUILD_ATTEMPT);
    build->attempts++;
    log_debug(build->services->log, "build attempt", log_str("request_id", build->request.id),
              log_uint("attempt", build->attempts), log_str("server", server_name(build)));
    if (client->start(client, build->server, buf_span(&build->request.body), timeout_ms, on_answer,
                      build, &build->call) < 0) {
        build->call = NULL;
        fail_without_memory(build);
    }
}

/* A server that told when to come back is not asked before: libevent's clock is coarse, so a timer
 * may come some milliseconds early. */
static void on_retry(struct timer *timer)
{
    struct build *build = list_entry(timer, struct build, retry);
    uint64_t now_ms = loop_now_ms(build->services->loop);

    if (now_ms < timer->due_ms && timer_start(timer, timer->due_ms - now_ms) == 0) {
        return;
    }
    build_attempt(build);
}

/* Where the deadline comes first, its timer ends the build. */
static void build_wait(struct build *build, uint64_t delay_ms, const char *reason,
                       const struct velox_answer *answer)
{
    build_set_state(build, BUILD_BACKOFF);
    log_some(build, LOG_INFO, "build retry",
             (const struct log_field[]){
                 log_str("request_id", build->request.id),
                 log_str("reason", reason),
                 log_uint("attempts", build->attempts),
                 log_uint("delay_ms", delay_ms),
                 log_str("server", server_name(build)),
                 log_span("message", answer->message),
                 log_span("detail", answer->detail),
             },
             answer->detail.len > 0 ? 7 : 6);
    if (timer_start(&build->retry, delay_ms) < 0) {
        fail_without_memory(build);
    }
}

static void ask_again(struct build *build, const struct velox_answer *answer)
{
    uint64_t delay_ms = build->services->options->retry.max_delay_ms;

    build->attempts--;
    build_wait(build, delay_ms < ASK_AGAIN_MIN_MS ? ASK_AGAIN_MIN_MS : delay_ms, "already_exists",
               answer);
}

static void fail_by_attempts(struct build *build, const struct velox_answer *answer)
{
    bool all_timed_out = build->timeouts == build->attempts;

    if (build->attempts > 1) {
        (void)buf_printf(&build->message, "%s %u attempts; the last one: ",
                         all_timed_out ? "no answer in time in" : "no usable answer in",
                         build->attempts);
    }
    say_span(build, answer->message);
    build_fail(build, all_timed_out ? FAILURE_TIMEOUT : FAILURE_VELOX_UNAVAILABLE, answer->detail);
}

static void build_retry(struct build *build, const struct velox_answer *answer)
{
    static const enum statistic stats[] = {
        [VELOX_RETRY_CONNECT] = STAT_RETRIES_CONNECT,
        [VELOX_RETRY_CUT] = STAT_RETRIES_CUT,
        [VELOX_RETRY_TIMEOUT] = STAT_RETRIES_TIMEOUT,
        [VELOX_RETRY_HTTP_STATUS] = STAT_RETRIES_HTTP_STATUS,
        [VELOX_RETRY_CODE] = STAT_RETRIES_CODE,
    };
    const struct build_options *options = build->services->options;
    uint64_t delay_ms;

    build->timeouts += answer->is_timeout;
    if (build->attempts >= options->retry.max_attempts) {
        fail_by_attempts(build, answer);
        return;
    }
    delay_ms = backoff_delay_ms(&options->retry, build->attempts, next_random(build->services));
    if (answer->retry_after_ms > delay_ms) {
        delay_ms = answer->retry_after_ms;
    }
    if (delay_ms >= time_left_ms(build)) {
        say_span(build, json_utf8_cut(answer->message, BUILD_MESSAGE_MAX / 2));
        fail_by_deadline(build, "; the next attempt would come after");
        return;
    }
    stats_count(build->services->stats, stats[answer->reason]);
    build_wait(build, delay_ms, velox_retry_reason_name(answer->reason), answer);
    build->server = (build->server + 1) % options->server_count;
}

static void fail_by_answer(struct build *build, enum failure failure,
                           const struct velox_answer *answer)
{
    say_span(build, answer->message);
    build_fail(build, failure, answer->detail);
}

static void on_answer(void *waiter, const struct velox_answer *answer)
{
    struct build *build = waiter;

    build->call = NULL;
    switch (answer->outcome) {
    case VELOX_BUILT:
        build_open(build, answer);
        break;
    case VELOX_ALREADY_RUNS:
        ask_again(build, answer);
        break;
    case VELOX_RETRY:
        build_retry(build, answer);
        break;
    case VELOX_BUILD_FAILED:
        fail_by_answer(build, FAILURE_BUILD_FAILED, answer);
        break;
    case VELOX_REQUEST_INVALID:
        fail_by_answer(build, FAILURE_REQUEST_INVALID, answer);
        break;
    case VELOX_UNUSABLE:
        fail_by_answer(build, FAILURE_VELOX_UNAVAILABLE, answer);
        break;
    case VELOX_NO_MEMORY:
        fail_without_memory(build);
        break;
    }
}

/* ---- begin and cancel ------------------------------------------------------------------------ */

/* Equal builds start at the same server, whose own cache may know them. */
static size_t first_server(const struct build_request *request, size_t count)
{
    uint64_t number;

    memcpy(&number, request->key, sizeof(number));
    return count == 0 ? 0 : (size_t)(number % count);
}

int build_new(struct build **build, struct build_services *services, struct build_request *request,
              void (*on_end)(struct build *build))
{
    struct build *made = calloc(1, sizeof(*made));

    if (made == NULL) {
        return -ENOMEM;
    }
    made->services = services;
    list_init(&made->link);
    list_init(&made->table_link);
    list_init(&made->tickets);
    made->state = BUILD_QUEUED;
    timer_init(&made->deadline, services->loop, on_deadline);
    timer_init(&made->retry, services->loop, on_retry);
    task_init(&made->end, on_end_task);
    made->submitted_ms = loop_now_ms(services->loop);
    made->on_end = on_end;
    made->artifact.fd = -1;
    buf_init(&made->message, BUILD_MESSAGE_MAX);
    buf_init(&made->path, PATH_MAX);
    buf_init(&made->velox_id, VELOX_ID_MAX);
    if (timer_start(&made->deadline, services->options->build_timeout_ms) < 0) {
        free(made);
        return -ENOMEM;
    }
    made->server = first_server(request, services->options->server_count);
    made->request = *request;
    buf_init(&request->body, 0);
    *build = made;
    return 0;
}

void build_free(struct build *build)
{
    build_quiet(build);
    artifact_close(&build->artifact);
    build_request_deinit(&build->request);
    buf_deinit(&build->message);
    buf_deinit(&build->path);
    buf_deinit(&build->velox_id);
    free(build);
}

void build_start(struct build *build)
{
    const struct build_request *request = &build->request;
    bool host = request->os[0] == '\0';

    build->was_started = true;
    build->started_ms = loop_now_ms(build->services->loop);
    log_some(build, LOG_INFO, "build started",
             (const struct log_field[]){
                 log_str("request_id", request->id),
                 log_str("server", server_name(build)),
                 log_uint("queued_ms", loop_now_ms(build->services->loop) - build->submitted_ms),
                 log_str("os", request->os),
                 log_str("arch", request->arch),
             },
             host ? 3 : 5);
    build_attempt(build);
}

void build_cancel(struct build *build)
{
    build_quiet(build);
    build_set_state(build, BUILD_CANCELLED);
    log_info(build->services->log, "build cancelled", log_str("request_id", build->request.id),
             log_uint("attempts", build->attempts),
             log_uint("duration_ms", loop_now_ms(build->services->loop) - build->submitted_ms));
}
