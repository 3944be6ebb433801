/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_RELAY_INTERCEPT_H
#define SIDECAR_RELAY_INTERCEPT_H

/*
 * Looks at the head of PHP's response and decides what becomes of it. Pure: bytes in, a verdict
 * out.
 */

#include "fcgi/cgi.h"
#include "sidecar/base/buf.h"

#define INTERCEPT_HEADER "X-Velox-Build"

enum intercept_verdict {
    INTERCEPT_PASS,     /* the header is not there: the response goes on as it is */
    INTERCEPT_STRIP,    /* it is there but asks for nothing: the response goes on without it */
    INTERCEPT_BUILD,    /* the body is a build request */
    INTERCEPT_UNSERVED, /* as STRIP, but it asks for a build and no server_url is set */
};

/*
 * head is complete, up to and including its empty line. may_build says whether this request can be
 * answered with a file (a method that is neither empty nor HEAD), is_enabled whether a Velox server
 * is set.
 */
enum intercept_verdict intercept_judge(struct span head, bool may_build, bool is_enabled);

/* Appends head without the header, everything else byte for byte. 0, -ENOMEM or -ENOBUFS. */
int intercept_strip(struct span head, struct buf *out);

#endif
