/* SPDX-License-Identifier: MIT */

/* What a web server's records mean: the same events for any cutting, an answer to what concerns the
 * connection, and an end to whoever breaks the protocol. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fcgi/params.h"
#include "fcgi/writer.h"
#include "sidecar/relay/front.h"
#include "sidecar/relay/relay.h"
#include "tests/unit/cuts.h"

#define PARAMS_MAX 200
#define FRONT_LIMIT 1234
#define VALUES_MAX 1024 /* front.c */
#define RANDOM_CUTS 30

/* ---- the smallest relay that a front needs ---- */

struct scene {
    struct loop *loop;
    struct relay_options options;
    struct relay *relay;
    struct limit fronts;
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
    limit_init(&scene->fronts, FRONT_LIMIT);
    scene->relay->fronts = &scene->fronts;
    CUTS_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0);
    scene->peer = pair[1];
    front_init(&scene->front, scene->relay, pair[0], true, false);
    CUTS_CHECK(front_watch(&scene->front, scene->relay, on_ready) == 0);
}

static void scene_deinit(struct scene *scene)
{
    front_deinit(&scene->front);
    close(scene->peer);
    loop_free(scene->loop);
    limit_deinit(&scene->fronts);
    free(scene->relay);
}

/* ---- records as a web server sends them ---- */

struct step {
    uint8_t type;
    uint16_t id;
    const char *content;
    size_t len;
    uint8_t padding;
};

#define CONTENT(text) (text), sizeof(text) - 1
#define BEGIN(id)                                                                                  \
    {                                                                                              \
        FCGI_BEGIN_REQUEST, (id), CONTENT("\0\1\0\0\0\0\0\0"), 0                                   \
    }
#define BEGIN_KEPT(id)                                                                             \
    {                                                                                              \
        FCGI_BEGIN_REQUEST, (id), CONTENT("\0\1\1\0\0\0\0\0"), 0                                   \
    }
#define PARAMS(id, text)                                                                           \
    {                                                                                              \
        FCGI_PARAMS, (id), CONTENT(text), 0                                                        \
    }
#define STDIN(id, text)                                                                            \
    {                                                                                              \
        FCGI_STDIN, (id), CONTENT(text), 0                                                         \
    }
#define ABORT(id)                                                                                  \
    {                                                                                              \
        FCGI_ABORT_REQUEST, (id), CONTENT(""), 0                                                   \
    }
#define GET_VALUES(text)                                                                           \
    {                                                                                              \
        FCGI_GET_VALUES, 0, CONTENT(text), 0                                                       \
    }
#define STEPS_MAX 14

static void add_record(struct buf *input, const struct step *step)
{
    uint8_t header[FCGI_HEADER_SIZE];

    fcgi_header_write(header, step->type, step->id, (uint16_t)step->len, step->padding);
    assert_int_equal(buf_append(input, header, sizeof(header)), 0);
    assert_int_equal(buf_append(input, step->content, step->len), 0);
    for (unsigned i = 0; i < step->padding; i++) {
        assert_int_equal(buf_append(input, "\xaa", 1), 0);
    }
}

/* ---- the events, as a trace ---- */

/* When the tracer ends a request, as an exchange would: at its answer's end. */
static enum front_event ends_at = FRONT_BODY_END;

static void trace_hex(struct trace *trace, const char *name, struct span bytes)
{
    trace_line(trace, "%s", name);
    for (size_t i = 0; i < bytes.len; i++) {
        trace_line(trace, "%02x", bytes.ptr[i]);
    }
    trace_line(trace, "\n");
}

struct tracer {
    struct trace *trace;
    bool in_body;
};

static void trace_text(struct tracer *tracer, const char *text)
{
    trace_line(tracer->trace, "%s%s", tracer->in_body ? "\n" : "", text);
    tracer->in_body = false;
}

static void trace_event(struct tracer *tracer, struct front *front, enum front_event event,
                        struct span body)
{
    char text[100];

