/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_FETCH_H
#define SIDECAR_BUILD_FETCH_H

/*
 * Fetches built files from artifact_url, for a Velox on another machine. A fetch has an owner until
 * the file's first byte is there (or all of it, where it must be complete): then the owner gets an
 * artifact, and the fetch goes on by itself. It fills a pipe, waits while that is full, asks for
 * the rest when the source's connection is cut, and ends when the pipe's other end is closed.
 *
 *     asks ──first byte──► fills the pipe, or the file ──all──► the pipe takes the rest ──► gone
 *      ▲ │ cut, refused     │ cut
 *      │ ▼                  │
 *     waits ◄───────────────┘
 */

#include "sidecar/build/artifact.h"
#include "sidecar/build/fetcher.h"

struct fetch;

struct fetch_failure {
    const char *reason; /* static, for the client too */
    unsigned status;    /* HTTP; 0 where no answer came */
    struct span detail; /* curl's words, for the log only; may be empty */
    bool no_memory;     /* ours, not the source's: memory, descriptors */
};

struct fetch_events {
    /* The answer's head is there: is the file wanted as one (true), or as a stream while it comes?
     * Not asked where the length is not announced: such a file is collected first. Must not call
     * back into the fetch. */
    bool (*wants_file)(void *owner);
    /* Takes the artifact; the fetch is no longer the owner's. */
    void (*on_ready)(void *owner, struct artifact artifact);
    /* The fetch is gone when this returns. */
    void (*on_failed)(void *owner, const struct fetch_failure *failure);
};

/*
 * Begins to fetch what Velox named (path obeys the rules of artifact_path_text). One of on_ready
 * and on_failed comes once, from the loop, never from within a call. 0 or -ENOMEM.
 */
int fetch_start(struct fetcher *fetcher, struct span path, const char *request_id,
                const struct fetch_events *events, void *owner, struct fetch **fetch);
/* Before either of them, if there is an owner. Its reader sees an end before the file's. */
void fetch_cancel(struct fetch *fetch);

/* For the fetcher. */
struct fetch *fetch_of_link(struct list *link);
void fetch_on_progress(struct curl_loop *curl_loop);

#endif
