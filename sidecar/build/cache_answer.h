/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_CACHE_ANSWER_H
#define SIDECAR_BUILD_CACHE_ANSWER_H

/* Answers from the cache, in the builder's thread. */

#include "sidecar/build/ticket.h"

/* Looks the request up, unless it is forced, and counts. True: the ticket has been answered. */
bool cache_answer_ticket(const struct build_services *services, struct ticket *ticket,
                         const struct build_request *request);

#endif
