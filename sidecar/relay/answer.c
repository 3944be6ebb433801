/* SPDX-License-Identifier: MIT */
/*
 * Heads and error bodies. Must never copy a header line that is not one whole valid header, and
 * never name a local path.
 */
#include "sidecar/relay/answer.h"

#include <assert.h>
#include <stdio.h>

#include "fcgi/cgi.h"
#include "sidecar/base/utf8.h"

/* Headers of PHP's response that described the JSON or the connection, not the answer. */
static const char *const dropped_headers[] = {
    "Content-Type",
    "Content-Length",
    "Content-Encoding",
    "Content-Range",
    "Content-Language",
    "Content-Location",
    "Content-MD5",
    "Digest",
    "ETag",
    "Last-Modified",
    "Accept-Ranges",
    "Transfer-Encoding",
    "Connection",
    "Keep-Alive",
    "TE",
    "Trailer",
    "Upgrade",
    "Status",
    "X-Velox-Build",
    "X-Accel-Redirect",
    "X-Sendfile",
    "X-LIGHTTPD-send-file",
};

/* What a page of another origin may read of our answer; added where PHP allows other origins. */
#define EXPOSED_HEADERS                                                                            \
    "Content-Disposition, Content-Length, ETag, Accept-Ranges, Content-Range, "                    \
    "X-Build-Request-ID, X-Cache-Status, X-Build-Time, X-Cache-Age"

static bool is_dropped(struct span name)
{
    for (size_t i = 0; i < sizeof(dropped_headers) / sizeof(dropped_headers[0]); i++) {
        if (span_is_nocase(name, dropped_headers[i])) {
            return true;
        }
    }
    return false;
}

static bool has_header(struct span head, const char *name)
{
    struct cgi_header header;

    while (cgi_next_header(&head, &header)) {
        if (header.valid && span_is_nocase(header.name, name)) {
            return true;
        }
    }
    return false;
}

static int append_header(struct buf *out, struct span name, struct span value)
{
    int error = buf_append_span(out, name);

    if (error == 0) {
        error = buf_append_string(out, ": ");
    }
    if (error == 0) {
        error = buf_append_span(out, value);
    }
    return error != 0 ? error : buf_append_string(out, "\r\n");
}

/* One line out of PHP's, to which ours are added. */
static int append_exposed(struct span head, struct buf *out)
{
    struct cgi_header header;
    int error = buf_append_string(out, "Access-Control-Expose-Headers: ");

    while (error == 0 && cgi_next_header(&head, &header)) {
        if (header.valid && header.value.len > 0 &&
            span_is_nocase(header.name, "Access-Control-Expose-Headers")) {
            error = buf_append_span(out, header.value);
            if (error == 0) {
                error = buf_append_string(out, ", ");
            }
        }
    }
    return error != 0 ? error : buf_append_string(out, EXPOSED_HEADERS "\r\n");
}

/* A failure is no download, and what may be stored of it is ours to say. */
static bool is_replaced_in_failures(struct span name)
{
    return span_is_nocase(name, "Content-Disposition") || span_is_nocase(name, "Cache-Control") ||
           span_is_nocase(name, "Retry-After");
}

/* Appends what is left of PHP's head, without its empty line. */
static int append_php_headers(struct span head, bool is_failure, struct buf *out)
{
    bool is_cors = has_header(head, "Access-Control-Allow-Origin");
    struct span rest = head;
    struct cgi_header header;
    int error = 0;

    while (error == 0 && cgi_next_header(&rest, &header)) {
        if (!header.valid || is_dropped(header.name) ||
            (is_failure && is_replaced_in_failures(header.name)) ||
            (is_cors && span_is_nocase(header.name, "Access-Control-Expose-Headers"))) {
            continue;
        }
        error = append_header(out, header.name, header.value);
    }
    return error == 0 && is_cors ? append_exposed(head, out) : error;
}

