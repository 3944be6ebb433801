/* SPDX-License-Identifier: MIT */
/*
 * Who may open what. Must allow nothing that the configuration does not call for: no server with a
 * name, no files of the resolver; no https, no certificates; nothing of /etc as a whole.
 */
#include "sidecar/sandbox/rules.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define PORT_HTTP 80
#define PORT_HTTPS 443
#define PORT_DNS 53
#define HOST_MAX 256

struct rules {
    struct landlock *landlock;
    struct log *log;
    struct watchlist *known;
    int error; /* the first; nothing is added after it */
};

/* ---- URLs ------------------------------------------------------------------------------------ */

struct place {
    char host[HOST_MAX]; /* without brackets; cut where it is longer, as no address is */
    uint16_t port;
    bool is_https;
};

/* config_parse_lists.c has let nothing else pass than http and https with host or host:port. */
static void place_of(const char *url, struct place *place)
{
    const char *host = strstr(url, "://");
    size_t length;

    place->is_https = strncasecmp(url, "https:", 6) == 0;
    place->port = place->is_https ? PORT_HTTPS : PORT_HTTP;
    host = host == NULL ? url : host + 3;
    if (*host == '[') {
        host++;
        length = strcspn(host, "]");
    } else {
        length = strcspn(host, ":/?#");
    }
    snprintf(place->host, sizeof(place->host), "%.*s", (int)length, host);
    host += length + (host[length] == ']');
    if (*host == ':') {
        place->port = (uint16_t)strtoul(host + 1, NULL, 10);
    }
}

static bool is_name(const struct place *place)
{
    struct in6_addr address;

    return inet_pton(AF_INET, place->host, &address) != 1 &&
           inet_pton(AF_INET6, place->host, &address) != 1;
}

/* The servers that are reached over TCP, then artifact_url. False past the last one. */
static bool place_at(const struct build_options *build, size_t *index, struct place *place)
{
    for (; *index < build->server_count; (*index)++) {
        if (build->servers[*index].unix_socket[0] == '\0') {
            place_of(build->servers[(*index)++].url, place);
            return true;
        }
    }
    if (*index == build->server_count && build->server_count > 0 &&
        build->artifact.url[0] != '\0') {
        (*index)++;
        place_of(build->artifact.url, place);
        return true;
    }
    return false;
}

bool rules_need_names(const struct build_options *build)
{
    struct place place;
    size_t index = 0;

    while (place_at(build, &index, &place)) {
        if (is_name(&place)) {
            return true;
        }
    }
    return false;
}

static bool need_certificates(const struct build_options *build)
{
    struct place place;
    size_t index = 0;

    while (place_at(build, &index, &place)) {
        if (place.is_https) {
            return true;
        }
    }
    return false;
}

/* ---- files ----------------------------------------------------------------------------------- */

static void watch(struct rules *rules, const char *path)
{
    if (rules->error == 0) {
        rules->error = watchlist_add(rules->known, path);
    }
}

static void allow_own(struct rules *rules, const char *key, const char *path, uint64_t rights)
{
    int error;

    watch(rules, path); /* first, so that a change meanwhile is seen */
    if (rules->error != 0) {
        return;
    }
    error = landlock_allow_beneath(rules->landlock, path, rights);
    if (error == -ENOENT || error == -ENOTDIR || error == -EACCES) {
        log_warn(rules->log, "the sandbox keeps closed what cannot be found, until it can be",
                 log_str("key", key), log_str("path", path), log_errno("error", error));
        return;
    }
    rules->error = error;
}

/* What is there on one system and not on another. */
static void allow_system(struct rules *rules, const char *const *paths)
{
    for (; *paths != NULL && rules->error == 0; paths++) {
        int error = landlock_allow_beneath(rules->landlock, *paths, LANDLOCK_READ);

        if (error != -ENOENT && error != -ENOTDIR && error != -EACCES && error != -ELOOP) {
            rules->error = error;
        }
    }
}

/*
 * A file that programs replace (rename over it) is not the file of the rule any more. Where /etc
 * has but a link to one, as for systemd-resolved, NetworkManager and resolvconf, all that lies in
 * the folder it leads to is about the same and is allowed.
 */
static void allow_folder_of_link(struct rules *rules, const char *path)
{
    char target[PATH_MAX];
    const char *folder[] = { target, NULL };
    char *slash;

    if (realpath(path, target) == NULL || strncmp(target, "/etc/", 5) == 0) {
        return;
    }
    slash = strrchr(target, '/');
    if (slash != NULL && slash != target) {
        *slash = '\0';
        allow_system(rules, folder);
    }
}

