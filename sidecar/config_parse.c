/* SPDX-License-Identifier: MIT */
/* The kinds that are one value. Each parser says what is wrong and what would be right. */

#include "sidecar/config_parse.h"

#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>

#include "sidecar/config_values.h"

int config_refuse(struct config_value *value, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(value->problem, sizeof(value->problem), format, args);
    va_end(args);
    return -EINVAL;
}

void *config_field(const struct config_value *value)
{
    return (char *)value->file + value->key->offset;
}

static int config_parse_duration(struct config_value *value)
{
    static const char allowed[] =
        "allowed are 0 to 365d, written like 150ms, 1s, 5m, 1h30m, 2d or as a number of seconds";
    uint64_t duration_ms = 0;
    int error = config_duration_parse(value->text, &duration_ms);

    if (error == -EINVAL) {
        return config_refuse(value, "\"%s\" is not a duration; %s", value->text, allowed);
    }
    if (error != 0 || duration_ms > value->key->max) {
        return config_refuse(value, "\"%s\" is out of range; %s", value->text, allowed);
    }
    *(uint64_t *)config_field(value) = duration_ms;
    return 0;
}

static int config_parse_size(struct config_value *value)
{
    static const char allowed[] =
        "allowed are 0 to 1T, written like 64K, 10M, 1G or as a number of bytes";
    uint64_t size_bytes = 0;
    int error = config_size_parse(value->text, &size_bytes);

    if (error == -EINVAL) {
        return config_refuse(value, "\"%s\" is not a size; %s", value->text, allowed);
    }
    if (error != 0 || size_bytes > value->key->max) {
        return config_refuse(value, "\"%s\" is out of range; %s", value->text, allowed);
    }
    *(uint64_t *)config_field(value) = size_bytes;
    return 0;
}

/* A number in the range of its key, with what else is allowed in the message. */
static int config_take_number(struct config_value *value, const char *also, uint64_t *number)
{
    const struct config_key *key = value->key;
    uint64_t parsed = 0;
    int error = config_number_parse(value->text, &parsed);

    if (error == 0 && parsed >= key->min && parsed <= key->max) {
        *number = parsed;
        return 0;
    }
    return config_refuse(value, "\"%s\" is %s; allowed are %s%" PRIu64 " to %" PRIu64, value->text,
                         error == -EINVAL ? "not a number" : "out of range", also, key->min,
                         key->max);
}

static int config_parse_number(struct config_value *value)
{
    uint64_t number;
    int error = config_take_number(value, "", &number);

    if (error == 0) {
        *(uint64_t *)config_field(value) = number;
    }
    return error;
}

static int config_parse_gigabytes(struct config_value *value)
{
    uint64_t number;
    int error = config_take_number(value, "", &number);

    if (error == 0) {
        *(uint64_t *)config_field(value) = number << 30;
    }
    return error;
}

static int config_parse_count(struct config_value *value)
{
    uint64_t number;
    int error = config_take_number(value, "", &number);

    if (error == 0) {
        *(unsigned *)config_field(value) = (unsigned)number;
    }
    return error;
}

static unsigned config_cpu_count(unsigned max)
{
    cpu_set_t cpus;
    unsigned count = 1;

    /* Fails on machines with more CPUs than the set has room for. */
    if (sched_getaffinity(0, sizeof(cpus), &cpus) != 0) {
        return max;
    }
    count = (unsigned)CPU_COUNT(&cpus);
    return count < 1 ? 1 : count > max ? max : count;
}

static int config_parse_threads(struct config_value *value)
{
    uint64_t number = 0;
    int error;

    if (strcmp(value->text, "auto") == 0) {
        number = config_cpu_count((unsigned)value->key->max);
    } else {
        error = config_take_number(value, "auto and ", &number);
        if (error != 0) {
            return error;
        }
    }
    *(unsigned *)config_field(value) = (unsigned)number;
    return 0;
}

