/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_RELAY_STATUS_H
#define SIDECAR_RELAY_STATUS_H

/*
 * The figures of the status page. They are read from the statistics of all threads, which go on
 * counting meanwhile, so two figures of one page may be a moment apart.
 */

#include <time.h>

#include "sidecar/base/stats.h"
#include "sidecar/relay/limit.h"

struct survey;

/* What all relays of a child share for their status pages. Fixed before the first of them starts,
 * except the surveys, with which relays come and go. */
struct status_board {
    const char *version;
    time_t started_at;           /* of the child: it counts from nothing */
    uint64_t started_ns;         /* by clock_monotonic_ns */
    struct limit *workers;       /* knows the most that were active at once; NULL: nobody does */
    const struct stats **blocks; /* one a thread */
    size_t block_count;
    _Atomic(struct survey *) *surveys; /* by the index of their relay; NULL: not there */
    size_t survey_count;
};

struct status_histogram {
    uint64_t buckets[STAT_BUCKETS_MAX + 1]; /* as in struct stats: not cumulative */
    uint64_t sum_ns;
};

struct status_numbers {
    const char *version; /* borrowed from the board */
    time_t started_at;
    uint64_t uptime_s;
    uint64_t workers_max; /* the most that were active at once */
    uint64_t values[STAT_COUNT];
    uint64_t errors[FAILURE_COUNT];
    struct status_histogram histograms[STAT_HISTOGRAM_COUNT];
};

/* From any thread. */
void status_collect(const struct status_board *board, struct status_numbers *numbers);

/* One field of the page, in its order. */
enum status_kind {
    STATUS_VERSION, /* text */
    STATUS_TIME,    /* seconds since 1970 */
    STATUS_SECONDS,
    STATUS_WORKERS_MAX,
    STATUS_COUNT, /* a statistic; likewise */
    STATUS_BYTES,
};

struct status_field {
    const char *name; /* lower case, words with a space between */
    enum status_kind kind;
    enum statistic statistic;
};

#define STATUS_FIELD_COUNT 22
extern const struct status_field status_fields[STATUS_FIELD_COUNT];

/* Of any field but the version. */
uint64_t status_value(const struct status_field *field, const struct status_numbers *numbers);

#endif
