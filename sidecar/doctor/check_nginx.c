/* SPDX-License-Identifier: MIT */
/*
 * What nginx does in the locations that pass to us. Directives that are not set in a block are
 * those of the block around it, else nginx's defaults (ngx_http_fastcgi_merge_loc_conf).
 */
#include "sidecar/doctor/checks.h"

#include <stdlib.h>

#include "sidecar/doctor/check_accel.h"
#include "sidecar/doctor/nginx_dump.h"

#define SUBJECT_SIZE 512
/* nginx's defaults where they matter. */
#define READ_TIMEOUT_DEFAULT_MS 60000
/* With less room for a response a download runs at about half of nginx's speed. */
#define BUFFERS_WANTED ((uint64_t)256 * 1024)
#define BUFFER_WANTED ((uint64_t)64 * 1024)

enum nginx_protocol { NGINX_FASTCGI, NGINX_SCGI, NGINX_PROTOCOLS };

enum nginx_setting {
    NGINX_READ_TIMEOUT,
    NGINX_IGNORE_ABORT,
    NGINX_CACHE,
    NGINX_BUFFERING,
    NGINX_BUFFERS,
    NGINX_BUFFER_SIZE,
    NGINX_TEMP_FILE,
    NGINX_INTERCEPT_ERRORS,
    NGINX_SETTINGS,
};

static const char *const protocol_names[NGINX_PROTOCOLS] = { "fastcgi", "scgi" };

static const char *const setting_names[NGINX_SETTINGS] = {
    [NGINX_READ_TIMEOUT] = "read_timeout",
    [NGINX_IGNORE_ABORT] = "ignore_client_abort",
    [NGINX_CACHE] = "cache",
    [NGINX_BUFFERING] = "buffering",
    [NGINX_BUFFERS] = "buffers",
    [NGINX_BUFFER_SIZE] = "buffer_size",
    [NGINX_TEMP_FILE] = "max_temp_file_size",
    [NGINX_INTERCEPT_ERRORS] = "intercept_errors",
};

/* What holds in a block; NULL where nginx's default does. */
struct nginx_settings {
    const struct nginx_directive *set[NGINX_PROTOCOLS][NGINX_SETTINGS];
};

struct nginx_check {
    struct report *report;
    const struct config *config;
    const struct nginx_directive *first; /* of the whole configuration */
    unsigned found;
};

/* ---- is it our socket? ----------------------------------------------------------------------- */

static bool is_local_host(const char *host, size_t length)
{
    static const char *const names[] = {
        "localhost", "127.0.0.1", "[::1]", "0.0.0.0", "[::]", "*"
    };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strlen(names[i]) == length && strncmp(host, names[i], length) == 0) {
            return true;
        }
    }
    return false;
}

/* Whether nginx's text names the address: the same text, or the same port of this machine. */
static bool is_same_address(const char *theirs, const char *ours)
{
    const char *their_port = strrchr(theirs, ':');
    const char *our_port = strrchr(ours, ':');

    if (strcmp(theirs, ours) == 0) {
        return true;
    }
    return strncmp(ours, "unix:", 5) != 0 && strncmp(theirs, "unix:", 5) != 0 &&
           their_port != NULL && our_port != NULL && strcmp(their_port, our_port) == 0 &&
           is_local_host(theirs, (size_t)(their_port - theirs)) &&
           is_local_host(ours, (size_t)(our_port - ours));
}

static bool is_our_address(const struct config *config, enum nginx_protocol protocol,
                           const char *text)
{
    const struct listen_options *listen = &config->listen;
    const struct sock_address *addresses = protocol == NGINX_FASTCGI ? listen->fastcgi
                                                                     : listen->scgi;
    size_t count = protocol == NGINX_FASTCGI ? listen->fastcgi_count : listen->scgi_count;

    for (size_t i = 0; i < count; i++) {
        if (is_same_address(text, addresses[i].text)) {
            return true;
        }
    }
    return false;
}

