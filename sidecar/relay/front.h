/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_RELAY_FRONT_H
#define SIDECAR_RELAY_FRONT_H

/*
 * One connection from the web server: its bytes in, cut into the events of a request, and records
 * out. The front knows nothing of PHP-FPM or builds; its owner is the exchange that embeds it.
 *
 * Reading is pulled: front_read gives the next bytes, front_next the events in them. Not to read is
 * the backpressure towards the web server.
 */

#include "fcgi/reader.h"
#include "sidecar/io/outq.h"

struct relay;

enum front_event {
    FRONT_NEED_DATA,
    FRONT_HEAD, /* the request's params are complete: front->params */
    FRONT_BODY, /* *body holds the next bytes of its body */
    FRONT_BODY_END,
    FRONT_ABORT,            /* the web server no longer wants the answer */
    FRONT_PARAMS_TOO_LARGE, /* over max_params_size */
    FRONT_REFUSED,          /* no request of ours, and the web server keeps no connection */
    FRONT_MALFORMED,        /* the connection must be closed */
    FRONT_NO_MEMORY,        /* likewise */
};

struct front {
    struct watch watch;
    int fd;
    bool is_unix;
    bool is_scgi;
    uint64_t received_bytes; /* since front_init */
    bool is_input_ended;     /* the web server has ended its direction */

    /* The request that is open, from BEGIN_REQUEST to END_REQUEST. */
    bool is_active;
    bool is_kept; /* FCGI_KEEP_CONN */
    bool params_ended;
    bool body_ended;
    uint16_t request_id;
    struct buf params;  /* name-value pairs; of an SCGI request, its head until it is complete */
    uint64_t body_left; /* of an SCGI request */

    struct fcgi_reader reader;
    uint8_t fixed_length; /* of the body of fixed size that is being read */
    uint8_t fixed[FCGI_BODY_SIZE];
    struct buf values; /* the body of a GET_VALUES being read */
    struct outq out;
    /* Bytes that are still to come of a record whose header is sent: nothing may get in between. */
    size_t owed_bytes;
    struct buf control; /* records of ours that wait for the end of that record */
};

/* Takes fd. Nothing is watched yet: reading and writing are tried without being told. */
void front_init(struct front *front, struct relay *relay, int fd, bool is_unix, bool is_scgi);
/*
 * Begins to watch, unless it does already; whatever is possible or has happened by then is told
 * first. Many a request is answered before there is anything to be told: then the system calls
 * that this costs are saved. 0 or -ENOMEM.
 */
int front_watch(struct front *front, struct relay *relay, void (*on_ready)(struct watch *watch));
/* Closes the connection and frees everything. */
void front_deinit(struct front *front);

/*
 * The next bytes that the socket has, in the thread's read buffer, with at least FCGI_HEADER_SIZE
 * writable bytes in front of them. 1 with *input, 0 when there is nothing now, -EPIPE at the end of
 * input, another -errno when the connection is lost.
 */
int front_read(struct front *front, struct relay *relay, struct span *input);

/* The next event in *input; *body borrows from it and has FCGI_HEADER_SIZE bytes in front of it
 * that may be overwritten. Answers what concerns the connection and no request by itself. */
enum front_event front_next(struct front *front, struct relay *relay, struct span *input,
                            struct span *body);

/* The codecs behind front_next, and what SCGI needs beyond the common beginning. */
enum front_event front_fcgi_next(struct front *front, struct relay *relay, struct span *input,
                                 struct span *body);
enum front_event front_scgi_next(struct front *front, struct relay *relay, struct span *input,
                                 struct span *body);
void front_scgi_init(struct front *front, const struct relay *relay);

/* True while the first byte of a request's head has come and its last has not. */
bool front_is_in_head(const struct front *front);

/* The request is over for the web server: whatever still comes of it is dropped. */
void front_end_request(struct front *front);

/* Whether the web server has closed or reset the connection, as opposed to having ended its own
 * direction only. */
bool front_is_gone(const struct front *front);

/* Sends records of ours that wait, in a round that is open for front->out, unless a record is still
 * being sent: then they wait for its end. */
void front_add_control(struct front *front, struct gather *gather);
/*
 * The answer's framing, into a round that is open for front->out. Content is borrowed until the
 * round ends. Over SCGI content goes out as it is, and there is no error output and no END_REQUEST:
 * that is the close.
 *
 * front_add_begin announces total bytes of STDOUT, of which the caller adds what it has and owes
 * the rest. place: FCGI_HEADER_SIZE bytes in front of the content that may be overwritten, or NULL.
 */
void front_add_begin(struct front *front, struct gather *gather, uint8_t *place, size_t total);
void front_add_stderr(struct front *front, struct gather *gather, struct span content);
void front_add_end(struct front *front, struct gather *gather, struct fcgi_end end);

/* The same for bytes that are not in a round: behind everything that is kept. 0 or -errno. */
int front_queue_stdout(struct front *front, struct span content);
/* Queues the END_REQUEST that ends the open request. 0 or -errno. */
int front_queue_end(struct front *front, uint32_t app_status, uint8_t protocol_status);

#endif