static int config_parse_decimal(struct config_value *value)
{
    double decimal = 0;
    int error = config_decimal_parse(value->text, &decimal);

    if (error != 0 || decimal < (double)value->key->min || decimal > (double)value->key->max) {
        return config_refuse(
            value, "\"%s\" is %s; allowed are %" PRIu64 " to %" PRIu64 ", written like 1.5",
            value->text, error != 0 ? "not a number" : "out of range", value->key->min,
            value->key->max);
    }
    *(double *)config_field(value) = decimal;
    return 0;
}

static int config_parse_boolean(struct config_value *value)
{
    bool boolean = false;

    if (config_boolean_parse(value->text, &boolean) != 0) {
        return config_refuse(value,
                             "\"%s\" is not a boolean; allowed are yes and no, true and false, "
                             "on and off, 1 and 0",
                             value->text);
    }
    *(bool *)config_field(value) = boolean;
    return 0;
}

static int config_parse_choice(struct config_value *value)
{
    char names[128] = "";

    for (unsigned i = 0; value->key->choices[i] != NULL; i++) {
        size_t length = strlen(names);

        if (strcmp(value->text, value->key->choices[i]) == 0) {
            *(unsigned *)config_field(value) = i;
            return 0;
        }
        snprintf(names + length, sizeof(names) - length, "%s%s", i == 0 ? "" : ", ",
                 value->key->choices[i]);
    }
    return config_refuse(value, "\"%s\" is unknown; allowed are %s", value->text, names);
}

static int config_parse_mode(struct config_value *value)
{
    unsigned mode = 0;
    int error = config_octal_parse(value->text, &mode);

    if (error != 0 || mode > value->key->max) {
        return config_refuse(value, "\"%s\" is %s; allowed are octal numbers from 0 to 0777",
                             value->text, error == -EINVAL ? "not octal" : "out of range");
    }
    *(unsigned *)config_field(value) = mode;
    return 0;
}

static int config_keep_text(struct config_value *value, const char *text)
{
    char *copy = strdup(text);

    if (copy == NULL) {
        return -ENOMEM;
    }
    *(char **)config_field(value) = copy;
    return 0;
}

static int config_parse_text(struct config_value *value)
{
    return config_keep_text(value, value->text);
}

static int config_parse_path(struct config_value *value)
{
    if (value->text[0] != '/' && value->text[0] != '\0') {
        return config_refuse(
            value, "\"%s\" is not absolute; allowed is a path from / on, or nothing", value->text);
    }
    return config_keep_text(value, value->text);
}

static int config_parse_log_file(struct config_value *value)
{
    if (value->text[0] != '/' && strcmp(value->text, "stderr") != 0 &&
        strcmp(value->text, "syslog") != 0) {
        return config_refuse(value,
                             "\"%s\" is not absolute; allowed are stderr, syslog and a path from / "
                             "on",
                             value->text);
    }
    return config_keep_text(value, value->text);
}

int config_folder_make(struct span text, char **folder)
{
    char *made;
    size_t length = 0;

    if (text.len == 0 || text.ptr[0] != '/') {
        return -EINVAL;
    }
    made = malloc(text.len + 1);
    if (made == NULL) {
        return -ENOMEM;
    }
    while (text.len > 0) {
        const uint8_t *slash = memchr(text.ptr, '/', text.len);
        struct span part = span_take(&text, slash == NULL ? text.len : (size_t)(slash - text.ptr));

        span_take(&text, 1);
        if (span_is(part, "..")) {
            free(made);
            return -EINVAL;
        }
        if (part.len == 0 || span_is(part, ".")) {
            continue;
        }
        made[length++] = '/';
        memcpy(made + length, part.ptr, part.len);
        length += part.len;
    }
    if (length == 0) {
        made[length++] = '/';
    }
    made[length] = '\0';
    *folder = made;
    return 0;
}

static int config_parse_folder(struct config_value *value)
{
    char *folder = NULL;
    int error = config_folder_make(span_of_string(value->text), &folder);

    if (error == -EINVAL) {
        return config_refuse(value,
                             "\"%s\" is not an absolute folder; allowed is a path from / on "
                             "without ..",
                             value->text);
    }
    if (error == 0) {
        *(char **)config_field(value) = folder;
    }
    return error;
}