static bool is_named(const struct nginx_directive *directive, const char *name)
{
    return strcmp(directive->words[0], name) == 0;
}

/* Whether one of the upstream's servers is ours. */
static bool has_our_server(const struct nginx_check *check, enum nginx_protocol protocol,
                           const struct nginx_directive *upstream)
{
    for (const struct nginx_directive *server = upstream->children; server != NULL;
         server = server->next) {
        if (is_named(server, "server") && server->word_count > 1 &&
            is_our_address(check->config, protocol, server->words[1])) {
            return true;
        }
    }
    return false;
}

static bool is_our_upstream(const struct nginx_check *check, enum nginx_protocol protocol,
                            const struct nginx_directive *block, const char *name)
{
    for (; block != NULL; block = block->next) {
        if (block->is_block && is_named(block, "upstream") && block->word_count == 2 &&
            strcmp(block->words[1], name) == 0 && has_our_server(check, protocol, block)) {
            return true;
        }
        if (block->is_block && is_named(block, "http") &&
            is_our_upstream(check, protocol, block->children, name)) {
            return true;
        }
    }
    return false;
}

/* ---- values ---------------------------------------------------------------------------------- */

static bool is_on(const struct nginx_directive *setting)
{
    return setting != NULL && setting->word_count > 1 && strcmp(setting->words[1], "off") != 0;
}

static uint64_t size_of_word(const struct nginx_directive *setting, size_t word, uint64_t standard)
{
    uint64_t size;

    return setting != NULL && setting->word_count > word &&
                   nginx_size_parse(setting->words[word], &size)
               ? size
               : standard;
}

/* ---- one location ---------------------------------------------------------------------------- */

struct nginx_location {
    struct report *report;
    char subject[SUBJECT_SIZE];
    const char *protocol;
    const struct nginx_directive *const *set;
};

static void check_timeout(const struct nginx_location *location, uint64_t build_timeout_ms)
{
    const struct nginx_directive *setting = location->set[NGINX_READ_TIMEOUT];
    uint64_t timeout_ms = READ_TIMEOUT_DEFAULT_MS;
    unsigned long long wanted_s = (unsigned long long)(build_timeout_ms / 1000 + 30);

    if (setting != NULL &&
        (setting->word_count < 2 || !nginx_time_parse(setting->words[1], &timeout_ms))) {
        return; /* nginx itself has refused it */
    }
    if (timeout_ms > build_timeout_ms) {
        report_line(location->report, FINDING_OK, location->subject, "%s_read_timeout is %llu s",
                    location->protocol, (unsigned long long)(timeout_ms / 1000));
        return;
    }
    report_line(location->report, FINDING_WARN, location->subject,
                "%s_read_timeout is %llu s%s, and a build may take %llu s; if pages here build, "
                "set %s_read_timeout %llus;",
                location->protocol, (unsigned long long)(timeout_ms / 1000),
                setting == NULL ? " (nginx's default)" : "",
                (unsigned long long)(build_timeout_ms / 1000), location->protocol, wanted_s);
}

static void check_switches(const struct nginx_location *location)
{
    if (is_on(location->set[NGINX_IGNORE_ABORT])) {
        report_line(location->report, FINDING_WARN, location->subject,
                    "%s_ignore_client_abort is on: builds go on for clients that have left; set "
                    "it off",
                    location->protocol);
    }
    if (is_on(location->set[NGINX_CACHE])) {
        report_line(location->report, FINDING_WARN, location->subject,
                    "%s_cache is on: nginx does not tell that a client has left, and keeps built "
                    "files; set %s_cache off where pages build",
                    location->protocol, location->protocol);
    }
    if (is_on(location->set[NGINX_INTERCEPT_ERRORS])) {
        report_line(location->report, FINDING_WARN, location->subject,
                    "%s_intercept_errors is on: with an error_page clients do not see why a build "
                    "failed; set it off where pages build",
                    location->protocol);
    }
}

