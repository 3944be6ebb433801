/* SPDX-License-Identifier: MIT */
/*
 * The figures for Prometheus, as OpenMetrics 1.0 has them: a family's name lacks the _total that
 * its counters carry, a unit is the end of the name, and the last line is "# EOF". Every label's
 * value is there from the start, at 0, and none comes from a peer.
 */
#include <inttypes.h>

#include "sidecar/relay/status_page.h"

enum metric_type { METRIC_COUNTER, METRIC_GAUGE };

/* A family, or with the same name as the one before it one more sample of that family. */
struct metric {
    const char *name;
    enum metric_type type;
    enum statistic statistic;
    const char *label; /* NULL: none */
    const char *value;
    const char *unit; /* NULL: none */
    const char *help;
};

#define BUILDS "Builds that have ended, by how"
#define RETRIES "Attempts at Velox that were made again, by what was wrong with the one before"
#define LEFT "Clients that left before their answer was complete, by what they waited for"
#define EVICTIONS "Files removed from the cache, by reason"
#define REQUESTS "Requests: relayed to PHP-FPM, built (every interception), answered by the sidecar"
#define WORKER_ERRORS "Requests that PHP-FPM could not serve, by reason"

static const struct metric metrics[] = {
    { "builds", METRIC_COUNTER, STAT_BUILDS_SUCCESS, "status", "success", NULL, BUILDS },
    { "builds", METRIC_COUNTER, STAT_BUILDS_ERROR, "status", "error", NULL, BUILDS },
    { "builds", METRIC_COUNTER, STAT_BUILDS_TIMEOUT, "status", "timeout", NULL, BUILDS },
    { "builds", METRIC_COUNTER, STAT_BUILDS_CANCELLED, "status", "cancelled", NULL, BUILDS },
    { "builds_active", METRIC_GAUGE, STAT_BUILDS_ACTIVE, NULL, NULL, NULL,
      "Builds at Velox, or waiting to be tried again" },
    { "builds_queued", METRIC_GAUGE, STAT_BUILDS_QUEUED, NULL, NULL, NULL,
      "Builds that wait for their turn" },
    { "builds_coalesced", METRIC_COUNTER, STAT_BUILDS_COALESCED, NULL, NULL, NULL,
      "Requests that joined a build under way" },
    { "retries", METRIC_COUNTER, STAT_RETRIES_CONNECT, "reason", "connect", NULL, RETRIES },
    { "retries", METRIC_COUNTER, STAT_RETRIES_CUT, "reason", "cut", NULL, RETRIES },
    { "retries", METRIC_COUNTER, STAT_RETRIES_TIMEOUT, "reason", "timeout", NULL, RETRIES },
    { "retries", METRIC_COUNTER, STAT_RETRIES_HTTP_STATUS, "reason", "http_status", NULL, RETRIES },
    { "retries", METRIC_COUNTER, STAT_RETRIES_CODE, "reason", "code", NULL, RETRIES },
    { "client_disconnects", METRIC_COUNTER, STAT_CLIENTS_LEFT_QUEUE, "stage", "queue", NULL, LEFT },
    { "client_disconnects", METRIC_COUNTER, STAT_CLIENTS_LEFT_BUILD, "stage", "build", NULL, LEFT },
    { "client_disconnects", METRIC_COUNTER, STAT_CLIENTS_LEFT_STREAM, "stage", "stream", NULL,
      LEFT },
    { "cache_hits", METRIC_COUNTER, STAT_CACHE_HITS, NULL, NULL, NULL,
      "Build requests answered from the cache" },
    { "cache_misses", METRIC_COUNTER, STAT_CACHE_MISSES, NULL, NULL, NULL,
      "Build requests that the cache did not have" },
    { "cache_evictions", METRIC_COUNTER, STAT_CACHE_EVICTIONS_SIZE, "reason", "size", NULL,
      EVICTIONS },
    { "cache_evictions", METRIC_COUNTER, STAT_CACHE_EVICTIONS_ENTRIES, "reason", "entries", NULL,
      EVICTIONS },
    { "cache_evictions", METRIC_COUNTER, STAT_CACHE_EVICTIONS_AGE, "reason", "age", NULL,
      EVICTIONS },
    { "cache_evictions", METRIC_COUNTER, STAT_CACHE_EVICTIONS_CORRUPT, "reason", "corrupt", NULL,
      EVICTIONS },
    { "cache_entries", METRIC_GAUGE, STAT_CACHE_ENTRIES, NULL, NULL, NULL, "Files in the cache" },
    { "cache_size_bytes", METRIC_GAUGE, STAT_CACHE_SIZE_BYTES, NULL, NULL, "bytes",
      "What they hold together" },
    { "requests", METRIC_COUNTER, STAT_REQUESTS_RELAYED, "kind", "relayed", NULL, REQUESTS },
    { "requests", METRIC_COUNTER, STAT_REQUESTS_BUILT, "kind", "built", NULL, REQUESTS },
    { "requests", METRIC_COUNTER, STAT_REQUESTS_OWN, "kind", "own", NULL, REQUESTS },
    { "workers_active", METRIC_GAUGE, STAT_WORKERS_ACTIVE, NULL, NULL, NULL,
      "Connections to PHP-FPM" },
    { "workers_queued", METRIC_GAUGE, STAT_WORKERS_QUEUED, NULL, NULL, NULL,
      "Requests that wait for a connection to PHP-FPM" },
    { "worker_errors", METRIC_COUNTER, STAT_WORKER_ERRORS_CONNECT, "reason", "connect", NULL,
      WORKER_ERRORS },
    { "worker_errors", METRIC_COUNTER, STAT_WORKER_ERRORS_BACKLOG, "reason", "backlog", NULL,
      WORKER_ERRORS },
    { "worker_errors", METRIC_COUNTER, STAT_WORKER_ERRORS_DIED, "reason", "died", NULL,
      WORKER_ERRORS },
    { "worker_errors", METRIC_COUNTER, STAT_WORKER_ERRORS_RESPONSE_TIMEOUT, "reason",
      "response_timeout", NULL, WORKER_ERRORS },
    { "fronts_active", METRIC_GAUGE, STAT_FRONTS_ACTIVE, NULL, NULL, NULL,
      "Connections from web servers" },
    { "artifact_bytes", METRIC_COUNTER, STAT_ARTIFACT_BYTES, NULL, NULL, "bytes",
      "Bytes of built files sent" },
};

