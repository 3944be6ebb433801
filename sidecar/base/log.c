/* SPDX-License-Identifier: MIT */
/*
 * Makes one line of an event and writes it with one write(2). It must never let a byte of a peer
 * through unescaped, never write half a line, never allocate, and never wait longer than the
 * descriptor makes it wait.
 */

#include "sidecar/base/log.h"

#include <errno.h>
#include <features.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "sidecar/base/clock.h"
#include "sidecar/base/utf8.h"

/* Room that is always left for the end of a line: three dots, a quote, a brace, the line feed. */
#define LOG_TAIL 6
/* The longest text that one character of a value becomes: "\u0000". */
#define LOG_ESCAPE_MAX 6

struct log_line {
    enum log_format format;
    size_t length;
    char bytes[LOG_LINE_MAX];
};

static const char *const log_level_names[] = {
    [LOG_DEBUG] = "debug",
    [LOG_INFO] = "info",
    [LOG_WARN] = "warn",
    [LOG_ERROR] = "error",
};

static const char *const log_format_names[] = { [LOG_TEXT] = "text", [LOG_JSON] = "json" };

static bool log_name_find(const char *name, const char *const *names, unsigned count,
                          unsigned *index)
{
    for (unsigned i = 0; i < count; i++) {
        if (strcmp(name, names[i]) == 0) {
            *index = i;
            return true;
        }
    }
    return false;
}

bool log_level_parse(const char *name, enum log_level *level)
{
    unsigned index;

    if (!log_name_find(name, log_level_names, LOG_ERROR + 1, &index)) {
        return false;
    }
    *level = (enum log_level)index;
    return true;
}

bool log_format_parse(const char *name, enum log_format *format)
{
    unsigned index;

    if (!log_name_find(name, log_format_names, LOG_JSON + 1, &index)) {
        return false;
    }
    *format = (enum log_format)index;
    return true;
}

const char *log_level_name(enum log_level level)
{
    return log_level_names[level];
}

void log_init(struct log *log, int fd, enum log_level level, enum log_format format)
{
    log->fd = fd;
    log->level = level;
    log->format = format;
    atomic_init(&log->lost, 0);
}

static bool log_line_has_room(const struct log_line *line, size_t len)
{
    return len + LOG_TAIL <= sizeof(line->bytes) - line->length;
}

/* The caller has made sure that there is room, or that this is the tail. */
static void log_line_put(struct log_line *line, const void *bytes, size_t len)
{
    memcpy(line->bytes + line->length, bytes, len);
    line->length += len;
}

static void log_line_put_string(struct log_line *line, const char *string)
{
    log_line_put(line, string, strlen(string));
}

/* The escaped text of one character, without its end; at most LOG_ESCAPE_MAX bytes. */
static size_t log_escape(enum log_format format, uint32_t code, char text[LOG_ESCAPE_MAX + 1])
{
    const char *names = "\n\r\t";
    const char *found = code == 0 || code > 0x7f ? NULL : strchr(names, (int)code);

    if (code == '"' || code == '\\') {
        text[0] = '\\';
        text[1] = (char)code;
        return 2;
    }
    if (found != NULL) {
        text[0] = '\\';
        text[1] = "nrt"[found - names];
        return 2;
    }
    if (format == LOG_TEXT && code < 0x80) {
        return (size_t)snprintf(text, LOG_ESCAPE_MAX + 1, "\\x%02x", (unsigned)code);
    }
    return (size_t)snprintf(text, LOG_ESCAPE_MAX + 1, "\\u%04x", (unsigned)(code & 0xffff));
}

/* Bytes that are no UTF-8: text shows them, JSON has no way to and gets the replacement. */
static size_t log_escape_byte(enum log_format format, uint8_t byte, char text[LOG_ESCAPE_MAX + 1])
{
    if (format == LOG_JSON) {
        return (size_t)snprintf(text, LOG_ESCAPE_MAX + 1, "\\ufffd");
    }
    return (size_t)snprintf(text, LOG_ESCAPE_MAX + 1, "\\x%02x", byte);
}

/* Writes as much of a value as fits, character by character. False where some is missing. */
static bool log_line_escape(struct log_line *line, struct span value)
{
    char text[LOG_ESCAPE_MAX + 1];

    while (value.len > 0) {
        uint32_t code = 0;
        size_t taken = utf8_decode(value, &code);
        const void *out = value.ptr;
        size_t length = taken;

        if (taken == 0) {
            length = log_escape_byte(line->format, value.ptr[0], text);
            taken = 1;
            out = text;
        } else if (utf8_is_control(code) || code == '"' || code == '\\') {
            length = log_escape(line->format, code, text);
            out = text;
        }
        if (!log_line_has_room(line, length)) {
            return false;
        }
        log_line_put(line, out, length);
        span_skip(&value, taken);
    }
    return true;
}

/* At most LOG_VALUE_MAX bytes, and not in the middle of a character. */
static struct span log_cut(struct span value)
{
    size_t length = LOG_VALUE_MAX;
    uint32_t code;

    if (value.len <= LOG_VALUE_MAX) {
        return value;
    }
    while (length > LOG_VALUE_MAX - 3 && (value.ptr[length] & 0xc0) == 0x80) {
        length--;
    }
    /* Stray continuation bytes belong to no character: then any place is as good. */
    if (utf8_decode(span_of(value.ptr + length, value.len - length), &code) == 0) {
        length = LOG_VALUE_MAX;
    }
    return span_of(value.ptr, length);
}

