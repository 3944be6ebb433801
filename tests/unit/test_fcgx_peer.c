/* SPDX-License-Identifier: MIT */

/*
 * libfcgi as an independent peer: it reads the records that we write and we read those that it
 * writes. One thread does both, so everything must fit into the socket's buffer.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcgiapp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fcgi/params.h"
#include "fcgi/reader.h"
#include "fcgi/writer.h"
#include "tests/unit/cuts.h"

#define BODY_SIZE 70000

struct peer {
    int listener;
    int client;
    FCGX_Request request;
};

/* A listening socket of an abstract name that the kernel chooses, and a connection to it. */
static void peer_init(struct peer *peer)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    socklen_t length = sizeof(address);

    peer->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(peer->listener >= 0);
    assert_int_equal(bind(peer->listener, (struct sockaddr *)&address, sizeof(address.sun_family)),
                     0);
    assert_int_equal(listen(peer->listener, 1), 0);
    assert_int_equal(getsockname(peer->listener, (struct sockaddr *)&address, &length), 0);
    peer->client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(peer->client >= 0);
    assert_int_equal(connect(peer->client, (struct sockaddr *)&address, length), 0);
    assert_int_equal(FCGX_Init(), 0);
    assert_int_equal(FCGX_InitRequest(&peer->request, peer->listener, 0), 0);
}

static void peer_deinit(struct peer *peer)
{
    FCGX_Free(&peer->request, 1);
    (void)close(peer->client);
    (void)close(peer->listener);
}

/* All that is ever sent: libfcgi waits two seconds for the other side's end when it closes. */
static void peer_send(struct peer *peer, struct span bytes)
{
    assert_int_equal(send(peer->client, bytes.ptr, bytes.len, MSG_DONTWAIT | MSG_NOSIGNAL),
                     bytes.len);
    assert_int_equal(shutdown(peer->client, SHUT_WR), 0);
}

/* All that the peer has written, up to its close. */
static struct trace peer_receive(struct peer *peer)
{
    struct trace received = { 0 };
    uint8_t bytes[4096];
    ssize_t length;

    while ((length = recv(peer->client, bytes, sizeof(bytes), 0)) > 0) {
        trace_add(&received, span_of(bytes, (size_t)length));
    }
    assert_int_equal(length, 0);
    return received;
}

static void put_begin(struct trace *stream, uint16_t role, uint8_t flags)
{
    uint8_t record[FCGI_FIXED_RECORD_SIZE];

    fcgi_begin_write(record, 1, role, flags);
    trace_add(stream, span_of(record, sizeof(record)));
}

static void put_stream(struct trace *stream, uint8_t type, uint16_t id, struct span content)
{
    size_t size = fcgi_stream_size(content.len);
    uint8_t *records = malloc(size + 1);

    assert_non_null(records);
    assert_int_equal(fcgi_stream_write(records, type, id, content), size);
    trace_add(stream, span_of(records, size));
    free(records);
}

static void put_end_of_stream(struct trace *stream, uint8_t type)
{
    uint8_t header[FCGI_HEADER_SIZE];

    fcgi_header_write(header, type, 1, 0, 0);
    trace_add(stream, span_of(header, sizeof(header)));
}

static void put_pair(struct trace *pairs, struct span name, struct span value)
{
    size_t size = params_size(name.len, value.len);
    uint8_t *bytes = malloc(size);

    assert_non_null(bytes);
    assert_int_equal(params_write(bytes, name, value), size);
    trace_add(pairs, span_of(bytes, size));
    free(bytes);
}

static uint8_t *body_new(void)
{
    uint8_t *body = malloc(BODY_SIZE);

    assert_non_null(body);
    for (size_t i = 0; i < BODY_SIZE; i++) {
        body[i] = (uint8_t)(i * 7 >> 2);
    }
    return body;
}

static const size_t value_lengths[] = { 0, 1, 126, 127, 128, 129, 255, 256, 20000 };

