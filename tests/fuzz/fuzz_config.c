/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as a configuration file: the lines are taken apart, and every value that they give is
 * parsed for its key. Left out are the keys that ask the system, for hosts and for accounts.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sidecar/config_lines.h"
#include "sidecar/config_parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

struct walk {
    unsigned line;
    char section[64];
    bool has_value;
};

static void require(bool condition)
{
    if (!condition) {
        abort();
    }
}

static void step(struct walk *walk, unsigned line)
{
    require(line >= walk->line && line > 0);
    walk->line = line;
}

static bool asks_the_system(enum config_kind kind)
{
    return kind == CONFIG_ADDRESSES || kind == CONFIG_USER || kind == CONFIG_GROUP ||
           kind == CONFIG_OWNER || kind == CONFIG_OWNER_GROUP;
}

static void parse_value(const struct config_key *key, const char *text)
{
    struct config_file *file = calloc(1, sizeof(*file));
    struct config_value value = { .file = file, .key = key, .text = text };
    int error;

    require(file != NULL);
    error = config_value_parse(&value);
    require(error == 0 || value.problem[0] != '\0');
    config_value_free(file, key);
    free(file);
}

static int on_section(void *owner, unsigned line, const char *section)
{
    struct walk *walk = owner;

    step(walk, line);
    snprintf(walk->section, sizeof(walk->section), "%s", section == NULL ? "" : section);
    walk->has_value = false;
    return 0;
}

static int on_value(void *owner, unsigned line, const char *name, const char *value)
{
    struct walk *walk = owner;
    const struct config_key *key = config_key_find(walk->section, name);

    step(walk, line);
    walk->has_value = true;
    require(strchr(value, '\n') == NULL && strchr(name, '=') == NULL);
    if (key != NULL && !asks_the_system(key->kind)) {
        parse_value(key, value);
    }
    return 0;
}

static int on_continuation(void *owner, unsigned line, const char *value)
{
    struct walk *walk = owner;

    step(walk, line);
    require(walk->has_value && value[0] != '\0');
    return 0;
}

static void on_problem(void *owner, unsigned line, const char *problem)
{
    struct walk *walk = owner;

    step(walk, line);
    require(problem[0] != '\0');
    walk->has_value = false;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const struct config_lines_events events = {
        .on_section = on_section,
        .on_value = on_value,
        .on_continuation = on_continuation,
        .on_problem = on_problem,
    };
    struct walk walk = { .line = 0 };

    require(config_lines_read(span_of(bytes, size), &events, &walk) == 0);
    return 0;
}