    switch (event) {
    case FRONT_HEAD:
        (void)snprintf(text, sizeof(text), "head %u%s: ", front->request_id,
                       front->is_kept ? " kept" : "");
        trace_text(tracer, text);
        trace_add(tracer->trace, buf_span(&front->params));
        trace_text(tracer, "\n");
        break;
    case FRONT_BODY:
        CUTS_CHECK(body.len > 0);
        if (!tracer->in_body) {
            trace_text(tracer, "body: ");
        }
        trace_add(tracer->trace, body);
        tracer->in_body = true;
        break;
    case FRONT_BODY_END:
        trace_text(tracer, "body end\n");
        break;
    case FRONT_ABORT:
        trace_text(tracer, "abort\n");
        break;
    case FRONT_PARAMS_TOO_LARGE:
        trace_text(tracer, "too large\n");
        break;
    case FRONT_MALFORMED:
        trace_text(tracer, "malformed\n");
        break;
    default:
        trace_text(tracer, "?\n");
        break;
    }
    if (event == ends_at || event == FRONT_ABORT) {
        front_end_request(front);
    }
}

/* False: the connection has to be closed. */
static bool trace_piece(struct tracer *tracer, struct scene *scene, struct span piece)
{
    enum front_event event;
    struct span body = { 0 };

    while ((event = front_next(&scene->front, scene->relay, &piece, &body)) != FRONT_NEED_DATA) {
        trace_event(tracer, &scene->front, event, body);
        if (event == FRONT_MALFORMED || event == FRONT_PARAMS_TOO_LARGE) {
            return false;
        }
    }
    CUTS_CHECK(piece.len == 0);
    return true;
}

static void trace_front(struct trace *trace, struct span input, struct cuts cuts)
{
    struct tracer tracer = { .trace = trace };
    struct scene scene;
    bool is_going = true;

    scene_init(&scene);
    while (is_going && input.len > 0) {
        struct span piece = cuts_take(&cuts, &input);

        is_going = trace_piece(&tracer, &scene, piece);
        cuts_give_back(piece.ptr);
    }
    trace_text(&tracer, "");
    if (buf_length(&scene.front.control) > 0) {
        trace_hex(trace, "answer ", buf_span(&scene.front.control));
    }
    trace_line(trace, "%s", is_going && front_is_in_head(&scene.front) ? "in head\n" : "");
    scene_deinit(&scene);
}

static void check(const struct step *steps, size_t count, const char *expected)
{
    struct trace trace = { 0 };
    struct buf input;

    buf_init(&input, SIZE_MAX);
    for (size_t i = 0; i < count && steps[i].type != 0; i++) {
        add_record(&input, &steps[i]);
    }
    trace_front(&trace, buf_span(&input), cuts_whole());
    if (!span_is(trace_span(&trace), expected)) {
        fail_msg("got:\n%.*s\ninstead of:\n%s", (int)trace.len, (const char *)trace.bytes,
                 expected);
    }
    trace_deinit(&trace);
    cuts_compare_many(trace_front, buf_span(&input), RANDOM_CUTS);
    buf_deinit(&input);
}

struct scenario {
    struct step steps[STEPS_MAX];
    const char *expected;
};

#define CHECK_ALL(scenarios)                                                                       \
    for (size_t i = 0; i < sizeof(scenarios) / sizeof((scenarios)[0]); i++) {                      \
        check((scenarios)[i].steps, STEPS_MAX, (scenarios)[i].expected);                           \
    }

/* Answers in hexadecimal: END_REQUEST with its protocol status, and UNKNOWN_TYPE. */
#define END_1_CANT_MPX                                                                             \
    "0103000100080000"                                                                             \
    "0000000001000000"
#define END_2_CANT_MPX                                                                             \
    "0103000200080000"                                                                             \
    "0000000001000000"
#define END_1_UNKNOWN_ROLE                                                                         \
    "0103000100080000"                                                                             \
    "0000000003000000"
#define UNKNOWN(type) "010b000000080000" type "00000000000000"
#define GET                                                                                        \
    "head 1: \x01\x01"                                                                             \
    "A1\nbody end\n"

