/* SPDX-License-Identifier: MIT */
/* The scripted web server. It must never be more patient with the protocol than a real one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/sim/sim_front.h"

#include <stdio.h>

#include "fcgi/params.h"
#include "fcgi/writer.h"

#define ANSWER_MAX ((size_t)256 * 1024 * 1024)

void front_open(struct sim_front *front, int fd)
{
    *front = (struct sim_front){ .id = 1 };
    stream_open(&front->stream, fd);
    fcgi_reader_init(&front->reader);
    buf_init(&front->stdout_, ANSWER_MAX);
    buf_init(&front->stderr_, ANSWER_MAX);
}

void front_free(struct sim_front *front)
{
    stream_free(&front->stream);
    buf_deinit(&front->stdout_);
    buf_deinit(&front->stderr_);
}

static void on_record(struct sim_front *front)
{
    const struct fcgi_header *header = &front->reader.header;

    front->end_length = 0;
    if (header->request_id == 0) {
        front->management++;
        return;
    }
    if (header->request_id != front->id) {
        /* The only thing said about another id is that it is refused. */
        assert_int_equal(header->type, FCGI_END_REQUEST);
        front->refused++;
        return;
    }
    assert_true(front->is_open); /* nothing comes behind END_REQUEST */
    assert_true(header->type == FCGI_STDOUT || header->type == FCGI_STDERR ||
                header->type == FCGI_END_REQUEST);
}

static void on_content(struct sim_front *front, struct span content)
{
    const struct fcgi_header *header = &front->reader.header;

    if (header->request_id != front->id) {
        return;
    }
    if (header->type == FCGI_STDOUT) {
        assert_int_equal(buf_append_span(&front->stdout_, content), 0);
    } else if (header->type == FCGI_STDERR) {
        assert_true(header->content_length <= 4096);
        assert_int_equal(buf_append_span(&front->stderr_, content), 0);
    } else {
        assert_true(front->end_length + content.len <= sizeof(front->end_body));
        memcpy(front->end_body + front->end_length, content.ptr, content.len);
        front->end_length += (uint8_t)content.len;
    }
}

static void on_record_end(struct sim_front *front, uint64_t now_ms)
{
    static const uint8_t zeros[3];
    const struct fcgi_header *header = &front->reader.header;

    if (header->request_id != front->id || header->type != FCGI_END_REQUEST) {
        return;
    }
    assert_int_equal(front->end_length, FCGI_BODY_SIZE);
    assert_memory_equal(front->end_body + 5, zeros, sizeof(zeros));
    front->end = fcgi_end_read(front->end_body);
    front->has_answer = true;
    front->is_open = false;
    front->ended_at_ms = now_ms;
}

static void read_records(struct sim_front *front, uint64_t now_ms)
{
    struct span in = buf_span(&front->stream.in);
    enum fcgi_event event;
    struct span content;

    while ((event = fcgi_reader_next(&front->reader, &in, &content)) != FCGI_NEED_DATA) {
        assert_int_not_equal(event, FCGI_MALFORMED);
        if (event == FCGI_RECORD) {
            on_record(front);
        } else if (event == FCGI_CONTENT) {
            on_content(front, content);
        } else {
            on_record_end(front, now_ms);
        }
    }
}

bool front_move(struct sim_front *front, uint64_t now_ms)
{
    bool any = stream_move(&front->stream, now_ms);

    if (front->is_scgi) {
        assert_int_equal(buf_append_span(&front->stdout_, buf_span(&front->stream.in)), 0);
        front->has_answer = front->stream.has_ended && buf_length(&front->stdout_) > 0;
        front->ended_at_ms = front->stream.ended_at_ms;
    } else {
        read_records(front, now_ms);
    }
    buf_clear(&front->stream.in);
    return any;
}

void front_begin(struct sim_front *front, uint16_t id, bool keep)
{
    uint8_t record[FCGI_FIXED_RECORD_SIZE];

    fcgi_begin_write(record, id, FCGI_RESPONDER, keep ? FCGI_KEEP_CONN : 0);
    stream_add_record(&front->stream, FCGI_BEGIN_REQUEST, id,
                      span_of(record + FCGI_HEADER_SIZE, FCGI_BODY_SIZE), 0);
    front->id = id;
    front->is_open = true;
    front->has_answer = false;
    buf_clear(&front->stdout_);
    buf_clear(&front->stderr_);
}

void front_param(struct sim_front *front, const char *name, const char *value)
{
    uint8_t pair[1024];
    size_t len = params_size(strlen(name), strlen(value));

    assert_true(len <= sizeof(pair));
    params_write(pair, span_of_string(name), span_of_string(value));
    stream_add_record(&front->stream, FCGI_PARAMS, front->id, span_of(pair, len), -len & 7);
}

void front_params_end(struct sim_front *front)
{
    stream_add_record(&front->stream, FCGI_PARAMS, front->id, span_of(NULL, 0), 0);
}

void front_stdin(struct sim_front *front, struct span content)
{
    stream_add_content(&front->stream, FCGI_STDIN, front->id, content);
}

void front_stdin_end(struct sim_front *front)
{
    stream_add_record(&front->stream, FCGI_STDIN, front->id, span_of(NULL, 0), 0);
}

void front_abort(struct sim_front *front)
{
    stream_add_record(&front->stream, FCGI_ABORT_REQUEST, front->id, span_of(NULL, 0), 0);
}

void front_head(struct sim_front *front, bool keep, const char *method, const char *length)
{
    front_begin(front, front->id, keep);
    front_param(front, "SCRIPT_FILENAME", "/srv/www/page.php");
    front_param(front, "REQUEST_METHOD", method);
    front_param(front, "CONTENT_LENGTH", length == NULL ? "" : length);
    front_param(front, "HTTP_PROXY", "http://evil.example/");
    front_params_end(front);
}

void front_scgi_head(struct sim_front *front, const char *method, const char *length)
{
    char pairs[256];
    /* Each %c is the NUL behind a name or a value. */
    int len = snprintf(pairs, sizeof(pairs),
                       "CONTENT_LENGTH%c%s%cSCGI%c1%cREQUEST_METHOD%c%s%cSCRIPT_FILENAME%c"
                       "/srv/www/page.php%cHTTP_PROXY%chttp://evil.example/%c",
                       0, length == NULL ? "0" : length, 0, 0, 0, 0, method, 0, 0, 0, 0, 0);

    assert_int_equal(buf_printf(&front->stream.out, "%d:", len), 0);
    assert_int_equal(buf_append(&front->stream.out, pairs, (size_t)len), 0);
    assert_int_equal(buf_append_string(&front->stream.out, ","), 0);
}

void front_scgi_body(struct sim_front *front, struct span body)
{
    assert_int_equal(buf_append_span(&front->stream.out, body), 0);
}

void front_get(struct sim_front *front, bool keep)
{
    front_head(front, keep, "GET", NULL);
    front_stdin_end(front);
}

void front_post(struct sim_front *front, bool keep, struct span body)
{
    char length[24];

    snprintf(length, sizeof(length), "%zu", body.len);
    front_head(front, keep, "POST", length);
    front_stdin(front, body);
    front_stdin_end(front);
}

void front_post_unannounced(struct sim_front *front, bool keep, struct span body)
{
    front_head(front, keep, "POST", NULL);
    front_stdin(front, body);
    front_stdin_end(front);
}
