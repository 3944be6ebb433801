/* SPDX-License-Identifier: MIT */

/*
 * The builder from submit to result, with a scripted Velox in place of curl's client. It runs on
 * the real loop, in milliseconds, and as well on the simulated one.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "sidecar/build/builder.h"
#include "sidecar/build/velox.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define POSTS_MAX 16
#define RESULTS_MAX 16

/* What the scripted Velox does with one POST. */
struct step {
    unsigned delay_ms;
    bool hang;
    bool no_memory;
    struct velox_answer answer;
};

struct post {
    size_t server;
    uint64_t timeout_ms;
    uint64_t at_ms;
    char body[512];
    bool cancelled;
};

struct scene {
    struct velox_client client;
    struct loop *loop;
    struct log log;
    struct stats stats;
    struct build_options options;
    struct builder *builder;
    struct mailbox mailbox;
    struct timer timer; /* calls on_time once */
    void (*on_time)(struct scene *scene);
    struct step steps[POSTS_MAX];
    size_t step_count;
    struct post posts[POSTS_MAX];
    size_t post_count;
    struct build_result *results[RESULTS_MAX];
    size_t result_count;
    size_t expected;
    int log_fd;
    char folder[64];
    char file[100];
};

struct velox_call {
    struct scene *scene;
    struct post *post;
    struct step *step;
    struct timer timer;
    void (*on_answer)(void *waiter, const struct velox_answer *answer);
    void *waiter;
};

/* ---- the scripted Velox ---- */

static void on_call_due(struct timer *timer)
{
    struct velox_call *call = list_entry(timer, struct velox_call, timer);
    void (*on_answer)(void *waiter, const struct velox_answer *answer) = call->on_answer;
    void *waiter = call->waiter;
    struct velox_answer answer = call->step->answer;

    free(call);
    on_answer(waiter, &answer);
}

static int fake_start(struct velox_client *client, size_t server, struct span body,
                      uint64_t timeout_ms,
                      void (*on_answer)(void *waiter, const struct velox_answer *answer),
                      void *waiter, struct velox_call **started)
{
    struct scene *scene = list_entry(client, struct scene, client);
    struct velox_call *call = calloc(1, sizeof(*call));

    assert_non_null(call);
    assert_true(scene->post_count < scene->step_count);
    call->scene = scene;
    call->step = &scene->steps[scene->post_count];
    call->post = &scene->posts[scene->post_count++];
    call->on_answer = on_answer;
    call->waiter = waiter;
    *call->post = (struct post){
        .server = server,
        .timeout_ms = timeout_ms,
        .at_ms = loop_now_ms(scene->loop),
    };
    assert_true(body.len < sizeof(call->post->body));
    memcpy(call->post->body, body.ptr, body.len);
    if (call->step->no_memory) {
        free(call);
        return -1;
    }
    timer_init(&call->timer, scene->loop, on_call_due);
    if (!call->step->hang) {
        assert_int_equal(timer_start(&call->timer, call->step->delay_ms), 0);
    }
    *started = call;
    return 0;
}

static void fake_cancel(struct velox_client *client, struct velox_call *call)
{
    (void)client;
    call->post->cancelled = true;
    timer_stop(&call->timer);
    free(call);
}

/* ---- the scene ---- */

static void on_result(struct mailbox *mailbox, struct mail *mail)
{
    struct scene *scene = list_entry(mailbox, struct scene, mailbox);

    assert_true(scene->result_count < RESULTS_MAX);
    scene->results[scene->result_count++] = list_entry(mail, struct build_result, mail);
    if (scene->result_count == scene->expected) {
        loop_stop(scene->loop);
    }
}

static void on_timer(struct timer *timer)
{
    struct scene *scene = list_entry(timer, struct scene, timer);

    scene->on_time(scene);
}

static char empty[] = "";
static char url_a[] = "http://a/b", url_b[] = "http://b/b";
static struct velox_server servers[] = {
    { .url = url_a, .unix_socket = empty },
    { .url = url_b, .unix_socket = empty },
};