/* glibc's getaddrinfo, with the modules that nsswitch.conf may name. */
static void allow_names(struct rules *rules)
{
    static const char *const files[] = { "/etc/gai.conf",      "/etc/host.conf",
                                         "/etc/hosts",         "/etc/protocols",
                                         "/etc/nsswitch.conf", "/etc/resolv.conf",
                                         "/etc/services",      NULL };
    static const char *const libraries[] = {
        "/etc/ld.so.cache", "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", NULL
    };

    for (size_t i = 0; files[i] != NULL; i++) {
        watch(rules, files[i]);
    }
    allow_system(rules, files);
    allow_system(rules, libraries);
    allow_folder_of_link(rules, "/etc/resolv.conf");
}

/* Where Debian, Fedora, Alpine and OpenSSL itself keep certificates; libcurl knows what it was
 * built for. */
static void allow_certificates(struct rules *rules)
{
    static const char *const stores[] = { "/etc/ssl/certs",
                                          "/etc/ssl/cert.pem",
                                          "/etc/ssl/openssl.cnf",
                                          "/etc/pki/tls/cert.pem",
                                          "/etc/pki/tls/certs",
                                          "/etc/pki/tls/openssl.cnf",
                                          "/etc/pki/ca-trust/extracted",
                                          "/etc/crypto-policies/back-ends",
                                          "/usr/local/share/ca-certificates",
                                          "/usr/share/ca-certificates",
                                          "/usr/share/crypto-policies",
                                          "/usr/lib/ssl/openssl.cnf",
                                          "/usr/lib/ssl/certs",
                                          NULL };

    allow_system(rules, stores);
#if LIBCURL_VERSION_NUM >= 0x075400
    const curl_version_info_data *curl = curl_version_info(CURLVERSION_NOW);
    const char *const built_in[] = { curl->cainfo, NULL };
    const char *const built_in_folder[] = { curl->capath, NULL };

    if (curl->age >= CURLVERSION_TENTH) {
        allow_system(rules, built_in);
        allow_system(rules, built_in_folder);
    }
#endif
}

static void allow_files(struct rules *rules, const struct config *config)
{
    const struct build_options *build = &config->build;

    allow_own(rules, "spool_directory", config->relay.spool_directory,
              LANDLOCK_READ_WRITE | LANDLOCK_FILE_MAKE);
    if (!config->relay.intercept) {
        return;
    }
    for (size_t i = 0; i < build->artifact.roots.count; i++) {
        allow_own(rules, "root", build->artifact.roots.items[i], LANDLOCK_READ);
    }
    if (build->cache.enabled) {
        allow_own(rules, "directory", build->cache.directory, LANDLOCK_OWN);
    }
    if (rules_need_names(build)) {
        allow_names(rules);
    }
    if (need_certificates(build) && build->ca_file[0] == '\0') {
        allow_certificates(rules);
    }
#if LIBCURL_VERSION_NUM < 0x074d00
    /* Newer ones get its bytes, which are read at the start. */
    if (build->ca_file[0] != '\0') {
        allow_own(rules, "ca_file", build->ca_file, LANDLOCK_READ);
    }
#endif
}

/* ---- ports ----------------------------------------------------------------------------------- */

static void allow_port(struct rules *rules, uint16_t port)
{
    if (rules->error == 0) {
        rules->error = landlock_allow_connect(rules->landlock, port);
    }
}

static void allow_ports(struct rules *rules, const struct config *config)
{
    struct place place;
    size_t index = 0;

    for (size_t i = 0; i < config->relay.address_count; i++) {
        const struct sockaddr_storage *address = &config->relay.addresses[i].storage;

        if (address->ss_family == AF_INET) {
            allow_port(rules, ntohs(((const struct sockaddr_in *)(const void *)address)->sin_port));
        } else if (address->ss_family == AF_INET6) {
            allow_port(rules,
                       ntohs(((const struct sockaddr_in6 *)(const void *)address)->sin6_port));
        }
    }
    while (place_at(&config->build, &index, &place)) {
        allow_port(rules, place.port);
    }
    /* Long answers of a name server come over TCP. */
    if (rules_need_names(&config->build)) {
        allow_port(rules, PORT_DNS);
    }
}

int rules_add(struct landlock *landlock, const struct config *config, struct log *log,
              struct watchlist *known)
{
    struct rules rules = { .landlock = landlock, .log = log, .known = known };

    allow_files(&rules, config);
    allow_ports(&rules, config);
    return rules.error;
}