static void check_buffers(const struct nginx_location *location)
{
    const struct nginx_directive *const *set = location->set;
    bool is_buffered = set[NGINX_BUFFERING] == NULL || is_on(set[NGINX_BUFFERING]);
    uint64_t buffer = size_of_word(set[NGINX_BUFFER_SIZE], 1, 4096);
    uint64_t buffers = size_of_word(set[NGINX_BUFFERS], 1, 8) *
                       size_of_word(set[NGINX_BUFFERS], 2, 4096);

    if (!is_buffered && buffer < BUFFER_WANTED) {
        report_line(location->report, FINDING_WARN, location->subject,
                    "%s_buffering is off with a buffer of %llu KB: downloads are slow; set "
                    "%s_buffer_size 256k;",
                    location->protocol, (unsigned long long)(buffer >> 10), location->protocol);
    }
    if (is_buffered && buffers < BUFFERS_WANTED) {
        report_line(location->report, FINDING_WARN, location->subject,
                    "%s_buffers hold %llu KB: downloads run at about half speed; set "
                    "%s_buffer_size 64k; %s_buffers 16 64k; %s_busy_buffers_size 512k;",
                    location->protocol, (unsigned long long)(buffers >> 10), location->protocol,
                    location->protocol, location->protocol);
    }
    if (is_buffered && size_of_word(set[NGINX_TEMP_FILE], 1, 1) != 0) {
        report_line(location->report, FINDING_WARN, location->subject,
                    "%s_max_temp_file_size is not 0: nginx copies the download of a slow client to "
                    "its disk; set %s_max_temp_file_size 0;",
                    location->protocol, location->protocol);
    }
}

/* "location = /build.php (/etc/nginx/nginx.conf:12)" */
static void name_location(char subject[SUBJECT_SIZE], const struct nginx_directive *block,
                          const struct nginx_directive *pass)
{
    size_t length = 0;

    subject[0] = '\0';
    for (size_t i = 0; block != NULL && i < block->word_count && length < SUBJECT_SIZE; i++) {
        length += (size_t)snprintf(subject + length, SUBJECT_SIZE - length, "%s ", block->words[i]);
    }
    if (length < SUBJECT_SIZE) {
        (void)snprintf(subject + length, SUBJECT_SIZE - length, "(%s:%u)", pass->file, pass->line);
    }
}

/* location = PATH of our status page or ping: nothing is built there, and little is sent. */
static bool is_own_page(const struct config *config, const struct nginx_directive *block)
{
    const struct relay_options *relay = &config->relay;
    const char *path;

    if (block == NULL || block->word_count != 3 || strcmp(block->words[1], "=") != 0) {
        return false;
    }
    path = block->words[2];
    return strcmp(path, relay->status_path) == 0 || strcmp(path, relay->ping_path) == 0;
}

static void check_location(struct nginx_check *check, const struct nginx_directive *block,
                           const struct nginx_directive *pass, enum nginx_protocol protocol,
                           const struct nginx_settings *settings)
{
    struct nginx_location location = { .report = check->report,
                                       .protocol = protocol_names[protocol],
                                       .set = settings->set[protocol] };

    check->found++;
    name_location(location.subject, block, pass);
    if (is_own_page(check->config, block)) {
        report_line(check->report, FINDING_OK, location.subject, "our own page");
        return;
    }
    check_timeout(&location, check->config->build.build_timeout_ms);
    check_switches(&location);
    check_buffers(&location);
}

/* ---- the walk -------------------------------------------------------------------------------- */

/* Takes note of a directive that is one of the settings. */
static void take_setting(struct nginx_settings *settings, const struct nginx_directive *directive)
{
    for (unsigned protocol = 0; protocol < NGINX_PROTOCOLS; protocol++) {
        size_t length = strlen(protocol_names[protocol]);
        const char *name = directive->words[0];

        if (strncmp(name, protocol_names[protocol], length) != 0 || name[length] != '_') {
            continue;
        }
        for (unsigned i = 0; i < NGINX_SETTINGS; i++) {
            if (strcmp(name + length + 1, setting_names[i]) == 0) {
                settings->set[protocol][i] = directive;
            }
        }
    }
}

