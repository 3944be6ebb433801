/* SPDX-License-Identifier: MIT */
/*
 * The table of keys: what a new key needs, besides the field that it fills, is a row here, a line
 * in config/velox-sidecar.ini and one in the manual.
 */

#include "sidecar/config_table.h"

#include <assert.h>
#include <string.h>

#include "sidecar/config_file.h"

/* The limits of the manual: times up to 365 days, sizes up to 1T, and counts that fit an int. */
#define DURATION_MAX ((uint64_t)365 * 86400 * 1000)
#define SIZE_MAX_BYTES ((uint64_t)1 << 40)
#define COUNT_MAX 1000000000

#define AT(member) .offset = offsetof(struct config_file, member)
#define IN(member) AT(config.member)
#define LIST(items, count) IN(items), .count_offset = offsetof(struct config_file, config.count)
#define DURATION(member) CONFIG_DURATION, IN(member), .max = DURATION_MAX
#define SIZE(member) CONFIG_SIZE, IN(member), .max = SIZE_MAX_BYTES
#define NUMBER(member) CONFIG_NUMBER, IN(member), .max = COUNT_MAX

static const char *const config_levels[] = { "debug", "info", "warn", "error", NULL };
static const char *const config_formats[] = { "text", "json", NULL };
static const char *const config_sandboxes[] = { "auto", "on", "off", NULL };
static const char *const config_aborts[] = { "cancel", "finish", NULL };
static const char *const config_deliveries[] = { "stream", "x-accel-redirect", NULL };
static const char *const config_evictions[] = { "lru", "lfu", "fifo", NULL };

/* The names above stand for the values 0, 1, 2 … */
static_assert(LOG_DEBUG == 0 && LOG_ERROR == 3 && LOG_TEXT == 0 && LOG_JSON == 1, "log names");
static_assert(SANDBOX_AUTO == 0 && SANDBOX_ON == 1 && SANDBOX_OFF == 2, "sandbox names");
static_assert(CLIENT_ABORT_CANCEL == 0 && CLIENT_ABORT_FINISH == 1, "on_client_abort names");
static_assert(DELIVERY_STREAM == 0 && DELIVERY_X_ACCEL_REDIRECT == 1, "delivery names");
static_assert(EVICTION_LRU == 0 && EVICTION_LFU == 1 && EVICTION_FIFO == 2, "eviction names");