static const struct {
    const char *name;
    enum stat_histogram histogram;
    const char *help;
} histograms[] = {
    { "build_duration_seconds", STAT_BUILD_DURATION, "How long builds took" },
    { "stream_ttfb_seconds", STAT_STREAM_TTFB,
      "From the opened file to its first byte on the way to the web server" },
    { "worker_release_seconds", STAT_WORKER_RELEASE,
      "From PHP's end of a request to the close of its connection" },
};

static void put_family(const char *name, const char *type, const char *unit, const char *help,
                       struct status_out *out)
{
    status_printf(out, "# TYPE velox_%s %s\n", name, type);
    if (unit != NULL) {
        status_printf(out, "# UNIT velox_%s %s\n", name, unit);
    }
    status_printf(out, "# HELP velox_%s %s.\n", name, help);
}

static void put_metric(const struct metric *metric, const struct status_numbers *numbers,
                       struct status_out *out)
{
    bool is_counter = metric->type == METRIC_COUNTER;
    bool is_new = metric == metrics || strcmp(metric->name, metric[-1].name) != 0;

    if (is_new) {
        put_family(metric->name, is_counter ? "counter" : "gauge", metric->unit, metric->help, out);
    }
    status_printf(out, "velox_%s%s", metric->name, is_counter ? "_total" : "");
    if (metric->label != NULL) {
        status_printf(out, "{%s=\"%s\"}", metric->label, metric->value);
    }
    status_printf(out, " %" PRIu64 "\n", numbers->values[metric->statistic]);
}

/* Several failures may carry the same error code. */
static void put_errors(const struct status_numbers *numbers, struct status_out *out)
{
    put_family("errors", "counter", NULL,
               "Requests that the sidecar answered with an error, by its code", out);
    for (unsigned i = FAILURE_NONE + 1; i < FAILURE_COUNT; i++) {
        const char *type = failure_info((enum failure)i)->error;
        uint64_t sum = numbers->errors[i];
        bool is_told = false;

        for (unsigned other = FAILURE_NONE + 1; other < FAILURE_COUNT; other++) {
            if (other != i && strcmp(type, failure_info((enum failure)other)->error) == 0) {
                is_told |= other < i;
                sum += numbers->errors[other];
            }
        }
        if (!is_told) {
            status_printf(out, "velox_errors_total{type=\"%s\"} %" PRIu64 "\n", type, sum);
        }
    }
}

/* The last bucket is +Inf, and is the count. */
static void put_histogram(const char *name, const struct status_histogram *counts,
                          enum stat_histogram histogram, struct status_out *out)
{
    const double *bounds;
    unsigned bound_count = stats_bounds(histogram, &bounds);
    uint64_t sum = 0;

    for (unsigned i = 0; i < bound_count; i++) {
        sum += counts->buckets[i];
        /* A bound is a decimal number with a point: OpenMetrics wants the canonical form. */
        status_printf(out, "velox_%s_bucket{le=\"%.*g%s\"} %" PRIu64 "\n", name, 6, bounds[i],
                      bounds[i] == (double)(unsigned)bounds[i] ? ".0" : "", sum);
    }
    sum += counts->buckets[STAT_BUCKETS_MAX];
    status_printf(out, "velox_%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", name, sum);
    status_printf(out, "velox_%s_sum %" PRIu64 ".%09" PRIu64 "\n", name,
                  counts->sum_ns / 1000000000u, counts->sum_ns % 1000000000u);
    status_printf(out, "velox_%s_count %" PRIu64 "\n", name, sum);
}

static void begin(const struct status_numbers *numbers, const struct status_listing *listing,
                  struct status_out *out)
{
    (void)listing;
    put_family("build", "info", NULL, "The sidecar that is running", out);
    status_printf(out, "velox_build_info{version=\"%s\"} 1\n", numbers->version);
    for (size_t i = 0; i < sizeof(metrics) / sizeof(metrics[0]); i++) {
        put_metric(&metrics[i], numbers, out);
    }
    put_errors(numbers, out);
    for (size_t i = 0; i < sizeof(histograms) / sizeof(histograms[0]); i++) {
        put_family(histograms[i].name, "histogram", "seconds", histograms[i].help, out);
        put_histogram(histograms[i].name, &numbers->histograms[histograms[i].histogram],
                      histograms[i].histogram, out);
    }
}

static void end(bool is_full, struct status_out *out)
{
    (void)is_full;
    status_put(out, "# EOF\n");
}

const struct status_writer status_writer_openmetrics = {
    "application/openmetrics-text; version=1.0.0; charset=utf-8", begin, NULL, end
};
