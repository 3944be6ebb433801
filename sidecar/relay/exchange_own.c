/* SPDX-License-Identifier: MIT */
/*
 * Requests that the sidecar answers itself: status page and ping. Must never need a worker, nor
 * hold more of a long page than a piece of it.
 */
#include <errno.h>
#include <stdlib.h>

#include "fcgi/params.h"
#include "fcgi/writer.h"
#include "sidecar/relay/exchange_parts.h"

/* A page without rows, or the longest piece of one with rows: PIECE_SIZE and a row. */
#define PAGE_MAX ((size_t)256 * 1024)
#define PIECE_SIZE ((size_t)16 * 1024)

/* A full page that waits for its rows or is being written. */
struct own_page {
    struct survey_reader reader;
    const struct status_writer *writer;
    bool has_begun;
    bool has_row;
};

struct own_request {
    bool is_head;
    struct span query;
};

static struct own_request read_request(const struct exchange *exchange)
{
    struct own_request own = { .is_head = false, .query = span_of(NULL, 0) };
    struct span rest = buf_span(&exchange->front.params);
    struct span name;
    struct span value;

    while (params_next(&rest, &name, &value) == PARAMS_PAIR) {
        if (span_is(name, "REQUEST_METHOD")) {
            own.is_head = span_is(value, "HEAD");
        } else if (span_is(name, "QUERY_STRING")) {
            own.query = value;
        }
    }
    return own;
}

/* PHP-FPM's headers for the same pages (sapi/fpm/fpm/fpm_status.c), and nothing may run in them. */
static void put_head(const char *content_type, struct status_out *out)
{
    status_printf(out,
                  "Status: 200 OK\r\n"
                  "Content-Type: %s\r\n"
                  "Expires: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
                  "Cache-Control: no-cache, no-store, must-revalidate, max-age=0\r\n"
                  "X-Content-Type-Options: nosniff\r\n"
                  "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\n",
                  content_type);
}

static void end(struct exchange *exchange)
{
    if (front_queue_end(&exchange->front, 0, FCGI_REQUEST_COMPLETE) == 0) {
        exchange_end_request(exchange);
    } else {
        exchange_close(exchange);
    }
}

static void out_of_memory(struct exchange *exchange)
{
    exchange_fail_text(exchange, FAILURE_BUSY, "The server is out of memory. Try again.");
}

/* Of a page that is held whole. */
static void answer(struct exchange *exchange, const char *content_type, struct span body,
                   bool is_head)
{
    struct status_out out = { .error = 0 };

    buf_init(&out.buf, PAGE_MAX * 2);
    put_head(content_type, &out);
    status_printf(&out, "Content-Length: %zu\r\n\r\n", body.len);
    if (!is_head) {
        status_put_span(&out, body);
    }
    if (out.error != 0) {
        out_of_memory(exchange);
    } else if (exchange_queue_stdout(exchange, buf_span(&out.buf))) {
        end(exchange);
    }
    buf_deinit(&out.buf);
}

static void answer_figures(struct exchange *exchange, const struct status_writer *writer,
                           bool is_head)
{
    struct status_out out = { .error = 0 };
    struct status_numbers numbers;

    buf_init(&out.buf, PAGE_MAX);
    status_collect(exchange->relay->survey.board, &numbers);
    writer->begin(&numbers, NULL, &out);
    writer->end(false, &out);
    if (out.error != 0) {
        out_of_memory(exchange);
    } else {
        answer(exchange, writer->content_type, buf_span(&out.buf), is_head);
    }
    buf_deinit(&out.buf);
}

/* How long it gets is known at its end only: no Content-Length. */
static void answer_head(struct exchange *exchange, const struct status_writer *writer)
{
    struct status_out out = { .error = 0 };

    buf_init(&out.buf, PAGE_MAX);
    put_head(writer->content_type, &out);
    status_put(&out, "\r\n");
    if (out.error != 0) {
        out_of_memory(exchange);
    } else if (exchange_queue_stdout(exchange, buf_span(&out.buf))) {
        end(exchange);
    }
    buf_deinit(&out.buf);
}

static void begin_full(struct exchange *exchange, const struct status_writer *writer)
{
    struct own_page *page = calloc(1, sizeof(*page));

    if (page == NULL) {
        out_of_memory(exchange);
        return;
    }
    page->writer = writer;
    exchange->request->page = page;
    exchange_change_state(exchange, EXCHANGE_STATUS);
    survey_join(&exchange->relay->survey, &page->reader, &exchange->task);
}

void exchange_answer_own(struct exchange *exchange)
{
    struct own_request own = read_request(exchange);
    struct status_wish wish = status_wish_parse(own.query);
    const struct status_writer *writer = status_writer(wish.format);

    stats_count(exchange->relay->stats, STAT_REQUESTS_OWN);
    if (exchange->request->own == OWN_PING) {
        answer(exchange, "text/plain; charset=utf-8",
               span_of_string(exchange->relay->options->ping_response), own.is_head);
    } else if (!wish.is_full || writer->row == NULL) {
        answer_figures(exchange, writer, own.is_head);
    } else if (own.is_head) {
        answer_head(exchange, writer);
    } else {
        begin_full(exchange, writer);
    }
}

static void put_begin(const struct exchange *exchange, struct status_out *out)
{
    struct own_page *page = exchange->request->page;
    struct status_numbers numbers;
    struct status_listing listing;

    page->has_begun = true;
    status_collect(exchange->relay->survey.board, &numbers);
    survey_listing(&page->reader, &listing);
    put_head(page->writer->content_type, out);
    status_put(out, "\r\n");
    page->writer->begin(&numbers, &listing, out);
}

/* False: that was the end of the page. */
static bool put_piece(const struct exchange *exchange, struct status_out *out)
{
    struct own_page *page = exchange->request->page;
    struct status_row row;

    if (!page->has_begun) {
        put_begin(exchange, out);
    }
    while (out->error == 0 && buf_length(&out->buf) < PIECE_SIZE) {
        if (!survey_next(&page->reader, &row)) {
            page->writer->end(true, out);
            return false;
        }
        page->writer->row(&row, !page->has_row, out);
        page->has_row = true;
    }
    return true;
}

static void send_piece(struct exchange *exchange)
{
    struct status_out out = { .error = 0 };
    bool is_last;

    buf_init(&out.buf, PAGE_MAX);
    is_last = !put_piece(exchange, &out);
    if (out.error != 0) {
        out_of_memory(exchange);
    } else if (exchange_queue_stdout(exchange, buf_span(&out.buf))) {
        exchange->request->head_is_out = true;
        if (is_last) {
            end(exchange);
        }
    }
    buf_deinit(&out.buf);
}

void exchange_process_own(struct exchange *exchange)
{
    if (!outq_is_empty(&exchange->front.out)) {
        return;
    }
    switch (survey_state(&exchange->request->page->reader)) {
    case SURVEY_WAITING:
        break;
    case SURVEY_FAILED:
        out_of_memory(exchange);
        break;
    case SURVEY_READY:
        send_piece(exchange);
        break;
    }
}

void exchange_drop_page(struct request *request)
{
    if (request->page != NULL) {
        survey_leave(&request->page->reader);
        free(request->page);
        request->page = NULL;
    }
}
