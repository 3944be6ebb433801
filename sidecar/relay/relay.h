/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_RELAY_RELAY_H
#define SIDECAR_RELAY_RELAY_H

/*
 * One relay thread: accepts connections, owns their exchanges, and receives the builder's results.
 * Everything here runs in the relay's own thread except relay_drain, relay_cut and what is said to
 * be from any thread.
 */

#include <sys/uio.h>

#include "fcgi/record.h"
#include "sidecar/base/log.h"
#include "sidecar/base/stats.h"
#include "sidecar/build/builder.h"
#include "sidecar/io/mailbox.h"
#include "sidecar/io/outq.h"
#include "sidecar/io/sock.h"
#include "sidecar/relay/carrier.h"
#include "sidecar/relay/gate.h"
#include "sidecar/relay/limit.h"
#include "sidecar/relay/options.h"
#include "sidecar/relay/survey.h"

/*
 * The most that is read at once. A piece of content that we frame again is never longer, so it fits
 * one record of FCGI_CONTENT_MAX bytes.
 */
#define RELAY_READ_SIZE FCGI_CONTENT_MAX
/* Writable bytes in front of what was read, where a record's header is put without moving it. */
#define RELAY_HEADROOM 64

#define RELAY_TICKET_BUCKETS 256

struct relay_listener {
    struct relay *relay;
    struct watch watch;
    int fd; /* a duplicate of its own */
    bool is_unix;
    bool is_scgi;
};

struct relay_init {
    struct loop *loop;
    const struct relay_options *options;
    const struct policy_options *policy; /* NULL: everything may be built */
    const char *version;                 /* what PHP sees as VELOX_SIDECAR */
    unsigned index;                      /* of this relay among all, for ticket numbers */
    unsigned count;                      /* of all; 0: one */
    struct limit *fronts;                /* connections from web servers at once, over all relays */
    struct limit *limit;                 /* of connections to PHP-FPM; NULL: none */
    struct prefetch *prefetch;           /* NULL: downloads wait for the disk */
    struct builder *builder;             /* may be NULL where nothing is intercepted */
    struct status_board *board;          /* shared by all relays; NULL: no status page */
    struct log *log;
    struct stats *stats;
    const int *listeners;
    size_t listener_count;
    size_t scgi_count; /* that many of the listeners, the last ones, speak SCGI */
    /* Called once, in the relay's thread, when it has been told to drain: when it accepts nothing
     * more (may be NULL), and when nothing is left. */
    void (*on_closed)(struct relay *relay, void *owner);
    void (*on_drained)(struct relay *relay, void *owner);
    void *owner;
};

struct relay {
    struct loop *loop;
    const struct relay_options *options;
    const struct policy_options *policy;
    const char *version;
    struct builder *builder;
    struct log *log;
    struct stats *stats;
    struct mailbox mailbox;
    struct mail drain_order;
    struct mail cut_order;
    struct gate gate;
    struct limit *limit;
    struct mailbox turns; /* of those who waited for a place of the limit */
    struct gather gather;
    struct carrier carrier;
    struct survey survey;
    struct relay_listener *listeners;
    size_t listener_count;
    struct limit *fronts;
    struct limit_waiter *door; /* waits for a place among the fronts; NULL: need not */
    unsigned relay_count;
    unsigned accept_count;
    size_t exchange_count;
    struct list exchanges;
    struct list closed;    /* exchanges to be freed at the end of the turn */
    struct list unwatched; /* exchanges whose front is not watched yet: see exchange.c */
    struct timer watch_them;
    struct list lingering; /* workers that finish without an exchange */
    struct list tickets[RELAY_TICKET_BUCKETS];
    uint64_t next_ticket;
    struct task reap;
    struct timer accept_pause;
    bool is_accepting;
    struct timer idle_grace;
    bool is_draining;
    bool closes_idle; /* connections without a request: a moment after the order to drain */
    bool is_cutting;  /* shutdown_timeout is over */
    bool drained_told;
    void (*on_closed)(struct relay *relay, void *owner);
    void (*on_drained)(struct relay *relay, void *owner);
    void *owner;
    uint8_t read_buffer[RELAY_HEADROOM + RELAY_READ_SIZE];
};

/* 0 or -errno. */
int relay_new(struct relay **relay, const struct relay_init *init);
/* Closes whatever is left. */
void relay_free(struct relay *relay);

/* From any thread: accept nothing more, close idle connections, finish the rest. */
void relay_drain(struct relay *relay);
/* From any thread: who waits for a build gets 503, the rest is cut. */
void relay_cut(struct relay *relay);

/* Where the next read goes: RELAY_READ_SIZE bytes with RELAY_HEADROOM writable ones before them.
 * The content lasts until the next read of any connection of this thread. */
static inline uint8_t *relay_read_buffer(struct relay *relay)
{
    return relay->read_buffer + RELAY_HEADROOM;
}

/*
 * Reads up to size bytes (at most RELAY_READ_SIZE) into room. 1 with *input, 0 when there is
 * nothing now (the READ bit is cleared), -EPIPE at the end of input, another -errno when the
 * connection is lost.
 */
int relay_receive(struct watch *watch, uint8_t *room, size_t size, struct span *input);

/* A new ticket number for an exchange's build; link goes into the bucket where its result is looked
 * for. */
uint64_t relay_add_ticket(struct relay *relay, struct list *link);

/* For GET_VALUES. */
unsigned relay_front_limit(const struct relay *relay);

#endif