static void test_requests(void **state)
{
    static const struct scenario scenarios[] = {
        { { BEGIN(1),
            PARAMS(1, "\x01\x01"
                      "A1"),
            PARAMS(1, ""), STDIN(1, "") },
          GET },
        { { BEGIN_KEPT(1), PARAMS(1, ""), STDIN(1, "") }, "head 1 kept: \nbody end\n" },
        { { BEGIN(65535), PARAMS(65535, ""), STDIN(65535, "") }, "head 65535: \nbody end\n" },
        { { BEGIN(256), PARAMS(256, ""), STDIN(256, "abc"), STDIN(256, "") },
          "head 256: \nbody: abc\nbody end\n" },
        { { BEGIN(1), PARAMS(1, ""), STDIN(1, "abc"), STDIN(1, "def"), STDIN(1, "") },
          "head 1: \nbody: abcdef\nbody end\n" },
        /* a pair may be split across records here, and records padded */
        { { { FCGI_BEGIN_REQUEST, 1, CONTENT("\0\1\0\0\0\0\0\0"), 8 },
            { FCGI_PARAMS, 1, CONTENT("\x01"), 255 },
            { FCGI_PARAMS, 1,
              CONTENT("\x01"
                      "A1"),
              5 },
            { FCGI_PARAMS, 1, CONTENT(""), 8 },
            { FCGI_STDIN, 1, CONTENT("abc"), 5 },
            { FCGI_STDIN, 1, CONTENT(""), 1 } },
          "head 1: \x01\x01"
          "A1\nbody: abc\nbody end\n" },
        /* only the flag that is defined counts; reserved bytes do not */
        { { { FCGI_BEGIN_REQUEST, 1, CONTENT("\0\1\xfe\xff\xff\xff\xff\xff"), 0 }, PARAMS(1, "") },
          "head 1: \n" },
        { { { FCGI_BEGIN_REQUEST, 1, CONTENT("\0\1\xff\0\0\0\0\0"), 0 }, PARAMS(1, "") },
          "head 1 kept: \n" },
        /* one after the other on a kept connection, with the same id and another */
        { { BEGIN_KEPT(1), PARAMS(1, "a"), PARAMS(1, ""), STDIN(1, ""), BEGIN_KEPT(1),
            PARAMS(1, "b"), PARAMS(1, ""), STDIN(1, ""), BEGIN(7), PARAMS(7, ""), STDIN(7, "x"),
            STDIN(7, "") },
          "head 1 kept: a\nbody end\nhead 1 kept: b\nbody end\nhead 7: \nbody: x\nbody end\n" },
        /* incomplete ones */
        { { BEGIN(1) }, "in head\n" },
        { { BEGIN(1), PARAMS(1, "abc") }, "in head\n" },
        { { BEGIN(1), PARAMS(1, ""), STDIN(1, "abc") }, "head 1: \nbody: abc\n" },
        { { { 0 } }, "" },
    };

    (void)state;
    CHECK_ALL(scenarios);
}

static void test_aborts(void **state)
{
    static const struct scenario scenarios[] = {
        { { BEGIN(1), ABORT(1) }, "abort\n" },
        { { BEGIN(1), PARAMS(1, "a"), ABORT(1) }, "abort\n" },
        { { BEGIN(1), PARAMS(1, ""), STDIN(1, "a"), ABORT(1) }, "head 1: \nbody: a\nabort\n" },
        { { BEGIN(1), { FCGI_ABORT_REQUEST, 1, CONTENT("strange"), 3 } }, "abort\n" },
        { { BEGIN(1), ABORT(2), PARAMS(1, "") }, "head 1: \n" },
        { { ABORT(1), BEGIN(1), PARAMS(1, "") }, "head 1: \n" },
        /* the connection stays usable, and what still comes of the request is dropped */
        { { BEGIN_KEPT(1), PARAMS(1, "a"), ABORT(1), PARAMS(1, "b"), PARAMS(1, ""), STDIN(1, "c"),
            STDIN(1, ""), ABORT(1), BEGIN(1), PARAMS(1, "d"), PARAMS(1, "") },
          "abort\nhead 1: d\n" },
    };

    (void)state;
    CHECK_ALL(scenarios);
}

/* An answer may end before its STDIN: what comes after belongs to nobody. */
static void test_records_of_ended_requests_are_dropped(void **state)
{
    static const struct scenario scenarios[] = {
        { { BEGIN_KEPT(1), PARAMS(1, ""), STDIN(1, "abc"), STDIN(1, ""), ABORT(1) },
          "head 1 kept: \n" },
        { { BEGIN_KEPT(1), PARAMS(1, ""), STDIN(1, "abc"), BEGIN_KEPT(2), STDIN(1, "def"),
            PARAMS(2, "b"), STDIN(1, ""), ABORT(1), PARAMS(2, "") },
          "head 1 kept: \nhead 2 kept: b\n" },
        { { BEGIN_KEPT(1),
            PARAMS(1, ""),
            PARAMS(1, "x"),
            { FCGI_DATA, 1, CONTENT("x"), 0 },
            BEGIN(1),
            PARAMS(1, "b"),
            PARAMS(1, "") },
          "head 1 kept: \nhead 1: b\n" },
    };

    (void)state;
    ends_at = FRONT_HEAD;
    CHECK_ALL(scenarios);
    ends_at = FRONT_BODY_END;
}

