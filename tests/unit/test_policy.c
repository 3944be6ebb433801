/* SPDX-License-Identifier: MIT */

/* What may be built: each rule at its edges, and what a refusal says. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "sidecar/build/policy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))
#define GLOBS_MAX 3

/* Rules as they stand in the file; NULL: not set. */
struct rules {
    const char *allow_modules[GLOBS_MAX];
    const char *deny_modules[GLOBS_MAX];
    const char *allow_platforms[GLOBS_MAX];
    bool allow_replaces;
    unsigned max_plugins; /* 0: 200 */
};

static struct string_list list_of(const char *const globs[GLOBS_MAX])
{
    struct string_list list = { .items = (char **)(uintptr_t)globs };

    while (list.count < GLOBS_MAX && globs[list.count] != NULL) {
        list.count++;
    }
    return list;
}

static struct policy_options policy_of(const struct rules *rules)
{
    return (struct policy_options){
        .allow_modules = list_of(rules->allow_modules),
        .deny_modules = list_of(rules->deny_modules),
        .allow_platforms = list_of(rules->allow_platforms),
        .allow_replaces = rules->allow_replaces,
        .max_plugins = rules->max_plugins == 0 ? 200 : rules->max_plugins,
    };
}

/* The result for a request that is well-formed. */
static int check(const struct rules *rules, const char *json, char *message)
{
    struct policy_options policy = policy_of(rules);
    struct build_request request;
    char why[BUILD_REQUEST_MESSAGE_SIZE];
    int result = build_request_parse(span_of_string(json), &request, why);

    if (result < 0) {
        fail_msg("%s: %s", json, why);
    }
    message[0] = '\0';
    result = policy_check(&policy, &request, message);
    build_request_deinit(&request);
    return result;
}

#define WITH(members) "{\"rr_version\":\"v1\"," members "}"
#define PLUGIN(name) "{\"module_name\":\"" name "\",\"tag\":\"v1\"}"
#define PLUGINS(list) "\"plugins\":[" list "]"
#define ONE(name) WITH(PLUGINS(PLUGIN(name)))
#define PLATFORM(os, arch)                                                                         \
    WITH(PLUGINS("") ",\"target_platform\":{\"os\":\"" os "\",\"arch\":\"" arch "\"}")

