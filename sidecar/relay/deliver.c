/* SPDX-License-Identifier: MIT */
/*
 * Sending a file. Must never send a byte that is not the file's where the client could take the
 * whole for complete, and never wait for a disk.
 */
#include "sidecar/relay/deliver.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sidecar/base/clock.h"
#include "sidecar/io/sock.h"

/* What is asked for; the kernel grants twice that, but no more than twice net.core.wmem_max. */
#define SEND_BUFFER_BYTES (1024 * 1024)
/*
 * A unix socket wakes its sender only when less than a quarter of the buffer is in use, and its
 * reader frees whole packets. So in a small buffer (as the kernel reports it) somewhat smaller
 * records, each in a packet of its own, keep both sides at work. Sixteen pages are the most in a
 * packet: fifteen of the file and the header's. Against sendfile without headers, one reader,
 * Linux 6.18 on two CPUs:
 *
 *     asked for   record   a packet each   speed        CPU
 *     212992      61440    no              0.98-1.01    1.03-1.06
 *     212992      49152    yes             1.09-1.11    0.96-0.99
 *     212992      32768    yes             1.10-1.11    1.01-1.03
 *     212992      24576    yes             1.09-1.10    1.09-1.10
 *     524288      61440    no              1.00-1.02    1.09
 *     524288      40960    yes             0.98         1.19
 *     1048576     61440    no              0.97-0.98    1.08-1.11
 *     1048576     40960    yes             0.95-0.98    1.23-1.25
 *
 * (a header sent by itself, then sendfile of 61440: 0.93-0.96, 1.09-1.19).
 */
#define LARGE_SEND_BUFFER (512 * 1024)
#define LARGE_RECORD 61440
#define SMALL_RECORD 49152
/* A file that goes out with its head, in one write, and lies in memory until then. */
#define SMALL_FILE ((uint64_t)FCGI_CONTENT_MAX)
/* What is fetched from the disk at a time, and how much more the disk is told of. */
#define WINDOW_BYTES ((uint64_t)1024 * 1024)
#define AHEAD_BYTES (WINDOW_BYTES * 4)

/* Over TCP the system sizes the buffer by itself, better than a number could. */
static void prepare_socket(struct delivery *delivery, const struct front *front)
{
    int granted;

    if (!front->is_unix) {
        delivery->is_copied = true;
        delivery->record_size = FCGI_CONTENT_MAX;
        delivery->room = UINT64_MAX;
        return;
    }
    granted = sock_raise_send_buffer(front->fd, SEND_BUFFER_BYTES);
    delivery->send_buffer = granted > 0 ? (uint64_t)granted : 0;
    delivery->room = delivery->send_buffer;
    delivery->is_cautious = granted < LARGE_SEND_BUFFER;
    delivery->record_size = delivery->is_cautious ? SMALL_RECORD : LARGE_RECORD;
}

void deliver_tell_of_cap(const struct relay_options *options, struct log *log)
{
    int pair[2];
    int granted;

    if (!options->intercept || options->delivery != DELIVERY_STREAM ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        return;
    }
    granted = sock_raise_send_buffer(pair[0], SEND_BUFFER_BYTES);
    close(pair[0]);
    close(pair[1]);
    if (granted > 0 && granted < 2 * SEND_BUFFER_BYTES) {
        log_info(log,
                 "SO_SNDBUF is capped, downloads would be faster with "
                 "sysctl -w net.core.wmem_max=1048576",
                 log_int("granted_bytes", granted));
    }
}

void deliver_start(struct delivery *delivery, struct carrier *carrier, struct artifact artifact,
                   uint64_t first, uint64_t end, struct front *front)
{
    *delivery = (struct delivery){
        .artifact = artifact,
        .carrier = carrier,
        .first = first,
        .offset = first,
        .end = end,
        .cached_end = first,
        .started_ns = clock_monotonic_ns(),
    };
    carrier_enter(carrier);
    prepare_socket(delivery, front);
    (void)posix_fadvise(artifact.fd, 0, 0, POSIX_FADV_SEQUENTIAL);
}

void deliver_stop(struct delivery *delivery)
{
    if (delivery->job != NULL && delivery->job_is_out) {
        delivery->job->asker = NULL; /* it is freed when it comes back */
        atomic_store_explicit(&delivery->job->is_cancelled, true, memory_order_relaxed);
    } else if (delivery->job != NULL) {
        prefetch_job_free(delivery->job);
    }
    delivery->job = NULL;
    if (delivery->carrier != NULL) {
        carrier_leave(delivery->carrier, delivery);
        delivery->carrier = NULL;
    }
    artifact_close(&delivery->artifact);
}

