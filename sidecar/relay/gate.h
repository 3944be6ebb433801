/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_RELAY_GATE_H
#define SIDECAR_RELAY_GATE_H

/*
 * The way to PHP-FPM: which of its addresses the next connection goes to. Round robin; one that
 * refused is passed over for a second, unless all have.
 */

#include "sidecar/relay/options.h"

struct gate {
    const struct relay_options *options;
    uint64_t *skip_until_ms; /* one for each address */
    size_t next;
};

/* 0 or -ENOMEM. */
int gate_init(struct gate *gate, const struct relay_options *options);
void gate_deinit(struct gate *gate);

/* The address to try next; NULL after tried of them were tried for the same request and none is
 * left. */
const struct sock_address *gate_pick(struct gate *gate, uint64_t now_ms, size_t tried);
/* That address has refused. */
void gate_skip(struct gate *gate, const struct sock_address *address, uint64_t now_ms);

#endif
