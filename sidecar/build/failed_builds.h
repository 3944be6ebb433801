/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_FAILED_BUILDS_H
#define SIDECAR_BUILD_FAILED_BUILDS_H

/*
 * Remembers for a while which builds have failed and why, so that a page that is reloaded in anger
 * does not send the same broken build to Velox again and again ([velox] failure_ttl). Bounded: the
 * oldest is forgotten for the newest.
 */

#include "sidecar/base/buf.h"
#include "sidecar/base/list.h"
#include "sidecar/build/build_request.h"

#define FAILED_BUILDS_MAX 256

struct failed_builds {
    struct list entries; /* the oldest first */
    size_t count;
    uint64_t ttl_ms; /* 0: nothing is remembered */
};

void failed_builds_init(struct failed_builds *failed, uint64_t ttl_ms);
void failed_builds_deinit(struct failed_builds *failed);

/* Takes a copy of the message. Without memory nothing is remembered, which harms nobody. */
void failed_builds_add(struct failed_builds *failed, const uint8_t key[BUILD_REQUEST_KEY_SIZE],
                       struct span message, uint64_t now_ms);

/* It has succeeded since (only a forced build is tried before the time is over). */
void failed_builds_forget(struct failed_builds *failed, const uint8_t key[BUILD_REQUEST_KEY_SIZE]);

/* True with *message, borrowed until the next call, if the build has failed within the last ttl_ms.
 * */
bool failed_builds_find(struct failed_builds *failed, const uint8_t key[BUILD_REQUEST_KEY_SIZE],
                        uint64_t now_ms, struct span *message);

#endif
