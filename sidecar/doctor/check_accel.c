/* SPDX-License-Identifier: MIT */
/*
 * The location from which nginx sends the built files itself (delivery = x-accel-redirect): is it
 * there, does it lead to the root, is it closed to everybody else?
 */
#include "sidecar/doctor/check_accel.h"

#include <stdio.h>
#include <string.h>

#define SUBJECT_SIZE 512

struct accel_check {
    struct report *report;
    const char *prefix; /* accel_prefix */
    const char *root;
    unsigned found;
};

static const struct nginx_directive *find(const struct nginx_directive *block, const char *name)
{
    const struct nginx_directive *child = block->children;

    while (child != NULL && strcmp(child->words[0], name) != 0) {
        child = child->next;
    }
    return child;
}

/* Whether an alias names the root, with the slash at its end that one needs. */
static bool is_alias_of(const char *alias, const char *root)
{
    size_t length = strcmp(root, "/") == 0 ? 0 : strlen(root);

    return strncmp(alias, root, length) == 0 && strcmp(alias + length, "/") == 0;
}

static void check_location(struct accel_check *check, const struct nginx_directive *location)
{
    const struct nginx_directive *alias = find(location, "alias");
    char subject[SUBJECT_SIZE];

    check->found++;
    (void)snprintf(subject, sizeof(subject), "location %s (%s:%u)", check->prefix, location->file,
                   location->line);
    if (find(location, "internal") == NULL) {
        report_line(check->report, FINDING_FAIL, subject,
                    "is open to everybody, and with it every file below %s; add internal;",
                    check->root);
    } else if (alias == NULL || alias->word_count != 2 ||
               !is_alias_of(alias->words[1], check->root)) {
        report_line(check->report, FINDING_FAIL, subject,
                    "does not lead to [artifact] root, %s; set alias %s%s;", check->root,
                    check->root, strcmp(check->root, "/") == 0 ? "" : "/");
    } else if (find(location, "disable_symlinks") == NULL) {
        report_line(check->report, FINDING_WARN, subject,
                    "follows links that somebody may put below %s; set disable_symlinks on "
                    "from=%s;",
                    check->root, alias->words[1]);
    } else {
        report_line(check->report, FINDING_OK, subject, "sends what lies below %s", check->root);
    }
}

/* No deeper than NGINX_DEPTH_MAX. */
static void walk(struct accel_check *check, const struct nginx_directive *directive)
{
    for (; directive != NULL; directive = directive->next) {
        if (directive->is_block && strcmp(directive->words[0], "location") == 0 &&
            directive->word_count > 1 &&
            strcmp(directive->words[directive->word_count - 1], check->prefix) == 0) {
            check_location(check, directive);
        }
        walk(check, directive->children);
    }
}

void check_accel(struct report *report, const struct config *config,
                 const struct nginx_directive *first)
{
    struct accel_check check = {
        .report = report,
        .prefix = config->relay.accel_prefix,
        .root = config->relay.accel_root,
    };

    if (config->relay.delivery != DELIVERY_X_ACCEL_REDIRECT) {
        return;
    }
    walk(&check, first);
    if (check.found == 0) {
        report_line(report, FINDING_FAIL, "nginx",
                    "there is no location %s, from which built files are to be sent; include "
                    "nginx-accel.conf, or set [artifact] delivery = stream",
                    check.prefix);
    }
}