static int append_date(const char *name, time_t when, struct buf *out)
{
    static const char *const days[] = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" };
    static const char *const months[] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                          "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" };
    struct tm tm;

    /* Not strftime: its names of days and months depend on the locale. */
    if (gmtime_r(&when, &tm) == NULL) {
        return 0;
    }
    return buf_printf(out, "%s: %s, %02d %s %04d %02d:%02d:%02d GMT\r\n", name, days[tm.tm_wday],
                      tm.tm_mday, months[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour, tm.tm_min,
                      tm.tm_sec);
}

static int append_disposition(const struct answer_artifact *answer, struct buf *out)
{
    if (answer->os[0] == '\0') {
        return buf_append_string(out,
                                 "Content-Disposition: attachment; filename=\"roadrunner\"\r\n");
    }
    return buf_printf(out, "Content-Disposition: attachment; filename=\"roadrunner-%s-%s%s\"\r\n",
                      answer->os, answer->arch, strcmp(answer->os, "windows") == 0 ? ".exe" : "");
}

static int append_build_facts(const struct answer_artifact *answer, struct buf *out)
{
    int error = buf_printf(out, "X-Build-Request-ID: %s\r\n", answer->request_id);

    if (error != 0) {
        return error;
    }
    if (answer->from_cache) {
        return buf_printf(out, "X-Cache-Status: HIT\r\nX-Cache-Age: %llu\r\n",
                          (unsigned long long)answer->cache_age_s);
    }
    return buf_printf(out, "X-Cache-Status: MISS\r\nX-Build-Time: %llu.%u\r\n",
                      (unsigned long long)((answer->duration_ms + 50) / 1000),
                      (unsigned)((answer->duration_ms + 50) % 1000 / 100));
}

void answer_entity(const struct artifact *artifact, struct condition_entity *entity)
{
    unsigned long long modified_ns = (unsigned long long)artifact->modified.tv_sec * 1000000000u +
                                     (unsigned long long)artifact->modified.tv_nsec;

    *entity = (struct condition_entity){
        .modified = artifact->modified.tv_sec,
        .lacks_time = artifact->lacks_time,
        .size_bytes = artifact->size_bytes,
    };
    if (artifact->etag[0] != '\0') {
        static_assert(sizeof(entity->etag) >= sizeof(artifact->etag), "room for the source's tag");
        memcpy(entity->etag, artifact->etag, sizeof(artifact->etag));
    } else if (!artifact->lacks_time) {
        (void)snprintf(entity->etag, sizeof(entity->etag), "\"%llx-%llx\"", modified_ns,
                       (unsigned long long)artifact->size_bytes);
    }
}

/* The status, and how much of the file follows. */
static int append_extent(const struct answer_artifact *answer, struct buf *out)
{
    static const char type[] = "Content-Type: application/octet-stream\r\n";
    unsigned long long size = answer->artifact->size_bytes;
    unsigned long long first = answer->part.first;
    unsigned long long end = answer->part.end;

    switch (answer->part.status) {
    case 206:
        return buf_printf(out,
                          "Status: 206 Partial Content\r\n%sContent-Length: %llu\r\n"
                          "Content-Range: bytes %llu-%llu/%llu\r\n",
                          type, end - first, first, end - 1, size);
    case 304:
        return buf_append_string(out, "Status: 304 Not Modified\r\n");
    case 416:
        return buf_printf(out,
                          "Status: 416 Range Not Satisfiable\r\nContent-Length: 0\r\n"
                          "Content-Range: bytes */%llu\r\n",
                          size);
    default:
        return buf_printf(out, "Status: 200 OK\r\n%sContent-Length: %llu\r\n", type, size);
    }
}

static int append_entity(const struct answer_artifact *answer, struct buf *out)
{
    struct condition_entity entity;
    int error = append_extent(answer, out);

    answer_entity(answer->artifact, &entity);
    if (error == 0 && entity.etag[0] != '\0') {
        error = buf_printf(out, "ETag: %s\r\n", entity.etag);
    }
    if (error == 0 && !entity.lacks_time) {
        error = append_date("Last-Modified", entity.modified, out);
    }
    /* nginx keeps this header over X-Accel-Redirect and adds its own (ngx_http_upstream.c:
     * ngx_http_upstream_headers_in; ngx_http_range_filter_module.c), so it would come twice. */
    if (error == 0 && answer->accel_redirect.len == 0) {
        error = buf_append_string(out, "Accept-Ranges: bytes\r\n");
    }
    return error;
}