#define VALUES (sizeof(value_lengths) / sizeof(value_lengths[0]))

/* The value of number i: so many letters. */
static struct trace value_make(size_t i)
{
    struct trace value = { 0 };

    for (size_t j = 0; j < value_lengths[i]; j++) {
        trace_add(&value, span_of(&"abcdefghijklmnopqrstuvwxyz"[j % 26], 1));
    }
    return value;
}

/* PARAMS in records of whole pairs, none over max. */
static void put_params(struct trace *stream, struct span pairs, size_t max)
{
    while (pairs.len > 0) {
        size_t cut = params_cut(pairs, max);

        assert_int_not_equal(cut, 0);
        put_stream(stream, FCGI_PARAMS, 1, span_take(&pairs, cut));
    }
    put_end_of_stream(stream, FCGI_PARAMS);
}

static void test_it_reads_our_request(void **state)
{
    struct peer peer;
    struct trace pairs = { 0 };
    struct trace stream = { 0 };
    uint8_t *body = body_new();
    uint8_t *got = malloc(BODY_SIZE + 1);

    (void)state;
    peer_init(&peer);
    for (size_t i = 0; i < VALUES; i++) {
        char name[16];
        struct trace value = value_make(i);

        (void)snprintf(name, sizeof(name), "VALUE_%zu", i);
        put_pair(&pairs, span_of_string(name), trace_span(&value));
        trace_deinit(&value);
    }
    put_begin(&stream, FCGI_RESPONDER, FCGI_KEEP_CONN);
    put_params(&stream, trace_span(&pairs), 20100);
    put_stream(&stream, FCGI_STDIN, 1, span_of(body, BODY_SIZE));
    put_end_of_stream(&stream, FCGI_STDIN);
    peer_send(&peer, trace_span(&stream));

    assert_int_equal(FCGX_Accept_r(&peer.request), 0);
    assert_int_equal(peer.request.requestId, 1);
    assert_int_equal(peer.request.role, FCGI_RESPONDER);
    assert_int_equal(peer.request.keepConnection, FCGI_KEEP_CONN);
    for (size_t i = 0; i < VALUES; i++) {
        char name[16];
        struct trace value = value_make(i);

        (void)snprintf(name, sizeof(name), "VALUE_%zu", i);
        const char *read = FCGX_GetParam(name, peer.request.envp);

        assert_non_null(read);
        assert_true(span_equal(span_of_string(read), trace_span(&value)));
        trace_deinit(&value);
    }
    assert_non_null(got);
    assert_int_equal(FCGX_GetStr((char *)got, BODY_SIZE + 1, peer.request.in), BODY_SIZE);
    assert_memory_equal(got, body, BODY_SIZE);
    FCGX_Finish_r(&peer.request);
    free(got);
    free(body);
    trace_deinit(&stream);
    trace_deinit(&pairs);
    peer_deinit(&peer);
}

/* Splits what it wrote into the two streams and the last record. */
static struct fcgi_end read_answer(struct span input, struct trace *out, struct trace *err)
{
    struct fcgi_reader reader;
    struct span content;
    struct trace end = { 0 };
    enum fcgi_event event;

    fcgi_reader_init(&reader);
    while ((event = fcgi_reader_next(&reader, &input, &content)) != FCGI_NEED_DATA) {
        assert_int_not_equal(event, FCGI_MALFORMED);
        assert_int_equal(reader.header.request_id, 1);
        if (event == FCGI_CONTENT) {
            trace_add(reader.header.type == FCGI_STDOUT   ? out
                      : reader.header.type == FCGI_STDERR ? err
                                                          : &end,
                      content);
        }
    }
    assert_true(fcgi_reader_at_boundary(&reader));
    assert_int_equal(reader.header.type, FCGI_END_REQUEST);
    assert_int_equal(end.len, FCGI_BODY_SIZE);
    struct fcgi_end result = fcgi_end_read(end.bytes);