/* No spaces, and nothing that would end the path of a URL. */
static bool config_is_url_text(const char *text)
{
    return strpbrk(text, " \t\"<>?#") == NULL;
}

static int config_parse_url_path(struct config_value *value)
{
    if (value->text[0] != '/' || !config_is_url_text(value->text)) {
        return config_refuse(value,
                             "\"%s\" is not the path of a URL; allowed is a path from / on without "
                             "spaces, ? and #",
                             value->text);
    }
    return config_keep_text(value, value->text);
}

static int config_parse_script(struct config_value *value)
{
    if (value->text[0] != '\0' && value->text[0] != '/') {
        return config_refuse(value,
                             "\"%s\" does not begin with /; allowed is a SCRIPT_NAME such as "
                             "/velox-status, or nothing",
                             value->text);
    }
    return config_keep_text(value, value->text);
}

static int config_parse_location(struct config_value *value)
{
    size_t length = strlen(value->text);

    if (length < 2 || value->text[0] != '/' || value->text[length - 1] != '/' ||
        !config_is_url_text(value->text)) {
        return config_refuse(value,
                             "\"%s\" is not a location; allowed is a path that begins and ends "
                             "with /, such as /velox-artifacts/",
                             value->text);
    }
    return config_keep_text(value, value->text);
}

/* The path of a built file must not become part of the host's name. */
static bool config_is_template(const char *text)
{
    const char *rest = config_url_behind_authority(text, "/?{");

    return rest != NULL && strstr(rest, "{path}") != NULL && strpbrk(text, " \t\"<>#\\") == NULL &&
           (rest[0] != '{' || strncmp(rest, "{path}", 6) == 0);
}

static int config_parse_template(struct config_value *value)
{
    const char *text = value->text;

    if (text[0] != '\0' && !config_is_template(text)) {
        return config_refuse(value,
                             "\"%s\" is not a URL with {path} behind the host; allowed is one with "
                             "http:// or https:// such as http://velox.example/files{path}, or "
                             "nothing",
                             text);
    }
    return config_keep_text(value, text);
}

/* An account or group by number: -EINVAL if the text is none. */
static int config_id_parse(const char *text, uint32_t *id)
{
    uint64_t number = 0;

    /* The last one means "none" to chown(2) and setuid(2). */
    if (config_number_parse(text, &number) != 0 || number >= UINT32_MAX) {
        return -EINVAL;
    }
    *id = (uint32_t)number;
    return 0;
}

static const struct passwd *config_find_user(const char *text)
{
    const struct passwd *user = getpwnam(text);
    uint32_t id;

    if (user == NULL && config_id_parse(text, &id) == 0) {
        user = getpwuid(id);
    }
    return user;
}

static int config_find_group(const char *text, gid_t *gid)
{
    const struct group *group = getgrnam(text);

    if (group != NULL) {
        *gid = group->gr_gid;
        return 0;
    }
    return config_id_parse(text, gid);
}

static int config_parse_user(struct config_value *value)
{
    struct config_file *file = value->file;
    const struct passwd *user;
    int error;

    if (value->text[0] == '\0') {
        return config_keep_text(value, "");
    }
    user = config_find_user(value->text);
    if (user == NULL) {
        return config_refuse(value, "there is no user \"%s\"; allowed is one of this machine",
                             value->text);
    }
    file->config.user = user->pw_uid;
    file->user_group = user->pw_gid;
    error = config_keep_text(value, user->pw_name);
    file->config.has_user = error == 0;
    return error;
}

static int config_refuse_group(struct config_value *value)
{
    return config_refuse(value, "there is no group \"%s\"; allowed is one of this machine",
                         value->text);
}

static int config_parse_group(struct config_value *value)
{
    if (value->text[0] == '\0') {
        return 0;
    }
    if (config_find_group(value->text, &value->file->config.group) != 0) {
        return config_refuse_group(value);
    }
    value->file->config.has_group = true;
    return 0;
}

