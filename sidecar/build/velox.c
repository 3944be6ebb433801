/* SPDX-License-Identifier: MIT */
/*
 * POSTs to Velox with libcurl's multi interface on our loop. It must never call into curl from one
 * of curl's callbacks (curl forbids it), and never post twice for one call: left alone, curl sends
 * a request once more when a kept connection turns out to be dead (Curl_retry_request in its
 * lib/transfer.c), so that attempts could not be counted. on_before_request stops it.
 */
#include "sidecar/build/velox.h"

#include <curl/curl.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "sidecar/base/buf.h"
#include "sidecar/build/curl_loop.h"
#include "sidecar/build/transfer.h"
#include "sidecar/build/velox_files.h"

/* curl takes no more than an int, and Connect's header no more than ten digits: 24 days. */
#define TIMEOUT_MAX_MS ((uint64_t)INT32_MAX)
#define CONNECT_TIMEOUT_MS 10000
#define ANSWER_MAX_BYTES (1024u * 1024u)
#define READ_BUFFER_BYTES 2048 /* curl keeps one for each call, and a call waits for minutes */
#define UPLOAD_BUFFER_BYTES 16384
/* How many connections wait for the next call (builds take minutes, so few are of use), and for how
 * long one is good: web servers close theirs after a minute or so. */
#define KEPT_CONNECTIONS 2
#define KEPT_IDLE_MAX_S 30
#define TOKEN_HEADER_MAX_BYTES (65u * 1024u)
#define CA_FILE_MAX_BYTES (16u * 1024u * 1024u)
#define HEADER_SIZE 64

struct velox {
    struct velox_client client; /* first */
    const struct build_options *options;
    struct log *log;
    struct curl_loop curl_loop;
    struct curl_slist *headers; /* of every request */
    struct buf ca;
};

struct velox_call {
    struct velox *velox;
    CURL *easy;
    struct buf body;       /* of the answer */
    bool was_posted;       /* the request has gone out, or is about to */
    bool is_cut;           /* curl wanted to post once more, on another connection */
    bool head_is_complete; /* the blank line has come */
    bool too_large;
    bool no_memory;                 /* or no descriptors */
    struct curl_slist first_header; /* Connect-Timeout-Ms, in front of velox->headers */
    char first_header_text[HEADER_SIZE];
    char error[CURL_ERROR_SIZE];
    void (*on_answer)(void *waiter, const struct velox_answer *answer);
    void *waiter;
};

static struct velox *velox_of(struct velox_client *client)
{
    return list_entry(client, struct velox, client);
}

/* ---- how an exchange ended ------------------------------------------------------------------- */

static enum velox_transport transport_of(const struct velox_call *call, CURLcode code)
{
    curl_off_t connect_us = 0;

    if (code != CURLE_OK && call->no_memory) {
        return VELOX_OUT_OF_MEMORY;
    }
    if (call->too_large) {
        return VELOX_TOO_LARGE;
    }
    if (call->is_cut || transfer_is_cut(code)) {
        return VELOX_CUT;
    }
    if (transfer_is_unconnected(code)) {
        return VELOX_NOT_CONNECTED;
    }
    switch (code) {
    case CURLE_OK:
        /* To curl a connection that ends within the head is an answer with an empty body. */
        return call->head_is_complete ? VELOX_ANSWERED : VELOX_CUT;
    case CURLE_OUT_OF_MEMORY:
    case CURLE_ABORTED_BY_CALLBACK: /* a socket that could not be watched */
        return VELOX_OUT_OF_MEMORY;
    case CURLE_OPERATION_TIMEDOUT:
        /* APPCONNECT is 0 without TLS, CONNECT is 0 while there is no connection. */
        (void)curl_easy_getinfo(call->easy, CURLINFO_PRETRANSFER_TIME_T, &connect_us);
        return connect_us > 0 ? VELOX_TIMED_OUT : VELOX_NOT_CONNECTED;
    default:
        return VELOX_NOT_HTTP;
    }
}

static void call_free(struct velox_call *call)
{
    curl_easy_cleanup(call->easy);
    buf_deinit(&call->body);
    free(call);
}