static void test_records_that_mean_nothing_are_dropped(void **state)
{
    static const struct scenario scenarios[] = {
        { { BEGIN(1),
            { FCGI_STDOUT, 1, CONTENT("x"), 0 },
            { FCGI_STDERR, 1, CONTENT("x"), 2 },
            { FCGI_END_REQUEST, 1, CONTENT("\0\0\0\0\0\0\0\0"), 0 },
            { FCGI_DATA, 1, CONTENT("x"), 0 },
            { FCGI_DATA, 1, CONTENT(""), 0 },
            { 12, 1, CONTENT("unknown, of the request"), 0 },
            { 255, 9, CONTENT(""), 9 },
            PARAMS(9, "x"),
            PARAMS(9, ""),
            STDIN(9, "x"),
            PARAMS(1, "") },
          "head 1: \n" },
        { { STDIN(1, "x"), PARAMS(1, "x"), PARAMS(1, ""), STDIN(1, "") }, "" },
        /* a body that goes on behind its end; ends_at must not be reached, so: no end */
        { { BEGIN(1), PARAMS(1, ""), STDIN(1, ""), STDIN(1, "x"), STDIN(1, "") },
          "head 1: \nbody end\n" },
    };

    (void)state;
    ends_at = FRONT_NEED_DATA; /* never */
    CHECK_ALL(scenarios);
    ends_at = FRONT_BODY_END;
}

static void test_second_request_is_refused(void **state)
{
    static const struct scenario scenarios[] = {
        { { BEGIN(1), BEGIN(2), PARAMS(2, "x"), PARAMS(1, "a"), PARAMS(2, ""), STDIN(2, "x"),
            PARAMS(1, ""), STDIN(2, ""), STDIN(1, "b"), STDIN(1, "") },
          "head 1: a\nbody: b\nbody end\nanswer " END_2_CANT_MPX "\n" },
        { { BEGIN(2), PARAMS(2, ""), BEGIN(1), BEGIN(1), STDIN(2, "a"), ABORT(1) },
          "head 2: \nbody: a\nanswer " END_1_CANT_MPX END_1_CANT_MPX "\n" },
        /* whatever its role */
        { { BEGIN(2), { FCGI_BEGIN_REQUEST, 1, CONTENT("\0\2\0\0\0\0\0\0"), 0 }, PARAMS(2, "") },
          "head 2: \nanswer " END_1_CANT_MPX "\n" },
        /* the same id again is a broken first one */
        { { BEGIN(1), BEGIN(1), PARAMS(1, "") }, "malformed\n" },
        { { BEGIN(1), PARAMS(1, ""), STDIN(1, "a"), BEGIN(1) }, "head 1: \nbody: a\nmalformed\n" },
    };

    (void)state;
    CHECK_ALL(scenarios);
}

static void test_unknown_roles(void **state)
{
    static const struct scenario scenarios[] = {
        { { { FCGI_BEGIN_REQUEST, 1, CONTENT("\0\2\1\0\0\0\0\0"), 0 } },
          "answer " END_1_UNKNOWN_ROLE "\n" },
        { { { FCGI_BEGIN_REQUEST, 1, CONTENT("\0\3\1\0\0\0\0\0"), 0 } },
          "answer " END_1_UNKNOWN_ROLE "\n" },
        { { { FCGI_BEGIN_REQUEST, 1, CONTENT("\0\0\1\0\0\0\0\0"), 0 } },
          "answer " END_1_UNKNOWN_ROLE "\n" },
        { { { FCGI_BEGIN_REQUEST, 1, CONTENT("\1\1\1\0\0\0\0\0"), 0 } },
          "answer " END_1_UNKNOWN_ROLE "\n" },
        /* its records are dropped, and the connection is free for the next request */
        { { { FCGI_BEGIN_REQUEST, 1, CONTENT("\0\2\1\0\0\0\0\0"), 0 },
            PARAMS(1, "x"),
            PARAMS(1, ""),
            STDIN(1, ""),
            BEGIN(1),
            PARAMS(1, "\x01\x01"
                      "A1"),
            PARAMS(1, ""),
            STDIN(1, "") },
          GET "answer " END_1_UNKNOWN_ROLE "\n" },
    };

    (void)state;
    CHECK_ALL(scenarios);
}

