/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_RELAY_ANSWER_H
#define SIDECAR_RELAY_ANSWER_H

/*
 * Answers of our own as CGI responses: the head in front of a built file, and errors as JSON. Pure:
 * they are appended to a buf, and nothing that came from a peer gets into them unchecked.
 */

#include "sidecar/base/failure.h"
#include "sidecar/build/artifact.h"
#include "sidecar/relay/condition.h"
#include "sidecar/base/buf.h"

struct answer_artifact {
    const struct artifact *artifact;
    struct span php_head; /* PHP's response head */
    const char *request_id;
    const char *os; /* both empty without a target_platform */
    const char *arch;
    bool from_cache;
    uint64_t duration_ms;          /* of the build, on a miss */
    uint64_t cache_age_s;          /* on a hit */
    struct condition_verdict part; /* status 0: all of it */
    struct span accel_redirect;    /* where nginx finds the file, encoded; empty: we send it */
};

/* What identifies the file for conditional requests: its time in nanoseconds and its size, or what
 * the cache or the source of a fetched one says. */
void answer_entity(const struct artifact *artifact, struct condition_entity *entity);

/* 0, -ENOMEM or -ENOBUFS. */
int answer_artifact_head(const struct answer_artifact *answer, struct buf *out);

struct answer_failure {
    enum failure failure;
    struct span
        message; /* for a developer; escaped here, control characters and invalid UTF-8 too */
    const char *request_id; /* NULL outside builds */
    struct span php_head;   /* empty where the answer is not behind an interception */
    unsigned retry_after_s; /* where the failure tells one; 0 counts as 1 */
};

/* 0, -ENOMEM or -ENOBUFS. */
int answer_failure(const struct answer_failure *answer, struct buf *out);

#endif
