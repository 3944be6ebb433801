/* SPDX-License-Identifier: MIT */
/*
 * Sending a file. Must never send a byte that is not the file's where the client could take the
 * whole for complete, and never read the file into memory.
 */
#include "sidecar/relay/deliver.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "sidecar/base/clock.h"
#include "sidecar/io/sock.h"

/* What is asked for; the kernel grants twice that, but no more than twice net.core.wmem_max. */
#define SEND_BUFFER_BYTES (1024 * 1024)
/* From this size on (as the kernel reports it) whole pages in large records are fastest; below,
 * half of that keeps both sides at work, since a unix socket wakes its sender only when less than a
 * quarter of the buffer is in use. */
#define LARGE_SEND_BUFFER (512 * 1024)
#define LARGE_RECORD 61440
#define SMALL_RECORD 32768

void deliver_start(struct delivery *delivery, struct artifact artifact, uint64_t first,
                   uint64_t end, struct front *front)
{
    int granted = sock_raise_send_buffer(front->fd, SEND_BUFFER_BYTES);

    *delivery = (struct delivery){
        .artifact = artifact,
        .first = first,
        .offset = first,
        .end = end,
        .record_size = granted >= LARGE_SEND_BUFFER ? LARGE_RECORD : SMALL_RECORD,
        .started_ns = clock_monotonic_ns(),
    };
    (void)posix_fadvise(artifact.fd, 0, 0, POSIX_FADV_SEQUENTIAL);
}

void deliver_stop(struct delivery *delivery)
{
    artifact_close(&delivery->artifact);
}

/* Whether the next len bytes are still there: a record is only announced when they are. */
static bool is_still_there(const struct delivery *delivery, size_t len)
{
    struct stat file;

    return fstat(delivery->artifact.fd, &file) == 0 &&
           (uint64_t)file.st_size >= delivery->offset + len;
}

/* Announces the next record. 0 or -errno of the connection. */
static int begin_record(struct front *front, size_t len)
{
    uint8_t header[FCGI_HEADER_SIZE];
    ssize_t sent;

    if (front->is_scgi) {
        front->owed_bytes = len;
        return 0;
    }
    fcgi_header_write(header, FCGI_STDOUT, front->request_id, (uint16_t)len, 0);
    sent = send(front->fd, header, sizeof(header), MSG_MORE | MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
        if (errno != EAGAIN) {
            return -errno;
        }
        watch_clear(&front->watch, WATCH_WRITE);
        return -EAGAIN;
    }
    front->owed_bytes = len;
    return buf_append(&front->out.kept, header + sent, sizeof(header) - (size_t)sent);
}

/* Sends of the record that has begun. */
static enum deliver_result send_content(struct delivery *delivery, struct front *front)
{
    off_t offset = (off_t)delivery->offset;
    ssize_t sent;

    do {
        sent = sendfile(front->fd, delivery->artifact.fd, &offset, front->owed_bytes);
    } while (sent < 0 && errno == EINTR);
    if (sent > 0) {
        delivery->offset += (uint64_t)sent;
        front->owed_bytes -= (size_t)sent;
        return DELIVER_PAUSED;
    }
    if (sent < 0 && errno == EAGAIN) {
        watch_clear(&front->watch, WATCH_WRITE);
        return DELIVER_BLOCKED;
    }
    if (sent < 0 && (errno == EPIPE || errno == ECONNRESET)) {
        return DELIVER_LOST;
    }
    delivery->error = sent < 0 ? errno : 0;
    return DELIVER_TRUNCATED;
}

static enum deliver_result next_record(struct delivery *delivery, struct front *front)
{
    uint64_t left = delivery->end - delivery->offset;
    size_t len = left < delivery->record_size ? (size_t)left : delivery->record_size;
    int error;

    if (!is_still_there(delivery, len)) {
        return DELIVER_TRUNCATED;
    }
    error = begin_record(front, len);
    if (error == -EAGAIN) {
        return DELIVER_BLOCKED;
    }
    return error != 0 ? DELIVER_LOST : DELIVER_PAUSED;
}

enum deliver_result deliver_send(struct delivery *delivery, struct front *front, uint64_t budget)
{
    uint64_t begun = delivery->offset;
    uint64_t stop = delivery->offset + (budget > 0 ? budget : 1); /* some way it must go */

    while (delivery->offset < delivery->end) {
        enum deliver_result result;

        if (outq_send(&front->out) != 0) {
            return DELIVER_LOST;
        }
        if (!outq_is_empty(&front->out) || (front->watch.ready & WATCH_WRITE) == 0) {
            return DELIVER_BLOCKED;
        }
        if (front->owed_bytes == 0 &&
            (delivery->offset >= stop ||
             (delivery->offset > begun && buf_length(&front->control) > 0))) {
            return DELIVER_PAUSED;
        }
        result = front->owed_bytes > 0 ? send_content(delivery, front)
                                       : next_record(delivery, front);
        if (result != DELIVER_PAUSED) {
            return result;
        }
    }
    return DELIVER_DONE;
}
