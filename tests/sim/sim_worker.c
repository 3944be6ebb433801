/* SPDX-License-Identifier: MIT */
/* The scripted PHP-FPM child. It must never be more patient than main/fastcgi.c is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/sim/sim_worker.h"

#include "fcgi/params.h"

/* PHP's longest (main/fastcgi.c). */
#define PHP_RECORD_MAX 65528
#define REQUEST_MAX ((size_t)256 * 1024 * 1024)

void worker_open(struct sim_worker *worker, int fd)
{
    *worker = (struct sim_worker){ .params_ended = false };
    stream_open(&worker->stream, fd);
    fcgi_reader_init(&worker->reader);
    buf_init(&worker->params, REQUEST_MAX);
    buf_init(&worker->body, REQUEST_MAX);
}

void worker_deinit(struct sim_worker *worker)
{
    stream_free(&worker->stream);
    buf_deinit(&worker->params);
    buf_deinit(&worker->body);
}

static void on_record(const struct sim_worker *worker)
{
    const struct fcgi_header *header = &worker->reader.header;

    assert_int_equal(header->request_id, 1);
    if (header->content_length == 0) {
        assert_int_equal(header->padding_length, 0);
    }
    assert_true(header->content_length + header->padding_length <= 65535);
    assert_false(worker->body_ended);
    switch (header->type) {
    case FCGI_BEGIN_REQUEST:
        assert_int_equal(buf_length(&worker->params), 0);
        assert_int_equal(header->content_length, FCGI_BODY_SIZE);
        break;
    case FCGI_PARAMS:
        assert_false(worker->params_ended);
        break;
    case FCGI_STDIN:
        assert_true(worker->params_ended);
        break;
    default:
        fail_msg("PHP-FPM does not take records of type %u", header->type);
    }
}

static void on_content(struct sim_worker *worker, struct span content)
{
    switch (worker->reader.header.type) {
    case FCGI_PARAMS:
        assert_int_equal(buf_append_span(&worker->params, content), 0);
        break;
    case FCGI_STDIN:
        assert_int_equal(buf_append_span(&worker->body, content), 0);
        break;
    default:
        /* The third byte of BEGIN_REQUEST's body are the flags; it comes in one piece or in two. */
        if (content.len == FCGI_BODY_SIZE) {
            assert_int_equal(fcgi_begin_read(content.ptr).flags, 0);
        }
        break;
    }
}

static void check_pairs(const struct sim_worker *worker)
{
    struct span pairs = buf_span(&worker->params);
    enum params_result result;
    struct span name, value;

    while ((result = params_next(&pairs, &name, &value)) == PARAMS_PAIR) {}
    assert_int_equal(result, PARAMS_END);
}

static void on_record_end(struct sim_worker *worker)
{
    const struct fcgi_header *header = &worker->reader.header;

    if (header->type == FCGI_PARAMS) {
        check_pairs(worker);
        worker->params_ended = header->content_length == 0;
    } else if (header->type == FCGI_STDIN) {
        worker->body_ended = header->content_length == 0;
    }
}

bool worker_move(struct sim_worker *worker, uint64_t now_ms)
{
    bool any = stream_move(&worker->stream, now_ms);
    struct span in = buf_span(&worker->stream.in);
    enum fcgi_event event;
    struct span content;

    while ((event = fcgi_reader_next(&worker->reader, &in, &content)) != FCGI_NEED_DATA) {
        assert_int_not_equal(event, FCGI_MALFORMED);
        if (event == FCGI_RECORD) {
            on_record(worker);
        } else if (event == FCGI_CONTENT) {
            on_content(worker, content);
        } else {
            on_record_end(worker);
        }
    }
    buf_clear(&worker->stream.in);
    if (worker->stream.has_ended) {
        stream_close(&worker->stream);
    }
    return any;
}

void worker_stdout_span(struct sim_worker *worker, struct span content)
{
    while (worker != NULL && content.len > 0) {
        struct span part = span_take(&content, PHP_RECORD_MAX);

        stream_add_record(&worker->stream, FCGI_STDOUT, 1, part, (uint8_t)(-part.len & 7));
    }
}

void worker_stdout(struct sim_worker *worker, const char *text)
{
    worker_stdout_span(worker, span_of_string(text));
}

void worker_stdout_part(struct sim_worker *worker, uint16_t announced, const char *text)
{
    uint8_t header[FCGI_HEADER_SIZE];

    if (worker != NULL && worker->stream.fd >= 0) {
        fcgi_header_write(header, FCGI_STDOUT, 1, announced, 0);
        assert_int_equal(buf_append(&worker->stream.out, header, sizeof(header)), 0);
        assert_int_equal(buf_append_string(&worker->stream.out, text), 0);
    }
}

void worker_stderr(struct sim_worker *worker, const char *text)
{
    if (worker != NULL) {
        stream_add_content(&worker->stream, FCGI_STDERR, 1, span_of_string(text));
    }
}

void worker_end(struct sim_worker *worker, uint32_t app_status)
{
    uint8_t body[FCGI_BODY_SIZE] = {
        (uint8_t)(app_status >> 24),
        (uint8_t)(app_status >> 16),
        (uint8_t)(app_status >> 8),
        (uint8_t)app_status,
        FCGI_REQUEST_COMPLETE,
        0xde, /* as PHP: whatever lay */
        0xad,
        0xbf,
    };

    if (worker != NULL) {
        stream_add_record(&worker->stream, FCGI_END_REQUEST, 1, span_of(body, sizeof(body)), 0);
        worker->has_ended = true;
    }
}

void worker_answer(struct sim_worker *worker, const char *text)
{
    worker_stdout(worker, text);
    worker_end(worker, 0);
}

void worker_die(struct sim_worker *worker)
{
    if (worker != NULL) {
        worker->stream.closes = true;
    }
}

size_t worker_unsent(const struct sim_worker *worker)
{
    return worker == NULL ? 0 : buf_length(&worker->stream.out);
}

bool worker_is_free(const struct sim_worker *worker)
{
    return worker == NULL || worker->stream.has_ended;
}

bool worker_param(const struct sim_worker *worker, const char *wanted, struct span *value)
{
    struct span pairs;
    struct span name;

    if (worker == NULL) {
        return false;
    }
    pairs = buf_span(&worker->params);
    while (params_next(&pairs, &name, value) == PARAMS_PAIR) {
        if (span_is(name, wanted)) {
            return true;
        }
    }
    return false;
}
