/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_POLICY_H
#define SIDECAR_BUILD_POLICY_H

/*
 * What an operator lets applications build ([policy]): modules, platforms, replacements, how many
 * plugins. Velox runs what it builds, so this is the place to say no.
 */

#include "sidecar/build/build_request.h"
#include "sidecar/build/options.h"

#define POLICY_MESSAGE_SIZE 512

/*
 * Looks at a request that build_request_parse has accepted. 0: it may be built. -EPERM with
 * *message, which names what was refused and by which key (control characters escaped). -ENOMEM.
 */
int policy_check(const struct policy_options *policy, const struct build_request *request,
                 char message[POLICY_MESSAGE_SIZE]);

#endif
