/* SPDX-License-Identifier: MIT */
/*
 * Choice of PHP-FPM's address. Must never make a request wait while any address may still answer.
 */
#include "sidecar/relay/gate.h"

#include <errno.h>
#include <stdlib.h>

#define GATE_SKIP_MS 1000

int gate_init(struct gate *gate, const struct relay_options *options)
{
    *gate = (struct gate){ .options = options };
    gate->skip_until_ms = calloc(options->address_count, sizeof(*gate->skip_until_ms));
    return gate->skip_until_ms == NULL ? -ENOMEM : 0;
}

void gate_deinit(struct gate *gate)
{
    free(gate->skip_until_ms);
    gate->skip_until_ms = NULL;
}

const struct sock_address *gate_pick(struct gate *gate, uint64_t now_ms, size_t tried)
{
    size_t count = gate->options->address_count;
    size_t chosen = gate->next % count;

    if (tried >= count) {
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        size_t candidate = (gate->next + i) % count;

        if (gate->skip_until_ms[candidate] <= now_ms) {
            chosen = candidate;
            break;
        }
    }
    gate->next = (chosen + 1) % count;
    return &gate->options->addresses[chosen];
}

void gate_skip(struct gate *gate, const struct sock_address *address, uint64_t now_ms)
{
    gate->skip_until_ms[address - gate->options->addresses] = now_ms + GATE_SKIP_MS;
}
