/* SPDX-License-Identifier: MIT */
/*
 * The operator's rules for build requests. Must never let through what it has not understood.
 */
#include "sidecar/build/policy.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>

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

static int check_modules(const struct policy_options *policy, const cJSON *root, char *message)
{
    const cJSON *plugins = cJSON_GetObjectItemCaseSensitive(root, "plugins");
    const cJSON *plugin;
    unsigned count = 0;
    int result;

    cJSON_ArrayForEach(plugin, plugins)
    {
        const cJSON *name = cJSON_GetObjectItemCaseSensitive(plugin, "module_name");

        if (++count > policy->max_plugins) {
            return refuse(message,
                          "More than %u plugins may not be built here ([policy] "
                          "max_plugins).",
                          policy->max_plugins);
        }
        result = cJSON_IsString(name) ? check_module(policy, name->valuestring, message)
                                      : refuse(message, "A plugin has no module_name.");
        if (result < 0) {
            return result;
        }
    }
    return 0;
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

/* A replacement may name a folder of the host that Velox runs on. */
static int check_replaces(const struct policy_options *policy, const cJSON *root, char *message)
{
    const cJSON *replaces = cJSON_GetObjectItemCaseSensitive(root, "replaces");
    bool is_empty = replaces == NULL || cJSON_IsNull(replaces) ||
                    ((cJSON_IsArray(replaces) || cJSON_IsObject(replaces)) &&
                     cJSON_GetArraySize(replaces) == 0);

    if (is_empty || policy->allow_replaces) {
        return 0;
    }
    return refuse(message, "replaces may not be used here ([policy] allow_replaces).");
}

int policy_check(const struct policy_options *policy, const struct build_request *request,
                 char message[POLICY_MESSAGE_SIZE])
{
    struct span body = buf_span(&request->body);
    cJSON *root = cJSON_ParseWithLength((const char *)body.ptr, body.len);
    int result;

    if (root == NULL) {
        return -ENOMEM; /* it has been parsed before */
    }
    result = check_modules(policy, root, message);
    if (result == 0) {
        result = check_platform(policy, request, message);
    }
    if (result == 0) {
        result = check_replaces(policy, root, message);
    }
    cJSON_Delete(root);
    return result;
}
