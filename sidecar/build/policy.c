/* SPDX-License-Identifier: MIT */
/*
 * The operator's rules for build requests. Must never let through what it has not understood.
 */
#include "sidecar/build/policy.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>

#include "sidecar/build/json_scan.h"

static int refuse(char *message, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int refuse(char *message, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(message, POLICY_MESSAGE_SIZE, format, arguments);
    va_end(arguments);
    for (char *at = message; *at != '\0'; at++) {
        if ((unsigned char)*at < 0x20 || *at == 0x7f) {
            *at = '?';
        }
    }
    return -EPERM;
}

/* Without FNM_PATHNAME a star matches slashes too, as the manual of the configuration says. */
static bool matches(const struct string_list *globs, const char *text)
{
    for (size_t i = 0; i < globs->count; i++) {
        if (fnmatch(globs->items[i], text, 0) == 0) {
            return true;
        }
    }
    return false;
}

static int check_module(const struct policy_options *policy, const char *name, char *message)
{
    if (matches(&policy->deny_modules, name)) {
        return refuse(message, "The module %.200s may not be built here ([policy] deny_modules).",
                      name);
    }
    if (policy->allow_modules.count > 0 && !matches(&policy->allow_modules, name)) {
        return refuse(message,
                      "The module %.200s is not among those that may be built here ([policy] "
                      "allow_modules).",
                      name);
    }
    return 0;
}

/* A name's bytes may be escape sequences: what they mean is what Velox reads. */
static int check_plugin(const struct policy_options *policy, struct json_value plugin,
                        char *message)
{
    struct json_value name;
    struct span raw;
    struct buf decoded;
    int result;

    if (plugin.type != JSON_OBJECT || !json_member(plugin, "module_name", &name) ||
        name.type != JSON_STRING) {
        return refuse(message, "A plugin has no module_name.");
    }
    raw = json_string_raw(name);
    buf_init(&decoded, raw.len + 1);
    result = json_text_decode(raw, &decoded);
    if (result == 0) {
        result = buf_append(&decoded, "", 1);
    }
    result = result < 0 ? -ENOMEM
                        : check_module(policy, (const char *)buf_span(&decoded).ptr, message);
    buf_deinit(&decoded);
    return result;
}

static int check_plugins(const struct policy_options *policy, struct json_value root, char *message)
{
    struct json_cursor cursor;
    struct json_value plugins, plugin;
    struct span no_name;
    unsigned count = 0;
    int result = 0;

    if (!json_member(root, "plugins", &plugins) || plugins.type != JSON_ARRAY) {
        return refuse(message, "plugins is no array.");
    }
    json_cursor_init(&cursor, plugins);
    while (result == 0 && json_cursor_next(&cursor, &no_name, &plugin)) {
        if (++count > policy->max_plugins) {
            return refuse(message,
                          "More than %u plugins may not be built here ([policy] max_plugins).",
                          policy->max_plugins);
        }
        result = check_plugin(policy, plugin, message);
    }
    return result;
}

static int check_platform(const struct policy_options *policy, const struct build_request *request,
                          char *message)
{
    char platform[2 * BUILD_REQUEST_NAME_MAX + 2];

    if (policy->allow_platforms.count == 0) {
        return 0;
    }
    /* Without a target_platform Velox builds for its own. */
    (void)snprintf(platform, sizeof(platform), "%s/%s",
                   request->os[0] == '\0' ? "host" : request->os,
                   request->os[0] == '\0' ? "host" : request->arch);
    if (matches(&policy->allow_platforms, platform)) {
        return 0;
    }
    return refuse(message,
                  "The platform %s is not among those that may be built here ([policy] "
                  "allow_platforms).",
                  platform);
}

static bool is_empty(struct json_value value)
{
    struct json_cursor cursor;
    struct json_value first;
    struct span name;

    if (value.type == JSON_NULL) {
        return true;
    }
    if (value.type != JSON_ARRAY && value.type != JSON_OBJECT) {
        return false;
    }
    json_cursor_init(&cursor, value);
    return !json_cursor_next(&cursor, &name, &first);
}

/* A replacement may name a folder of the host that Velox runs on. */
static int check_replaces(const struct policy_options *policy, struct json_value root,
                          char *message)
{
    struct json_value replaces;

    if (policy->allow_replaces || !json_member(root, "replaces", &replaces) || is_empty(replaces)) {
        return 0;
    }
    return refuse(message, "replaces may not be used here ([policy] allow_replaces).");
}

int policy_check(const struct policy_options *policy, const struct build_request *request,
                 char message[POLICY_MESSAGE_SIZE])
{
    struct json_value root;
    struct json_error error;
    int result;

    if (json_scan(buf_span(&request->body), 0, &root, &error) < 0 || root.type != JSON_OBJECT) {
        return -ENOMEM; /* it has been accepted before */
    }
    result = check_plugins(policy, root, message);
    if (result == 0) {
        result = check_platform(policy, request, message);
    }
    if (result == 0) {
        result = check_replaces(policy, root, message);
    }
    return result;
}