static const struct config_key config_keys[] = {
    { "sidecar", "threads", CONFIG_THREADS, IN(threads), .standard = "auto", .min = 1, .max = 256 },
    { "sidecar", "log_level", CONFIG_CHOICE, IN(log_level), .standard = "info",
      .choices = config_levels },
    { "sidecar", "log_format", CONFIG_CHOICE, IN(log_format), .standard = "text",
      .choices = config_formats },
    { "sidecar", "log_file", CONFIG_LOG_FILE, IN(log_file), .standard = "stderr" },
    { "sidecar", "user", CONFIG_USER, IN(user_name), .standard = "" },
    { "sidecar", "group", CONFIG_GROUP, IN(group), .standard = "" },
    { "sidecar", "pid_file", CONFIG_PATH, IN(pid_file), .standard = "" },
    { "sidecar", "shutdown_timeout", DURATION(shutdown_timeout_ms), .standard = "330s" },
    { "sidecar", "status_path", CONFIG_SCRIPT, IN(relay.status_path), .standard = "" },
    { "sidecar", "ping_path", CONFIG_SCRIPT, IN(relay.ping_path), .standard = "" },
    { "sidecar", "ping_response", CONFIG_TEXT, IN(relay.ping_response), .standard = "pong" },
    { "sidecar", "sandbox", CONFIG_CHOICE, IN(sandbox), .standard = "auto",
      .choices = config_sandboxes },

    { "listen", "fastcgi", CONFIG_ADDRESSES, LIST(listen.fastcgi, listen.fastcgi_count),
      .standard = "unix:/run/velox-sidecar/fastcgi.sock" },
    { "listen", "scgi", CONFIG_ADDRESSES, LIST(listen.scgi, listen.scgi_count), .standard = "" },
    { "listen", "socket_owner", CONFIG_OWNER, IN(listen.socket_owner), .standard = "" },
    { "listen", "socket_group", CONFIG_OWNER_GROUP, IN(listen.socket_group), .standard = "" },
    { "listen", "socket_mode", CONFIG_MODE, IN(listen.socket_mode), .standard = "0660",
      .max = 0777 },
    { "listen", "backlog", CONFIG_COUNT, IN(listen.backlog), .standard = "4096", .min = 1,
      .max = COUNT_MAX },
    { "listen", "allowed_clients", CONFIG_NETWORKS,
      LIST(relay.allowed_clients, relay.allowed_client_count), .standard = "" },
    { "listen", "max_connections", NUMBER(relay.front_max_connections), .standard = "0" },
    { "listen", "idle_timeout", DURATION(relay.idle_timeout_ms), .standard = "10m" },
    { "listen", "header_timeout", DURATION(relay.header_timeout_ms), .standard = "10s" },
    { "listen", "stall_timeout", DURATION(relay.stall_timeout_ms), .standard = "0" },
    { "listen", "max_params_size", SIZE(relay.max_params_size), .standard = "256K" },

    { "php_fpm", "address", CONFIG_ADDRESSES, LIST(relay.addresses, relay.address_count),
      .standard = "unix:/run/php/php-fpm.sock" },
    { "php_fpm", "connect_timeout", DURATION(relay.connect_timeout_ms), .standard = "5s" },
    { "php_fpm", "response_timeout", DURATION(relay.response_timeout_ms), .standard = "0" },
    { "php_fpm", "max_connections", NUMBER(relay.worker_max_connections), .standard = "0" },
    { "php_fpm", "queue_timeout", DURATION(relay.queue_timeout_ms), .standard = "10s" },
    { "php_fpm", "max_spooled_body", SIZE(relay.max_spooled_body), .standard = "1G" },
    { "php_fpm", "spool_directory", CONFIG_FOLDER, IN(relay.spool_directory),
      .standard = "/var/tmp" },
    { "php_fpm", "max_response_head", SIZE(relay.max_response_head), .standard = "64K" },
    { "php_fpm", "finish_timeout", DURATION(relay.finish_timeout_ms), .standard = "10s" },

    { "velox", "server_url", CONFIG_SERVERS, LIST(build.servers, build.server_count),
      .standard = "" },
    { "velox", "build_path", CONFIG_URL_PATH, AT(build_path),
      .standard = "/api.service.v1.BuildService/Build" },
    { "velox", "build_timeout", DURATION(build.build_timeout_ms), .standard = "5m" },
    { "velox", "request_timeout", DURATION(build.request_timeout_ms), .standard = "180s" },
    { "velox", "max_concurrent_builds", NUMBER(build.max_concurrent_builds), .standard = "0" },
    { "velox", "max_queued_builds", NUMBER(build.max_queued_builds), .standard = "1000" },
    { "velox", "max_request_size", SIZE(relay.max_request_size), .standard = "1M" },
    { "velox", "on_client_abort", CONFIG_CHOICE, IN(build.on_client_abort), .standard = "cancel",
      .choices = config_aborts },
    { "velox", "failure_ttl", DURATION(build.failure_ttl_ms), .standard = "10s" },
    { "velox", "token_file", CONFIG_PATH, IN(build.token_file), .standard = "" },
    { "velox", "ca_file", CONFIG_PATH, IN(build.ca_file), .standard = "" },

    { "policy", "allow_modules", CONFIG_GLOBS,
      LIST(build.policy.allow_modules.items, build.policy.allow_modules.count), .standard = "" },
    { "policy", "deny_modules", CONFIG_GLOBS,
      LIST(build.policy.deny_modules.items, build.policy.deny_modules.count), .standard = "" },
    { "policy", "allow_platforms", CONFIG_GLOBS,
      LIST(build.policy.allow_platforms.items, build.policy.allow_platforms.count),
      .standard = "" },
    { "policy", "allow_replaces", CONFIG_BOOLEAN, IN(build.policy.allow_replaces),
      .standard = "no" },
    { "policy", "max_plugins", CONFIG_COUNT, IN(build.policy.max_plugins), .standard = "200",
      .max = COUNT_MAX },

    { "retry", "max_attempts", CONFIG_COUNT, IN(build.retry.max_attempts), .standard = "3",
      .min = 1, .max = 100 },
    { "retry", "initial_delay", DURATION(build.retry.initial_delay_ms), .standard = "1s" },
    { "retry", "max_delay", DURATION(build.retry.max_delay_ms), .standard = "10s" },
    { "retry", "backoff_multiplier", CONFIG_DECIMAL, IN(build.retry.multiplier), .standard = "2.0",
      .min = 1, .max = 100 },
    { "retry", "jitter", CONFIG_DECIMAL, IN(build.retry.jitter), .standard = "0.1", .max = 1 },

    { "artifact", "root", CONFIG_ROOTS,
      LIST(build.artifact.roots.items, build.artifact.roots.count), .standard = "/tmp" },
    { "artifact", "path_map", CONFIG_MAPPINGS,
      LIST(build.artifact.mappings, build.artifact.mapping_count), .standard = "" },
    { "artifact", "artifact_url", CONFIG_TEMPLATE, IN(build.artifact.url), .standard = "" },
    { "artifact", "delivery", CONFIG_CHOICE, IN(relay.delivery), .standard = "stream",
      .choices = config_deliveries },
    { "artifact", "accel_prefix", CONFIG_LOCATION, IN(relay.accel_prefix),
      .standard = "/velox-artifacts/" },
    { "artifact", "chunk_size", SIZE(relay.chunk_size), .standard = "1M" },

    { "cache", "enabled", CONFIG_BOOLEAN, IN(build.cache.enabled), .standard = "no" },
    { "cache", "directory", CONFIG_FOLDER, IN(build.cache.directory),
      .standard = "/var/cache/velox-sidecar" },
    { "cache", "max_size", SIZE(build.cache.max_size), .standard = "0" },
    /* The plugin's name for max_size. */
    { "cache", "max_size_gb", CONFIG_GIGABYTES, AT(gigabytes), .standard = "0", .max = 1024 },
    { "cache", "max_entries", NUMBER(build.cache.max_entries), .standard = "0" },
    { "cache", "max_age_days", NUMBER(build.cache.max_age_days), .standard = "0" },
    { "cache", "max_age_mutable", DURATION(build.cache.max_age_mutable_ms), .standard = "10m" },
    { "cache", "eviction_policy", CONFIG_CHOICE, IN(build.cache.eviction), .standard = "lru",
      .choices = config_evictions },
    { "cache", "cleanup_interval", DURATION(build.cache.cleanup_interval_ms), .standard = "1h" },
    { "cache", "access_update_interval", DURATION(build.cache.access_update_interval_ms),
      .standard = "5m" },
    { "cache", "scrub_interval", DURATION(build.cache.scrub_interval_ms), .standard = "1d" },
};

#define CONFIG_KEYS (sizeof(config_keys) / sizeof(config_keys[0]))
static_assert(CONFIG_KEYS <= CONFIG_KEYS_MAX, "CONFIG_KEYS_MAX is too small for the table");

size_t config_key_count(void)
{
    return CONFIG_KEYS;
}

const struct config_key *config_key_at(size_t index)
{
    return &config_keys[index];
}

const struct config_key *config_key_find(const char *section, const char *name)
{
    for (size_t i = 0; i < CONFIG_KEYS; i++) {
        if (strcmp(config_keys[i].section, section) == 0 &&
            strcmp(config_keys[i].name, name) == 0) {
            return &config_keys[i];
        }
    }
    return NULL;
}

size_t config_key_index(const struct config_key *key)
{
    return (size_t)(key - config_keys);
}

bool config_has_section(const char *section)
{
    for (size_t i = 0; i < CONFIG_KEYS; i++) {
        if (strcmp(config_keys[i].section, section) == 0) {
            return true;
        }
    }
    return false;
}
