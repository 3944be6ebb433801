/* SPDX-License-Identifier: MIT */
/*
 * Fetching a built file. It must never hold more of a stream than the pipe and a few buffers, never
 * glue two files together, and never call into curl from one of curl's callbacks.
 */
#include "sidecar/build/fetch.h"

#include <assert.h>
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "sidecar/base/buf.h"
#include "sidecar/build/backoff.h"
#include "sidecar/build/build_request.h"
#include "sidecar/build/fetch_head.h"
#include "sidecar/build/fetch_target.h"
#include "sidecar/build/fetcher.h"
#include "sidecar/build/transfer.h"

#define CONNECT_TIMEOUT_MS 10000
#define URL_MAX_BYTES (64u * 1024u)
/* A download whose client does not read costs 84 kB of memory with it, 131 kB with twice as much;
 * the speed is the same. */
#define READ_BUFFER_BYTES 32768
/* A source that sends nothing for so long, though there is room, counts as cut. */
#define STALL_MS 30000

struct fetch {
    struct list link;
    struct fetcher *fetcher;
    const struct fetch_events *events;
    void *owner; /* NULL once it has the artifact */
    char request_id[BUILD_REQUEST_ID_MAX + 1];
    struct buf url; /* with a NUL */
    /* This attempt. */
    CURL *easy; /* NULL between attempts */
    bool is_added;
    struct curl_slist *headers;
    struct fetch_head head;
    bool is_judged;
    const char *fault; /* why it is given up; NULL: nothing is wrong so far */
    bool is_final;     /* with fault: another attempt would not help */
    int disk_error;    /* errno of spool_directory, likewise; 0: none */
    bool no_memory;
    bool is_left; /* the reader has closed its end */
    bool is_paused;
    char error[CURL_ERROR_SIZE];
    /* The file. */
    bool has_begun;
    struct fetch_head first; /* of the answer that began it */
    uint64_t size;           /* with has_length */
    bool has_length;
    uint64_t received;
    uint64_t asked_at; /* received, when this attempt began */
    struct fetch_target target;
    struct timer retry;
    struct timer stall;
    uint64_t stall_received;
    struct task hand_over;
    unsigned attempts; /* since the file last went on */
};

static void attempt(struct fetch *fetch);
static void on_attempt_end(struct fetch *fetch, CURLcode code);

/* ---- the end --------------------------------------------------------------------------------- */

static void close_attempt(struct fetch *fetch)
{
    if (fetch->easy != NULL) {
        if (fetch->is_added) {
            curl_loop_remove(&fetch->fetcher->curl_loop, fetch->easy);
            fetch->is_added = false;
        }
        curl_easy_cleanup(fetch->easy);
        fetch->easy = NULL;
    }
    curl_slist_free_all(fetch->headers);
    fetch->headers = NULL;
    fetch->is_paused = false;
}

/* What has come is forgotten. */
static void close_file(struct fetch *fetch)
{
    fetch_target_close(&fetch->target);
    fetch->has_begun = false;
    fetch->received = 0;
}

static void fetch_free(struct fetch *fetch)
{
    close_attempt(fetch);
    close_file(fetch);
    timer_stop(&fetch->retry);
    timer_stop(&fetch->stall);
    task_stop(&fetch->hand_over);
    list_remove(&fetch->link);
    buf_deinit(&fetch->url);
    buf_deinit(&fetch->target.held);
    free(fetch);
}

struct fetch *fetch_of_link(struct list *link)
{
    return list_entry(link, struct fetch, link);
}

void fetch_cancel(struct fetch *fetch)
{
    fetch_free(fetch);
}

static void log_broken(const struct fetch *fetch, const struct fetch_failure *failure)
{
    log_error(fetch->fetcher->log, "the fetch of a built file broke off",
              log_str("request_id", fetch->request_id), log_uint("bytes", fetch->received),
              log_uint("file_size", fetch->size), log_str("reason", failure->reason),
              log_span("detail", failure->detail));
}

