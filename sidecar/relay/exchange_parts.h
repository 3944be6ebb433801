/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_RELAY_EXCHANGE_PARTS_H
#define SIDECAR_RELAY_EXCHANGE_PARTS_H

/*
 * What the files of the exchange share, and nobody else includes. After any of these calls the
 * exchange may have ended its request or be CLOSED: callers look at the state before they go on.
 */

#include "sidecar/relay/exchange.h"

void exchange_change_state(struct exchange *exchange, enum exchange_state state);

/* The state is CLOSED. */
static inline bool exchange_is_closed(const struct exchange *exchange)
{
    return exchange->state == EXCHANGE_CLOSED;
}

/* Does whatever is possible now, for every direction. */
void exchange_pump(struct exchange *exchange);

/* The web server has left: counts and logs where that matters, then closes. */
void exchange_leave(struct exchange *exchange);
/* Only the counting and logging. */
void exchange_note_leave(const struct exchange *exchange);
/* The request's head is complete, or given up. */
void exchange_stop_head_clock(struct exchange *exchange);
/* The answer breaks off here: what is queued goes out, then the connection ends without
 * END_REQUEST. */
void exchange_break_off(struct exchange *exchange);
/* A request was refused by an END_REQUEST that waits in front.control, and the web server keeps no
 * connection: it ends here. */
void exchange_end_refused(struct exchange *exchange);
/* END_REQUEST is queued: on to the next request, or to the end of the connection. */
void exchange_end_request(struct exchange *exchange);
/* Answers with the failure or, where bytes of an answer are out already, breaks it off. message is
 * borrowed. */
void exchange_fail(struct exchange *exchange, enum failure failure, struct span message,
                   unsigned retry_after_s);
void exchange_fail_text(struct exchange *exchange, enum failure failure, const char *message);

/* Queues content as STDOUT records. False: the exchange is closed. */
bool exchange_queue_stdout(struct exchange *exchange, struct span content);

/* Lets go of the worker: at once, or when PHP has ended its request. */
void exchange_drop_worker(struct exchange *exchange);
void exchange_release_worker(struct exchange *exchange);

/* Starts to look for a front that does not move, where stall_timeout says so. */
void exchange_watch_stall(struct exchange *exchange);

/* exchange_front.c */
/* Whether the request's body is awaited from the front, and nothing else holds it up. */
bool exchange_awaits_body(const struct exchange *exchange);
void exchange_process_front(struct exchange *exchange);
/* Gives up the wait for a place, if it waits. */
void exchange_leave_queue(struct exchange *exchange);
/* The connection to PHP-FPM has been made, or body of the spool can go on. */
void exchange_send_request(struct exchange *exchange);
void exchange_send_spool(struct exchange *exchange);
/* PHP-FPM did not take the connection; lets go of the worker. */
void exchange_on_connect_failure(struct exchange *exchange, enum worker_failure failure);
/* Queues zeros in place of the rest of a record whose header is out, so that END_REQUEST can
 * follow: for a request that the web server has given up, or an answer that it must see as broken.
 * False: out of memory. */
bool exchange_fill_record(struct exchange *exchange);

/* exchange_worker.c */
void exchange_process_worker(struct exchange *exchange);
/* The worker has ended without END_REQUEST; error is -errno, or 0 for a plain end. */
void exchange_on_worker_death(struct exchange *exchange, int error);
/* Must be static data of exchange_worker.c's events, for worker_new. */
const struct worker_events *exchange_worker_events(void);

/* exchange_build.c */
/* head may be request->head's; rest is what has come of the body. */
void exchange_start_capture(struct exchange *exchange, struct span head, struct span rest);
void exchange_capture(struct exchange *exchange, struct span piece);
void exchange_capture_end(struct exchange *exchange);
void exchange_process_delivery(struct exchange *exchange);
void exchange_forget_ticket(struct exchange *exchange);

/* exchange_own.c: the sidecar's own pages */
void exchange_answer_own(struct exchange *exchange);
/* In STATUS. */
void exchange_process_own(struct exchange *exchange);
void exchange_drop_page(struct request *request);

/* exchange_view.c: a short copy of method and URI, freed with free(); NULL without memory. */
struct request_line *request_line_keep(struct span params);

/* request.c: what the sidecar needs to know of a request's params. */
enum request_check { REQUEST_OK, REQUEST_PAIR_TOO_LARGE, REQUEST_MALFORMED, REQUEST_NO_MEMORY };
/* Reads and mends front->params: drops HTTP_PROXY, adds VELOX_SIDECAR. */
enum request_check request_read_params(struct request *request, struct buf *params,
                                       const struct relay *relay);
/* Replaces CONTENT_LENGTH by the counted length. 0 or -errno. */
int request_set_length(struct buf *params, uint64_t length);
struct request *request_new(const struct relay *relay);
void request_free(struct request *request);

#endif
