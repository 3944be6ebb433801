/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_RELAY_OPTIONS_H
#define SIDECAR_RELAY_OPTIONS_H

/*
 * What the relay needs to know of the configuration. Fixed for the life of a child; owned by the
 * configuration; strings are never NULL, empty where nothing is set. Times in milliseconds, 0 where
 * the manual says that 0 switches a limit off.
 */

#include "sidecar/io/sock.h"

enum delivery_kind { DELIVERY_STREAM, DELIVERY_X_ACCEL_REDIRECT };

struct relay_options {
    /* [listen] */
    struct sock_network *allowed_clients;
    size_t allowed_client_count;
    uint64_t front_max_connections;
    uint64_t idle_timeout_ms;
    uint64_t header_timeout_ms;
    uint64_t stall_timeout_ms;
    uint64_t max_params_size;
    /* [php_fpm] */
    struct sock_address *addresses;
    size_t address_count;
    uint64_t connect_timeout_ms;
    uint64_t response_timeout_ms;
    uint64_t worker_max_connections;
    uint64_t queue_timeout_ms;
    uint64_t max_spooled_body;
    char *spool_directory;
    uint64_t max_response_head;
    uint64_t finish_timeout_ms;
    /* [velox] */
    bool intercept; /* a server_url is set */
    uint64_t max_request_size;
    /* [artifact] */
    enum delivery_kind delivery;
    char *accel_prefix;
    const char *accel_root; /* [artifact] root, which accel_prefix stands for; borrowed */
    uint64_t chunk_size;
    /* [sidecar] */
    char *status_path;
    char *ping_path;
    char *ping_response;
};

#endif
