/* SPDX-License-Identifier: MIT */
/*
 * Loads and prints the configuration: lines are collected by key, every key is then parsed once,
 * from the file or from its default, and at last it is seen whether all go together. It reports
 * every mistake, not only the first, and gives no configuration if there is one.
 */

#include "sidecar/config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "sidecar/base/buf.h"
#include "sidecar/config_check.h"
#include "sidecar/config_file.h"
#include "sidecar/config_hints.h"
#include "sidecar/config_lines.h"
#include "sidecar/config_parse.h"
#include "sidecar/config_report.h"
#include "sidecar/config_table.h"
#include "sidecar/config_values.h"

#define CONFIG_SIZE_MAX ((size_t)4 << 20)
/* The longest line that inih, as Debian and Fedora build it, takes whole (INI_MAX_LINE is 200). */
#define CONFIG_PRINTED_LINE_MAX 198

struct config_reading {
    struct config_file *file;
    struct config_report *report;
    const char *section;          /* of the table; NULL before the first and in an unknown one */
    bool in_unknown_section;      /* its keys are not reported one by one */
    const struct config_key *key; /* that an indented line continues; NULL: none that counts */
    unsigned text_line;           /* the last line that went into its text */
};

/* "a, b, c": the names of a section's keys, or of all sections if section is NULL. */
static void config_list_names(const char *section, char *names, size_t size)
{
    const char *previous = "";
    size_t length = 0;

    names[0] = '\0';
    for (size_t i = 0; i < config_key_count() && length < size; i++) {
        const struct config_key *key = config_key_at(i);
        bool wanted = section == NULL ? strcmp(key->section, previous) != 0
                                      : strcmp(key->section, section) == 0;

        if (wanted) {
            length += (size_t)snprintf(names + length, size - length, "%s%s",
                                       length == 0 ? "" : ", ",
                                       section == NULL ? key->section : key->name);
        }
        previous = key->section;
    }
}

static int config_on_section(void *owner, unsigned line, const char *section)
{
    struct config_reading *reading = owner;
    char names[256];
    char hint[96];

    reading->key = NULL;
    reading->section = NULL;
    reading->in_unknown_section = true;
    if (section == NULL) {
        return 0; /* the line is reported next */
    }
    for (size_t i = 0; i < config_key_count(); i++) {
        if (strcmp(config_key_at(i)->section, section) == 0) {
            reading->section = config_key_at(i)->section;
            reading->in_unknown_section = false;
            return 0;
        }
    }
    config_list_names(NULL, names, sizeof(names));
    config_hint_section(section, hint, sizeof(hint));
    config_mistake(reading->report, line, section, NULL, "unknown section%s; allowed are %s", hint,
                   names);
    return 0;
}

static int config_on_value(void *owner, unsigned line, const char *name, const char *value)
{
    struct config_reading *reading = owner;
    const struct config_key *key;
    char names[512];
    char hint[96];
    size_t index;

    reading->key = NULL;
    if (reading->section == NULL) {
        if (!reading->in_unknown_section) {
            config_mistake(reading->report, line, NULL, name,
                           "before the first section; allowed are keys below a [section]");
        }
        return 0;
    }
    key = config_key_find(reading->section, name);
    if (key == NULL) {
        config_list_names(reading->section, names, sizeof(names));
        config_hint_key(reading->section, name, hint, sizeof(hint));
        config_mistake(reading->report, line, reading->section, name,
                       "unknown key%s; allowed are %s", hint, names);
        return 0;
    }
    index = config_key_index(key);
    if (reading->file->texts[index] != NULL) {
        config_mistake(reading->report, line, reading->section, name,
                       "given twice, first in line %u; allowed is each key once",
                       reading->file->lines[index]);
        return 0;
    }
    reading->file->texts[index] = strdup(value);
    reading->file->lines[index] = line;
    reading->text_line = line;
    reading->key = key;
    return reading->file->texts[index] == NULL ? -ENOMEM : 0;
}

static int config_on_continuation(void *owner, unsigned line, const char *value)
{
    struct config_reading *reading = owner;
    unsigned feeds = line - reading->text_line;
    size_t length;
    char *joined;
    char **text;

    if (reading->key == NULL) {
        return 0;
    }
    text = &reading->file->texts[config_key_index(reading->key)];
    length = strlen(*text);
    joined = realloc(*text, length + feeds + strlen(value) + 1);
    if (joined == NULL) {
        return -ENOMEM;
    }
    memset(joined + length, '\n', feeds);
    strcpy(joined + length + feeds, value);
    *text = joined;
    reading->text_line = line;
    return 0;
}

