/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_JSON_TEXT_H
#define SIDECAR_BUILD_JSON_TEXT_H

/*
 * The inside of JSON strings: characters, escape sequences, UTF-8. "Raw" means the bytes between
 * the quotes, as json_scan has accepted them.
 */

#include "sidecar/base/buf.h"
#include "sidecar/base/utf8.h"

/* Raw strings compared by what they mean, so that "\u0061" is "a"; ordered by code points. */
int json_name_compare(struct span a, struct span b);
bool json_name_is(struct span name, const char *text);

/* Appends what a raw string means, as UTF-8; never longer than the raw bytes. Errors as
 * buf_append. */
int json_text_decode(struct span raw, struct buf *out);

/* 0 to 15, or -1. For any byte, as are all below. */
int json_hex_digit(uint8_t byte);

/* Without a character cut in two: the longest part of at most max bytes that ends at a
 * character. */
struct span json_utf8_cut(struct span span, size_t max);

/* Writes span into text (size bytes, always terminated) with control characters, backslashes and
 * bytes that are no UTF-8 as \xNN; cut where it does not fit. Returns the length written. */
size_t json_print_escaped(char *text, size_t size, struct span span);

#endif
