/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_RELAY_STATUS_PAGE_H
#define SIDECAR_RELAY_STATUS_PAGE_H

/*
 * The status page in its five formats. Each is a writer of three functions that are called in this
 * order: begin with the figures, a row for each exchange of a full page, the end. A page of many
 * rows is written piece by piece, as the web server takes it, and never held whole. Pure.
 */

#include "sidecar/base/buf.h"
#include "sidecar/relay/status.h"

enum status_format { STATUS_TEXT, STATUS_JSON, STATUS_HTML, STATUS_XML, STATUS_OPENMETRICS };

/* What the page is written to; the first error stays, and nothing is added after it. */
struct status_out {
    struct buf buf;
    int error; /* 0, -ENOMEM or -ENOBUFS */
};

void status_put(struct status_out *out, const char *string);
void status_put_span(struct status_out *out, struct span span);
void status_printf(struct status_out *out, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* One exchange of a full page. Texts are visible text in UTF-8 (see status_visible). */
struct status_row {
    const char *state;
    uint64_t age_ms;
    struct span request; /* method and URI */
    struct span build;   /* request_id of its build */
    uint64_t bytes;      /* sent to the web server */
};

/* What a full page says of its rows. */
struct status_listing {
    uint64_t shown;
    uint64_t left_out; /* because a page has an end */
    uint64_t silent;   /* threads that did not answer in time */
};

struct status_writer {
    const char *content_type;
    /* listing: NULL where the page is not full. */
    void (*begin)(const struct status_numbers *numbers, const struct status_listing *listing,
                  struct status_out *out);
    /* NULL: the format has no rows, and no full page. */
    void (*row)(const struct status_row *row, bool is_first, struct status_out *out);
    void (*end)(bool is_full, struct status_out *out);
};

/* Never NULL; static. */
const struct status_writer *status_writer(enum status_format format);

/* The writers, each in a file of its own. */
extern const struct status_writer status_writer_text;
extern const struct status_writer status_writer_json;
extern const struct status_writer status_writer_html;
extern const struct status_writer status_writer_xml;
extern const struct status_writer status_writer_openmetrics;

/* What a query string asks for; as in PHP-FPM a name alone is enough, and of several formats the
 * first of html, xml, json, openmetrics counts. */
struct status_wish {
    enum status_format format;
    bool is_full;
};

struct status_wish status_wish_parse(struct span query);

/*
 * Appends a peer's text so that it may be shown: control characters and what is no UTF-8, or no
 * character that XML allows, become \x1b or \u202e. At most max bytes of it are taken, and a cut is
 * shown by "...". 0, -ENOMEM or -ENOBUFS.
 */
int status_visible(struct span text, size_t max, struct buf *out);

/* The escaping of HTML and XML, for text and for attributes between double quotes. */
void status_put_markup(struct status_out *out, struct span text);

/* "25/Nov/2026:01:46:57 +0000", as PHP-FPM writes it; always UTC. */
#define STATUS_TIME_SIZE 32
void status_time_text(time_t time, char text[STATUS_TIME_SIZE]);

#endif
