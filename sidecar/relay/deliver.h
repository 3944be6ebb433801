/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_RELAY_DELIVER_H
#define SIDECAR_RELAY_DELIVER_H

/*
 * A built file on its way to the web server, as FCGI_STDOUT records: a header of ours, then the
 * content straight from the page cache (sendfile). No memory is taken for it.
 */

#include "sidecar/build/artifact.h"
#include "sidecar/relay/front.h"

enum deliver_result {
    DELIVER_DONE,      /* every byte has been given to the socket */
    DELIVER_BLOCKED,   /* the web server does not read; goes on when it can be written to */
    DELIVER_PAUSED,    /* the turn's share is used up; there is more to do at once */
    DELIVER_TRUNCATED, /* the file has become shorter, or cannot be read any more */
    DELIVER_LOST,      /* the connection is lost */
};

struct delivery {
    struct artifact artifact; /* owned */
    uint64_t first;           /* byte that was sent first */
    uint64_t offset;          /* next byte to be sent */
    uint64_t end;
    size_t record_size; /* content of a full record */
    uint64_t started_ns;
    int error; /* with DELIVER_TRUNCATED; 0: it was short */
};

/* Takes the artifact, of which the bytes from first to before end are sent. Raises the connection's
 * send buffer, and chooses the record size by what the system granted. */
void deliver_start(struct delivery *delivery, struct artifact artifact, uint64_t first,
                   uint64_t end, struct front *front);
void deliver_stop(struct delivery *delivery);

/*
 * Sends up to budget bytes. front->out must be empty at the begin. front->owed_bytes counts what is
 * still to come of the record that has begun, so that nothing gets in between.
 */
enum deliver_result deliver_send(struct delivery *delivery, struct front *front, uint64_t budget);

#endif
