/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_OPTIONS_H
#define SIDECAR_BUILD_OPTIONS_H

/*
 * What the builder needs to know of the configuration. Fixed for the life of a child; owned by the
 * configuration; strings are never NULL, empty where nothing is set. Times in milliseconds.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum client_abort { CLIENT_ABORT_CANCEL, CLIENT_ABORT_FINISH };
enum eviction_policy { EVICTION_LRU, EVICTION_LFU, EVICTION_FIFO };

struct string_list {
    char **items;
    size_t count;
};

struct velox_server {
    char *url;         /* complete: base URL, with build_path where the base has no path */
    char *unix_socket; /* empty, or the socket to connect to; url then has host "localhost" */
};

struct retry_options {
    unsigned max_attempts;
    uint64_t initial_delay_ms;
    uint64_t max_delay_ms;
    double multiplier;
    double jitter; /* 0 to 1 */
};

struct path_mapping {
    char *from; /* without a slash at the end, except "/" itself */
    char *to;
};

struct artifact_options {
    struct string_list roots; /* absolute, without a slash at the end, except "/" itself */
    struct path_mapping *mappings;
    size_t mapping_count;
    char *url; /* template with {path}, or empty */
    /* For fetched files that must be complete first; borrowed. */
    const char *spool_directory;
    uint64_t max_spooled_bytes; /* where the length is not announced */
};

struct policy_options {
    struct string_list allow_modules;
    struct string_list deny_modules;
    struct string_list allow_platforms;
    bool allow_replaces;
    unsigned max_plugins;
};

struct cache_options {
    bool enabled;
    char *directory;
    uint64_t max_size;
    uint64_t max_entries;
    uint64_t max_age_days;
    uint64_t max_age_mutable_ms;
    enum eviction_policy eviction;
    uint64_t cleanup_interval_ms;
    uint64_t access_update_interval_ms;
    uint64_t scrub_interval_ms;
};

struct build_options {
    struct velox_server *servers;
    size_t server_count;
    uint64_t build_timeout_ms;
    uint64_t request_timeout_ms;
    uint64_t max_concurrent_builds;
    uint64_t max_queued_builds;
    enum client_abort on_client_abort;
    uint64_t failure_ttl_ms;
    char *token_file;
    char *ca_file;
    struct retry_options retry;
    struct artifact_options artifact;
    struct policy_options policy;
    struct cache_options cache;
};

#endif