static void fail(struct fetch *fetch, const char *reason)
{
    struct fetch_failure failure = {
        .reason = reason,
        .status = fetch->head.status,
        .detail = span_of_string(fetch->error),
        .no_memory = fetch->no_memory,
    };

    if (fetch->owner != NULL) {
        fetch->events->on_failed(fetch->owner, &failure);
    } else {
        log_broken(fetch, &failure);
    }
    fetch_free(fetch);
}

/* ---- what has come goes on ------------------------------------------------------------------- */

static bool is_complete(const struct fetch *fetch)
{
    return fetch->has_begun && (!fetch->has_length || fetch->received == fetch->size);
}

/* The pipe has taken the last byte. */
static bool is_over(const struct fetch *fetch)
{
    return fetch->easy == NULL && fetch->owner == NULL && is_complete(fetch) &&
           !fetch_target_is_full(&fetch->target);
}

static void on_hand_over(struct task *task)
{
    struct fetch *fetch = list_entry(task, struct fetch, hand_over);
    const struct fetch_events *events = fetch->events;
    bool has_time = fetch->first.modified_s >= 0;
    bool is_file = fetch->target.is_file;
    struct artifact artifact = {
        .fd = fetch_target_take(&fetch->target),
        .size_bytes = fetch->has_length ? fetch->size : fetch->received,
        .modified.tv_sec = has_time ? (time_t)fetch->first.modified_s : 0,
        .is_fetched = true,
        .is_stream = !is_file,
        .lacks_time = !has_time,
    };
    void *owner = fetch->owner;

    static_assert(sizeof(artifact.etag) == sizeof(fetch->first.etag), "tags are copied");
    memcpy(artifact.etag, fetch->first.etag, sizeof(artifact.etag));
    fetch->owner = NULL;
    if (is_file || is_over(fetch)) {
        fetch_free(fetch);
    }
    events->on_ready(owner, artifact);
}

/* There is room in the pipe, or nobody at its other end any more. */
static void on_pipe_ready(struct watch *watch)
{
    struct fetch *fetch = list_entry(watch, struct fetch, target.watch);

    watch_clear(watch, WATCH_READ);
    if (fetch_target_flush(&fetch->target) != 0) {
        log_debug(fetch->fetcher->log, "nobody wants the rest of a fetched file",
                  log_str("request_id", fetch->request_id), log_uint("bytes", fetch->received));
        fetch_free(fetch);
        return;
    }
    if (fetch_target_is_full(&fetch->target)) {
        return;
    }
    if (is_over(fetch)) {
        fetch_free(fetch);
    } else if (fetch->is_paused) {
        CURLcode code;

        fetch->is_paused = false;
        code = curl_easy_pause(fetch->easy, CURLPAUSE_CONT);
        if (code != CURLE_OK) {
            on_attempt_end(fetch, code); /* of this curl says nothing later */
        }
    }
}

/* ---- the file begins ------------------------------------------------------------------------- */

static void give_up(struct fetch *fetch, const char *fault, bool is_final)
{
    fetch->fault = fault;
    fetch->is_final = is_final;
}

static void give_up_by_error(struct fetch *fetch, int error)
{
    fetch->no_memory = error == -EMFILE || error == -ENFILE || error == -ENOMEM;
    fetch->disk_error = -error;
    give_up(fetch,
            fetch->no_memory ? "out of memory or descriptors" : "it cannot be written to the disk",
            true);
}

static void begin_file(struct fetch *fetch)
{
    const struct build_options *options = fetch->fetcher->options;
    int error;

    fetch->first = fetch->head;
    fetch->has_length = fetch->head.length >= 0;
    fetch->size = fetch->has_length ? (uint64_t)fetch->head.length : 0;
    error = !fetch->has_length || fetch->events->wants_file(fetch->owner)
                ? fetch_target_open_file(&fetch->target, options->artifact.spool_directory)
                : fetch_target_open_pipe(&fetch->target, fetch->fetcher->loop, on_pipe_ready);
    if (error == 0) {
        fetch->stall_received = 0;
        error = timer_start(&fetch->stall, STALL_MS);
    }
    if (error != 0) {
        give_up_by_error(fetch, error);
        return;
    }
    fetch->has_begun = true;
}