static void config_on_problem(void *owner, unsigned line, const char *problem)
{
    struct config_reading *reading = owner;

    reading->key = NULL;
    config_mistake(reading->report, line, reading->section, NULL, "%s", problem);
}

/* The whole file. 0, -ENOMEM, -EFBIG or another error of reading it. */
static int config_read_bytes(const char *path, struct buf *bytes)
{
    FILE *stream = fopen(path, "re");
    int error = 0;

    if (stream == NULL) {
        return -errno;
    }
    while (error == 0 && !feof(stream)) {
        uint8_t *room = NULL;

        error = buf_reserve(bytes, 4096, &room);
        if (error == 0) {
            errno = EIO;
            buf_commit(bytes, fread(room, 1, 4096, stream));
            error = ferror(stream) ? -errno : 0;
        }
    }
    fclose(stream);
    return error == -ENOBUFS ? -EFBIG : error;
}

/* 0, -ENOMEM, or -EINVAL where there is nothing to check, which has been reported. */
static int config_collect(const char *path, struct config_reading *reading)
{
    static const struct config_lines_events events = {
        .on_section = config_on_section,
        .on_value = config_on_value,
        .on_continuation = config_on_continuation,
        .on_problem = config_on_problem,
    };
    struct buf bytes;
    int error;

    buf_init(&bytes, CONFIG_SIZE_MAX);
    error = config_read_bytes(path, &bytes);
    if (error == 0) {
        error = config_lines_read(buf_span(&bytes), &events, reading);
    } else if (error != -ENOMEM) {
        config_mistake(reading->report, 0, NULL, NULL, "cannot be read: %s%s", strerror(-error),
                       error == -EFBIG ? "; allowed are at most 4M" : "");
        error = -EINVAL;
    }
    buf_deinit(&bytes);
    return error;
}

/* The default of a key; it is always valid, so only memory can be missing. */
static int config_parse_standard(struct config_file *file, const struct config_key *key)
{
    struct config_value value = { .file = file, .key = key, .text = key->standard };

    return config_value_parse(&value);
}

/* After a mistake the default stands in, so that the other checks see something sensible. */
static int config_replace_broken(struct config_file *file, const struct config_key *key)
{
    size_t index = config_key_index(key);
    char *standard = strdup(key->standard);

    if (standard == NULL) {
        return -ENOMEM;
    }
    free(file->texts[index]);
    file->texts[index] = standard;
    file->lines[index] = 0;
    file->broken[index] = true;
    return config_parse_standard(file, key);
}

/* A key that is in the file. */
static int config_parse_given(struct config_file *file, const struct config_key *key,
                              struct config_report *report)
{
    size_t index = config_key_index(key);
    struct config_value value = { .file = file, .key = key, .text = file->texts[index] };
    int error = config_value_parse(&value);

    if (error == -EINVAL) {
        config_mistake(report, file->lines[index] + value.line, key->section, key->name, "%s%s",
                       value.problem, config_hint_value(file->texts[index]));
        error = config_replace_broken(file, key);
    }
    return error;
}

static int config_parse_keys(struct config_file *file, struct config_report *report)
{
    for (size_t i = 0; i < config_key_count(); i++) {
        const struct config_key *key = config_key_at(i);
        int error;

        if (file->texts[i] == NULL) {
            file->texts[i] = strdup(key->standard);
            error = file->texts[i] == NULL ? -ENOMEM : config_parse_standard(file, key);
        } else {
            error = config_parse_given(file, key, report);
        }
        if (error != 0) {
            return error;
        }
    }
    return 0;
}

/* Adds build_path to a base URL that has no path of its own. */
static int config_complete_server(struct velox_server *server, const char *build_path)
{
    char *authority = strstr(server->url, "://") + 3;
    char *path = strchr(authority, '/');
    char *url;

    if (path != NULL && path[1] != '\0') {
        return 0;
    }
    if (path != NULL) {
        *path = '\0';
    }
    if (asprintf(&url, "%s%s", server->url, build_path) < 0) {
        return -ENOMEM;
    }
    free(server->url);
    server->url = url;
    return 0;
}