int answer_artifact_head(const struct answer_artifact *answer, struct buf *out)
{
    bool has_content = answer->part.status != 304 && answer->part.status != 416;
    bool php_has_disposition = has_header(answer->php_head, "Content-Disposition");
    int error = append_entity(answer, out);

    if (error == 0 && has_content && !php_has_disposition) {
        error = append_disposition(answer, out);
    }
    if (error == 0) {
        error = append_build_facts(answer, out);
    }
    if (error == 0 && answer->accel_redirect.len > 0) {
        error = append_header(out, span_of_string("X-Accel-Redirect"), answer->accel_redirect);
    }
    if (error == 0) {
        error = append_php_headers(answer->php_head, false, out);
    }
    return error != 0 ? error : buf_append_string(out, "\r\n");
}

/* One character of a JSON string; returns the input bytes it took, or -errno. */
static int append_json_char(struct span text, struct buf *out)
{
    uint8_t first = text.ptr[0];
    int len = utf8_length(text);
    int error;

    if (len <= 0) {
        error = buf_append_string(out, "\\ufffd");
        len = 1;
    } else if (first == '"' || first == '\\') {
        error = buf_printf(out, "\\%c", first);
    } else if (first == '\n') {
        error = buf_append_string(out, "\\n");
    } else if (first == '\t') {
        error = buf_append_string(out, "\\t");
    } else if (first < 0x20 || first == 0x7f) {
        /* As visible text: whoever decodes the JSON onto a terminal must not get the control. */
        error = buf_printf(out, "\\\\x%02x", first);
    } else if (len == 2 && first == 0xc2 && text.ptr[1] < 0xa0) {
        error = buf_printf(out, "\\\\x%02x", text.ptr[1]); /* C1 controls drive terminals too */
    } else {
        error = buf_append(out, text.ptr, (size_t)len);
    }
    return error != 0 ? error : len;
}

static int append_json_string(struct span text, struct buf *out)
{
    int error = buf_append_string(out, "\"");

    while (error == 0 && text.len > 0) {
        int taken = append_json_char(text, out);

        if (taken < 0) {
            return taken;
        }
        span_skip(&text, (size_t)taken);
    }
    return error != 0 ? error : buf_append_string(out, "\"");
}

static int append_failure_body(const struct answer_failure *answer, struct buf *out)
{
    int error = buf_printf(
        out, "{\"error\": \"%s\", \"message\": ", failure_info(answer->failure)->error);

    if (error == 0) {
        error = append_json_string(answer->message, out);
    }
    if (error == 0 && answer->request_id != NULL) {
        error = buf_printf(out, ", \"request_id\": \"%s\"", answer->request_id);
    }
    return error != 0 ? error : buf_append_string(out, "}\n");
}

static int append_failure_head(const struct answer_failure *answer, size_t body_length,
                               struct buf *out)
{
    const struct failure_info *info = failure_info(answer->failure);
    int error = buf_printf(out,
                           "Status: %u %s\r\n"
                           "Content-Type: application/json\r\n"
                           "Content-Length: %zu\r\n"
                           "Cache-Control: no-store\r\n",
                           info->status, info->reason, body_length);

    if (error == 0 && info->retry_after) {
        error = buf_printf(out, "Retry-After: %u\r\n",
                           answer->retry_after_s == 0 ? 1 : answer->retry_after_s);
    }
    if (error == 0) {
        error = append_php_headers(answer->php_head, true, out);
    }
    return error != 0 ? error : buf_append_string(out, "\r\n");
}

int answer_failure(const struct answer_failure *answer, struct buf *out)
{
    struct buf body;
    int error;

    buf_init(&body, out->max);
    error = append_failure_body(answer, &body);
    if (error == 0) {
        error = append_failure_head(answer, buf_length(&body), out);
    }
    if (error == 0) {
        error = buf_append_span(out, buf_span(&body));
    }
    buf_deinit(&body);
    return error;
}
