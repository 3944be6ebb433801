/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BASE_LOG_H
#define SIDECAR_BASE_LOG_H

/*
 * One line an event: time, level, message, then named fields. Messages are fixed texts; whatever
 * comes from a peer goes into a field, where it is escaped (control characters, quotes, bytes that
 * are no UTF-8) and cut, so that no peer can forge a line or send an escape sequence to a terminal.
 *
 *     text   time=2026-11-24T22:40:02.123Z level=info msg="build completed" request_id=…
 * json   {"time":"2026-11-24T22:40:02.123Z","level":"info","msg":"build completed","request_id":…}
 *
 * A line is written with one write(2) and is never longer than LOG_LINE_MAX, which a pipe takes
 * whole or not at all (PIPE_BUF). A line that the descriptor does not take is counted as lost and
 * the loss is told in the next line that passes. A struct log is shared by all threads and never
 * changes after log_init, except for its counter of lost lines.
 */

#include <stdatomic.h>

#include "fcgi/span.h"

#define LOG_LINE_MAX 4096
/* Bytes of one field's value before escaping; more is cut and ends in "...". */
#define LOG_VALUE_MAX 1024

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_format { LOG_TEXT, LOG_JSON };

struct log {
    int fd; /* borrowed */
    enum log_level level;
    enum log_format format;
    atomic_ulong lost;
};

enum log_field_type { LOG_FIELD_SPAN, LOG_FIELD_INT, LOG_FIELD_UINT, LOG_FIELD_ERRNO };

struct log_field {
    const char *name;
    enum log_field_type type;
    struct span span; /* borrowed for the call */
    int64_t number;
};

void log_init(struct log *log, int fd, enum log_level level, enum log_format format);

void log_event(struct log *log, enum log_level level, const char *message,
               const struct log_field *fields, size_t count);

static inline bool log_enabled(const struct log *log, enum log_level level)
{
    return level >= log->level;
}

static inline struct log_field log_span(const char *name, struct span value)
{
    return (struct log_field){ .name = name, .type = LOG_FIELD_SPAN, .span = value };
}

static inline struct log_field log_str(const char *name, const char *value)
{
    return log_span(name, value == NULL ? span_of("", 0) : span_of_string(value));
}

static inline struct log_field log_int(const char *name, int64_t value)
{
    return (struct log_field){ .name = name, .type = LOG_FIELD_INT, .number = value };
}

static inline struct log_field log_uint(const char *name, uint64_t value)
{
    return (struct log_field){ .name = name, .type = LOG_FIELD_UINT, .number = (int64_t)value };
}

/* error is an errno value, positive or negative; printed as its text ("Connection refused"). */
static inline struct log_field log_errno(const char *name, int error)
{
    return (struct log_field){ .name = name, .type = LOG_FIELD_ERRNO, .number = error };
}

/* log_info(log, "build started", log_str("request_id", id), log_uint("attempt", 1)) and the like.
 * At least one field. */
#define LOG_FIELDS(...)                                                                            \
    (const struct log_field[]){ __VA_ARGS__ },                                                     \
        sizeof((const struct log_field[]){ __VA_ARGS__ }) / sizeof(struct log_field)
#define log_at(log, level, message, ...)                                                           \
    do {                                                                                           \
        if (log_enabled(log, level)) {                                                             \
            log_event(log, level, message, LOG_FIELDS(__VA_ARGS__));                               \
        }                                                                                          \
    } while (0)
#define log_debug(log, message, ...) log_at(log, LOG_DEBUG, message, __VA_ARGS__)
#define log_info(log, message, ...) log_at(log, LOG_INFO, message, __VA_ARGS__)
#define log_warn(log, message, ...) log_at(log, LOG_WARN, message, __VA_ARGS__)
#define log_error(log, message, ...) log_at(log, LOG_ERROR, message, __VA_ARGS__)

/* Level and format by their names in the configuration, e.g. "warn"; false if there is no such. */
bool log_level_parse(const char *name, enum log_level *level);
bool log_format_parse(const char *name, enum log_format *format);
const char *log_level_name(enum log_level level);

#endif