static void test_unknown_management_types(void **state)
{
    static const struct scenario scenarios[] = {
        { { { 12, 0, CONTENT(""), 0 } }, "answer " UNKNOWN("0c") "\n" },
        { { { 255, 0, CONTENT("with content"), 4 } }, "answer " UNKNOWN("ff") "\n" },
        { { { FCGI_GET_VALUES_RESULT, 0, CONTENT(""), 0 } }, "answer " UNKNOWN("0a") "\n" },
        { { { FCGI_UNKNOWN_TYPE, 0, CONTENT("\0\0\0\0\0\0\0\0"), 0 } },
          "answer " UNKNOWN("0b") "\n" },
        { { BEGIN(1),
            { 12, 0, CONTENT(""), 0 },
            PARAMS(1, "\x01\x01"
                      "A1"),
            PARAMS(1, ""),
            { 13, 0, CONTENT("x"), 0 },
            STDIN(1, "") },
          GET "answer " UNKNOWN("0c") UNKNOWN("0d") "\n" },
    };

    (void)state;
    CHECK_ALL(scenarios);
}

/* What a GET_VALUES_RESULT with these pairs looks like. */
static void check_values(const struct step *steps, size_t count, const char *before,
                         const char *const *names)
{
    struct trace expected = { 0 };
    uint8_t record[256];
    size_t len = FCGI_HEADER_SIZE;

    for (; *names != NULL; names++) {
        const char *value = strcmp(*names, FCGI_MPXS_CONNS) == 0 ? "0" : "1234";

        len += params_write(record + len, span_of_string(*names), span_of_string(value));
    }
    fcgi_header_write(record, FCGI_GET_VALUES_RESULT, 0, (uint16_t)(len - FCGI_HEADER_SIZE), 0);
    trace_line(&expected, "%s", before);
    trace_hex(&expected, "answer ", span_of(record, len));
    trace_add(&expected, span_of("", 1));
    check(steps, count, (const char *)expected.bytes);
    trace_deinit(&expected);
}

static void test_values(void **state)
{
    static const struct step all[] = { GET_VALUES("\x0e\0FCGI_MAX_CONNS\x0d\0FCGI_MAX_REQS"
                                                  "\x0f\0FCGI_MPXS_CONNS") };
    static const struct step one[] = { GET_VALUES("\x0f\0FCGI_MPXS_CONNS") };
    static const struct step other[] = { GET_VALUES("\x01\0X\x0f\0FCGI_MPXS_CONNS\0\0") };
    static const struct step none[] = { GET_VALUES("") };
    static const struct step broken[] = { GET_VALUES("\x0f\0FCGI_MPXS_CONNS\xff\xff") };
    static const struct step within[] = { BEGIN(1), PARAMS(1, ""), STDIN(1, "a"),
                                          GET_VALUES("\x0d\0FCGI_MAX_REQS"), STDIN(1, "b") };

    (void)state;
    check_values(
        all, 1, "",
        (const char *const[]){ "FCGI_MAX_CONNS", "FCGI_MAX_REQS", "FCGI_MPXS_CONNS", NULL });
    check_values(one, 1, "", (const char *const[]){ "FCGI_MPXS_CONNS", NULL });
    check_values(other, 1, "", (const char *const[]){ "FCGI_MPXS_CONNS", NULL });
    check_values(none, 1, "", (const char *const[]){ NULL });
    check_values(broken, 1, "", (const char *const[]){ "FCGI_MPXS_CONNS", NULL });
    check_values(within, 5, "head 1: \nbody: ab\n", (const char *const[]){ "FCGI_MAX_REQS", NULL });
}

static void test_longest_values(void **state)
{
    static char text[VALUES_MAX + 1];
    struct step step = { FCGI_GET_VALUES, 0, text, VALUES_MAX, 0 };

    (void)state;
    check(&step, 1, "answer 010a000000000000\n"); /* names of no bytes are unknown names */
    step.len = VALUES_MAX + 1;
    check(&step, 1, "malformed\n");
}

