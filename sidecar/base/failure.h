/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BASE_FAILURE_H
#define SIDECAR_BASE_FAILURE_H

/*
 * Every way in which the sidecar answers a request itself because something went wrong, and the one
 * table of what that means for the client.
 */

#include <stdbool.h>

enum failure {
    FAILURE_NONE,
    FAILURE_REQUEST_INVALID,      /* 400 invalid_request: the build request */
    FAILURE_BODY_SHORT,           /* 400 invalid_request: a body shorter than announced */
    FAILURE_FORBIDDEN,            /* 403 forbidden */
    FAILURE_BODY_TOO_LARGE,       /* 413 too_large */
    FAILURE_PARAMS_TOO_LARGE,     /* 431 too_large */
    FAILURE_BUILD_FAILED,         /* 500 build_failed */
    FAILURE_ARTIFACT_UNAVAILABLE, /* 500 artifact_unavailable */
    FAILURE_VELOX_UNAVAILABLE,    /* 502 velox_unavailable */
    FAILURE_WORKER_FAILED,        /* 502 worker_failed */
    FAILURE_BUSY,                 /* 503 busy, with Retry-After */
    FAILURE_TIMEOUT,              /* 504 timeout */
    FAILURE_COUNT,
};

struct failure_info {
    unsigned status;    /* HTTP */
    const char *reason; /* "Bad Gateway" */
    const char *error;  /* the JSON's "error", and the label of errors_total */
    bool retry_after;   /* the answer tells when to come back */
};

/* Never NULL; FAILURE_NONE has status 0. Static. */
const struct failure_info *failure_info(enum failure failure);

#endif
