/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_RELAY_CARRIER_H
#define SIDECAR_RELAY_CARRIER_H

/*
 * What the downloads of one relay thread share: the ways in which bytes get from a file into a
 * socket, and the answers of prefetch.
 *
 * Over unix sockets bytes are not copied: header and content of some records go into a pipe, as
 * references to pages, and from there to the socket, header and content together. (sendfile behind
 * a header of its own makes the receiver wake for eight bytes, and costs about a tenth more.) Over
 * TCP a copy is faster: some records are read into a buffer, with gaps for their headers, and sent
 * by one call.
 *
 * Pipe and buffer hold nothing that is needed: what a socket does not take is read again. So one of
 * each is enough for any number of downloads. They exist while there are downloads.
 */

#include "fcgi/record.h"
#include "sidecar/io/prefetch.h"

struct delivery;
struct front;

enum deliver_result {
    DELIVER_DONE,      /* every byte has been given to the socket */
    DELIVER_BLOCKED,   /* the web server does not read; goes on when it can be written to */
    DELIVER_WAITING,   /* for the disk; goes on when the carrier's on_pages is called */
    DELIVER_PAUSED,    /* the turn's share is used up; there is more to do at once */
    DELIVER_TRUNCATED, /* the file has become shorter, or cannot be read any more */
    DELIVER_LOST,      /* the connection is lost, or memory short */
};

struct carrier {
    struct prefetch *prefetch; /* borrowed; NULL: who sends waits for the disk himself */
    bool (*is_cached)(int fd, uint64_t offset, uint64_t end); /* prefetch_is_cached */
    struct mailbox pages;                                     /* jobs of prefetch come back */
    void (*on_pages)(struct delivery *delivery);
    unsigned deliveries;
    /* carrier_pipe.c */
    bool is_open;
    bool is_hopeless; /* no pipe to be had: not tried again while there are downloads */
    int pipe[2];
    int pattern[2]; /* a pipe that holds the header of a full record, to be duplicated */
    int nowhere;    /* /dev/null, or -1 */
    unsigned records_at_once;
    uint8_t pattern_header[FCGI_HEADER_SIZE];
    size_t in_pipe;
    uint64_t pipe_end;              /* of the file, behind the last of them */
    const struct delivery *pipe_of; /* whose bytes they are, next to be sent */
    /* carrier_copy.c */
    uint8_t *room;
};

/* on_pages: a delivery that awaited the disk can go on, or has failed. 0 or -errno. */
int carrier_init(struct carrier *carrier, struct loop *loop, struct prefetch *prefetch,
                 void (*on_pages)(struct delivery *delivery));
/* All deliveries must have been stopped. Jobs of theirs that are still out are freed, now or by the
 * threads of prefetch. */
void carrier_close(struct carrier *carrier);
void carrier_deinit(struct carrier *carrier);

/* A delivery begins or ends. */
void carrier_enter(struct carrier *carrier);
void carrier_leave(struct carrier *carrier, const struct delivery *delivery);

/*
 * Send records, each of which begins before byte stop of the file, or the rest of the one that has
 * begun; some, when the socket takes any. Results as deliver_send; DELIVER_PAUSED: go on.
 * carrier_pipe_send sets delivery->is_copied where this way is closed for the file.
 */
enum deliver_result carrier_pipe_send(struct carrier *carrier, struct delivery *delivery,
                                      struct front *front, uint64_t stop);
enum deliver_result carrier_copy_send(struct carrier *carrier, struct delivery *delivery,
                                      struct front *front, uint64_t stop);

/* Private to the carrier's files. */
/* The length of the record that begins at offset. */
size_t carrier_record_length(const struct delivery *delivery, uint64_t offset);
/* That many bytes of the records have left, headers included. 0 or -errno. */
int carrier_advance(struct delivery *delivery, struct front *front, size_t sent);
/* How many bytes of the file there are behind offset; 0 with delivery->error where that cannot be
 * known. */
uint64_t carrier_file_rest(struct delivery *delivery);
void carrier_pipe_close(struct carrier *carrier);
/* Forgets what is in the pipe. */
void carrier_pipe_drop(struct carrier *carrier);

#endif