static void make_files(struct scene *scene)
{
    int fd;

    (void)snprintf(scene->folder, sizeof(scene->folder), "/tmp/test_builder.XXXXXX");
    assert_non_null(mkdtemp(scene->folder));
    (void)snprintf(scene->file, sizeof(scene->file), "%s/rr", scene->folder);
    fd = open(scene->file, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_int_equal(write(fd, "binary", 6), 6);
    close(fd);
    scene->log_fd = open(scene->folder, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    assert_true(scene->log_fd >= 0);
}

static int scene_set_up(void **state)
{
    struct scene *scene = calloc(1, sizeof(*scene));
    static char *roots[1];

    assert_non_null(scene);
    make_files(scene);
    roots[0] = scene->folder;
    scene->client = (struct velox_client){ .start = fake_start, .cancel = fake_cancel };
    scene->options = (struct build_options){
        .servers = servers,
        .server_count = 1,
        .build_timeout_ms = 5000,
        .request_timeout_ms = 3000,
        .max_queued_builds = 1000,
        .token_file = empty,
        .ca_file = empty,
        .retry = { .max_attempts = 3,
                   .initial_delay_ms = 10,
                   .max_delay_ms = 120,
                   .multiplier = 2 },
        .artifact = { .roots = { .items = roots, .count = 1 }, .url = empty },
    };
    log_init(&scene->log, scene->log_fd, LOG_DEBUG, LOG_TEXT);
    assert_int_equal(loop_new(&scene->loop), 0);
    assert_int_equal(mailbox_init(&scene->mailbox, scene->loop, on_result), 0);
    timer_init(&scene->timer, scene->loop, on_timer);
    assert_int_equal(builder_new_with_client(&scene->builder, scene->loop, &scene->options,
                                             &scene->log, &scene->stats, &scene->client),
                     0);
    *state = scene;
    return 0;
}

static uint64_t count_of(const struct scene *scene, enum statistic stat)
{
    return atomic_load(&scene->stats.values[stat]);
}

static int scene_tear_down(void **state)
{
    struct scene *scene = *state;

    builder_stop(scene->builder);
    builder_free(scene->builder);
    timer_stop(&scene->timer);
    mailbox_close(&scene->mailbox);
    mailbox_deinit(&scene->mailbox);
    loop_free(scene->loop);
    for (size_t i = 0; i < scene->result_count; i++) {
        build_result_free(scene->results[i]);
    }
    assert_int_equal(count_of(scene, STAT_BUILDS_ACTIVE), 0);
    assert_int_equal(count_of(scene, STAT_BUILDS_QUEUED), 0);
    close(scene->log_fd);
    unlink(scene->file);
    rmdir(scene->folder);
    free(scene);
    return 0;
}

static struct step *add_step(struct scene *scene, enum velox_outcome outcome)
{
    struct step *step = &scene->steps[scene->step_count++];

    assert_true(scene->step_count <= POSTS_MAX);
    step->delay_ms = 5;
    step->answer.outcome = outcome;
    step->answer.message = span_of_string("words");
    if (outcome == VELOX_BUILT) {
        step->answer.path = span_of_string(scene->file);
        step->answer.build_id = span_of_string("b1");
    }
    return step;
}

static struct step *add_retry(struct scene *scene, enum velox_retry_reason reason)
{
    struct step *step = add_step(scene, VELOX_RETRY);

    step->answer.reason = reason;
    step->answer.is_timeout = reason == VELOX_RETRY_TIMEOUT;
    return step;
}

/* name distinguishes builds; the ticket's number is its request_id too. */
static void submit(struct scene *scene, uint64_t ticket, const char *name, bool force)
{
    struct build_request request;
    char body[256];
    char message[BUILD_REQUEST_MESSAGE_SIZE];

    (void)snprintf(body, sizeof(body),
                   "{\"rr_version\":\"%s\",\"plugins\":[],\"request_id\":\"t%u\"%s}", name,
                   (unsigned)ticket, force ? ",\"force_rebuild\":true" : "");
    assert_int_equal(build_request_parse(span_of_string(body), &request, message), 0);
    assert_int_equal(builder_submit(scene->builder, ticket, &request, &scene->mailbox), 0);
    assert_int_equal(buf_length(&request.body), 0);
}

static void run_until(struct scene *scene, size_t results)
{
    scene->expected = results;
    if (scene->result_count < results) {
        loop_run(scene->loop);
    }
    assert_int_equal(scene->result_count, results);
}

static void run_for(struct scene *scene, uint64_t delay_ms, void (*on_time)(struct scene *scene))
{
    scene->on_time = on_time;
    scene->expected = SIZE_MAX;
    assert_int_equal(timer_start(&scene->timer, delay_ms), 0);
    loop_run(scene->loop);
}

static void stop_loop(struct scene *scene)
{
    loop_stop(scene->loop);
}

static const struct build_result *result_of(const struct scene *scene, uint64_t ticket)
{
    for (size_t i = 0; i < scene->result_count; i++) {
        if (scene->results[i]->ticket == ticket) {
            return scene->results[i];
        }
    }
    fail_msg("no result for %u", (unsigned)ticket);
    return NULL;
}

static void assert_built(const struct scene *scene, uint64_t ticket)
{
    const struct build_result *result = result_of(scene, ticket);
    char content[10];

    assert_int_equal(result->failure, FAILURE_NONE);
    assert_int_equal(result->artifact.size_bytes, 6);
    assert_int_equal(pread(result->artifact.fd, content, sizeof(content), 0), 6);
    assert_memory_equal(content, "binary", 6);
}

static void assert_failed(const struct scene *scene, uint64_t ticket, enum failure failure,
                          const char *part)
{
    const struct build_result *result = result_of(scene, ticket);
    char message[BUILD_MESSAGE_MAX + 1] = "";

    memcpy(message, buf_span(&result->message).ptr, buf_length(&result->message));
    if (result->failure != failure || strstr(message, part) == NULL) {
        fail_msg("failure %d: %s", (int)result->failure, message);
    }
    assert_int_equal(result->artifact.fd, -1);
    assert_int_equal(result->retry_after_s > 0, failure == FAILURE_BUSY);
}

static bool log_has(const struct scene *scene, const char *part)
{
    static char text[1u << 16];
    ssize_t length = pread(scene->log_fd, text, sizeof(text) - 1, 0);

    assert_true(length >= 0);
    text[length] = '\0';
    return strstr(text, part) != NULL;
}

/* ---- one build ---- */

static void test_built(void **state)
{
    struct scene *scene = *state;

    add_step(scene, VELOX_BUILT)->delay_ms = 30;
    submit(scene, 7, "v1", false);
    run_until(scene, 1);
    assert_built(scene, 7);
    assert_in_range(result_of(scene, 7)->duration_ms, 20, 2000);
    assert_int_equal(scene->posts[0].timeout_ms, 3000);
    assert_string_equal(scene->posts[0].body,
                        "{\"rr_version\":\"v1\",\"plugins\":[],\"request_id\":\"t7\"}");
    assert_int_equal(count_of(scene, STAT_BUILDS_SUCCESS), 1);
    assert_true(log_has(scene, "msg=\"build started\" request_id=t7 "));
    assert_true(log_has(scene, "msg=\"build completed\" request_id=t7 "));
    assert_true(log_has(scene, " build_id=b1"));
    assert_true(log_has(scene, " file_size=6 attempts=1"));
}

static void test_failures(void **state)
{
    static const struct {
        enum velox_outcome outcome;
        enum failure failure;
        const char *part;
    } cases[] = {
        { VELOX_BUILD_FAILED, FAILURE_BUILD_FAILED, "words" },
        { VELOX_REQUEST_INVALID, FAILURE_REQUEST_INVALID, "words" },
        { VELOX_UNUSABLE, FAILURE_VELOX_UNAVAILABLE, "words" },
        { VELOX_NO_MEMORY, FAILURE_BUSY, "out of memory" },
    };
    struct scene *scene = *state;

    for (size_t i = 0; i < 4; i++) {
        add_step(scene, cases[i].outcome);
        submit(scene, i, "v1", false);
        run_until(scene, i + 1);
        assert_failed(scene, i, cases[i].failure, cases[i].part);
    }
    add_step(scene, VELOX_BUILT)->no_memory = true;
    submit(scene, 4, "v1", false);
    run_until(scene, 5);
    assert_failed(scene, 4, FAILURE_BUSY, "out of memory");
    assert_int_equal(scene->post_count, 5);
    assert_int_equal(count_of(scene, STAT_BUILDS_ERROR), 5);
    assert_true(log_has(scene, "msg=\"build failed\" request_id=t0 error=build_failed"));
}

static void test_artifact_cannot_be_delivered(void **state)
{
    struct scene *scene = *state;

    add_step(scene, VELOX_BUILT)->answer.path = span_of_string("/etc/passwd");
    submit(scene, 1, "v1", false);
    run_until(scene, 1);
    assert_failed(scene, 1, FAILURE_ARTIFACT_UNAVAILABLE, "outside of every root");
    /* The path is for the log, not for the client. */
    assert_null(memmem(buf_span(&result_of(scene, 1)->message).ptr,
                       buf_length(&result_of(scene, 1)->message), "/etc", 4));
    assert_true(log_has(scene,
                        "level=error msg=\"the built file cannot be delivered\" request_id=t1 "
                        "file_path=/etc/passwd"));
}

/* Not cut within a character, and never more than 4 KiB. */
static void test_long_message(void **state)
{
    struct scene *scene = *state;
    static char text[6001];
    struct span message;

    for (size_t i = 0; i < 6000; i += 3) {
        memcpy(text + i, "\xe2\x82\xac", 3);
    }
    add_step(scene, VELOX_BUILD_FAILED)->answer.message = span_of(text, 6000);
    submit(scene, 1, "v1", false);
    run_until(scene, 1);
    message = buf_span(&result_of(scene, 1)->message);
    assert_int_equal(message.len, 4095);
    assert_memory_equal(message.ptr, text, 4095);
}

/* ---- retries ---- */

static void test_retry_and_success(void **state)
{
    struct scene *scene = *state;

    scene->options.server_count = 2;
    add_retry(scene, VELOX_RETRY_CONNECT);
    add_retry(scene, VELOX_RETRY_CODE);
    add_step(scene, VELOX_BUILT);
    submit(scene, 1, "v1", false);
    run_until(scene, 1);
    assert_built(scene, 1);
    assert_true(scene->posts[1].at_ms - scene->posts[0].at_ms >= 10);
    assert_true(scene->posts[2].at_ms - scene->posts[1].at_ms >= 20);
    assert_int_not_equal(scene->posts[0].server, scene->posts[1].server);
    assert_int_equal(scene->posts[0].server, scene->posts[2].server);
    assert_int_equal(count_of(scene, STAT_RETRIES_CONNECT), 1);
    assert_int_equal(count_of(scene, STAT_RETRIES_CODE), 1);
    assert_true(
        log_has(scene, "msg=\"build retry\" request_id=t1 reason=connect attempts=1 delay_ms=10"));
    assert_true(log_has(scene, " attempts=3"));
}

static void test_all_attempts_used(void **state)
{
    struct scene *scene = *state;

    add_retry(scene, VELOX_RETRY_TIMEOUT);
    add_retry(scene, VELOX_RETRY_CUT);
    add_retry(scene, VELOX_RETRY_TIMEOUT);
    submit(scene, 1, "v1", false);
    run_until(scene, 1);
    assert_failed(scene, 1, FAILURE_VELOX_UNAVAILABLE, "3 attempts; the last one: words");
    assert_int_equal(scene->post_count, 3);
    assert_int_equal(count_of(scene, STAT_BUILDS_ERROR), 1);
}

static void test_every_attempt_timed_out(void **state)
{
    struct scene *scene = *state;

    for (int i = 0; i < 3; i++) {
        add_retry(scene, VELOX_RETRY_TIMEOUT);
    }
    submit(scene, 1, "v1", false);
    run_until(scene, 1);
    assert_failed(scene, 1, FAILURE_TIMEOUT, "words");
    assert_int_equal(count_of(scene, STAT_BUILDS_TIMEOUT), 1);
    assert_int_equal(count_of(scene, STAT_RETRIES_TIMEOUT), 2);
}

static void test_retry_after(void **state)
{
    struct scene *scene = *state;

    add_retry(scene, VELOX_RETRY_HTTP_STATUS)->answer.retry_after_ms = 200;
    add_step(scene, VELOX_BUILT);
    submit(scene, 1, "v1", false);
    run_until(scene, 1);
    assert_built(scene, 1);
    assert_true(scene->posts[1].at_ms - scene->posts[0].at_ms >= 200);
}

/* No use in waiting for an attempt that would come too late. */
static void test_retry_after_the_deadline(void **state)
{
    struct scene *scene = *state;

    add_retry(scene, VELOX_RETRY_HTTP_STATUS)->answer.retry_after_ms = 60000;
    submit(scene, 1, "v1", false);
    run_until(scene, 1);
    assert_failed(scene, 1, FAILURE_TIMEOUT, "build_timeout (5 s)");
}

static void test_build_timeout(void **state)
{
    struct scene *scene = *state;

    scene->options.build_timeout_ms = 400;
    scene->options.request_timeout_ms = 390;
    add_retry(scene, VELOX_RETRY_CUT)->delay_ms = 40;
    add_step(scene, VELOX_BUILT)->hang = true;
    submit(scene, 1, "v1", false);
    run_until(scene, 1);
    assert_failed(scene, 1, FAILURE_TIMEOUT, "within build_timeout (400 ms)");
    assert_true(scene->posts[1].cancelled);
    assert_int_equal(scene->posts[0].timeout_ms, 390);
    /* A POST is never given more than is left of the build. */
    assert_in_range(scene->posts[1].timeout_ms, 1, 360);
}

static void test_already_exists_is_asked_again(void **state)
{
    struct scene *scene = *state;

    scene->options.server_count = 2;
    for (int i = 0; i < 5; i++) {
        add_step(scene, VELOX_ALREADY_RUNS);
    }
    add_step(scene, VELOX_BUILT);
    submit(scene, 1, "v1", false);
    run_until(scene, 1);
    assert_built(scene, 1);
    assert_true(scene->posts[1].at_ms - scene->posts[0].at_ms >= 120);
    assert_int_equal(scene->posts[0].server, scene->posts[5].server);
    assert_true(log_has(scene, "attempts=1 build_id")); /* none of the five counted */
}

static void test_already_exists_until_the_deadline(void **state)
{
    struct scene *scene = *state;

    scene->options.build_timeout_ms = 300;
    for (int i = 0; i < 4; i++) {
        add_step(scene, VELOX_ALREADY_RUNS);
    }
    submit(scene, 1, "v1", false);
    run_until(scene, 1);
    assert_failed(scene, 1, FAILURE_TIMEOUT, "build_timeout");
}

static void test_equal_builds_start_at_one_server(void **state)
{
    struct scene *scene = *state;
    size_t servers_seen[2] = { 0, 0 };

    scene->options.server_count = 2;
    for (unsigned i = 0; i < 12; i++) {
        char name[8];

        (void)snprintf(name, sizeof(name), "v%u", i / 2);
        add_step(scene, VELOX_BUILT);
        submit(scene, i, name, false);
        run_until(scene, i + 1);
        servers_seen[scene->posts[i].server]++;
        assert_int_equal(scene->posts[i].server, scene->posts[i - i % 2].server);
    }
    assert_int_equal(servers_seen[0] + servers_seen[1], 12);
}

/* ---- clients that leave ---- */

static void cancel_ticket_1(struct scene *scene)
{
    builder_cancel(scene->builder, 1);
    builder_cancel(scene->builder, 99); /* unknown: nothing happens */
    loop_stop(scene->loop);
}

static void test_cancel_closes_the_post(void **state)
{
    struct scene *scene = *state;

    add_step(scene, VELOX_BUILT)->hang = true;
    submit(scene, 1, "v1", false);
    run_for(scene, 10, cancel_ticket_1);
    run_for(scene, 10, stop_loop);
    assert_true(scene->posts[0].cancelled);
    assert_int_equal(scene->result_count, 0);
    assert_int_equal(count_of(scene, STAT_BUILDS_CANCELLED), 1);
    assert_int_equal(count_of(scene, STAT_BUILDS_ACTIVE), 0);
}

static void test_cancel_between_attempts(void **state)
{
    struct scene *scene = *state;

    add_retry(scene, VELOX_RETRY_CUT)->answer.retry_after_ms = 300;
    submit(scene, 1, "v1", false);
    run_for(scene, 30, cancel_ticket_1);
    run_for(scene, 320, stop_loop);
    assert_int_equal(scene->post_count, 1);
    assert_int_equal(scene->result_count, 0);
}

static void test_abort_finish_runs_on(void **state)
{
    struct scene *scene = *state;

    scene->options.on_client_abort = CLIENT_ABORT_FINISH;
    scene->options.max_concurrent_builds = 1;
    add_step(scene, VELOX_BUILT)->delay_ms = 200;
    add_step(scene, VELOX_BUILT);
    submit(scene, 1, "v1", false);
    submit(scene, 2, "v2", false);
    run_for(scene, 10, cancel_ticket_1);
    run_until(scene, 1);
    assert_false(scene->posts[0].cancelled);
    assert_built(scene, 2);
    assert_int_equal(count_of(scene, STAT_BUILDS_SUCCESS), 2);
}

/* ---- single flight ---- */

static void test_equal_requests_share_a_build(void **state)
{
    struct scene *scene = *state;

    add_step(scene, VELOX_BUILT);
    for (uint64_t i = 1; i <= 3; i++) {
        submit(scene, i, "v1", false);
    }
    run_until(scene, 3);
    assert_int_equal(scene->post_count, 1);
    assert_int_equal(count_of(scene, STAT_BUILDS_COALESCED), 2);
    for (uint64_t i = 1; i <= 3; i++) {
        assert_built(scene, i);
    }
    assert_int_not_equal(result_of(scene, 1)->artifact.fd, result_of(scene, 2)->artifact.fd);
}

static void test_the_last_who_leaves_cancels(void **state)
{
    struct scene *scene = *state;

    add_step(scene, VELOX_BUILT)->delay_ms = 200;
    submit(scene, 1, "v1", false);
    submit(scene, 2, "v1", false);
    run_for(scene, 10, cancel_ticket_1);
    run_until(scene, 1);
    assert_false(scene->posts[0].cancelled);
    assert_built(scene, 2);
}

static void test_a_shared_failure(void **state)
{
    struct scene *scene = *state;

    add_step(scene, VELOX_BUILD_FAILED);
    submit(scene, 1, "v1", false);
    submit(scene, 2, "v1", false);
    run_until(scene, 2);
    assert_failed(scene, 1, FAILURE_BUILD_FAILED, "words");
    assert_failed(scene, 2, FAILURE_BUILD_FAILED, "words");
}

/* A forced one waits for the end of the one that is not, then all who come join it. */
static void test_forced(void **state)
{
    struct scene *scene = *state;

    add_step(scene, VELOX_BUILT)->delay_ms = 30;
    add_step(scene, VELOX_BUILT);
    submit(scene, 1, "v1", false);
    submit(scene, 2, "v1", true);
    submit(scene, 3, "v1", true);
    submit(scene, 4, "v1", false);
    run_until(scene, 4);
    assert_int_equal(scene->post_count, 2);
    assert_true(scene->posts[1].at_ms - scene->posts[0].at_ms >= 25);
    assert_null(strstr(scene->posts[0].body, "force_rebuild"));
    assert_non_null(strstr(scene->posts[1].body, "force_rebuild"));
    assert_int_equal(scene->results[0]->ticket, 1);
    assert_int_equal(scene->results[1]->ticket, 4); /* joined the first one */
}

static void test_unforced_joins_forced(void **state)
{
    struct scene *scene = *state;

    add_step(scene, VELOX_BUILT);
    submit(scene, 1, "v1", true);
    submit(scene, 2, "v1", false);
    run_until(scene, 2);
    assert_int_equal(scene->post_count, 1);
}

/* ---- limits ---- */

static void test_queue(void **state)
{
    struct scene *scene = *state;

    scene->options.max_concurrent_builds = 2;
    scene->options.max_queued_builds = 2;
    for (int i = 0; i < 4; i++) {
        add_step(scene, VELOX_BUILT)->delay_ms = 20;
    }
    submit(scene, 1, "v1", false);
    submit(scene, 2, "v2", false);
    submit(scene, 3, "v3", false);
    submit(scene, 4, "v4", false);
    submit(scene, 5, "v5", false);
    submit(scene, 6, "v1", false); /* joins, so it needs no place */
    run_until(scene, 6);
    assert_failed(scene, 5, FAILURE_BUSY, "max_queued_builds");
    assert_int_equal(scene->results[0]->ticket, 5);
    assert_built(scene, 6);
    for (uint64_t i = 1; i <= 4; i++) {
        char id[8];

        assert_built(scene, i);
        (void)snprintf(id, sizeof(id), "\"t%u\"", (unsigned)i);
        assert_non_null(strstr(scene->posts[i - 1].body, id)); /* first come, first served */
    }
    assert_true(scene->posts[2].at_ms - scene->posts[0].at_ms >= 10);
}

static void test_deadline_in_the_queue(void **state)
{
    struct scene *scene = *state;

    scene->options.max_concurrent_builds = 1;
    scene->options.build_timeout_ms = 60;
    add_step(scene, VELOX_BUILT)->hang = true;
    submit(scene, 1, "v1", false);
    submit(scene, 2, "v2", false);
    run_until(scene, 2);
    assert_failed(scene, 1, FAILURE_TIMEOUT, "build_timeout");
    assert_failed(scene, 2, FAILURE_TIMEOUT, "build_timeout");
    assert_true(scene->post_count <= 2); /* the second may have got its place for an instant */
}

static void test_cancel_in_the_queue(void **state)
{
    struct scene *scene = *state;

    scene->options.max_concurrent_builds = 1;
    scene->options.on_client_abort = CLIENT_ABORT_FINISH;
    add_step(scene, VELOX_BUILT)->delay_ms = 200;
    submit(scene, 2, "v2", false);
    submit(scene, 1, "v1", false);
    run_for(scene, 10, cancel_ticket_1);
    run_until(scene, 1);
    assert_built(scene, 2);
    assert_int_equal(scene->post_count, 1);
}

/* ---- the stop ---- */

static void stop_builder(struct scene *scene)
{
    struct build_request request;
    char message[BUILD_REQUEST_MESSAGE_SIZE];

    submit(scene, 3, "v3", false); /* on its way when the builder stops */
    builder_stop(scene->builder);
    assert_int_equal(build_request_parse(span_of_string("{\"rr_version\":\"v\",\"plugins\":[]}"),
                                         &request, message),
                     0);
    assert_int_equal(builder_submit(scene->builder, 9, &request, &scene->mailbox), -EPIPE);
    build_request_deinit(&request);
    builder_cancel(scene->builder, 1);
}

static void test_stop(void **state)
{
    struct scene *scene = *state;

    scene->options.max_concurrent_builds = 1;
    add_step(scene, VELOX_BUILT)->hang = true;
    submit(scene, 1, "v1", false);
    submit(scene, 2, "v2", false);
    scene->on_time = stop_builder;
    assert_int_equal(timer_start(&scene->timer, 10), 0);
    run_until(scene, 3);
    for (uint64_t i = 1; i <= 3; i++) {
        assert_failed(scene, i, FAILURE_BUSY, "stopped");
    }
    assert_true(scene->posts[0].cancelled);
}

#define SCENE(test) cmocka_unit_test_setup_teardown(test, scene_set_up, scene_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE(test_built),
        SCENE(test_failures),
        SCENE(test_artifact_cannot_be_delivered),
        SCENE(test_long_message),
        SCENE(test_retry_and_success),
        SCENE(test_all_attempts_used),
        SCENE(test_every_attempt_timed_out),
        SCENE(test_retry_after),
        SCENE(test_retry_after_the_deadline),
        SCENE(test_build_timeout),
        SCENE(test_already_exists_is_asked_again),
        SCENE(test_already_exists_until_the_deadline),
        SCENE(test_equal_builds_start_at_one_server),
        SCENE(test_cancel_closes_the_post),
        SCENE(test_cancel_between_attempts),
        SCENE(test_abort_finish_runs_on),
        SCENE(test_equal_requests_share_a_build),
        SCENE(test_the_last_who_leaves_cancels),
        SCENE(test_a_shared_failure),
        SCENE(test_forced),
        SCENE(test_unforced_joins_forced),
        SCENE(test_queue),
        SCENE(test_deadline_in_the_queue),
        SCENE(test_cancel_in_the_queue),
        SCENE(test_stop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