    trace_deinit(&end);
    return result;
}

static void test_we_read_its_answer(void **state)
{
    struct peer peer;
    struct trace stream = { 0 };
    struct trace out = { 0 };
    struct trace err = { 0 };
    uint8_t *body = body_new();
    uint8_t end_record[FCGI_FIXED_RECORD_SIZE];

    (void)state;
    peer_init(&peer);
    put_begin(&stream, FCGI_RESPONDER, 0);
    put_params(&stream, span_of("\1\1ab", 4), FCGI_CONTENT_MAX);
    put_end_of_stream(&stream, FCGI_STDIN);
    peer_send(&peer, trace_span(&stream));
    assert_int_equal(FCGX_Accept_r(&peer.request), 0);
    assert_int_equal(FCGX_PutStr((const char *)body, BODY_SIZE, peer.request.out), BODY_SIZE);
    assert_true(FCGX_PutS("a message", peer.request.err) >= 0);
    FCGX_SetExitStatus(0x01020304, peer.request.out);
    FCGX_Finish_r(&peer.request);

    struct trace received = peer_receive(&peer);
    struct fcgi_end end = read_answer(trace_span(&received), &out, &err);

    assert_true(span_equal(trace_span(&out), span_of(body, BODY_SIZE)));
    assert_true(span_is(trace_span(&err), "a message"));
    assert_int_equal(end.app_status, 0x01020304);
    assert_int_equal(end.protocol_status, FCGI_REQUEST_COMPLETE);
    fcgi_end_write(end_record, 1, end.app_status, end.protocol_status);
    assert_memory_equal(received.bytes + received.len - sizeof(end_record), end_record,
                        sizeof(end_record));
    trace_deinit(&received);
    trace_deinit(&err);
    trace_deinit(&out);
    trace_deinit(&stream);
    free(body);
    peer_deinit(&peer);
}

/* Its answer is, byte for byte, ours. (Not asked of an unknown type: it leaks memory there.) */
static void test_it_answers_get_values_as_we_do(void **state)
{
    const char asked[] = "\16\0FCGI_MAX_CONNS\5\0OTHER\15\0FCGI_MAX_REQS\17\0FCGI_MPXS_CONNS";
    struct peer peer;
    struct trace stream = { 0 };
    uint8_t answer[PARAMS_VALUES_MAX];
    uint8_t header[FCGI_HEADER_SIZE];

    (void)state;
    peer_init(&peer);
    put_stream(&stream, FCGI_GET_VALUES, 0, span_of(asked, sizeof(asked) - 1));
    put_begin(&stream, FCGI_RESPONDER, 0);
    put_params(&stream, span_of("\1\1ab", 4), FCGI_CONTENT_MAX);
    put_end_of_stream(&stream, FCGI_STDIN);
    peer_send(&peer, trace_span(&stream));
    assert_int_equal(FCGX_Accept_r(&peer.request), 0);
    FCGX_Finish_r(&peer.request);

    /* it pads to a multiple of eight, with whatever its memory held */
    size_t length = params_values_answer(span_of(asked, sizeof(asked) - 1), 1, answer);
    uint8_t padding = (uint8_t)(-length % 8);
    struct trace received = peer_receive(&peer);
    struct span rest = trace_span(&received);

    fcgi_header_write(header, FCGI_GET_VALUES_RESULT, 0, (uint16_t)length, padding);
    assert_true(span_equal(span_take(&rest, sizeof(header)), span_of(header, sizeof(header))));
    assert_true(span_equal(span_take(&rest, length), span_of(answer, length)));
    assert_int_equal(span_take(&rest, padding).len, padding);
    trace_deinit(&received);
    trace_deinit(&stream);
    peer_deinit(&peer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_reads_our_request),
        cmocka_unit_test(test_we_read_its_answer),
        cmocka_unit_test(test_it_answers_get_values_as_we_do),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
