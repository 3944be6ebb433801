/* SPDX-License-Identifier: MIT */
/*
 * Addresses that lead in a circle or carry a secret in clear text, and keys that have no effect as
 * the others are. What is sure to fail is a mistake, everything else a warning.
 */

#include "sidecar/config_check_parts.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "sidecar/config_table.h"

/* nginx closes a kept upstream connection after so long by default (keepalive_timeout of
 * ngx_http_upstream_keepalive_module); we must not be first. */
#define NGINX_KEEPALIVE_MS 60000

static in_port_t config_port(const struct sockaddr_storage *address)
{
    return address->ss_family == AF_INET
               ? ((const struct sockaddr_in *)(const void *)address)->sin_port
               : ((const struct sockaddr_in6 *)(const void *)address)->sin6_port;
}

static bool config_is_any(const struct sockaddr_storage *address)
{
    static const struct in6_addr any = IN6ADDR_ANY_INIT;

    if (address->ss_family == AF_INET) {
        return ((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr == INADDR_ANY;
    }
    return memcmp(&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, &any,
                  sizeof(any)) == 0;
}

/* Whether a connection to address ends at our own listener. */
static bool config_leads_to(const struct sock_address *address, const struct sock_address *listener)
{
    if (sock_address_is_unix(address) || sock_address_is_unix(listener)) {
        return sock_address_is_unix(address) && sock_address_is_unix(listener) &&
               strcmp(address->text, listener->text) == 0;
    }
    if (config_port(&address->storage) != config_port(&listener->storage)) {
        return false;
    }
    if (config_is_any(&listener->storage)) {
        return sock_is_allowed(&address->storage, NULL, 0); /* a loopback address */
    }
    return address->length == listener->length &&
           memcmp(&address->storage, &listener->storage, address->length) == 0;
}

static void config_check_circle(const struct config_file *file, struct config_report *report,
                                const char *name, const struct sock_address *listeners,
                                size_t count)
{
    const struct relay_options *relay = &file->config.relay;

    for (size_t i = 0; i < relay->address_count; i++) {
        for (size_t j = 0; j < count; j++) {
            if (config_leads_to(&relay->addresses[i], &listeners[j])) {
                config_mistake(report, config_line(file, "php_fpm", "address"), "php_fpm",
                               "address",
                               "\"%s\" is our own listener in [listen] %s, so that every request "
                               "would go in a circle; allowed is the address that PHP-FPM listens "
                               "on",
                               relay->addresses[i].text, name);
            }
        }
    }
}

static bool config_starts_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

/* Whether a host behind "http://" is surely this machine. */
static bool config_is_here(const char *host)
{
    size_t length = strcspn(host, ":/");

    return (length == 9 && strncmp(host, "localhost", 9) == 0) ||
           config_starts_with(host, "127.") || config_starts_with(host, "[::1]");
}

static void config_check_token_in_clear(const struct config_file *file,
                                        struct config_report *report)
{
    const struct build_options *build = &file->config.build;

    for (size_t i = 0; i < build->server_count && build->token_file[0] != '\0'; i++) {
        const char *url = build->servers[i].url;

        if (build->servers[i].unix_socket[0] == '\0' && config_starts_with(url, "http://") &&
            !config_is_here(url + strlen("http://"))) {
            config_warning(report, config_line(file, "velox", "server_url"), "velox", "server_url",
                           "%s gets the token of token_file in clear text over the network; use "
                           "https, or a tunnel on this machine",
                           url);
            return;
        }
    }
}

static bool config_has(const struct sock_address *addresses, size_t count, bool is_unix)
{
    for (size_t i = 0; i < count; i++) {
        if (sock_address_is_unix(&addresses[i]) == is_unix) {
            return true;
        }
    }
    return false;
}

/* A key that is in the file, not just its default written down, and does nothing. */
static void config_tell_idle(const struct config_file *file, struct config_report *report,
                             const char *section, const char *name, const char *why)
{
    unsigned line = config_line(file, section, name);
    const char *standard = config_key_find(section, name)->standard;

    if (line > 0 && strcmp(config_text(file, section, name), standard) != 0) {
        config_warning(report, line, section, name, "has no effect: %s", why);
    }
}

static void config_check_idle_keys(const struct config_file *file, struct config_report *report)
{
    static const char *const of_unix[] = { "socket_owner", "socket_group", "socket_mode" };
    const struct config *config = &file->config;
    const struct listen_options *listen = &config->listen;
    bool has_https = false;

    if (!config_has(listen->fastcgi, listen->fastcgi_count, false) &&
        !config_has(listen->scgi, listen->scgi_count, false)) {
        config_tell_idle(file, report, "listen", "allowed_clients",
                         "there is no TCP listener; unix sockets have socket_owner, socket_group "
                         "and socket_mode");
    }
    if (!config_has(listen->fastcgi, listen->fastcgi_count, true) &&
        !config_has(listen->scgi, listen->scgi_count, true)) {
        for (size_t i = 0; i < sizeof(of_unix) / sizeof(of_unix[0]); i++) {
            config_tell_idle(file, report, "listen", of_unix[i],
                             "there is no unix socket; TCP listeners have allowed_clients");
        }
    }
    if (config->relay.worker_max_connections == 0) {
        config_tell_idle(file, report, "php_fpm", "queue_timeout",
                         "nobody waits without a limit; set [php_fpm] max_connections");
    }
    if (config->build.max_concurrent_builds == 0) {
        config_tell_idle(file, report, "velox", "max_queued_builds",
                         "nobody waits without a limit; set [velox] max_concurrent_builds");
    }
    for (size_t i = 0; i < config->build.server_count; i++) {
        has_https = has_https || config_starts_with(config->build.servers[i].url, "https://");
    }
    if (!has_https && config->build.server_count > 0) {
        config_tell_idle(file, report, "velox", "ca_file", "no server_url begins with https://");
    }
    if (config->relay.delivery != DELIVERY_X_ACCEL_REDIRECT) {
        config_tell_idle(file, report, "artifact", "accel_prefix",
                         "delivery is stream; it belongs to x-accel-redirect");
    }
}

static void config_check_idle_timeout(const struct config_file *file, struct config_report *report)
{
    unsigned line = config_line(file, "listen", "idle_timeout");
    uint64_t timeout_ms = file->config.relay.idle_timeout_ms;

    if (line > 0 && timeout_ms > 0 && timeout_ms <= NGINX_KEEPALIVE_MS) {
        config_warning(report, line, "listen", "idle_timeout",
                       "%s is not over the 60s for which nginx keeps a connection by default, so "
                       "that it may send a request while we close; keep idle_timeout longer than "
                       "the web server's keepalive_timeout",
                       config_text(file, "listen", "idle_timeout"));
    }
}

void config_check_peers(const struct config_file *file, struct config_report *report)
{
    const struct listen_options *listen = &file->config.listen;

    config_check_circle(file, report, "fastcgi", listen->fastcgi, listen->fastcgi_count);
    config_check_circle(file, report, "scgi", listen->scgi, listen->scgi_count);
    config_check_token_in_clear(file, report);
    config_check_idle_keys(file, report);
    config_check_idle_timeout(file, report);
}