static void test_malformed(void **state)
{
    static const struct scenario scenarios[] = {
        /* what belongs to a request, without one */
        { { BEGIN(0) }, "malformed\n" },
        { { ABORT(0) }, "malformed\n" },
        { { { FCGI_END_REQUEST, 0, CONTENT(""), 0 } }, "malformed\n" },
        { { PARAMS(0, "x") }, "malformed\n" },
        { { STDIN(0, "") }, "malformed\n" },
        { { { FCGI_STDOUT, 0, CONTENT(""), 0 } }, "malformed\n" },
        { { { FCGI_STDERR, 0, CONTENT(""), 0 } }, "malformed\n" },
        { { { FCGI_DATA, 0, CONTENT(""), 0 } }, "malformed\n" },
        /* bodies of another size */
        { { { FCGI_BEGIN_REQUEST, 1, CONTENT(""), 0 } }, "malformed\n" },
        { { { FCGI_BEGIN_REQUEST, 1, CONTENT("\0\1\0\0\0\0\0"), 1 } }, "malformed\n" },
        { { { FCGI_BEGIN_REQUEST, 1, CONTENT("\0\1\0\0\0\0\0\0\0"), 0 } }, "malformed\n" },
        /* a management record of a request */
        { { { FCGI_GET_VALUES, 1, CONTENT(""), 0 } }, "malformed\n" },
        /* the wrong order */
        { { BEGIN(1), STDIN(1, "x") }, "malformed\n" },
        { { BEGIN(1), PARAMS(1, "a"), STDIN(1, "") }, "malformed\n" },
        { { BEGIN(1), PARAMS(1, ""), PARAMS(1, "x") }, "head 1: \nmalformed\n" },
        { { BEGIN(1), PARAMS(1, ""), PARAMS(1, "") }, "head 1: \nmalformed\n" },
        { { BEGIN(1), PARAMS(1, ""), STDIN(1, "a"), PARAMS(1, "x") },
          "head 1: \nbody: a\nmalformed\n" },
    };

    (void)state;
    CHECK_ALL(scenarios);
}

static void check_bytes(const char *bytes, size_t len, const char *expected)
{
    struct trace trace = { 0 };

    trace_front(&trace, span_of(bytes, len), cuts_whole());
    assert_true(span_is(trace_span(&trace), expected));
    trace_deinit(&trace);
    cuts_compare_many(trace_front, span_of(bytes, len), RANDOM_CUTS);
}

static void test_other_protocols(void **state)
{
    (void)state;
    check_bytes(CONTENT("GET / HTTP/1.1\r\n\r\n"), "malformed\n");
    check_bytes(CONTENT("70:CONTENT_LENGTH"), "malformed\n");
    check_bytes(CONTENT("\0\1\0\1\0\10\0\0"), "malformed\n");
    check_bytes(CONTENT("\2"), "malformed\n");
    check_bytes(CONTENT("\1"), "in head\n");
    /* in the second record */
    check_bytes(CONTENT("\1\1\0\1\0\10\0\0\0\1\0\0\0\0\0\0\x16\3\1"), "malformed\n");
}

static void test_params_maximum(void **state)
{
    static char text[PARAMS_MAX + 1];
    struct step steps[] = {
        BEGIN(1), { FCGI_PARAMS, 1, text, PARAMS_MAX, 0 }, PARAMS(1, ""), STDIN(1, "")
    };
    struct trace expected = { 0 };

    (void)state;
    memset(text, 'p', sizeof(text));
    trace_line(&expected, "head 1: ");
    trace_add(&expected, span_of(text, PARAMS_MAX));
    trace_add(&expected, span_of(CONTENT("\nbody end\n")));
    trace_add(&expected, span_of("", 1));
    check(steps, 4, (const char *)expected.bytes);
    trace_deinit(&expected);
    steps[1].len = PARAMS_MAX + 1;
    check(steps, 4, "too large\n");
    /* of the open request only */
    steps[1].id = 2;
    check(steps, 4, "head 1: \nbody end\n");
}

