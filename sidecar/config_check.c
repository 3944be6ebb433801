/* SPDX-License-Identifier: MIT */
/*
 * Keys that do not go together, and what an administrator may not have meant. It must say nothing
 * about a configuration of which only the defaults are used, except that nothing is intercepted.
 */

#include "sidecar/config_check.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "sidecar/config_check_parts.h"
#include "sidecar/config_table.h"

unsigned config_line(const struct config_file *file, const char *section, const char *name)
{
    return file->lines[config_key_index(config_key_find(section, name))];
}

const char *config_text(const struct config_file *file, const char *section, const char *name)
{
    return file->texts[config_key_index(config_key_find(section, name))];
}

/* A key that was refused has been reported and needs no second line. */
bool config_is_broken(const struct config_file *file, const char *section, const char *name)
{
    return file->broken[config_key_index(config_key_find(section, name))];
}

static void config_check_listeners(const struct config_file *file, struct config_report *report)
{
    const struct listen_options *listen = &file->config.listen;
    size_t total = listen->fastcgi_count + listen->scgi_count;

    if (total == 0) {
        config_mistake(report, config_line(file, "listen", "fastcgi"), "listen", "fastcgi",
                       "nothing to listen on; allowed is at least one address here or in scgi");
    }
    for (size_t i = 0; i < total; i++) {
        bool is_scgi = i >= listen->fastcgi_count;
        const char *name = is_scgi ? "scgi" : "fastcgi";
        const char *text = is_scgi ? listen->scgi[i - listen->fastcgi_count].text
                                   : listen->fastcgi[i].text;

        for (size_t j = 0; j < i; j++) {
            const char *other = j < listen->fastcgi_count
                                    ? listen->fastcgi[j].text
                                    : listen->scgi[j - listen->fastcgi_count].text;

            if (strcmp(text, other) == 0) {
                config_mistake(report, config_line(file, "listen", name), "listen", name,
                               "\"%s\" is given twice; allowed is each address once", text);
            }
        }
    }
}

/* TCP listeners: whoever may connect can have PHP run what it likes. */
static void config_check_clients(const struct config_file *file, struct config_report *report,
                                 const char *name, const struct sock_address *addresses,
                                 size_t count)
{
    const struct relay_options *relay = &file->config.relay;
    bool is_reachable = false;

    for (size_t i = 0; i < count; i++) {
        is_reachable = is_reachable || !sock_is_allowed(&addresses[i].storage, NULL, 0);
    }
    if (!is_reachable) {
        return;
    }
    if (relay->allowed_client_count == 0 && !config_is_broken(file, "listen", "allowed_clients")) {
        config_warning(report, config_line(file, "listen", name), "listen", name,
                       "listens beyond this machine, but without allowed_clients only clients on "
                       "this machine are served");
    }
    for (size_t i = 0; i < relay->allowed_client_count; i++) {
        unsigned prefix = relay->allowed_clients[i].prefix;

        if (prefix == 0 || prefix == 96) {
            config_warning(report, config_line(file, "listen", "allowed_clients"), "listen",
                           "allowed_clients",
                           "every address is allowed: whoever can connect can run PHP code here");
            return;
        }
    }
}

static void config_check_socket_mode(const struct config_file *file, struct config_report *report)
{
    const struct listen_options *listen = &file->config.listen;

    if ((listen->socket_mode & 002) != 0) {
        config_warning(report, config_line(file, "listen", "socket_mode"), "listen", "socket_mode",
                       "%s lets every user of this machine connect and run PHP code",
                       config_text(file, "listen", "socket_mode"));
    }
}

static void config_check_user(const struct config_file *file, struct config_report *report)
{
    const struct config *config = &file->config;

    if (!config->has_user && geteuid() == 0 && !config_is_broken(file, "sidecar", "user")) {
        config_warning(report, config_line(file, "sidecar", "user"), "sidecar", "user",
                       "not set and started as root: everything runs as root; set the user of "
                       "PHP-FPM's pool or one that can reach its socket");
    }
    if (config->has_user && config->user == 0) {
        config_warning(report, config_line(file, "sidecar", "user"), "sidecar", "user",
                       "everything runs as root; set the user of PHP-FPM's pool or one that can "
                       "reach its socket");
    }
    if (config->has_user && geteuid() != 0 && config->user != geteuid()) {
        config_warning(report, config_line(file, "sidecar", "user"), "sidecar", "user",
                       "not started as root, so the user stays what it is");
    }
}

