/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BASE_UTF8_H
#define SIDECAR_BASE_UTF8_H

#include "fcgi/span.h"

/* The length of the UTF-8 character that the span begins with: 1 to 4; 0 where it is invalid; -1
 * where it is right so far but cut short, or the span is empty. For any bytes. */
int utf8_length(struct span span);

/* The length of the character at the front of the span, and its code point. 0 where the bytes are
 * no whole character in UTF-8. */
size_t utf8_decode(struct span span, uint32_t *code);

/* Characters that could act on a terminal or on the reader: C0, DEL, C1, line and paragraph
 * separators, and those that turn the direction of writing around. */
bool utf8_is_control(uint32_t code);

#endif
