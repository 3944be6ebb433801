/* SPDX-License-Identifier: MIT */
/*
 * A hit is an answer without a build: it must never be counted or logged as one.
 */
#include "sidecar/build/cache_answer.h"

#include "sidecar/build/cache_folder.h"

bool cache_answer_ticket(const struct build_services *services, struct ticket *ticket,
                         const struct build_request *request)
{
    struct build_result *result = ticket->result;
    char name[CACHE_NAME_SIZE];

    if (services->cache == NULL || request->force_rebuild) {
        return false;
    }
    if (!cache_find(services->cache, request->key, &result->artifact, &result->cache_age_s)) {
        stats_count(services->stats, STAT_CACHE_MISSES);
        return false;
    }
    stats_count(services->stats, STAT_CACHE_HITS);
    cache_name_print(request->key, name);
    log_info(services->log, "cache hit", log_str("request_id", request->id), log_str("key", name),
             log_uint("age_s", result->cache_age_s),
             log_uint("file_size", result->artifact.size_bytes));
    result->from_cache = true;
    ticket_answer(ticket);
    return true;
}