static void read_info(struct fetch *fetch)
{
    long status = 0;
    curl_off_t length = -1;
    curl_off_t modified_s = -1;

    (void)curl_easy_getinfo(fetch->easy, CURLINFO_RESPONSE_CODE, &status);
    (void)curl_easy_getinfo(fetch->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    (void)curl_easy_getinfo(fetch->easy, CURLINFO_FILETIME_T, &modified_s);
    fetch->head.status = (unsigned)status;
    fetch->head.length = length;
    fetch->head.modified_s = modified_s;
}

/* The head is complete: is it the file's, or its rest's? False with the fault. */
static bool judge(struct fetch *fetch)
{
    const char *fault;

    if (fetch->is_judged) {
        return fetch->fault == NULL;
    }
    fetch->is_judged = true;
    read_info(fetch);
    fault = fetch->has_begun
                ? fetch_head_check_rest(&fetch->first, &fetch->head, fetch->received, fetch->size)
                : fetch_head_check_first(&fetch->head);
    if (fault != NULL) {
        give_up(fetch, fault, !fetch_head_may_retry(&fetch->head));
    } else if (!fetch->has_begun) {
        begin_file(fetch);
    }
    return fetch->fault == NULL;
}

/* ---- what curl calls ------------------------------------------------------------------------- */

static size_t on_header(char *bytes, size_t size, size_t count, void *fetch_pointer)
{
    struct fetch *fetch = fetch_pointer;

    if (!fetch->is_judged) { /* else a trailer behind the body */
        fetch_head_line(&fetch->head, span_of(bytes, size * count));
    }
    return size * count;
}

static bool take_piece(struct fetch *fetch, struct span piece)
{
    uint64_t max = fetch->fetcher->options->artifact.max_spooled_bytes;
    int error;

    if (!fetch->has_length && piece.len > max - fetch->received) {
        give_up(fetch, "it is longer than max_spooled_body, and its length is not announced", true);
        return false;
    }
    error = fetch_target_write(&fetch->target, piece);
    if (error == -EPIPE && !fetch->target.is_file) {
        fetch->is_left = true;
    } else if (error != 0) {
        give_up_by_error(fetch, error);
    } else if (!fetch->target.is_file && fetch->owner != NULL) {
        task_defer(&fetch->hand_over, fetch->fetcher->loop);
    }
    return error == 0;
}

/* Anything but the number of bytes ends the transfer. */
static size_t on_body(char *bytes, size_t size, size_t count, void *fetch_pointer)
{
    struct fetch *fetch = fetch_pointer;
    struct span piece = span_of(bytes, size * count);

    if (!judge(fetch)) {
        return piece.len + 1;
    }
    if (fetch_target_is_full(&fetch->target)) {
        fetch->is_paused = true;
        return CURL_WRITEFUNC_PAUSE;
    }
    if (fetch->has_length && piece.len > fetch->size - fetch->received) {
        give_up(fetch, "more bytes come than were announced", true);
        return piece.len + 1;
    }
    if (!take_piece(fetch, piece)) {
        return piece.len + 1;
    }
    fetch->received += piece.len;
    return piece.len;
}

/* ---- attempts -------------------------------------------------------------------------------- */

static void on_retry(struct timer *timer)
{
    attempt(list_entry(timer, struct fetch, retry));
}

static void retry(struct fetch *fetch, const char *reason)
{
    const struct retry_options *options = &fetch->fetcher->options->retry;
    uint64_t delay_ms;

    if (fetch->has_begun && !fetch->has_length) {
        timer_stop(&fetch->stall);
        close_file(fetch); /* how much is missing cannot be known */
    } else if (fetch->received > fetch->asked_at) {
        fetch->attempts = 0;
    }
    fetch->attempts++;
    if (fetch->attempts >= options->max_attempts) {
        fail(fetch, reason);
        return;
    }
    delay_ms = backoff_delay_ms(options, fetch->attempts, 0.5);
    log_info(fetch->fetcher->log, "fetch retry", log_str("request_id", fetch->request_id),
             log_str("reason", reason), log_uint("bytes", fetch->received),
             log_uint("delay_ms", delay_ms), log_span("detail", span_of_string(fetch->error)));
    if (timer_start(&fetch->retry, delay_ms) < 0) {
        fetch->no_memory = true;
        fail(fetch, "out of memory or descriptors");
    }
}

/* All of it has come. */
static void complete(struct fetch *fetch)
{
    timer_stop(&fetch->stall);
    if (fetch->owner != NULL) {
        task_defer(&fetch->hand_over, fetch->fetcher->loop);
    } else if (is_over(fetch)) {
        fetch_free(fetch);
    }
}

static const char *reason_of(CURLcode code)
{
    if (transfer_is_unconnected(code) || code == CURLE_OPERATION_TIMEDOUT) {
        return "the source cannot be reached";
    }
    if (transfer_is_cut(code) || code == CURLE_OK) {
        return "the connection to the source was cut";
    }
    return "the source does not speak HTTP as we do";
}

/* The detail for the log: curl's words, unless the end of the attempt was our own wish. */
static void explain(struct fetch *fetch, CURLcode code)
{
    if (fetch->fault != NULL || code == CURLE_OK) {
        (void)snprintf(fetch->error, sizeof(fetch->error), "%s",
                       fetch->disk_error != 0 ? strerror(fetch->disk_error) : "");
    } else if (fetch->error[0] == '\0') {
        (void)snprintf(fetch->error, sizeof(fetch->error), "%s", curl_easy_strerror(code));
    }
}

static void on_attempt_end(struct fetch *fetch, CURLcode code)
{
    if (code == CURLE_OK && !fetch->head.is_complete) {
        code =
            CURLE_GOT_NOTHING; /* to curl an answer that ends in its head is one without a body */
    }
    if (code == CURLE_OK) {
        (void)judge(fetch); /* there may have been no byte of a body */
    }
    close_attempt(fetch);
    explain(fetch, code);
    if (fetch->is_left) {
        fetch_free(fetch);
    } else if (fetch->no_memory || code == CURLE_OUT_OF_MEMORY ||
               code == CURLE_ABORTED_BY_CALLBACK) {
        fetch->no_memory = true;
        fail(fetch, "out of memory or descriptors");
    } else if (fetch->fault != NULL && fetch->is_final) {
        fail(fetch, fetch->fault);
    } else if (fetch->fault == NULL && code == CURLE_OK && is_complete(fetch)) {
        complete(fetch);
    } else {
        retry(fetch, fetch->fault != NULL ? fetch->fault : reason_of(code));
    }
}

void fetch_on_progress(struct curl_loop *curl_loop)
{
    void *fetch;
    CURLcode code;

    while (curl_loop_take_ended(curl_loop, &fetch, &code)) {
        on_attempt_end(fetch, code);
    }
}

static void on_stall(struct timer *timer)
{
    struct fetch *fetch = list_entry(timer, struct fetch, stall);
    bool is_stalled = fetch->easy != NULL && !fetch->is_paused &&
                      fetch->received == fetch->stall_received;

    fetch->stall_received = fetch->received;
    if (timer_start(timer, STALL_MS) < 0) {
        fetch->no_memory = true;
        fail(fetch, "out of memory or descriptors");
    } else if (is_stalled) {
        close_attempt(fetch);
        retry(fetch, "the source sends nothing any more");
    }
}

static bool add_header(struct fetch *fetch, const char *header)
{
    struct curl_slist *headers = curl_slist_append(fetch->headers, header);

    if (headers != NULL) {
        fetch->headers = headers;
    }
    return headers != NULL;
}

/* The rest of the same file, or all of it: a source that has another one now answers with 200. */
static bool set_range(struct fetch *fetch)
{
    const struct fetch_head *first = &fetch->first;
    char text[FETCH_TAG_SIZE + 32];

    if (!fetch->has_begun || fetch->received == 0) {
        return true;
    }
    if (first->etag[0] != '\0' || first->last_modified[0] != '\0') {
        (void)snprintf(text, sizeof(text), "If-Range: %s",
                       first->etag[0] != '\0' ? first->etag : first->last_modified);
        if (!add_header(fetch, text)) {
            return false;
        }
    }
    (void)snprintf(text, sizeof(text), "%llu-", (unsigned long long)fetch->received);
    return transfer_set_text(fetch->easy, CURLOPT_RANGE, text);
}

static bool set_request(struct fetch *fetch)
{
    struct fetcher *fetcher = fetch->fetcher;
    CURL *easy = fetch->easy;
    struct transfer_setup setup = {
        .curl_loop = &fetcher->curl_loop,
        .ca_file = fetcher->options->ca_file,
        .ca = &fetcher->ca,
        .error = fetch->error,
        .no_memory = &fetch->no_memory,
        .connect_timeout_ms = CONNECT_TIMEOUT_MS,
    };

    return transfer_set_common(easy, &setup) &&
           transfer_set_text(easy, CURLOPT_URL, (const char *)buf_span(&fetch->url).ptr) &&
           transfer_set_long(easy, CURLOPT_PATH_AS_IS, 1) &&
           transfer_set_long(easy, CURLOPT_HTTPGET, 1) &&
           transfer_set_long(easy, CURLOPT_FILETIME, 1) &&
           transfer_set_long(easy, CURLOPT_BUFFERSIZE, READ_BUFFER_BYTES) &&
           transfer_set_pointer(easy, CURLOPT_PRIVATE, fetch) &&
           curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header) == CURLE_OK &&
           transfer_set_pointer(easy, CURLOPT_HEADERDATA, fetch) &&
           curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body) == CURLE_OK &&
           transfer_set_pointer(easy, CURLOPT_WRITEDATA, fetch) && set_range(fetch) &&
           add_header(fetch, "User-Agent: velox-sidecar") &&
           add_header(fetch, "Accept-Encoding: identity") &&
           transfer_set_pointer(easy, CURLOPT_HTTPHEADER, fetch->headers);
}