void deliver_small(struct delivery *delivery, struct front *front)
{
    size_t length = (size_t)(delivery->end - delivery->offset);
    size_t header_size = front->is_scgi ? 0 : FCGI_HEADER_SIZE;
    const struct carrier *carrier = delivery->carrier;
    uint8_t *room;

    if (delivery->end - delivery->offset > SMALL_FILE || length == 0 ||
        (carrier->prefetch != NULL &&
         !carrier->is_cached(delivery->artifact.fd, delivery->offset, delivery->end)) ||
        buf_reserve(&front->out.kept, header_size + length, &room) != 0 ||
        pread(delivery->artifact.fd, room + header_size, length, (off_t)delivery->offset) !=
            (ssize_t)length) {
        return; /* deliver_send finds out what is wrong, if something is */
    }
    if (!front->is_scgi) {
        fcgi_header_write(room, FCGI_STDOUT, front->request_id, (uint16_t)length, 0);
    }
    buf_commit(&front->out.kept, header_size + length);
    delivery->queued_bytes = length;
    delivery->offset = delivery->end;
}

/* Has the bytes behind cached_end fetched. False where memory or descriptors are short. */
static bool fetch(struct delivery *delivery)
{
    uint64_t left = delivery->end - delivery->cached_end;

    if (delivery->job == NULL) {
        delivery->job = prefetch_job_new(delivery->artifact.fd, &delivery->carrier->pages,
                                         delivery);
        if (delivery->job == NULL) {
            return false;
        }
    }
    delivery->job->offset = delivery->cached_end;
    delivery->job->end = delivery->cached_end + (left < WINDOW_BYTES ? left : WINDOW_BYTES);
    delivery->job->ahead_end = delivery->cached_end + (left < AHEAD_BYTES ? left : AHEAD_BYTES);
    delivery->job_is_out = true;
    prefetch_post(delivery->carrier->prefetch, delivery->job);
    return true;
}

/* While one part is sent, the next is fetched. */
static void fetch_ahead(struct delivery *delivery)
{
    if (delivery->is_careful && !delivery->job_is_out && delivery->read_error == 0 &&
        delivery->cached_end < delivery->end) {
        (void)fetch(delivery);
    }
}

/* The next record lies within what is in memory. */
static bool has_pages(const struct delivery *delivery)
{
    return delivery->cached_end >= delivery->end ||
           delivery->offset + FCGI_CONTENT_MAX < delivery->cached_end;
}

bool deliver_awaits_disk(const struct delivery *delivery)
{
    return delivery->job_is_out && !has_pages(delivery);
}

/* DELIVER_PAUSED: at least one record can be read without waiting. */
static enum deliver_result look_for_pages(struct delivery *delivery)
{
    const struct carrier *carrier = delivery->carrier;

    while (!has_pages(delivery)) {
        uint64_t left = delivery->end - delivery->cached_end;
        uint64_t window_end = delivery->cached_end + (left < WINDOW_BYTES ? left : WINDOW_BYTES);

        if (delivery->read_error != 0) {
            delivery->error = -delivery->read_error;
            return DELIVER_TRUNCATED;
        }
        if (delivery->job_is_out) {
            return DELIVER_WAITING;
        }
        if (carrier->prefetch != NULL &&
            (delivery->is_careful ||
             !carrier->is_cached(delivery->artifact.fd, delivery->cached_end, window_end))) {
            /* Pages that are on their way look as if they were there: from now on prefetch, which
             * waits for them, goes ahead. */
            delivery->is_careful = true;
            if (fetch(delivery)) {
                return DELIVER_WAITING;
            }
        }
        delivery->cached_end = window_end;
    }
    fetch_ahead(delivery);
    return DELIVER_PAUSED;
}

/* Where this round must begin no more records. */
static uint64_t limit(const struct delivery *delivery, uint64_t stop)
{
    uint64_t cached = delivery->cached_end >= delivery->end
                          ? delivery->end
                          : delivery->cached_end - FCGI_CONTENT_MAX;

    return stop < cached ? stop : cached;
}

static enum deliver_result send_some(struct delivery *delivery, struct front *front, uint64_t stop)
{
    return delivery->is_copied ? carrier_copy_send(delivery->carrier, delivery, front, stop)
                               : carrier_pipe_send(delivery->carrier, delivery, front, stop);
}

bool deliver_may_go_on(const struct delivery *delivery, struct front *front, uint64_t begun,
                       uint64_t stop, enum deliver_result *result)
{
    if (outq_send(&front->out) != 0) {
        *result = DELIVER_LOST;
        return false;
    }
    if (!outq_is_empty(&front->out) || (front->watch.ready & WATCH_WRITE) == 0) {
        *result = DELIVER_BLOCKED;
        return false;
    }
    *result = DELIVER_PAUSED;
    return front->owed_bytes > 0 || (delivery->offset < stop && (delivery->offset == begun ||
                                                                 buf_length(&front->control) == 0));
}

enum deliver_result deliver_send(struct delivery *delivery, struct front *front, uint64_t budget)
{
    uint64_t begun = delivery->offset;
    uint64_t stop = delivery->offset + (budget > 0 ? budget : 1); /* some way it must go */

    while (delivery->offset < delivery->end) {
        enum deliver_result result;

        if (!deliver_may_go_on(delivery, front, begun, stop, &result)) {
            return result;
        }
        result = look_for_pages(delivery);
        if (result == DELIVER_PAUSED) {
            result = send_some(delivery, front, limit(delivery, stop));
        }
        if (result != DELIVER_PAUSED) {
            return result;
        }
    }
    return DELIVER_DONE;
}
