/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_RELAY_BULK_H
#define SIDECAR_RELAY_BULK_H

/*
 * Long records of a long response, moved from PHP-FPM's socket to the web server's through a pipe
 * (splice), so that their bytes are never copied. Only whole records that need no change go this
 * way: STDOUT, with the request id that the web server uses, of some length. Everything else is
 * left in the socket for the ordinary path, which is asked again at every record that does not fit.
 */

#include "sidecar/relay/front.h"
#include "sidecar/relay/worker.h"

enum bulk_result {
    BULK_UNFIT,   /* what comes next is for the ordinary path (a short record, the end, an error) */
    BULK_BLOCKED, /* an event will tell when it can go on */
    BULK_PAUSED,  /* the turn's share is used up; there is more to do at once */
    BULK_LOST,    /* the web server's connection is lost */
};

struct bulk {
    int pipe[2];
    bool is_open;
    bool is_hopeless; /* no pipe to be had: not tried again for this response */
    size_t in_pipe;   /* bytes that have left the worker's socket and not reached the front's */
    uint8_t header[FCGI_HEADER_SIZE]; /* of the record that is next or under way */
    size_t record_size;               /* with its header and padding */
    bool has_begun;                   /* some of the record has left the worker's socket */
    size_t record_left; /* of the record that has begun, still in the worker's socket */
};

/* Where it pays and can be done: the response has relayed_bytes so far, and its current record is
 * this long. */
bool bulk_is_worth(const struct bulk *bulk, const struct front *front, uint64_t relayed_bytes,
                   size_t record_length);

/*
 * Goes on as far as possible. Both queues of kept bytes must be empty, and worker->reader at the
 * begin of a record. Sets front->owed_bytes.
 */
enum bulk_result bulk_move(struct bulk *bulk, struct worker *worker, struct front *front);

/* True while bytes are on their way: nothing else may be sent to the front. */
static inline bool bulk_is_under_way(const struct bulk *bulk)
{
    return bulk->in_pipe > 0 || bulk->record_left > 0;
}

/*
 * The front no longer wants the response: queues what makes its last record whole, the bytes in the
 * pipe and zeros for those that are not fetched any more. 0 or -errno.
 */
int bulk_abandon(struct bulk *bulk, struct front *front);

/* Closes the pipe, with what is in it. A zeroed bulk is closed. */
void bulk_close(struct bulk *bulk);

#endif