/* The call is taken out of curl before anybody hears of its answer. */
static void call_finish(struct velox_call *call, CURLcode code)
{
    struct velox_reply reply = { .transport = transport_of(call, code) };
    struct velox_answer answer;
    struct buf text;
    long status = 0;
    curl_off_t retry_after_s = 0;

    (void)curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
    (void)curl_easy_getinfo(call->easy, CURLINFO_RETRY_AFTER, &retry_after_s);
    reply.status = (unsigned)status;
    reply.body = buf_span(&call->body);
    if (retry_after_s > 0) {
        reply.retry_after_ms = retry_after_s > INT32_MAX ? (uint64_t)INT32_MAX * 1000
                                                         : (uint64_t)retry_after_s * 1000;
    }
    if (call->is_cut) {
        reply.detail = span_of_string("a kept connection ended without an answer");
    } else if (code != CURLE_OK) {
        reply.detail = span_of_string(call->error[0] != '\0' ? call->error
                                                             : curl_easy_strerror(code));
    }
    curl_loop_remove(&call->velox->curl_loop, call->easy);
    buf_init(&text, 0);
    velox_answer_decide(&reply, &text, &answer);
    call->on_answer(call->waiter, &answer);
    buf_deinit(&text);
    call_free(call);
}

static void on_progress(struct curl_loop *curl_loop)
{
    void *call;
    CURLcode code;

    while (curl_loop_take_ended(curl_loop, &call, &code)) {
        call_finish(call, code);
    }
}

/* ---- one call -------------------------------------------------------------------------------- */

static size_t on_body(char *bytes, size_t size, size_t count, void *call_pointer)
{
    struct velox_call *call = call_pointer;
    int result = buf_append(&call->body, bytes, size * count);

    if (result < 0) {
        call->too_large = result == -ENOBUFS;
        call->no_memory = result == -ENOMEM;
        return size * count + 1; /* ends the transfer */
    }
    return size * count;
}

/* One line of the head, of an interim one (1xx) before it, or a trailer behind the body. */
static size_t on_header(char *bytes, size_t size, size_t count, void *call_pointer)
{
    struct velox_call *call = call_pointer;
    size_t length = size * count;

    if (length > 0 && (bytes[0] == '\r' || bytes[0] == '\n')) {
        call->head_is_complete = true;
    } else if (length >= 5 && memcmp(bytes, "HTTP/", 5) == 0) {
        call->head_is_complete = false;
    }
    return length;
}

#if LIBCURL_VERSION_NUM >= 0x075000
/* There is a connection, and the request comes next: for the second time, when a kept connection
 * ended before the first byte of the answer. Whether Velox had begun to build is not known then, so
 * this is a connection cut, which the caller counts. */
static int on_before_request(void *call_pointer, char *peer, char *own, int peer_port, int own_port)
{
    struct velox_call *call = call_pointer;

    (void)peer, (void)own, (void)peer_port, (void)own_port;
    call->is_cut = call->was_posted;
    call->was_posted = true;
    return call->is_cut ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}
#endif

/* Without the means to stop curl from posting twice no connection is kept. */
static bool set_keeping(CURL *easy, struct velox_call *call)
{
#if LIBCURL_VERSION_NUM >= 0x075000
    return curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_before_request) == CURLE_OK &&
           transfer_set_pointer(easy, CURLOPT_PREREQDATA, call) &&
           transfer_set_long(easy, CURLOPT_MAXAGE_CONN, KEPT_IDLE_MAX_S);
#else
    (void)call;
    return transfer_set_long(easy, CURLOPT_FRESH_CONNECT, 1) &&
           transfer_set_long(easy, CURLOPT_FORBID_REUSE, 1);
#endif
}

static bool set_connection(struct velox_call *call, const struct velox_server *server,
                           uint64_t connect_timeout_ms)
{
    struct velox *velox = call->velox;
    struct transfer_setup setup = {
        .curl_loop = &velox->curl_loop,
        .ca_file = velox->options->ca_file,
        .ca = &velox->ca,
        .error = call->error,
        .no_memory = &call->no_memory,
        .connect_timeout_ms = connect_timeout_ms,
    };

    return transfer_set_common(call->easy, &setup) &&
           transfer_set_text(call->easy, CURLOPT_URL, server->url) &&
           transfer_set_long(call->easy, CURLOPT_BUFFERSIZE, READ_BUFFER_BYTES) &&
           transfer_set_long(call->easy, CURLOPT_UPLOAD_BUFFERSIZE, UPLOAD_BUFFER_BYTES) &&
           (server->unix_socket[0] == '\0' ||
            transfer_set_text(call->easy, CURLOPT_UNIX_SOCKET_PATH, server->unix_socket));
}

