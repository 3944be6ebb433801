/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BASE_UTF8_H
#define SIDECAR_BASE_UTF8_H

#include "fcgi/span.h"

/* The length of the UTF-8 character that the span begins with: 1 to 4; 0 where it is invalid; -1
 * where it is right so far but cut short, or the span is empty. For any bytes. */
int utf8_length(struct span span);

#endif