/* nginx finds out at each request where such a location leads; we cannot. */
static void report_variable(struct nginx_check *check, const struct nginx_directive *block,
                            const struct nginx_directive *pass)
{
    char subject[SUBJECT_SIZE];

    name_location(subject, block, pass);
    report_line(check->report, FINDING_WARN, subject,
                "%s %s is known only when a request comes, so nothing is said about this location; "
                "name the socket here to have it checked",
                pass->words[0], pass->words[1]);
}

static void check_pass(struct nginx_check *check, const struct nginx_directive *block,
                       const struct nginx_directive *directive,
                       const struct nginx_settings *settings)
{
    static const char *const passes[NGINX_PROTOCOLS] = { "fastcgi_pass", "scgi_pass" };

    for (unsigned protocol = 0; protocol < NGINX_PROTOCOLS; protocol++) {
        if (!is_named(directive, passes[protocol]) || directive->word_count != 2) {
            continue;
        }
        if (strchr(directive->words[1], '$') != NULL) {
            report_variable(check, block, directive);
        } else if (is_our_address(check->config, protocol, directive->words[1]) ||
                   is_our_upstream(check, protocol, check->first, directive->words[1])) {
            check_location(check, block, directive, protocol, settings);
        }
    }
}

/* Blocks whose content is no directives, or that hold no location. */
static bool is_foreign(const struct nginx_directive *block)
{
    static const char *const names[] = { "map",    "geo",    "types", "upstream",   "split_clients",
                                         "events", "stream", "mail",  "charset_map" };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (is_named(block, names[i])) {
            return true;
        }
    }
    return false;
}

/* No deeper than NGINX_DEPTH_MAX. */
static void walk(struct nginx_check *check, const struct nginx_directive *block,
                 const struct nginx_directive *first, const struct nginx_settings *around)
{
    struct nginx_settings settings = *around;

    for (const struct nginx_directive *child = first; child != NULL; child = child->next) {
        take_setting(&settings, child);
    }
    for (const struct nginx_directive *child = first; child != NULL; child = child->next) {
        check_pass(check, block, child, &settings);
        if (child->is_block && !is_foreign(child)) {
            walk(check, child, child->children, &settings);
        }
    }
}

static void report_unreadable(struct report *report, enum nginx_result result)
{
    switch (result) {
    case NGINX_NOT_A_DUMP:
        report_line(report, FINDING_FAIL, "nginx",
                    "the file is not what `nginx -T` prints; make it with: nginx -T > FILE");
        break;
    case NGINX_NO_MEMORY:
        report_line(report, FINDING_FAIL, "nginx", "out of memory");
        break;
    default:
        report_line(report, FINDING_WARN, "nginx",
                    "its configuration could not be read to the end, so nothing is said about it");
        break;
    }
}

void check_nginx(struct report *report, const struct config *config, struct span text)
{
    struct nginx_settings none = { 0 };
    struct nginx_check check = { .report = report, .config = config };
    struct nginx_dump *dump;
    enum nginx_result result = nginx_dump_parse(text, &dump);

    if (result != NGINX_PARSED) {
        report_unreadable(report, result);
        return;
    }
    check.first = nginx_dump_first(dump);
    walk(&check, NULL, check.first, &none);
    if (check.found == 0) {
        report_line(report, FINDING_WARN, "nginx",
                    "no location passes to us; set fastcgi_pass %s; where PHP is served",
                    config->listen.fastcgi_count > 0 ? config->listen.fastcgi[0].text
                                                     : "unix:/run/velox-sidecar/fastcgi.sock");
    }
    for (const struct nginx_directive *line = check.first; line != NULL; line = line->next) {
        if (is_named(line, "user") && line->word_count > 1) {
            check_front_rights(report, config, line->words[1]);
        }
    }
    check_accel(report, config, check.first);
    nginx_dump_free(dump);
}