static bool set_request(struct velox_call *call, struct span body, uint64_t limit_ms)
{
    CURL *easy = call->easy;

    (void)snprintf(call->first_header_text, sizeof(call->first_header_text),
                   "Connect-Timeout-Ms: %" PRIu64, limit_ms);
    call->first_header.data = call->first_header_text;
    call->first_header.next = call->velox->headers;
    return transfer_set_long(easy, CURLOPT_POST, 1) &&
           transfer_set_pointer(easy, CURLOPT_POSTFIELDS, body.ptr) &&
           curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.len) == CURLE_OK &&
           transfer_set_pointer(easy, CURLOPT_HTTPHEADER, &call->first_header) &&
           transfer_set_long(easy, CURLOPT_TIMEOUT_MS, (long)limit_ms) &&
           transfer_set_pointer(easy, CURLOPT_PRIVATE, call) &&
           curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header) == CURLE_OK &&
           transfer_set_pointer(easy, CURLOPT_HEADERDATA, call) &&
           curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body) == CURLE_OK &&
           transfer_set_pointer(easy, CURLOPT_WRITEDATA, call);
}

static int call_start(struct velox_client *client, size_t server, struct span body,
                      uint64_t timeout_ms,
                      void (*on_answer)(void *waiter, const struct velox_answer *answer),
                      void *waiter, struct velox_call **started)
{
    struct velox *velox = velox_of(client);
    struct velox_call *call = calloc(1, sizeof(*call));
    uint64_t limit_ms = timeout_ms < 1 ? 1 : timeout_ms;

    if (call == NULL) {
        return -ENOMEM;
    }
    limit_ms = limit_ms < TIMEOUT_MAX_MS ? limit_ms : TIMEOUT_MAX_MS;
    call->velox = velox;
    call->on_answer = on_answer;
    call->waiter = waiter;
    buf_init(&call->body, ANSWER_MAX_BYTES);
    call->easy = curl_easy_init();
    if (call->easy == NULL) {
        free(call);
        return -ENOMEM;
    }
    if (!set_connection(call, &velox->options->servers[server],
                        limit_ms < CONNECT_TIMEOUT_MS ? limit_ms : CONNECT_TIMEOUT_MS) ||
        !set_keeping(call->easy, call) || !set_request(call, body, limit_ms) ||
        curl_loop_add(&velox->curl_loop, call->easy) < 0) {
        call_free(call);
        return -ENOMEM;
    }
    *started = call;
    return 0;
}

static void call_cancel(struct velox_client *client, struct velox_call *call)
{
    /* Removing an unfinished transfer closes its connection at once. */
    curl_loop_remove(&velox_of(client)->curl_loop, call->easy);
    call_free(call);
}

/* ---- the client ------------------------------------------------------------------------------ */

static int add_header(struct velox *velox, const char *header)
{
    struct curl_slist *headers = curl_slist_append(velox->headers, header);

    if (headers == NULL) {
        return -ENOMEM;
    }
    velox->headers = headers;
    return 0;
}

static int add_token(struct velox *velox)
{
    struct buf header;
    int result;

    buf_init(&header, TOKEN_HEADER_MAX_BYTES);
    result = velox_read_token(velox->log, velox->options->token_file, &header);
    if (result == 0) {
        result = add_header(velox, (const char *)buf_span(&header).ptr);
    }
    buf_deinit(&header);
    return result;
}

static int add_headers(struct velox *velox)
{
    static const char *const headers[] = {
        "Content-Type: application/json",
        "Accept: application/json",
        "Connect-Protocol-Version: 1",
        "User-Agent: velox-sidecar",
        "Expect:", /* no 100-continue: servers may leave it unanswered for a second */
    };

    for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
        if (add_header(velox, headers[i]) < 0) {
            return -ENOMEM;
        }
    }
    return velox->options->token_file[0] == '\0' ? 0 : add_token(velox);
}

int velox_new(struct velox_client **client, struct loop *loop, const struct build_options *options,
              struct log *log)
{
    struct velox *velox;
    int result;

    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        return -ENOMEM;
    }
    velox = calloc(1, sizeof(*velox));
    if (velox == NULL) {
        curl_global_cleanup();
        return -ENOMEM;
    }
    velox->client = (struct velox_client){ .start = call_start, .cancel = call_cancel };
    velox->options = options;
    velox->log = log;
    buf_init(&velox->ca, CA_FILE_MAX_BYTES);
    result = curl_loop_start(&velox->curl_loop, loop, KEPT_CONNECTIONS, on_progress);
    if (result == 0) {
        result = add_headers(velox);
    }
    if (result == 0 && options->ca_file[0] != '\0') {
        result = velox_read_file(log, "ca_file", options->ca_file, &velox->ca);
    }
    if (result < 0) {
        velox_free(&velox->client);
        return result;
    }
    *client = &velox->client;
    return 0;
}

void velox_free(struct velox_client *client)
{
    struct velox *velox;

    if (client == NULL) {
        return;
    }
    velox = velox_of(client);
    curl_loop_stop(&velox->curl_loop);
    curl_slist_free_all(velox->headers);
    buf_deinit(&velox->ca);
    free(velox);
    curl_global_cleanup();
}