static int config_parse_owner(struct config_value *value)
{
    uid_t *owner = config_field(value);
    const struct passwd *user;

    if (value->text[0] == '\0') {
        *owner = (uid_t)-1;
        return 0;
    }
    user = config_find_user(value->text);
    if (user == NULL) {
        if (config_id_parse(value->text, owner) == 0) {
            return 0;
        }
        return config_refuse(value, "there is no user \"%s\"; allowed is one of this machine",
                             value->text);
    }
    *owner = user->pw_uid;
    return 0;
}

static int config_parse_owner_group(struct config_value *value)
{
    gid_t *group = config_field(value);

    if (value->text[0] == '\0') {
        *group = (gid_t)-1;
        return 0;
    }
    return config_find_group(value->text, group) != 0 ? config_refuse_group(value) : 0;
}

static const struct config_kind_row {
    int (*parse)(struct config_value *value);
    bool is_text; /* the field is a string of its own */
    bool is_list;
} config_kinds[] = {
    [CONFIG_DURATION] = { config_parse_duration, false, false },
    [CONFIG_SIZE] = { config_parse_size, false, false },
    [CONFIG_NUMBER] = { config_parse_number, false, false },
    [CONFIG_COUNT] = { config_parse_count, false, false },
    [CONFIG_DECIMAL] = { config_parse_decimal, false, false },
    [CONFIG_BOOLEAN] = { config_parse_boolean, false, false },
    [CONFIG_CHOICE] = { config_parse_choice, false, false },
    [CONFIG_THREADS] = { config_parse_threads, false, false },
    [CONFIG_MODE] = { config_parse_mode, false, false },
    [CONFIG_GIGABYTES] = { config_parse_gigabytes, false, false },
    [CONFIG_TEXT] = { config_parse_text, true, false },
    [CONFIG_PATH] = { config_parse_path, true, false },
    [CONFIG_FOLDER] = { config_parse_folder, true, false },
    [CONFIG_LOG_FILE] = { config_parse_log_file, true, false },
    [CONFIG_SCRIPT] = { config_parse_script, true, false },
    [CONFIG_LOCATION] = { config_parse_location, true, false },
    [CONFIG_URL_PATH] = { config_parse_url_path, true, false },
    [CONFIG_TEMPLATE] = { config_parse_template, true, false },
    [CONFIG_USER] = { config_parse_user, true, false },
    [CONFIG_GROUP] = { config_parse_group, false, false },
    [CONFIG_OWNER] = { config_parse_owner, false, false },
    [CONFIG_OWNER_GROUP] = { config_parse_owner_group, false, false },
    [CONFIG_ADDRESSES] = { config_parse_list, false, true },
    [CONFIG_NETWORKS] = { config_parse_list, false, true },
    [CONFIG_SERVERS] = { config_parse_list, false, true },
    [CONFIG_MAPPINGS] = { config_parse_list, false, true },
    [CONFIG_ROOTS] = { config_parse_list, false, true },
    [CONFIG_GLOBS] = { config_parse_list, false, true },
};

bool config_kind_is_list(enum config_kind kind)
{
    return config_kinds[kind].is_list;
}

int config_value_parse(struct config_value *value)
{
    const char *more = strchr(value->text, '\n');

    value->line = 0;
    if (more != NULL && !config_kinds[value->key->kind].is_list) {
        value->line = (unsigned)strspn(more, "\n");
        return config_refuse(value, "the value goes on in an indented line, which only lists may; "
                                    "begin a key at the start of its line");
    }
    return config_kinds[value->key->kind].parse(value);
}

void config_value_free(struct config_file *file, const struct config_key *key)
{
    if (config_kinds[key->kind].is_list) {
        config_list_free(file, key);
    } else if (config_kinds[key->kind].is_text) {
        char **text = (char **)(void *)((char *)file + key->offset);

        free(*text);
        *text = NULL;
    }
}