static int begin_attempt(struct fetch *fetch)
{
    fetch_head_init(&fetch->head);
    fetch->is_judged = false;
    fetch->fault = NULL;
    fetch->is_final = false;
    fetch->error[0] = '\0';
    fetch->asked_at = fetch->received;
    fetch->easy = curl_easy_init();
    if (fetch->easy == NULL) {
        return -ENOMEM;
    }
    fetch->is_added = set_request(fetch) &&
                      curl_loop_add(&fetch->fetcher->curl_loop, fetch->easy) == 0;
    if (!fetch->is_added) {
        close_attempt(fetch);
        return -ENOMEM;
    }
    return 0;
}

static void attempt(struct fetch *fetch)
{
    if (begin_attempt(fetch) < 0) {
        fetch->no_memory = true;
        fail(fetch, "out of memory or descriptors");
    }
}

/* ---- begin ----------------------------------------------------------------------------------- */

int fetch_start(struct fetcher *fetcher, struct span path, const char *request_id,
                const struct fetch_events *events, void *owner, struct fetch **fetch)
{
    struct fetch *made = calloc(1, sizeof(*made));
    char text[PATH_MAX];
    int error;

    if (made == NULL) {
        return -ENOMEM;
    }
    made->fetcher = fetcher;
    made->events = events;
    made->owner = owner;
    fetch_target_init(&made->target);
    (void)snprintf(made->request_id, sizeof(made->request_id), "%s", request_id);
    buf_init(&made->url, URL_MAX_BYTES);
    timer_init(&made->retry, fetcher->loop, on_retry);
    timer_init(&made->stall, fetcher->loop, on_stall);
    task_init(&made->hand_over, on_hand_over);
    list_append(&fetcher->fetches, &made->link);
    error = artifact_path_text(path, text)
                ? fetcher_make_url(fetcher, span_of_string(text), &made->url)
                : -EINVAL;
    if (error == 0) {
        error = begin_attempt(made);
    }
    if (error != 0) {
        fetch_free(made);
        return -ENOMEM;
    }
    *fetch = made;
    return 0;
}