static void log_line_quoted(struct log_line *line, struct span value)
{
    struct span shown = log_cut(value);
    bool complete;

    log_line_put(line, "\"", 1);
    complete = log_line_escape(line, shown) && shown.len == value.len;
    if (!complete) {
        log_line_put(line, "...", 3);
    }
    log_line_put(line, "\"", 1);
}

/* Whether a value may stand in a text line as it is. */
static bool log_is_plain(struct span value)
{
    for (size_t i = 0; i < value.len; i++) {
        uint8_t byte = value.ptr[i];

        if (byte <= ' ' || byte >= 0x7f || byte == '"' || byte == '=' || byte == '\\') {
            return false;
        }
    }
    return value.len > 0 && value.len <= LOG_VALUE_MAX;
}

static void log_line_value(struct log_line *line, const struct log_field *field)
{
    bool plain = line->format == LOG_TEXT && log_is_plain(field->span);

    if (plain && log_line_has_room(line, field->span.len)) {
        log_line_put(line, field->span.ptr, field->span.len);
    } else {
        log_line_quoted(line, field->span);
    }
}

static const char *log_error_text(int error, char *text, size_t size)
{
    const char *known = NULL;

    error = error < 0 ? -error : error;
#if defined(__GLIBC__) && defined(__GLIBC_PREREQ)
#if __GLIBC_PREREQ(2, 32)
    known = strerrordesc_np(error);
#endif
#endif
    if (known == NULL) {
        snprintf(text, size, "error %d", error);
        known = text;
    }
    return known;
}

/* A field that has no room for its name and the start of a value is left out; a shorter one that
 * follows may still fit. */
static void log_line_field(struct log_line *line, const struct log_field *field)
{
    char number[48] = "";
    struct log_field text = *field;
    bool is_number = field->type == LOG_FIELD_INT || field->type == LOG_FIELD_UINT;

    if (field->type == LOG_FIELD_INT) {
        snprintf(number, sizeof(number), "%" PRId64, field->number);
    } else if (field->type == LOG_FIELD_UINT) {
        snprintf(number, sizeof(number), "%" PRIu64, (uint64_t)field->number);
    } else if (field->type == LOG_FIELD_ERRNO) {
        text.span = span_of_string(log_error_text((int)field->number, number, sizeof(number)));
    }
    if (!log_line_has_room(line, strlen(field->name) + sizeof(number))) {
        return;
    }
    log_line_put_string(line, line->format == LOG_JSON ? ",\"" : " ");
    log_line_put_string(line, field->name);
    log_line_put_string(line, line->format == LOG_JSON ? "\":" : "=");
    if (is_number) {
        log_line_put_string(line, number);
    } else {
        log_line_value(line, &text);
    }
}

static void log_line_time(struct log_line *line)
{
    struct timespec now = clock_wall();
    struct tm utc;
    char text[48] = "";

    if (gmtime_r(&now.tv_sec, &utc) != NULL) {
        size_t length = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &utc);

        snprintf(text + length, sizeof(text) - length, ".%03ldZ", now.tv_nsec / 1000000);
    }
    log_line_put_string(line, text);
}

static void log_line_make(struct log_line *line, enum log_format format, enum log_level level,
                          const char *message, const struct log_field *fields, size_t count)
{
    line->format = format;
    line->length = 0;
    if (format == LOG_JSON) {
        log_line_put_string(line, "{\"time\":\"");
        log_line_time(line);
        log_line_put_string(line, "\",\"level\":\"");
        log_line_put_string(line, log_level_name(level));
        log_line_put_string(line, "\",\"msg\":");
        log_line_quoted(line, span_of_string(message));
    } else {
        struct log_field text = log_str("msg", message);

        log_line_put_string(line, "time=");
        log_line_time(line);
        log_line_put_string(line, " level=");
        log_line_put_string(line, log_level_name(level));
        log_line_field(line, &text);
    }
    for (size_t i = 0; i < count; i++) {
        log_line_field(line, &fields[i]);
    }
    log_line_put_string(line, format == LOG_JSON ? "}\n" : "\n");
}

static bool log_line_write(const struct log_line *line, int fd)
{
    ssize_t written;

    do {
        written = write(fd, line->bytes, line->length);
    } while (written < 0 && errno == EINTR);
    return written == (ssize_t)line->length;
}

/* Tells of the lines that were lost since the last one that passed. */
static bool log_tell_lost(struct log *log, struct log_line *line)
{
    unsigned long lost = atomic_exchange(&log->lost, 0);
    struct log_field field = log_uint("lines_lost", lost);

    if (lost == 0) {
        return true;
    }
    log_line_make(line, log->format, LOG_WARN, "log lines lost", &field, 1);
    if (!log_line_write(line, log->fd)) {
        atomic_fetch_add(&log->lost, lost);
        return false;
    }
    return true;
}

void log_event(struct log *log, enum log_level level, const char *message,
               const struct log_field *fields, size_t count)
{
    struct log_line line;
    int saved_errno = errno;

    if (!log_enabled(log, level)) {
        return;
    }
    if (log_tell_lost(log, &line)) {
        log_line_make(&line, log->format, level, message, fields, count);
        if (!log_line_write(&line, log->fd)) {
            atomic_fetch_add(&log->lost, 1);
        }
    } else {
        atomic_fetch_add(&log->lost, 1);
    }
    errno = saved_errno;
}