/* A read full of the shortest records with the longest answers is answered in full. */
static void test_many_management_records(void **state)
{
    static const struct step step = { 12, 0, "", 0, 0 };
    struct scene scene;
    struct span body;
    struct buf input;
    struct span rest;

    (void)state;
    scene_init(&scene);
    buf_init(&input, RELAY_READ_SIZE);
    for (size_t i = 0; i < RELAY_READ_SIZE / FCGI_HEADER_SIZE; i++) {
        add_record(&input, &step);
    }
    rest = buf_span(&input);
    assert_int_equal(front_next(&scene.front, scene.relay, &rest, &body), FRONT_NEED_DATA);
    assert_int_equal(buf_length(&scene.front.control),
                     RELAY_READ_SIZE / FCGI_HEADER_SIZE * FCGI_FIXED_RECORD_SIZE);
    /* The next one finds them unread: whoever pulled it does not keep to the rules. */
    rest = span_take(&(struct span){ buf_span(&input).ptr, buf_length(&input) }, 80 * 8);
    assert_int_equal(front_next(&scene.front, scene.relay, &rest, &body), FRONT_MALFORMED);
    buf_deinit(&input);
    scene_deinit(&scene);
}

/* ---- through the socket ---- */

static void test_reading(void **state)
{
    static const struct step steps[] = { BEGIN(1), PARAMS(1, ""), STDIN(1, "abc") };
    struct scene scene;
    struct buf input;
    struct span got;
    struct span body;

    (void)state;
    scene_init(&scene);
    assert_int_equal(front_read(&scene.front, scene.relay, &got), 0);
    assert_true((scene.front.watch.ready & WATCH_READ) == 0);
    buf_init(&input, 1000);
    for (size_t i = 0; i < 3; i++) {
        add_record(&input, &steps[i]);
    }
    assert_int_equal(write(scene.peer, buf_span(&input).ptr, buf_length(&input)),
                     buf_length(&input));
    scene.front.watch.ready |= WATCH_READ;
    assert_int_equal(front_read(&scene.front, scene.relay, &got), 1);
    assert_int_equal(got.len, buf_length(&input));
    assert_int_equal(front_next(&scene.front, scene.relay, &got, &body), FRONT_HEAD);
    assert_int_equal(front_next(&scene.front, scene.relay, &got, &body), FRONT_BODY);
    /* The bytes before the body may be overwritten by a record's header. */
    memset((uint8_t *)(uintptr_t)body.ptr - FCGI_HEADER_SIZE, 0xee, FCGI_HEADER_SIZE);
    assert_true(span_is(body, "abc"));
    assert_int_equal(front_next(&scene.front, scene.relay, &got, &body), FRONT_NEED_DATA);

    assert_false(front_is_gone(&scene.front));
    assert_int_equal(shutdown(scene.peer, SHUT_WR), 0);
    assert_int_equal(front_read(&scene.front, scene.relay, &got), -EPIPE);
    assert_false(front_is_gone(&scene.front)); /* it has ended its own direction only */
    scene.front.is_input_ended = true;
    assert_int_equal(front_read(&scene.front, scene.relay, &got), 0);
    close(scene.peer);
    assert_true(front_is_gone(&scene.front));
    scene.peer = dup(STDIN_FILENO);
    buf_deinit(&input);
    scene_deinit(&scene);
}

/* ---- what goes out ---- */

static void assert_sent(struct scene *scene, const char *expected, size_t len)
{
    uint8_t bytes[70000];
    ssize_t got;
    size_t received = 0;

    assert_int_equal(outq_send(&scene->front.out), 0);
    while ((got = read(scene->peer, bytes + received, sizeof(bytes) - received)) > 0) {
        received += (size_t)got;
    }
    assert_int_equal(received, len);
    assert_memory_equal(bytes, expected, len);
}

static void test_control_waits_for_the_end_of_a_record(void **state)
{
    static const struct step step = { 12, 0, "", 0, 0 };
    struct scene scene;
    struct buf input;
    struct span rest;
    struct span body;

    (void)state;
    scene_init(&scene);
    buf_init(&input, 100);
    add_record(&input, &step);
    rest = buf_span(&input);
    assert_int_equal(front_next(&scene.front, scene.relay, &rest, &body), FRONT_NEED_DATA);
    scene.front.owed_bytes = 1;
    gather_begin(&scene.relay->gather, &scene.front.out);
    front_add_control(&scene.front, &scene.relay->gather);
    assert_int_equal(gather_flush(&scene.relay->gather), 0);
    assert_sent(&scene, "", 0);
    scene.front.owed_bytes = 0;
    gather_begin(&scene.relay->gather, &scene.front.out);
    front_add_control(&scene.front, &scene.relay->gather);
    front_add_control(&scene.front, &scene.relay->gather); /* nothing is left to add */
    assert_int_equal(gather_flush(&scene.relay->gather), 0);
    assert_sent(&scene, CONTENT("\1\x0b\0\0\0\x08\0\0\x0c\0\0\0\0\0\0\0"));
    buf_deinit(&input);
    scene_deinit(&scene);
}

