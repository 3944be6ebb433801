/* SPDX-License-Identifier: MIT */
/*
 * Feeds inih. Every line is judged before inih sees it, so that inih never meets one that it would
 * cut, skip or misread without a word; such a line is reported, and inih gets an empty one instead.
 * Must work for any bytes.
 */

#include "sidecar/config_lines.h"

#include <errno.h>
#include <ini.h>
#include <stdio.h>

#include "sidecar/config_hints.h"

struct config_lines {
    const struct config_lines_events *events;
    void *owner;
    struct span left;
    unsigned line;
    bool has_name;        /* an indented line continues a value */
    bool is_continuation; /* the line that inih has now does */
    bool is_passed_over;  /* what an indented line would continue was reported */
    int error;
};

/* The next line without its end. */
static struct span config_lines_next(struct config_lines *lines)
{
    const uint8_t *end = memchr(lines->left.ptr, '\n', lines->left.len);
    size_t length = end == NULL ? lines->left.len : (size_t)(end - lines->left.ptr);
    struct span line = span_take(&lines->left, length);

    span_take(&lines->left, 1);
    lines->line++;
    if (line.len > 0 && line.ptr[line.len - 1] == '\r') {
        line.len--;
    }
    if (lines->line == 1 && line.len >= 3 && memcmp(line.ptr, "\xef\xbb\xbf", 3) == 0) {
        span_skip(&line, 3);
    }
    return line;
}

static bool config_is_space(uint8_t byte)
{
    return byte == ' ' || byte == '\t';
}

/* Without a comment and the spaces before it. inih of older versions keeps comments in lines that
 * continue a value. */
static struct span config_without_comment(struct span line)
{
    struct span trimmed = span_trim(line);

    if (trimmed.len > 0 && (trimmed.ptr[0] == ';' || trimmed.ptr[0] == '#')) {
        return span_of(line.ptr, 0);
    }
    for (size_t i = 1; i < line.len; i++) {
        if (line.ptr[i] == ';' && config_is_space(line.ptr[i - 1])) {
            line.len = i;
        }
    }
    while (line.len > 0 && config_is_space(line.ptr[line.len - 1])) {
        line.len--;
    }
    return line;
}

static bool config_has_control(struct span line)
{
    for (size_t i = 0; i < line.len; i++) {
        if ((line.ptr[i] < 0x20 && line.ptr[i] != '\t') || line.ptr[i] == 0x7f) {
            return true;
        }
    }
    return false;
}

static bool config_has_byte(struct span line, int byte)
{
    return line.len > 0 && memchr(line.ptr, byte, line.len) != NULL;
}

/* What is wrong with the form of a line that begins at its start or after a section, or NULL. */
static const char *config_form_problem(struct span line)
{
    if (line.ptr[0] == '[') {
        const uint8_t *end = memchr(line.ptr, ']', line.len);

        if (end == NULL) {
            return "a section without ]; allowed is [section]";
        }
        if (end + 1 != line.ptr + line.len) {
            return "text behind a section; allowed is [section] and nothing else in its line";
        }
        return NULL;
    }
    if (!config_has_byte(line, '=') && !config_has_byte(line, ':')) {
        return "neither a section nor a key with its value; allowed are [section] and key = value";
    }
    if (line.ptr[0] == '=' || line.ptr[0] == ':') {
        return "no key before the value; allowed is key = value";
    }
    return NULL;
}

static void config_lines_pass_over(struct config_lines *lines, struct span line,
                                   const char *problem)
{
    char text[192];

    snprintf(text, sizeof(text), "%s%s", problem,
             config_hint_line((const char *)line.ptr, line.len));
    if (line.ptr[0] == '[') {
        lines->error = lines->events->on_section(lines->owner, lines->line, NULL);
    }
    lines->events->on_problem(lines->owner, lines->line, text);
    lines->has_name = false;
    lines->is_passed_over = true;
}

static void config_lines_begin_section(struct config_lines *lines, struct span line)
{
    char name[256];
    size_t length = line.len - 2 < sizeof(name) - 1 ? line.len - 2 : sizeof(name) - 1;

    memcpy(name, line.ptr + 1, length);
    name[length] = '\0';
    lines->has_name = false;
    lines->error = lines->events->on_section(lines->owner, lines->line, name);
}

/* True where inih shall see the line (without comment, not empty), false where it is reported or
 * has nothing for inih. size is that of inih's memory for a line. */
static bool config_lines_accept(struct config_lines *lines, struct span line, size_t size)
{
    bool is_indented = config_is_space(line.ptr[0]);
    const char *problem;

    lines->is_continuation = is_indented && lines->has_name;
    if (is_indented && lines->is_passed_over) {
        return false;
    }
    lines->is_passed_over = false;
    if (config_has_control(line)) {
        config_lines_pass_over(lines, line, "a control character; allowed is text");
        return false;
    }
    /* inih needs room for the line feed and the end of the string. */
    if (line.len + 2 > size) {
        char text[128];

        snprintf(text, sizeof(text),
                 "the line would be cut, it is longer than %zu bytes; go on in an indented line",
                 size - 2);
        config_lines_pass_over(lines, line, text);
        return false;
    }
    if (lines->is_continuation) {
        return true;
    }
    line = span_trim(line);
    problem = config_form_problem(line);
    if (problem != NULL) {
        config_lines_pass_over(lines, line, problem);
        return false;
    }
    if (line.ptr[0] == '[') {
        config_lines_begin_section(lines, line);
    }
    return true;
}

/* inih's fgets. */
static char *config_lines_reader(char *bytes, int size, void *stream)
{
    struct config_lines *lines = stream;
    struct span line;

    if (lines->left.len == 0 || lines->error != 0 || size < 3) {
        return NULL;
    }
    line = config_without_comment(config_lines_next(lines));
    if (line.len == 0 || !config_lines_accept(lines, line, (size_t)size)) {
        line.len = 0;
    }
    if (line.len > 0) {
        memcpy(bytes, line.ptr, line.len);
    }
    bytes[line.len] = '\n';
    bytes[line.len + 1] = '\0';
    return bytes;
}

/* inih's handler: 1 is success. The section is known from on_section, which is never cut. */
static int config_lines_on_value(void *user, const char *section, const char *name,
                                 const char *value)
{
    struct config_lines *lines = user;

    (void)section;
    if (lines->error != 0) {
        return 1;
    }
    if (lines->is_continuation) {
        lines->error = lines->events->on_continuation(lines->owner, lines->line, value);
    } else {
        lines->has_name = true;
        lines->error = lines->events->on_value(lines->owner, lines->line, name, value);
    }
    return 1;
}

int config_lines_read(struct span bytes, const struct config_lines_events *events, void *owner)
{
    struct config_lines lines = { .events = events, .owner = owner, .left = bytes };
    int result = ini_parse_stream(config_lines_reader, &lines, config_lines_on_value, &lines);

    if (result < 0) {
        return -ENOMEM;
    }
    if (result > 0 && lines.error == 0) {
        events->on_problem(owner, (unsigned)result, "the line cannot be read");
    }
    return lines.error;
}
