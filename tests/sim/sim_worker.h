/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SIM_SIM_WORKER_H
#define TESTS_SIM_SIM_WORKER_H

/*
 * A scripted PHP-FPM child: reads one request, says what the test lets it say. As the real one it
 * fails where a pair is split across two PARAMS records, where the end of a stream is padded, and
 * where FCGI_KEEP_CONN or ABORT_REQUEST comes. Every function does nothing on NULL, which a test
 * holds where a failed allocation kept the request from PHP.
 */

#include "tests/sim/stream.h"

struct sim_worker {
    struct stream stream;
    struct fcgi_reader reader;
    struct buf params;
    struct buf body;
    bool params_ended;
    bool body_ended;
    bool has_ended; /* has said END_REQUEST, so closes when the sidecar has */
};

/* Takes fd. */
void worker_open(struct sim_worker *worker, int fd);
void worker_deinit(struct sim_worker *worker);
bool worker_move(struct sim_worker *worker, uint64_t now_ms);

void worker_stdout(struct sim_worker *worker, const char *text);
void worker_stdout_span(struct sim_worker *worker, struct span content);
/* The first bytes of a record that announces more. */
void worker_stdout_part(struct sim_worker *worker, uint16_t announced, const char *text);
void worker_stderr(struct sim_worker *worker, const char *text);
void worker_end(struct sim_worker *worker, uint32_t app_status);
/* STDOUT and END_REQUEST in one write, as PHP does with a short answer. */
void worker_answer(struct sim_worker *worker, const char *text);
/* Dies after what it has said: closes the connection, which is a reset where input is unread. */
void worker_die(struct sim_worker *worker);
/* Bytes that the sidecar has not taken yet. */
size_t worker_unsent(const struct sim_worker *worker);
/* Whether the sidecar has closed the connection. */
bool worker_is_free(const struct sim_worker *worker);

/* The value of a param; false where there is none. value borrows. */
bool worker_param(const struct sim_worker *worker, const char *name, struct span *value);

#endif
