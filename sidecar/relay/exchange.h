/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_RELAY_EXCHANGE_H
#define SIDECAR_RELAY_EXCHANGE_H

/*
 * One accepted connection and the request on it: the state machine that joins front, worker, build
 * and delivery.
 *
 *     PARAMS ─► SPOOL ─► QUEUED ─► CONNECT ─► HEAD ─► RELAY ───────────────┐
 *      │ │ └──────►┘ └───────────────►┘           │                        │
 *      │ │                                        └─► CAPTURE ─► BUILD ─► DELIVER
 *      │ └─► STATUS       any of them: a failure with an answer             │
 *      └───────┴────────────────────────► ENDED ◄───────────────────────────┘
 *                                           │ kept: PARAMS again
 *                                           └─────► DRAIN ─► CLOSED
 *
 * An idle connection is in PARAMS and has no struct request. exchange_change_state is the only
 * place that changes the state, and knows which edges exist.
 */

#include "sidecar/relay/bulk.h"
#include "sidecar/relay/capture.h"
#include "sidecar/relay/deliver_stream.h"
#include "sidecar/relay/front.h"
#include "sidecar/relay/intercept.h"
#include "sidecar/relay/relay.h"
#include "sidecar/relay/spool.h"
#include "sidecar/relay/worker.h"

enum exchange_state {
    EXCHANGE_PARAMS,  /* idle, or the head is coming */
    EXCHANGE_SPOOL,   /* a body of unannounced length is being collected */
    EXCHANGE_QUEUED,  /* waits for a place among the connections to PHP-FPM */
    EXCHANGE_CONNECT, /* PHP-FPM has not taken the connection yet */
    EXCHANGE_HEAD,    /* the request is going out, PHP's response head has not come whole */
    EXCHANGE_RELAY,   /* the response passes through */
    EXCHANGE_CAPTURE, /* the build request is coming */
    EXCHANGE_BUILD,   /* waiting for the builder */
    EXCHANGE_DELIVER, /* the file is going out */
    EXCHANGE_STATUS,  /* a full status page waits for its rows, or is going out */
    EXCHANGE_ENDED,   /* the answer is complete; only within one call */
    EXCHANGE_DRAIN,   /* the last bytes go out, what the web server still sends is dropped */
    EXCHANGE_CLOSED,  /* will be freed at the end of the turn */
    EXCHANGE_STATES,
};

/* Whether the sidecar answers a request itself. */
enum own_kind { OWN_NONE, OWN_STATUS, OWN_PING };

/* What lives from the end of a request's head to the end of its answer. */
struct request {
    struct exchange *exchange; /* its owner */
    struct spool spool;
    uint64_t spool_sent;    /* of it, to the worker */
    bool has_length;        /* CONTENT_LENGTH announces one */
    bool may_build;         /* the method is neither empty nor HEAD */
    bool head_is_out;       /* the answer has begun */
    bool worker_had_bytes;  /* of this request: it may not be sent again */
    uint64_t body_left;     /* of the announced length */
    uint64_t relayed_bytes; /* of the worker's output */
    struct bulk bulk;
    /* While PHP's response head is coming. */
    struct cgi_scan scan;
    struct cgi_strip strip;
    bool is_stripping; /* too long to be held: only the header is taken out */
    struct buf head;   /* PHP's, as far as it is held; then, behind an interception, all of it */
    struct capture capture;
    /* The number under which a place or a build is waited for; 0: neither. */
    uint64_t ticket;
    struct list ticket_link;
    struct limit_waiter *waiter; /* while QUEUED; borrowed */
    /* While building and delivering. */
    char build_id[BUILD_REQUEST_ID_MAX + 1];
    char os[BUILD_REQUEST_NAME_MAX + 1];
    char arch[BUILD_REQUEST_NAME_MAX + 1];
    struct buf conditions;     /* of a GET: headers of conditional and range requests, as pairs */
    struct request_line *line; /* what the status page shows when the params are gone; or NULL */
    struct delivery delivery;
    struct deliver_stream stream; /* with a delivery whose file is still being fetched */
    enum own_kind own;
    struct own_page *page; /* in STATUS */
};

/* An exchange as the status page shows it; texts are borrowed, and as they came. */
struct exchange_view {
    const char *state;
    uint64_t age_ms;    /* since the head was complete; in PARAMS, since it began */
    struct span method; /* empty, like the others, where it is not known */
    struct span uri;
    struct span build; /* its request_id */
    uint64_t bytes;    /* sent to the web server */
};

struct exchange {
    struct relay *relay;
    struct list link;           /* among the relay's exchanges, or its closed ones */
    struct list unwatched_link; /* among those whose front is not watched yet */
    enum exchange_state state;
    bool is_last;    /* its answer was the last on the connection: we drain */
    bool has_served; /* an earlier request on this connection was answered */
    bool is_timing_head;
    bool drain_input; /* in DRAIN: the request's body has not come to its end */
    bool is_write_shut;
    uint64_t idle_since_ms;
    uint64_t begun_ms;       /* when the latest request's head was complete, */
    uint64_t begun_bytes;    /* and what had been sent by then */
    uint64_t moved_bytes;    /* how many had passed the front when that was last looked at, */
    uint64_t moved_ms;       /* and since when (stall_timeout) */
    struct timer timer;      /* header_timeout, idle_timeout, stall_timeout, the end of DRAIN */
    struct task task;        /* to go on in the next turn */
    struct request *request; /* NULL when idle */
    struct worker *worker;   /* NULL when there is none */
    struct span worker_rest; /* of the worker's output being looked at now */
    struct front front;
};

/* Takes fd on success. 0 or -ENOMEM. */
int exchange_new(struct relay *relay, int fd, bool is_unix, bool is_scgi);
/* Closes the connection at once, with everything that belongs to it. */
void exchange_close(struct exchange *exchange);
/* Really frees; only the relay's reaper and relay_free call it. */
void exchange_free(struct exchange *exchange);

/* The builder's answer for the exchange's ticket; takes the result. */
void exchange_on_result(struct exchange *exchange, struct build_result *result);

/* Begins to watch the front, if that has not begun. */
void exchange_watch_front(struct exchange *exchange);

/* What a delivery awaited from the disk is there. */
void exchange_on_pages(struct delivery *delivery);

/* It is the exchange's turn: a place among the connections to PHP-FPM is taken for it. */
void exchange_on_turn(struct exchange *exchange);

/* The relay drains: an idle connection is closed, another one after its request. */
void exchange_drain(struct exchange *exchange);
/* shutdown_timeout is over: 503 for who waits for a build, a cut for the rest. */
void exchange_cut(struct exchange *exchange);

const char *exchange_state_name(enum exchange_state state);

/* False: it is a connection without a request. */
bool exchange_look(const struct exchange *exchange, struct exchange_view *view);

#endif