static const struct {
    const char *name;
    struct rules rules;
    const char *request;
    const char *refusal; /* a part of the message; NULL: it may be built */
} cases[] = {
    { "no rules", { .max_plugins = 0 }, ONE("example.org/x"), NULL },
    /* cJSON, which build_request.c uses, cannot read numbers longer than 63 characters. */
    { "a long number",
      { .deny_modules = { "x" } },
      WITH(PLUGINS(PLUGIN("a")) ",\"n\":1234567890123456789012345678901234567890"
                                "12345678901234567890123456789012345678901234567890"),
      NULL },
    { "no plugins", { .max_plugins = 1, .allow_modules = { "a" } }, WITH(PLUGINS("")), NULL },

    { "denied", { .deny_modules = { "a", "b" } }, ONE("b"), "The module b may not" },
    { "denied by another", { .deny_modules = { "a", "b" } }, ONE("c"), NULL },
    { "the whole name counts", { .deny_modules = { "a" } }, ONE("ab"), NULL },
    { "the whole name counts, end", { .deny_modules = { "b" } }, ONE("ab"), NULL },
    { "case counts", { .deny_modules = { "A" } }, ONE("a"), NULL },
    { "star over slashes", { .deny_modules = { "a/*/z" } }, ONE("a/b/c/z"), "deny_modules" },
    { "star over nothing", { .deny_modules = { "a*" } }, ONE("a"), "deny_modules" },
    { "star over a dot", { .deny_modules = { "*" } }, ONE(".a"), "deny_modules" },
    { "question mark", { .deny_modules = { "a?c" } }, ONE("a/c"), "deny_modules" },
    { "brackets", { .deny_modules = { "v[12]" } }, ONE("v2"), "deny_modules" },
    { "brackets, another", { .deny_modules = { "v[12]" } }, ONE("v3"), NULL },
    { "an escape in the name", { .deny_modules = { "evil" } }, ONE("\\u0065vil"), "deny_modules" },
    { "an empty name", { .allow_modules = { "a*" } }, ONE(""), "allow_modules" },

    { "allowed", { .allow_modules = { "a/*", "b/*" } }, ONE("b/c"), NULL },
    { "not allowed", { .allow_modules = { "a/*", "b/*" } }, ONE("c"), "The module c is not among" },
    { "deny wins",
      { .allow_modules = { "*" }, .deny_modules = { "a" } },
      ONE("a"),
      "deny_modules" },
    { "each is looked at",
      { .allow_modules = { "a" } },
      WITH(PLUGINS(PLUGIN("a") "," PLUGIN("a") "," PLUGIN("b"))),
      "The module b" },

    { "as many as allowed",
      { .max_plugins = 2 },
      WITH(PLUGINS(PLUGIN("a") "," PLUGIN("b"))),
      NULL },
    { "one more", { .max_plugins = 1 }, WITH(PLUGINS(PLUGIN("a") "," PLUGIN("b"))), "More than 1" },

    { "platform", { .allow_platforms = { "linux/*" } }, PLATFORM("linux", "amd64"), NULL },
    { "another platform",
      { .allow_platforms = { "linux/*", "darwin/arm64" } },
      PLATFORM("darwin", "amd64"),
      "The platform darwin/amd64 is not" },
    { "the longest platform",
      { .allow_platforms = { "x" } },
      PLATFORM("abcdefghijklmnopqrstuvwxyz012345", "abcdefghijklmnopqrstuvwxyz012345"),
      "abcdefghijklmnopqrstuvwxyz012345/abcdefghijklmnopqrstuvwxyz012345 is not" },
    { "no platform", { .allow_platforms = { "linux/*" } }, WITH(PLUGINS("")), "host/host" },
    { "host allowed", { .allow_platforms = { "host/host" } }, WITH(PLUGINS("")), NULL },
    { "null platform",
      { .allow_platforms = { "host/*" } },
      WITH(PLUGINS("") ",\"target_platform\":null"),
      NULL },

    { "replaces", { .max_plugins = 0 }, WITH(PLUGINS("") ",\"replaces\":[{}]"), "allow_replaces" },
    { "replaces, object",
      { .max_plugins = 0 },
      WITH(PLUGINS("") ",\"replaces\":{\"a\":1}"),
      "rep" },
    { "replaces, text", { .max_plugins = 0 }, WITH(PLUGINS("") ",\"replaces\":\"\""), "replaces" },
    { "replaces, number", { .max_plugins = 0 }, WITH(PLUGINS("") ",\"replaces\":0"), "replaces" },
    { "replaces, false",
      { .max_plugins = 0 },
      WITH(PLUGINS("") ",\"replaces\":false"),
      "replaces" },
    { "replaces, escaped",
      { .max_plugins = 0 },
      WITH(PLUGINS("") ",\"\\u0072eplaces\":[1]"),
      "allow_replaces" },
    { "empty replaces", { .max_plugins = 0 }, WITH(PLUGINS("") ",\"replaces\":[]"), NULL },
    { "empty object", { .max_plugins = 0 }, WITH(PLUGINS("") ",\"replaces\":{}"), NULL },
    { "null replaces", { .max_plugins = 0 }, WITH(PLUGINS("") ",\"replaces\":null"), NULL },
    { "replaces further down",
      { .max_plugins = 0 },
      WITH(PLUGINS("") ",\"other\":{\"replaces\":[1]}"),
      NULL },
    { "allowed replaces",
      { .allow_replaces = true },
      WITH(PLUGINS("") ",\"replaces\":[{}]"),
      NULL },
};

static void test_rules(void **state)
{
    char message[POLICY_MESSAGE_SIZE];

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        int result = check(&cases[i].rules, cases[i].request, message);
        bool as_expected = cases[i].refusal == NULL
                               ? result == 0
                               : result == -EPERM && strstr(message, cases[i].refusal) != NULL;

        if (!as_expected) {
            fail_msg("%s: %d, \"%s\"", cases[i].name, result, message);
        }
    }
}

/* A name may hold anything that JSON can say; a message goes to browsers and logs. */
static void test_control_characters(void **state)
{
    static const struct rules rules = { .deny_modules = { "*" } };
    char message[POLICY_MESSAGE_SIZE];

    (void)state;
    assert_int_equal(check(&rules, ONE("a\\u001b[31m\\n\\u007fb"), message), -EPERM);
    assert_non_null(strstr(message, "The module a?[31m??b may not"));
}

static void test_long_name(void **state)
{
    static const struct rules rules = { .deny_modules = { "*x" } };
    char json[5000];
    char name[4001];
    char message[POLICY_MESSAGE_SIZE];

    (void)state;
    memset(name, 'a', sizeof(name) - 2);
    name[sizeof(name) - 2] = 'x';
    name[sizeof(name) - 1] = '\0';
    (void)snprintf(json, sizeof(json), ONE("%s"), name);
    assert_int_equal(check(&rules, json, message), -EPERM);
    assert_true(strlen(message) < POLICY_MESSAGE_SIZE);
    assert_non_null(strstr(message, "deny_modules"));
    name[sizeof(name) - 2] = 'a';
    (void)snprintf(json, sizeof(json), ONE("%s"), name);
    assert_int_equal(check(&rules, json, message), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_control_characters),
        cmocka_unit_test(test_long_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
