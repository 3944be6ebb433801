/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_TRANSFER_H
#define SIDECAR_BUILD_TRANSFER_H

/* What all HTTP transfers by libcurl have in common: those to Velox and those that fetch a file. */

#include <curl/curl.h>

#include "sidecar/base/buf.h"
#include "sidecar/build/curl_loop.h"

struct transfer_setup {
    struct curl_loop *curl_loop;
    const char *ca_file;  /* empty: the system's authorities */
    const struct buf *ca; /* its content */
    char *error;          /* CURL_ERROR_SIZE bytes for curl's words */
    bool *no_memory;      /* set where a socket cannot be had */
    uint64_t connect_timeout_ms;
};

/* False where there is no memory, or libcurl lacks the option. */
bool transfer_set_long(CURL *easy, CURLoption option, long value);
bool transfer_set_text(CURL *easy, CURLoption option, const char *value);
bool transfer_set_pointer(CURL *easy, CURLoption option, const void *value);

/* What a code says of a transfer: nobody could be connected to, or not with TLS as wanted; or the
 * connection ended before the answer did. */
bool transfer_is_unconnected(CURLcode code);
bool transfer_is_cut(CURLcode code);

/*
 * HTTP/1.1 over http and https, no redirects, no proxy whatever the environment says, sockets
 * watched by curl_loop. What setup points to must outlive the transfer.
 */
bool transfer_set_common(CURL *easy, const struct transfer_setup *setup);

#endif
