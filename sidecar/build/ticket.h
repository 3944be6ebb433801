/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_TICKET_H
#define SIDECAR_BUILD_TICKET_H

/*
 * One who waits for a build, on the builder's side. The result is made together with the ticket, so
 * that an answer never lacks memory.
 */

#include "sidecar/build/build.h"
#include "sidecar/build/builder.h"

struct ticket {
    struct list link;       /* in build->tickets */
    struct list table_link; /* in builder->tickets */
    uint64_t number;
    struct build *build;
    struct mailbox *reply_to;
    struct build_result *result;
    uint64_t submitted_ms;
    char request_id[BUILD_REQUEST_ID_MAX + 1]; /* the waiter's own */
};

/* NULL without memory. */
struct ticket *ticket_new(uint64_t number, struct mailbox *reply_to);
/* Without an answer: who waited has left. */
void ticket_free(struct ticket *ticket);

/* Posts the result and frees the ticket. */
void ticket_answer(struct ticket *ticket);
/* The same with a failure; the message is copied. */
void ticket_fail(struct ticket *ticket, enum failure failure, struct span message,
                 unsigned retry_after_s);

#endif
