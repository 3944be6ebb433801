/* SPDX-License-Identifier: MIT */
/*
 * The table of answers for what goes wrong. Texts for a particular case are made where it happens;
 * here is only what the kind of failure means to a client.
 */

#include "sidecar/base/failure.h"

static const struct failure_info failure_table[FAILURE_COUNT] = {
    [FAILURE_NONE] = { 0, "", "", false },
    [FAILURE_REQUEST_INVALID] = { 400, "Bad Request", "invalid_request", false },
    [FAILURE_BODY_SHORT] = { 400, "Bad Request", "invalid_request", false },
    [FAILURE_FORBIDDEN] = { 403, "Forbidden", "forbidden", false },
    [FAILURE_BODY_TOO_LARGE] = { 413, "Content Too Large", "too_large", false },
    [FAILURE_PARAMS_TOO_LARGE] = { 431, "Request Header Fields Too Large", "too_large", false },
    [FAILURE_BUILD_FAILED] = { 500, "Internal Server Error", "build_failed", false },
    [FAILURE_ARTIFACT_UNAVAILABLE] = { 500, "Internal Server Error", "artifact_unavailable",
                                       false },
    [FAILURE_VELOX_UNAVAILABLE] = { 502, "Bad Gateway", "velox_unavailable", false },
    [FAILURE_WORKER_FAILED] = { 502, "Bad Gateway", "worker_failed", false },
    [FAILURE_BUSY] = { 503, "Service Unavailable", "busy", true },
    [FAILURE_TIMEOUT] = { 504, "Gateway Timeout", "timeout", false },
};

const struct failure_info *failure_info(enum failure failure)
{
    if ((unsigned)failure >= FAILURE_COUNT) {
        failure = FAILURE_NONE;
    }
    return &failure_table[failure];
}
