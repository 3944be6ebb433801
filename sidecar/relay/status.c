/* SPDX-License-Identifier: MIT */
/*
 * Adds up what the threads have counted. Must never make one of them wait.
 */
#include "sidecar/relay/status.h"

#include "sidecar/base/clock.h"

const struct status_field status_fields[STATUS_FIELD_COUNT] = {
    { "version", STATUS_VERSION, STAT_COUNT },
    { "start time", STATUS_TIME, STAT_COUNT },
    { "start since", STATUS_SECONDS, STAT_COUNT },
    { "accepted conn", STATUS_COUNT, STAT_FRONTS_ACCEPTED },
    { "fronts active", STATUS_COUNT, STAT_FRONTS_ACTIVE },
    { "workers active", STATUS_COUNT, STAT_WORKERS_ACTIVE },
    { "max workers active", STATUS_WORKERS_MAX, STAT_COUNT },
    { "workers queued", STATUS_COUNT, STAT_WORKERS_QUEUED },
    { "requests relayed", STATUS_COUNT, STAT_REQUESTS_RELAYED },
    { "requests built", STATUS_COUNT, STAT_REQUESTS_BUILT },
    { "builds active", STATUS_COUNT, STAT_BUILDS_ACTIVE },
    { "builds queued", STATUS_COUNT, STAT_BUILDS_QUEUED },
    { "builds success", STATUS_COUNT, STAT_BUILDS_SUCCESS },
    { "builds error", STATUS_COUNT, STAT_BUILDS_ERROR },
    { "builds timeout", STATUS_COUNT, STAT_BUILDS_TIMEOUT },
    { "builds cancelled", STATUS_COUNT, STAT_BUILDS_CANCELLED },
    { "builds coalesced", STATUS_COUNT, STAT_BUILDS_COALESCED },
    { "artifact bytes", STATUS_BYTES, STAT_ARTIFACT_BYTES },
    { "cache hits", STATUS_COUNT, STAT_CACHE_HITS },
    { "cache misses", STATUS_COUNT, STAT_CACHE_MISSES },
    { "cache entries", STATUS_COUNT, STAT_CACHE_ENTRIES },
    { "cache size", STATUS_BYTES, STAT_CACHE_SIZE_BYTES },
};

static uint64_t load(const atomic_uint_fast64_t *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

static void add_block(const struct stats *block, struct status_numbers *numbers)
{
    for (unsigned i = 0; i < STAT_COUNT; i++) {
        numbers->values[i] += load(&block->values[i]);
    }
    for (unsigned i = 0; i < FAILURE_COUNT; i++) {
        numbers->errors[i] += load(&block->errors[i]);
    }
    for (unsigned i = 0; i < STAT_HISTOGRAM_COUNT; i++) {
        for (unsigned bucket = 0; bucket <= STAT_BUCKETS_MAX; bucket++) {
            numbers->histograms[i].buckets[bucket] += load(&block->histograms[i].buckets[bucket]);
        }
        numbers->histograms[i].sum_ns += load(&block->histograms[i].sum_ns);
    }
}

void status_collect(const struct status_board *board, struct status_numbers *numbers)
{
    *numbers = (struct status_numbers){
        .version = board->version,
        .started_at = board->started_at,
        .uptime_s = (clock_monotonic_ns() - board->started_ns) / 1000000000u,
    };
    for (size_t i = 0; i < board->block_count; i++) {
        add_block(board->blocks[i], numbers);
    }
    numbers->workers_max = numbers->values[STAT_WORKERS_ACTIVE];
    if (board->workers != NULL) {
        uint64_t peak = atomic_load(&board->workers->peak);

        numbers->workers_max = peak > numbers->workers_max ? peak : numbers->workers_max;
    }
}

uint64_t status_value(const struct status_field *field, const struct status_numbers *numbers)
{
    switch (field->kind) {
    case STATUS_TIME:
        return (uint64_t)numbers->started_at;
    case STATUS_SECONDS:
        return numbers->uptime_s;
    case STATUS_WORKERS_MAX:
        return numbers->workers_max;
    case STATUS_COUNT:
    case STATUS_BYTES:
        return numbers->values[field->statistic];
    case STATUS_VERSION:
        break;
    }
    return 0;
}