/* What follows from several keys. */
static int config_complete(struct config_file *file)
{
    struct config *config = &file->config;
    int error = 0;

    for (size_t i = 0; i < config->build.server_count && error == 0; i++) {
        error = config_complete_server(&config->build.servers[i], file->build_path);
    }
    config->relay.intercept = config->build.server_count > 0;
    config->build.artifact.spool_directory = config->relay.spool_directory;
    config->build.artifact.max_spooled_bytes = config->relay.max_spooled_body;
    if (config->build.artifact.roots.count > 0) {
        config->relay.accel_root = config->build.artifact.roots.items[0];
    }
    if (!config->has_user) {
        config->user = geteuid();
    }
    if (!config->has_group) {
        config->group = config->has_user ? file->user_group : getegid();
    }
    if (file->gigabytes > 0) {
        config->build.cache.max_size = file->gigabytes;
    }
    return error;
}

static int config_fill(const char *path, struct config_file *file, struct config_report *report)
{
    struct config_reading reading = { .file = file, .report = report };
    int error = config_collect(path, &reading);

    if (error == 0) {
        error = config_parse_keys(file, report);
    }
    if (error == 0) {
        error = config_complete(file);
    }
    if (error == 0) {
        config_check(file, report);
    }
    return error;
}

int config_load(const char *path, FILE *messages, struct config **config, unsigned *mistakes,
                unsigned *warnings)
{
    struct config_report report = { .path = path, .messages = messages };
    struct config_file *file = calloc(1, sizeof(*file));
    int error = file == NULL ? -ENOMEM : config_fill(path, file, &report);

    *mistakes = report.mistakes;
    *warnings = report.warnings;
    if (error == 0 && report.mistakes > 0) {
        error = -EINVAL;
    }
    if (error != 0) {
        config_free(file == NULL ? NULL : &file->config);
        return error;
    }
    *config = &file->config;
    return 0;
}

void config_free(struct config *config)
{
    struct config_file *file = (struct config_file *)(void *)config;

    if (file == NULL) {
        return;
    }
    for (size_t i = 0; i < config_key_count(); i++) {
        config_value_free(file, config_key_at(i));
        free(file->texts[i]);
    }
    free(file);
}

/* An item a line. The longest possible item leaves room for one space and no comma; the end of the
 * line separates as well. */
static void config_print_long_list(const char *text, FILE *out)
{
    struct span item;
    unsigned line = 0;

    while (config_item_next(&text, &item, &line)) {
        fprintf(out, "\n %.*s%s", (int)item.len, (const char *)item.ptr,
                item.len + 2 <= CONFIG_PRINTED_LINE_MAX ? "," : "");
    }
}

/* A list in one line if it fits. */
static void config_print_list(const char *name, const char *text, FILE *out)
{
    const char *left = text;
    const char *separator = " ";
    struct span item;
    unsigned line = 0;
    size_t length = strlen(name) + strlen(" =");

    while (config_item_next(&left, &item, &line)) {
        length += item.len + 2;
    }
    fprintf(out, "%s =", name);
    if (length > CONFIG_PRINTED_LINE_MAX) {
        config_print_long_list(text, out);
        text = "";
    }
    while (config_item_next(&text, &item, &line)) {
        fprintf(out, "%s%.*s", separator, (int)item.len, (const char *)item.ptr);
        separator = ", ";
    }
    fputc('\n', out);
}

static void config_print_key(const struct config_file *file, const struct config_key *key,
                             FILE *out)
{
    const char *text = file->texts[config_key_index(key)];

    if (config_kind_is_list(key->kind)) {
        config_print_list(key->name, text, out);
    } else if (text[0] == ';' || text[0] == '\0') {
        /* After a space a semicolon would begin a comment. */
        fprintf(out, "%s =%s\n", key->name, text);
    } else {
        fprintf(out, "%s = %s\n", key->name, text);
    }
}

int config_print(const struct config *config, FILE *out)
{
    const struct config_file *file = (const struct config_file *)(const void *)config;
    const char *section = "";

    for (size_t i = 0; i < config_key_count(); i++) {
        const struct config_key *key = config_key_at(i);

        if (strcmp(key->section, section) != 0) {
            fprintf(out, "%s[%s]\n", i == 0 ? "" : "\n", key->section);
            section = key->section;
        }
        if (key->kind == CONFIG_GIGABYTES) {
            continue; /* another name of the key before it */
        }
        if (strcmp(key->name, "max_size") == 0 && file->gigabytes > 0) {
            fprintf(out, "max_size = %" PRIu64 "G\n", file->gigabytes >> 30);
            continue;
        }
        config_print_key(file, key, out);
    }
    return fflush(out) != 0 || ferror(out) ? -EIO : 0;
}
