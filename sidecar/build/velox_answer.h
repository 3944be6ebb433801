/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_VELOX_ANSWER_H
#define SIDECAR_BUILD_VELOX_ANSWER_H

/*
 * What an answer of Velox means. Pure: how the exchange ended, the HTTP status and the body go in,
 * a decision comes out.
 *
 * Two shapes of answers are understood: {"success", "path", "build_id"} / {"success":false,
 * "error", "code"}, and the Connect protocol's {"path", "logs"} / {"code", "message"}. The HTTP
 * statuses of Connect's codes changed between its versions (deadline_exceeded 408 → 504), so a
 * known code wins over the status.
 */

#include "sidecar/base/buf.h"

enum velox_outcome {
    VELOX_BUILT,           /* path holds the file's path as Velox names it */
    VELOX_ALREADY_RUNS,    /* already_exists: somebody else has the same build running */
    VELOX_RETRY,           /* may be tried again; reason says why */
    VELOX_BUILD_FAILED,    /* 500 build_failed */
    VELOX_REQUEST_INVALID, /* 400 invalid_request */
    VELOX_UNUSABLE,        /* 502 velox_unavailable, never tried again */
    VELOX_NO_MEMORY,       /* 503 busy: ours, not the server's */
};

enum velox_retry_reason {
    VELOX_RETRY_CONNECT,
    VELOX_RETRY_CUT,
    VELOX_RETRY_TIMEOUT,
    VELOX_RETRY_HTTP_STATUS,
    VELOX_RETRY_CODE,
};

struct velox_answer {
    enum velox_outcome outcome;
    enum velox_retry_reason reason; /* with VELOX_RETRY */
    bool is_timeout;                /* with VELOX_RETRY: request_timeout or deadline_exceeded */
    unsigned status;                /* HTTP; 0 where no answer came */
    uint64_t retry_after_ms;        /* 0: not told */
    struct span path;               /* with VELOX_BUILT, not empty */
    struct span build_id;           /* may be empty */
    struct span message;            /* for the client: what the server says, else ours; never empty
                                       unless VELOX_BUILT */
    struct span detail;             /* for the log only: may name local sockets; may be empty */
};

/* How the HTTP exchange ended. */
enum velox_transport {
    VELOX_ANSWERED,
    VELOX_NOT_CONNECTED, /* no address, refused, no TLS, or not connected in time */
    VELOX_CUT,           /* the connection ended before the answer did */
    VELOX_TIMED_OUT,     /* connected, but no complete answer in time */
    VELOX_TOO_LARGE,     /* the answer is longer than we read */
    VELOX_NOT_HTTP,      /* anything else: the other side does not speak HTTP as we do */
    VELOX_OUT_OF_MEMORY,
};

struct velox_reply {
    enum velox_transport transport;
    unsigned status;
    struct span body;
    uint64_t retry_after_ms;
    struct span detail; /* curl's words */
};

/*
 * Decides. Strings of the answer are decoded into text (initialised, empty, with any maximum: it is
 * set here), which must live as long as the answer's spans are used. Out of memory is an outcome.
 */
void velox_answer_decide(const struct velox_reply *reply, struct buf *text,
                         struct velox_answer *answer);

/* "connect", "cut", "timeout", "http_status", "code". Static. */
const char *velox_retry_reason_name(enum velox_retry_reason reason);

#endif
