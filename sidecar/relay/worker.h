/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_RELAY_WORKER_H
#define SIDECAR_RELAY_WORKER_H

/*
 * One connection to PHP-FPM for one request. It is opened when the request's params are complete
 * and closed the moment END_REQUEST is read: PHP-FPM's child is not free before we close
 * (main/fastcgi.c:fcgi_close reads until the peer does), and a kept connection would pin it.
 *
 * A worker belongs to its exchange. When the exchange no longer needs it but PHP has not said
 * END_REQUEST, the relay takes it over (worker_linger): what it still sends is dropped, and after
 * finish_timeout it is closed.
 */

#include "fcgi/reader.h"
#include "sidecar/io/outq.h"

struct relay;

enum worker_state {
    WORKER_QUEUED,     /* waits for its turn (max_connections) */
    WORKER_WAITING,    /* no descriptor: between two attempts to connect */
    WORKER_CONNECTING, /* TCP: the connection is under way */
    WORKER_CONNECTED,
    WORKER_CLOSED,
};

enum worker_failure {
    WORKER_UNREACHABLE,     /* no address took the connection: no socket, refused */
    WORKER_BACKLOG_FULL,    /* full past connect_timeout */
    WORKER_QUEUED_TOO_LONG, /* past queue_timeout */
    WORKER_TIMED_OUT,       /* its timer: response_timeout or finish_timeout */
    WORKER_OUT_OF_MEMORY,   /* of ours, or of descriptors */
};

struct worker_events {
    /* Bytes can be read or written, or the connection has just been made. */
    void (*on_ready)(void *owner);
    void (*on_failure)(void *owner, enum worker_failure failure);
};

struct worker {
    struct relay *relay;
    const struct worker_events *events;
    void *owner; /* of the events; NULL while it lingers */
    enum worker_state state;
    bool has_place; /* of the limit of connections */
    int fd;
    struct watch watch;
    struct fcgi_reader reader;
    uint8_t end_length; /* bytes of END_REQUEST's body that have come */
    uint8_t end_body[FCGI_BODY_SIZE];
    struct outq out;
    struct timer timer;
    struct task task; /* goes on reading while it lingers; before that: tells of a failure */
    const struct sock_address *address;
    size_t tried;           /* addresses tried in this round */
    uint64_t connect_by_ms; /* loop time */
    struct list link;       /* among the lingering ones */
};

/* Gives a worker that is queued until worker_connect. 0 or -ENOMEM. */
int worker_new(struct worker **worker, struct relay *relay, const struct worker_events *events,
               void *owner);
/* Closes the connection at once and frees the worker. NULL is allowed. */
void worker_free(struct worker *worker);

/* Takes a place among the connections to PHP-FPM. False: the maximum is reached. */
bool worker_take_place(struct worker *worker);
/* Such a place was given to it by the queue. */
void worker_give_place(struct worker *worker);

/*
 * Begins to connect, with a place taken; what was queued in worker->out goes first. Retries by
 * itself; the events tell how it ends. They never come from within this call, except on_failure's
 * reasons that are returned here: 0, or a negative enum worker_failure - 1.
 */
int worker_connect(struct worker *worker);

/* Closes the connection now and keeps the object. */
void worker_close(struct worker *worker);
static inline bool worker_is_connected(const struct worker *worker)
{
    return worker->state == WORKER_CONNECTED;
}

/*
 * Fires on_failure(WORKER_TIMED_OUT) after delay_ms, unless stopped; 0 stops it. Where no timer is
 * to be had, the connection is closed and on_failure(WORKER_OUT_OF_MEMORY) comes at the end of the
 * turn.
 */
void worker_set_timeout(struct worker *worker, uint64_t delay_ms);

/*
 * Gives the worker to its relay, which reads it to its end and frees it. rest is what has been read
 * of it and not yet looked at. One that is not connected is closed.
 */
void worker_linger(struct worker *worker, struct span rest);

#endif
