/* SPDX-License-Identifier: MIT */
/*
 * Options of every transfer. It must never follow a redirect, and never obey a proxy that the
 * environment names.
 */
#include "sidecar/build/transfer.h"

#include <errno.h>
#include <sys/socket.h>

#define KEEPALIVE_IDLE_S 30
#define KEEPALIVE_INTERVAL_S 10

bool transfer_set_long(CURL *easy, CURLoption option, long value)
{
    return curl_easy_setopt(easy, option, value) == CURLE_OK;
}

bool transfer_set_text(CURL *easy, CURLoption option, const char *value)
{
    return curl_easy_setopt(easy, option, value) == CURLE_OK;
}

bool transfer_set_pointer(CURL *easy, CURLoption option, const void *value)
{
    return curl_easy_setopt(easy, option, value) == CURLE_OK;
}

bool transfer_is_unconnected(CURLcode code)
{
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CIPHER:
        return true;
    default:
        return false;
    }
}

bool transfer_is_cut(CURLcode code)
{
    return code == CURLE_GOT_NOTHING || code == CURLE_PARTIAL_FILE || code == CURLE_SEND_ERROR ||
           code == CURLE_RECV_ERROR;
}

/* To curl a socket that it does not get is a server that cannot be reached. */
static curl_socket_t on_open_socket(void *no_memory_pointer, curlsocktype purpose,
                                    struct curl_sockaddr *address)
{
    bool *no_memory = no_memory_pointer;
    int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);

    (void)purpose;
    if (fd < 0) {
        *no_memory |= errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
        return CURL_SOCKET_BAD;
    }
    return fd;
}

static bool set_protocols(CURL *easy)
{
#if LIBCURL_VERSION_NUM >= 0x075500
    return transfer_set_text(easy, CURLOPT_PROTOCOLS_STR, "http,https");
#else
    return transfer_set_long(easy, CURLOPT_PROTOCOLS, CURLPROTO_HTTP | CURLPROTO_HTTPS);
#endif
}

/* With ca_file set, nothing but what it holds is trusted. */
static bool set_authorities(CURL *easy, const struct transfer_setup *setup)
{
    if (buf_length(setup->ca) == 0) {
        return true;
    }
#if LIBCURL_VERSION_NUM >= 0x074d00
    struct curl_blob blob = { .data = setup->ca->bytes + setup->ca->start,
                              .len = buf_length(setup->ca),
                              .flags = CURL_BLOB_NOCOPY };

    if (curl_easy_setopt(easy, CURLOPT_CAINFO_BLOB, &blob) != CURLE_OK) {
        return false;
    }
#else
    if (!transfer_set_text(easy, CURLOPT_CAINFO, setup->ca_file)) {
        return false;
    }
#endif
    return transfer_set_text(easy, CURLOPT_CAPATH, NULL);
}

static bool set_sockets(CURL *easy, const struct transfer_setup *setup)
{
    return curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open_socket) == CURLE_OK &&
           transfer_set_pointer(easy, CURLOPT_OPENSOCKETDATA, setup->no_memory) &&
           curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, curl_loop_close_socket) ==
               CURLE_OK &&
           transfer_set_pointer(easy, CURLOPT_CLOSESOCKETDATA, setup->curl_loop) &&
           transfer_set_long(easy, CURLOPT_TCP_KEEPALIVE, 1) &&
           transfer_set_long(easy, CURLOPT_TCP_KEEPIDLE, KEEPALIVE_IDLE_S) &&
           transfer_set_long(easy, CURLOPT_TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S);
}

bool transfer_set_common(CURL *easy, const struct transfer_setup *setup)
{
    bool good = set_protocols(easy) && set_authorities(easy, setup) && set_sockets(easy, setup) &&
                transfer_set_text(easy, CURLOPT_PROXY, "") &&
                transfer_set_text(easy, CURLOPT_NOPROXY, "*") &&
                transfer_set_long(easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1) &&
                transfer_set_long(easy, CURLOPT_FOLLOWLOCATION, 0) &&
                transfer_set_long(easy, CURLOPT_NOSIGNAL, 1) &&
                transfer_set_long(easy, CURLOPT_CONNECTTIMEOUT_MS,
                                  (long)setup->connect_timeout_ms) &&
                transfer_set_pointer(easy, CURLOPT_ERRORBUFFER, setup->error);

#if LIBCURL_VERSION_NUM >= 0x075700
    /* Without it a cancelled call waits for getaddrinfo to return (Curl_resolver_kill). */
    good = good && transfer_set_long(easy, CURLOPT_QUICK_EXIT, 1);
#endif
    return good;
}
