/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_RELAY_DELIVER_H
#define SIDECAR_RELAY_DELIVER_H

/*
 * A built file on its way to the web server, as FCGI_STDOUT records (over SCGI: as it is). It takes
 * turns with the other downloads of the thread, and lets a thread of prefetch wait where the file
 * must come from the disk. What carries the bytes is the thread's carrier; a download that waits
 * for its web server holds no memory.
 */

#include "sidecar/base/log.h"
#include "sidecar/build/artifact.h"
#include "sidecar/relay/carrier.h"
#include "sidecar/relay/front.h"
#include "sidecar/relay/options.h"

struct delivery {
    struct artifact artifact; /* owned */
    struct carrier *carrier;  /* borrowed; NULL where nothing has begun */
    uint64_t first;           /* byte that was sent first */
    uint64_t offset;          /* next byte to be sent */
    uint64_t end;
    size_t record_size; /* content of a full record */
    uint64_t started_ns;
    int error;             /* with DELIVER_TRUNCATED; 0: it was short */
    uint64_t queued_bytes; /* of it, by way of front->out */
    bool is_copied;        /* not through the carrier's pipe */
    bool is_cautious;      /* SO_SNDBUF is small: each record is a packet of its own */
    uint64_t send_buffer;  /* SO_SNDBUF */
    uint64_t room;         /* what the socket will probably take */
    /* What the disk has to do with it. */
    uint64_t cached_end; /* up to here nothing waits for the disk */
    bool is_careful;     /* some of it was not in memory: all the rest comes by prefetch */
    bool job_is_out;     /* prefetch holds the job */
    int read_error;      /* of the disk, behind cached_end; -errno */
    struct prefetch_job *job;
};

/*
 * Takes the artifact, of which the bytes from first to before end are sent. Raises the connection's
 * send buffer, and chooses the record size by what the system granted.
 */
void deliver_start(struct delivery *delivery, struct carrier *carrier, struct artifact artifact,
                   uint64_t first, uint64_t end, struct front *front);
void deliver_stop(struct delivery *delivery);

/*
 * Puts all of a small file behind what front->out holds, so that head, file and END_REQUEST leave
 * in one write; deliver_send has nothing left to do then. Does nothing where the file is not small
 * or not in memory.
 */
void deliver_small(struct delivery *delivery, struct front *front);

/*
 * Sends up to budget bytes. front->out must be empty at the begin. front->owed_bytes counts what is
 * still to come of the record that has begun, so that nothing gets in between.
 */
enum deliver_result deliver_send(struct delivery *delivery, struct front *front, uint64_t budget);

/*
 * For deliver_send and deliver_stream_send: whether a turn that began at the offset begun, and is
 * to end at stop, may put out more. False: *result says why not.
 */
bool deliver_may_go_on(const struct delivery *delivery, struct front *front, uint64_t begun,
                       uint64_t stop, enum deliver_result *result);

/* Logs, where files are sent, that the system grants less SO_SNDBUF than is good. Once a child. */
void deliver_tell_of_cap(const struct relay_options *options, struct log *log);

/* Whether it is the disk that the download waits for, not the web server. */
bool deliver_awaits_disk(const struct delivery *delivery);

#endif
