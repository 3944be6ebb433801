/* SPDX-License-Identifier: MIT */
/*
 * Judges version names. In doubt it must say that the name may move: the price is a build, that of
 * the other mistake an old binary for ever.
 */
#include "sidecar/build/version.h"

static bool is_digit(uint8_t byte)
{
    return byte >= '0' && byte <= '9';
}

static bool is_hex_digit(uint8_t byte)
{
    return is_digit(byte) || (byte >= 'a' && byte <= 'f') || (byte >= 'A' && byte <= 'F');
}

static bool is_commit(struct span version)
{
    if (version.len != 40 && version.len != 64) {
        return false;
    }
    for (size_t i = 0; i < version.len; i++) {
        if (!is_hex_digit(version.ptr[i])) {
            return false;
        }
    }
    return true;
}

static bool take_number(struct span *rest)
{
    size_t length = 0;

    while (length < rest->len && is_digit(rest->ptr[length])) {
        length++;
    }
    span_skip(rest, length);
    return length > 0;
}

static bool is_release(struct span rest)
{
    return span_take_byte(&rest, 'v') && take_number(&rest) && span_take_byte(&rest, '.') &&
           take_number(&rest) && span_take_byte(&rest, '.') && take_number(&rest) &&
           (rest.len == 0 || rest.ptr[0] == '-' || rest.ptr[0] == '+');
}

bool version_is_fixed(struct span version)
{
    return is_release(version) || is_commit(version);
}