static void test_answer_records(void **state)
{
    uint8_t place[FCGI_HEADER_SIZE + 3] = { 0 };
    struct scene scene;
    struct gather *gather;

    (void)state;
    scene_init(&scene);
    gather = &scene.relay->gather;
    scene.front.request_id = 0x0102;
    memcpy(place + FCGI_HEADER_SIZE, "abc", 3);
    gather_begin(gather, &scene.front.out);
    front_add_begin(&scene.front, gather, place, 3);
    gather_add(gather, place + FCGI_HEADER_SIZE, 3);
    front_add_begin(&scene.front, gather, NULL, 0x1234);
    front_add_stderr(&scene.front, gather, span_of_string("warn"));
    front_add_stderr(&scene.front, gather, span_of_string(""));
    front_add_end(&scene.front, gather, (struct fcgi_end){ .app_status = 0x01020304 });
    assert_int_equal(gather_flush(gather), 0);
    assert_sent(&scene, CONTENT("\1\6\1\2\0\3\0\0abc"
                                "\1\6\1\2\x12\x34\0\0"
                                "\1\7\1\2\0\4\x08\0warn\0\0\0\0\0\0\0\0"
                                "\1\3\1\2\0\x08\0\0\1\2\3\4\0\0\0\0"));
    assert_int_equal(front_queue_stdout(&scene.front, span_of_string("")), 0);
    assert_int_equal(front_queue_stdout(&scene.front, span_of_string("hi")), 0);
    assert_int_equal(front_queue_end(&scene.front, 7, FCGI_OVERLOADED), 0);
    assert_sent(&scene, CONTENT("\1\6\1\2\0\2\0\0hi"
                                "\1\3\1\2\0\x08\0\0\0\0\0\7\2\0\0\0"));
    scene_deinit(&scene);
}

/* HAProxy crashed on long error output in one record, and on records without padding. */
static void test_error_output_is_split(void **state)
{
    static const size_t sizes[] = { 4095, 4096, 4097, 8192, 60000 };
    static uint8_t text[60000];

    (void)state;
    memset(text, 'e', sizeof(text));
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct scene scene;
        struct buf expected;

        scene_init(&scene);
        scene.front.request_id = 1;
        buf_init(&expected, 70000);
        for (size_t left = sizes[i]; left > 0; left -= left < 4096 ? left : 4096) {
            uint8_t header[FCGI_HEADER_SIZE];
            size_t length = left < 4096 ? left : 4096;

            fcgi_header_write(header, FCGI_STDERR, 1, (uint16_t)length, 8);
            assert_int_equal(buf_append(&expected, header, sizeof(header)), 0);
            assert_int_equal(buf_append(&expected, text, length), 0);
            assert_int_equal(buf_append(&expected, "\0\0\0\0\0\0\0\0", 8), 0);
        }
        gather_begin(&scene.relay->gather, &scene.front.out);
        front_add_stderr(&scene.front, &scene.relay->gather, span_of(text, sizes[i]));
        assert_int_equal(gather_flush(&scene.relay->gather), 0);
        assert_sent(&scene, (const char *)buf_span(&expected).ptr, buf_length(&expected));
        buf_deinit(&expected);
        scene_deinit(&scene);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_aborts),
        cmocka_unit_test(test_records_of_ended_requests_are_dropped),
        cmocka_unit_test(test_records_that_mean_nothing_are_dropped),
        cmocka_unit_test(test_second_request_is_refused),
        cmocka_unit_test(test_unknown_roles),
        cmocka_unit_test(test_unknown_management_types),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_longest_values),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_other_protocols),
        cmocka_unit_test(test_params_maximum),
        cmocka_unit_test(test_many_management_records),
        cmocka_unit_test(test_reading),
        cmocka_unit_test(test_control_waits_for_the_end_of_a_record),
        cmocka_unit_test(test_answer_records),
        cmocka_unit_test(test_error_output_is_split),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
