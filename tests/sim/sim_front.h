/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SIM_SIM_FRONT_H
#define TESTS_SIM_SIM_FRONT_H

/*
 * The scripted web server: writes requests, reads answers. It fails the test where the sidecar
 * breaks the protocol: a record of another id, anything behind END_REQUEST, a stream that goes on.
 */

#include "tests/sim/stream.h"

struct sim_front {
    struct stream stream;
    struct fcgi_reader reader;
    bool is_scgi; /* then the close is the end of the answer, and all that comes is stdout_ */
    uint16_t id;
    bool is_open; /* a request is under way: BEGIN_REQUEST was sent, END_REQUEST has not come */
    struct buf stdout_; /* of the request that is or was open */
    struct buf stderr_;
    bool has_answer; /* END_REQUEST has come */
    struct fcgi_end end;
    uint8_t end_length;
    uint8_t end_body[FCGI_BODY_SIZE];
    uint64_t ended_at_ms; /* of END_REQUEST */
    unsigned management;  /* records with id 0 */
    unsigned refused;     /* END_REQUESTs for other ids */
};

/* Takes fd. */
void front_open(struct sim_front *front, int fd);
void front_free(struct sim_front *front);
/* Moves bytes and looks at what came. True when anything happened. */
bool front_move(struct sim_front *front, uint64_t now_ms);

/* BEGIN_REQUEST; forgets the answer before. */
void front_begin(struct sim_front *front, uint16_t id, bool keep);
void front_param(struct sim_front *front, const char *name, const char *value);
void front_params_end(struct sim_front *front);
void front_stdin(struct sim_front *front, struct span content);
void front_stdin_end(struct sim_front *front);
void front_abort(struct sim_front *front);

/* A request's head up to and including the end of PARAMS. length NULL: CONTENT_LENGTH is empty. */
void front_head(struct sim_front *front, bool keep, const char *method, const char *length);
/* An SCGI request's head; the body's bytes follow as they are. length NULL: CONTENT_LENGTH is 0. */
void front_scgi_head(struct sim_front *front, const char *method, const char *length);
void front_scgi_body(struct sim_front *front, struct span body);

/* Whole requests. */
void front_get(struct sim_front *front, bool keep);
void front_post(struct sim_front *front, bool keep, struct span body);
void front_post_unannounced(struct sim_front *front, bool keep, struct span body);

#endif
