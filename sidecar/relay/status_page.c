/* SPDX-License-Identifier: MIT */
/*
 * What the formats of the status page share. Must never let a byte of a peer into a page unescaped.
 */
#include "sidecar/relay/status_page.h"

#include <stdio.h>

#include "sidecar/base/utf8.h"

/* The longest line that is printed at once, but for texts of peers, which are not printed. */
#define LINE_SIZE 512

void status_put_span(struct status_out *out, struct span span)
{
    if (out->error == 0) {
        out->error = buf_append_span(&out->buf, span);
    }
}

void status_put(struct status_out *out, const char *string)
{
    status_put_span(out, span_of_string(string));
}

void status_printf(struct status_out *out, const char *format, ...)
{
    char line[LINE_SIZE];
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= sizeof(line)) {
        length = 0; /* only a mistake of ours could do that, and half a line is worse than none */
    }
    status_put_span(out, span_of(line, (size_t)length));
}

const struct status_writer *status_writer(enum status_format format)
{
    static const struct status_writer *const writers[] = {
        [STATUS_TEXT] = &status_writer_text,
        [STATUS_JSON] = &status_writer_json,
        [STATUS_HTML] = &status_writer_html,
        [STATUS_XML] = &status_writer_xml,
        [STATUS_OPENMETRICS] = &status_writer_openmetrics,
    };

    return writers[format];
}

/* Takes the name of the next variable off the query. */
static struct span take_name(struct span *query)
{
    const uint8_t *end = query->len == 0 ? NULL : memchr(query->ptr, '&', query->len);
    struct span pair = span_take(query, end == NULL ? query->len : (size_t)(end - query->ptr));
    const uint8_t *equals = pair.len == 0 ? NULL : memchr(pair.ptr, '=', pair.len);

    if (query->len > 0) {
        span_skip(query, 1);
    }
    return equals == NULL ? pair : span_of(pair.ptr, (size_t)(equals - pair.ptr));
}

struct status_wish status_wish_parse(struct span query)
{
    static const struct {
        const char *name;
        enum status_format format;
    } formats[] = {
        { "openmetrics", STATUS_OPENMETRICS },
        { "json", STATUS_JSON },
        { "xml", STATUS_XML },
        { "html", STATUS_HTML },
    };
    struct status_wish wish = { .format = STATUS_TEXT };
    size_t rank = 0;

    while (query.len > 0) {
        struct span name = take_name(&query);

        wish.is_full |= span_is(name, "full");
        for (size_t i = rank; i < sizeof(formats) / sizeof(formats[0]); i++) {
            if (span_is(name, formats[i].name)) {
                wish.format = formats[i].format;
                rank = i;
            }
        }
    }
    return wish;
}

/* XML 1.0 has no way to write these, though they are characters (section 2.2). */
static bool is_shown(uint32_t code)
{
    return !utf8_is_control(code) && code != 0xfffe && code != 0xffff;
}

int status_visible(struct span text, size_t max, struct buf *out)
{
    bool is_cut = text.len > max;
    int error = 0;

    text.len = is_cut ? max : text.len;
    while (error == 0 && text.len > 0) {
        uint32_t code = 0;
        size_t taken = utf8_decode(text, &code);

        if (taken == 0 && is_cut && utf8_length(text) < 0) {
            break; /* the cut went through a character */
        }
        if (taken > 0 && is_shown(code)) {
            error = buf_append(out, text.ptr, taken);
        } else if (taken > 1) {
            error = buf_printf(out, "\\u%04x", (unsigned)code);
        } else {
            error = buf_printf(out, "\\x%02x", text.ptr[0]);
        }
        span_skip(&text, taken == 0 ? 1 : taken);
    }
    return error == 0 && is_cut ? buf_append_string(out, "...") : error;
}

static const char *markup_of(uint8_t byte)
{
    switch (byte) {
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '&':
        return "&amp;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    default:
        return NULL;
    }
}

void status_put_markup(struct status_out *out, struct span text)
{
    while (text.len > 0) {
        size_t plain = 0;

        while (plain < text.len && markup_of(text.ptr[plain]) == NULL) {
            plain++;
        }
        status_put_span(out, span_take(&text, plain));
        if (text.len > 0) {
            status_put(out, markup_of(text.ptr[0]));
            span_skip(&text, 1);
        }
    }
}

void status_time_text(time_t time, char text[STATUS_TIME_SIZE])
{
    struct tm utc;

    text[0] = '\0';
    if (gmtime_r(&time, &utc) != NULL) {
        (void)strftime(text, STATUS_TIME_SIZE, "%d/%b/%Y:%H:%M:%S +0000", &utc);
    }
}
