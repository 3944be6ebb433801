/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_VERSION_H
#define SIDECAR_BUILD_VERSION_H

#include "fcgi/span.h"

/*
 * Whether a version names one state of the source for ever: a release "vN.N.N", which a suffix
 * behind '-' or '+' may follow, or a whole commit hash (40 or 64 hexadecimal digits). Anything else
 * may be a branch, or "latest", and means something else tomorrow; so may the beginning of a hash,
 * which is a valid name of a branch, too. Pure.
 */
bool version_is_fixed(struct span version);

#endif
