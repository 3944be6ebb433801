/* SPDX-License-Identifier: MIT */

/* An SCGI request gives the same events as a FastCGI one, for any cutting. The netstring itself is
 * tested in test_scgi.c. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fcgi/params.h"
#include "fcgi/scgi.h"
#include "sidecar/relay/front.h"
#include "sidecar/relay/relay.h"
#include "tests/unit/cuts.h"

#define PARAMS_MAX 1000
#define RANDOM_CUTS 30

struct scene {
    struct loop *loop;
    struct relay_options options;
    struct relay *relay;
    struct front front;
    int peer;
};

static void on_ready(struct watch *watch)
{
    (void)watch;
}

static void scene_init(struct scene *scene)
{
    int pair[2];

    *scene = (struct scene){ .options = { .max_params_size = PARAMS_MAX } };
    scene->relay = calloc(1, sizeof(*scene->relay));
    CUTS_CHECK(scene->relay != NULL && loop_new(&scene->loop) == 0);
    scene->relay->options = &scene->options;
    scene->relay->loop = scene->loop;
    CUTS_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0);
    scene->peer = pair[1];
    front_init(&scene->front, scene->relay, pair[0], true, true);
    CUTS_CHECK(front_watch(&scene->front, scene->relay, on_ready) == 0);
}

static void scene_deinit(struct scene *scene)
{
    front_deinit(&scene->front);
    close(scene->peer);
    loop_free(scene->loop);
    free(scene->relay);
}

static void trace_params(struct trace *trace, struct span params)
{
    struct span name;
    struct span value;
    enum params_result result;

    trace_line(trace, "head:");
    while ((result = params_next(&params, &name, &value)) == PARAMS_PAIR) {
        trace_line(trace, " %.*s=", (int)name.len, (const char *)name.ptr);
        trace_add(trace, value);
    }
    CUTS_CHECK(result == PARAMS_END);
    trace_line(trace, "\n");
}

/* False: the connection has to be closed. */
static bool trace_piece(struct trace *trace, struct scene *scene, struct span piece, bool *in_body)
{
    enum front_event event;
    struct span body = { 0 };

    while ((event = front_next(&scene->front, scene->relay, &piece, &body)) != FRONT_NEED_DATA) {
        if (event == FRONT_BODY) {
            CUTS_CHECK(body.len > 0);
            trace_line(trace, "%s", *in_body ? "" : "body: ");
            trace_add(trace, body);
            *in_body = true;
            continue;
        }
        trace_line(trace, "%s", *in_body ? "\n" : "");
        *in_body = false;
        if (event == FRONT_HEAD) {
            trace_params(trace, buf_span(&scene->front.params));
            continue;
        }
        trace_line(trace, "%s\n",
                   event == FRONT_BODY_END           ? "body end"
                   : event == FRONT_MALFORMED        ? "malformed"
                   : event == FRONT_PARAMS_TOO_LARGE ? "too large"
                                                     : "?");
        if (event != FRONT_BODY_END) {
            return false;
        }
    }
    CUTS_CHECK(piece.len == 0);
    return true;
}

static void trace_scgi(struct trace *trace, struct span input, struct cuts cuts)
{
    struct scene scene;
    bool in_body = false;
    bool is_going = true;

    scene_init(&scene);
    while (is_going && input.len > 0) {
        struct span piece = cuts_take(&cuts, &input);

        is_going = trace_piece(trace, &scene, piece, &in_body);
        cuts_give_back(piece.ptr);
    }
    trace_line(trace, "%s%s", in_body ? "\n" : "",
               front_is_in_head(&scene.front) ? "in head\n" : "");
    scene_deinit(&scene);
}

static void check(struct span input, const char *expected)
{
    struct trace trace = { 0 };

    trace_scgi(&trace, input, cuts_whole());
    if (!span_is(trace_span(&trace), expected)) {
        fail_msg("got:\n%.*s\ninstead of:\n%s", (int)trace.len, (const char *)trace.bytes,
                 expected);
    }
    trace_deinit(&trace);
    cuts_compare_many(trace_scgi, input, RANDOM_CUTS);
}

/* The pairs as a netstring, and what follows it. */
static void check_request(struct span headers, const char *behind, const char *expected)
{
    size_t size = scgi_head_size(headers.len);
    uint8_t *bytes = malloc(size + strlen(behind) + 1);

    assert_non_null(bytes);
    assert_int_equal(scgi_head_write(bytes, headers), size);
    memcpy(bytes + size, behind, strlen(behind));
    check(span_of(bytes, size + strlen(behind)), expected);
    free(bytes);
}