static void config_check_times(const struct config_file *file, struct config_report *report)
{
    const struct build_options *build = &file->config.build;
    unsigned request_line = config_line(file, "velox", "request_timeout");
    unsigned build_line = config_line(file, "velox", "build_timeout");
    unsigned shutdown_line = config_line(file, "sidecar", "shutdown_timeout");
    unsigned max_line = config_line(file, "retry", "max_delay");
    unsigned initial_line = config_line(file, "retry", "initial_delay");

    if (build->retry.max_delay_ms < build->retry.initial_delay_ms) {
        const char *name = max_line > 0 ? "max_delay" : "initial_delay";

        config_mistake(report, max_line > 0 ? max_line : initial_line, "retry", name,
                       "max_delay (%s) is under initial_delay (%s); allowed is a max_delay that "
                       "is not",
                       config_text(file, "retry", "max_delay"),
                       config_text(file, "retry", "initial_delay"));
    }
    if (max_line > 0 && build->retry.max_delay_ms >= build->build_timeout_ms) {
        config_warning(report, max_line, "retry", "max_delay",
                       "%s is not under build_timeout (%s): there may be no time for another "
                       "attempt",
                       config_text(file, "retry", "max_delay"),
                       config_text(file, "velox", "build_timeout"));
    }
    if ((request_line > 0 || build_line > 0) &&
        build->request_timeout_ms < build->build_timeout_ms) {
        config_warning(report, request_line > 0 ? request_line : build_line, "velox",
                       request_line > 0 ? "request_timeout" : "build_timeout",
                       "request_timeout (%s) is under build_timeout (%s): a build that takes "
                       "longer than request_timeout is cancelled and begun again",
                       config_text(file, "velox", "request_timeout"),
                       config_text(file, "velox", "build_timeout"));
    }
    if (shutdown_line > 0 && file->config.shutdown_timeout_ms < build->build_timeout_ms) {
        config_warning(report, shutdown_line, "sidecar", "shutdown_timeout",
                       "%s is under build_timeout (%s): a stop or reload cuts builds that take "
                       "longer",
                       config_text(file, "sidecar", "shutdown_timeout"),
                       config_text(file, "velox", "build_timeout"));
    }
}

static void config_check_velox(const struct config_file *file, struct config_report *report)
{
    const struct build_options *build = &file->config.build;

    if (build->server_count == 0) {
        if (!config_is_broken(file, "velox", "server_url")) {
            config_warning(report, config_line(file, "velox", "server_url"), "velox", "server_url",
                           "empty: no build request is intercepted, everything is only relayed");
        }
    }
}

/* Whether path is folder or lies below it, by whole components. */
bool config_is_below(const char *path, const char *folder)
{
    size_t length = strlen(folder);

    if (strcmp(folder, "/") == 0) {
        return true;
    }
    return strncmp(path, folder, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

static void config_check_delivery(const struct config_file *file, struct config_report *report)
{
    unsigned line = config_line(file, "artifact", "delivery");

    if (file->config.relay.delivery != DELIVERY_X_ACCEL_REDIRECT) {
        return;
    }
    if (file->config.build.artifact.roots.count > 1) {
        config_mistake(report, line, "artifact", "delivery",
                       "x-accel-redirect with several roots, but accel_prefix stands for one; "
                       "allowed are stream, or one root");
    }
    if (file->config.build.cache.enabled) {
        config_mistake(report, line, "artifact", "delivery",
                       "x-accel-redirect with the cache on, whose files are not below the root; "
                       "allowed are stream, or [cache] enabled = no");
    }
}

static void config_check_mappings(const struct config_file *file, struct config_report *report)
{
    const struct artifact_options *artifact = &file->config.build.artifact;

    for (size_t i = 0; i < artifact->mapping_count; i++) {
        for (size_t j = 0; j < i; j++) {
            if (strcmp(artifact->mappings[i].from, artifact->mappings[j].from) == 0) {
                config_mistake(report, config_line(file, "artifact", "path_map"), "artifact",
                               "path_map", "\"%s\" is mapped twice; allowed is each path once",
                               artifact->mappings[i].from);
            }
        }
    }
}

static void config_check_status(const struct config_file *file, struct config_report *report)
{
    const struct relay_options *relay = &file->config.relay;

    if (relay->ping_path[0] != '\0' && strcmp(relay->ping_path, relay->status_path) == 0) {
        config_mistake(report, config_line(file, "sidecar", "ping_path"), "sidecar", "ping_path",
                       "\"%s\" is status_path too; allowed are two different paths",
                       relay->ping_path);
    }
}

/* What is compared is "os/arch", which always has a slash. */
static void config_check_platforms(const struct config_file *file, struct config_report *report)
{
    const struct string_list *platforms = &file->config.build.policy.allow_platforms;

    for (size_t i = 0; i < platforms->count; i++) {
        if (strpbrk(platforms->items[i], "/*") == NULL) {
            config_warning(report, config_line(file, "policy", "allow_platforms"), "policy",
                           "allow_platforms",
                           "\"%s\" matches no platform; write os/arch, such as %s/*",
                           platforms->items[i], platforms->items[i]);
        }
    }
}

static void config_check_cache(const struct config_file *file, struct config_report *report)
{
    unsigned size_line = config_line(file, "cache", "max_size");
    unsigned gigabytes_line = config_line(file, "cache", "max_size_gb");

    if (size_line > 0 && gigabytes_line > 0) {
        config_mistake(report, size_line > gigabytes_line ? size_line : gigabytes_line, "cache",
                       size_line > gigabytes_line ? "max_size" : "max_size_gb",
                       "max_size and max_size_gb are the same limit, given twice; allowed is one "
                       "of them");
    }
}

void config_check(const struct config_file *file, struct config_report *report)
{
    const struct listen_options *listen = &file->config.listen;

    config_check_user(file, report);
    config_check_status(file, report);
    config_check_listeners(file, report);
    config_check_clients(file, report, "fastcgi", listen->fastcgi, listen->fastcgi_count);
    config_check_clients(file, report, "scgi", listen->scgi, listen->scgi_count);
    config_check_socket_mode(file, report);
    if (file->config.relay.address_count == 0) {
        config_mistake(report, config_line(file, "php_fpm", "address"), "php_fpm", "address",
                       "empty; allowed is at least one address of PHP-FPM");
    }
    config_check_velox(file, report);
    config_check_platforms(file, report);
    config_check_times(file, report);
    config_check_files(file, report);
    config_check_peers(file, report);
    config_check_mappings(file, report);
    config_check_delivery(file, report);
    config_check_cache(file, report);
}
