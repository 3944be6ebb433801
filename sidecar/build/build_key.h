/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_BUILD_KEY_H
#define SIDECAR_BUILD_BUILD_KEY_H

/*
 * What makes two build requests the same build: everything except request_id and force_rebuild,
 * without insignificant white space, with the members of each object in one order and the elements
 * of plugins, replaces and excludes in one order. Names are ordered and told apart by what they
 * mean; values count by their bytes, so 1 and 1.0, or a null member and an absent one, differ.
 */

#include "sidecar/build/json_scan.h"

#define BUILD_KEY_SIZE 32

/* Takes an object that json_scan has accepted. 0 with the SHA-256 of the canonical form, or
 * -ENOMEM. */
int build_key_compute(struct json_value request, uint8_t key[BUILD_KEY_SIZE]);

/* The canonical form itself, appended to out; never longer than the request. Errors as
 * buf_append. */
int build_key_canonical(struct json_value request, struct buf *out);

#endif