static void test_requests(void **state)
{
    static const struct {
        const char *headers;
        size_t len;
        const char *behind;
        const char *expected;
    } cases[] = {
#define HEADERS(text) text, sizeof(text) - 1
        { HEADERS("CONTENT_LENGTH\0"
                  "0\0SCGI\0"
                  "1\0"),
          "", "head: CONTENT_LENGTH=0\nbody end\n" },
        { HEADERS("CONTENT_LENGTH\0"
                  "0\0A\0"
                  "1\0SCGI\0"
                  "1\0B\0\0"),
          "", "head: CONTENT_LENGTH=0 A=1 B=\nbody end\n" },
        { HEADERS("CONTENT_LENGTH\0"
                  "5\0SCGI\0"
                  "1\0"),
          "hello", "head: CONTENT_LENGTH=5\nbody: hello\nbody end\n" },
        { HEADERS("CONTENT_LENGTH\0"
                  "5\0SCGI\0"
                  "1\0"),
          "hel", "head: CONTENT_LENGTH=5\nbody: hel\n" },
        /* what follows the request belongs to nobody, even where it looks like the next one */
        { HEADERS("CONTENT_LENGTH\0"
                  "5\0SCGI\0"
                  "1\0"),
          "hello24:CONTENT_LENGTH", "head: CONTENT_LENGTH=5\nbody: hello\nbody end\n" },
        { HEADERS("CONTENT_LENGTH\0"
                  "0\0SCGI\0"
                  "1\0"),
          "\r\n", "head: CONTENT_LENGTH=0\nbody end\n" },
        /* a body that looks like a head */
        { HEADERS("CONTENT_LENGTH\0"
                  "3\0SCGI\0"
                  "1\0"),
          "24:", "head: CONTENT_LENGTH=3\nbody: 24:\nbody end\n" },
        /* without what must be there */
        { HEADERS("CONTENT_LENGTH\0"
                  "0\0"),
          "", "malformed\nin head\n" },
        { HEADERS("SCGI\0"
                  "1\0CONTENT_LENGTH\0"
                  "0\0"),
          "", "malformed\nin head\n" },
        { HEADERS("CONTENT_LENGTH\0"
                  "x\0SCGI\0"
                  "1\0"),
          "", "malformed\nin head\n" },
        { HEADERS("CONTENT_LENGTH\0"
                  "0\0SCGI\0"
                  "1"),
          "", "malformed\nin head\n" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        check_request(span_of(cases[i].headers, cases[i].len), cases[i].behind, cases[i].expected);
    }
}

static void test_heads_that_do_not_come_whole(void **state)
{
    (void)state;
    check(span_of_string(""), "");
    check(span_of_string("2"), "in head\n");
    check(span_of_string("24:CONTENT_LENGTH"), "in head\n");
    check(span_of_string("GET / HTTP/1.1\r\n"), "malformed\nin head\n");
    check(span_of("\1\1\0\1\0\10\0\0", 8), "malformed\nin head\n");
    check(span_of_string("1001:"), "too large\nin head\n");
    check(span_of_string("999999999:CONTENT_LENGTH"), "too large\nin head\n");
}

/* Long pairs, whose lengths take four bytes each as params, and many short ones. */
static void test_conversion_at_the_maximum(void **state)
{
    static const size_t value_sizes[] = { 0, 1, 126, 127, 128, 300 };

    (void)state;
    for (size_t i = 0; i < sizeof(value_sizes) / sizeof(value_sizes[0]); i++) {
        struct trace headers = { 0 };
        struct trace expected = { 0 };
        char value[300];

        memset(value, 'v', sizeof(value));
        trace_add(&headers, span_of(HEADERS("CONTENT_LENGTH\0"
                                            "0\0SCGI\0"
                                            "1\0")));
        trace_line(&expected, "head: CONTENT_LENGTH=0");
        while (headers.len + 3 + value_sizes[i] <= PARAMS_MAX) {
            trace_add(&headers, span_of("N", 2));
            trace_add(&headers, span_of(value, value_sizes[i]));
            trace_add(&headers, span_of("", 1));
            trace_line(&expected, " N=");
            trace_add(&expected, span_of(value, value_sizes[i]));
        }
        trace_add(&expected, span_of("\nbody end\n", 11));
        check_request(trace_span(&headers), "", (const char *)expected.bytes);
        trace_deinit(&headers);
        trace_deinit(&expected);
    }
}

/* Content goes out as it is; error output and the end are not for SCGI. */
static void test_answer_has_no_records(void **state)
{
    struct scene scene;
    struct gather *gather;
    char bytes[64];

    (void)state;
    scene_init(&scene);
    gather = &scene.relay->gather;
    gather_begin(gather, &scene.front.out);
    front_add_begin(&scene.front, gather, NULL, 3);
    gather_add(gather, "abc", 3);
    front_add_stderr(&scene.front, gather, span_of_string("warning"));
    front_add_end(&scene.front, gather, (struct fcgi_end){ .app_status = 1 });
    assert_int_equal(gather_flush(gather), 0);
    assert_int_equal(front_queue_stdout(&scene.front, span_of_string("def")), 0);
    assert_int_equal(front_queue_end(&scene.front, 0, FCGI_REQUEST_COMPLETE), 0);
    assert_int_equal(outq_send(&scene.front.out), 0);
    assert_int_equal(read(scene.peer, bytes, sizeof(bytes)), 6);
    assert_memory_equal(bytes, "abcdef", 6);
    scene_deinit(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_heads_that_do_not_come_whole),
        cmocka_unit_test(test_conversion_at_the_maximum),
        cmocka_unit_test(test_answer_has_no_records),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
