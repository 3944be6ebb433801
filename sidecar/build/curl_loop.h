/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_CURL_LOOP_H
#define SIDECAR_BUILD_CURL_LOOP_H

/*
 * curl's multi interface driven by our loop: curl tells which sockets and which timer it waits for,
 * the loop tells curl when they are ready.
 */

#include <curl/curl.h>

#include "sidecar/io/loop.h"

struct curl_loop {
    CURLM *multi;
    struct loop *loop;
    /* Transfers may have ended (curl_loop_take_ended). Comes outside of every curl callback. */
    void (*on_progress)(struct curl_loop *curl_loop);
    struct timer timer; /* private, as is all below */
    long kept_connections;
    size_t transfers;
    bool is_broken; /* something could not be watched: every transfer ends */
    struct list sockets;
    struct list closed_sockets;
    struct task task;
};

/* Borrows the loop. kept_connections: how many may wait for the next transfer. 0 or -ENOMEM;
 * curl_loop_stop is due either way. curl_global_init must have been called. */
int curl_loop_start(struct curl_loop *curl_loop, struct loop *loop, long kept_connections,
                    void (*on_progress)(struct curl_loop *curl_loop));
/* All transfers must have been removed. Closes the kept connections. */
void curl_loop_stop(struct curl_loop *curl_loop);

/*
 * Add and remove a transfer, outside of curl's callbacks. One that cannot be watched for want of
 * memory ends with CURLE_ABORTED_BY_CALLBACK, and so do all others with it. 0 or -ENOMEM.
 */
int curl_loop_add(struct curl_loop *curl_loop, CURL *easy);
void curl_loop_remove(struct curl_loop *curl_loop, CURL *easy);

/* The next transfer that has ended, by its CURLOPT_PRIVATE and how it ended; false: no more. */
bool curl_loop_take_ended(struct curl_loop *curl_loop, void **owner, CURLcode *code);

/* For CURLOPT_CLOSESOCKETFUNCTION of every transfer, with the struct curl_loop as
 * CURLOPT_CLOSESOCKETDATA. */
int curl_loop_close_socket(void *loop_pointer, curl_socket_t fd);

#endif
