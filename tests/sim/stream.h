/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SIM_STREAM_H
#define TESTS_SIM_STREAM_H

/*
 * The script's end of a connection: bytes wait in out until stream_move sends them, in pieces of
 * any size, and what comes is collected in in.
 */

#include <stdint.h>

#include "fcgi/reader.h"
#include "sidecar/base/buf.h"

/* How large the pieces are: 0 of max: whole; with a seed: drawn from 1 to max, else max. */
struct stream_cut {
    size_t max;
    uint64_t seed;
};

struct stream {
    int fd; /* -1: none, or closed by the script */
    struct buf out;
    struct buf in;
    struct stream_cut write_cut;
    struct stream_cut read_cut;
    bool is_stalled; /* reads nothing */
    bool closes;     /* closes when out is empty */
    bool has_ended;  /* the other side has closed, or reset */
    uint64_t ended_at_ms;
};

/* Takes fd. */
void stream_open(struct stream *stream, int fd);
/* Closes now; what came stays. */
void stream_close(struct stream *stream);
void stream_free(struct stream *stream);

/* Sends and receives a piece each. True when anything happened. */
bool stream_move(struct stream *stream, uint64_t now_ms);

/* Appends to out a record as the web servers write it, with padding. */
void stream_add_record(struct stream *stream, uint8_t type, uint16_t id, struct span content,
                       uint8_t padding);
/* Content of any length in as many records as it takes, each padded to eight bytes. */
void stream_add_content(struct stream *stream, uint8_t type, uint16_t id, struct span content);

/* A number from 0 to below, not included; *seed goes on (splitmix64). */
uint64_t draw(uint64_t *seed, uint64_t below);

#endif
