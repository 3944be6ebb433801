/* SPDX-License-Identifier: MIT */
#ifndef FCGI_PARAMS_H
#define FCGI_PARAMS_H

/*
 * Name-value pairs (FastCGI Specification 1.0, section 3.4), as they fill PARAMS, GET_VALUES and
 * GET_VALUES_RESULT: a length of one byte up to 127, of four bytes with the top bit set above.
 */

#include "fcgi/span.h"

enum params_result {
    PARAMS_PAIR,      /* *name and *value hold the next pair */
    PARAMS_END,       /* nothing is left */
    PARAMS_MALFORMED, /* the bytes end within a pair */
};

/* Takes the next pair off the front of *pairs; name and value borrow from it. A length of up to
 * 2^31-1 that passes what is left is PARAMS_MALFORMED (no addition may overflow on the way:
 * CVE-2025-23016 in libfcgi). */
enum params_result params_next(struct span *pairs, struct span *name, struct span *value);

/* Encoded size of a pair, and its writing into memory of that size. Lengths must be under 2^31. */
size_t params_size(size_t name_length, size_t value_length);
size_t params_write(uint8_t *bytes, struct span name, struct span value);

/*
 * How many bytes of pairs, a well-formed sequence, go into the next record: the longest run of
 * whole pairs that is not over max. PHP-FPM resets a connection where a pair is split across
 * records. A first pair that is alone over max gives 0: the caller refuses such a pair beforehand.
 */
size_t params_cut(struct span pairs, size_t max);

/*
 * Answers a FCGI_GET_VALUES body: writes the pairs of a FCGI_GET_VALUES_RESULT for those of
 * FCGI_MAX_CONNS, FCGI_MAX_REQS (both max_conns) and FCGI_MPXS_CONNS (0) that are asked for, each
 * once, in this order; unknown names are passed over (section 4.1). Returns the bytes written, at
 * most PARAMS_VALUES_MAX. Malformed pairs end the reading; what was asked before is answered.
 */
#define PARAMS_VALUES_MAX 128
size_t params_values_answer(struct span asked, unsigned max_conns,
                            uint8_t answer[PARAMS_VALUES_MAX]);

#endif
