/* SPDX-License-Identifier: MIT */
/*
 * Collecting a body. Must leave nothing behind: the file never has a name (O_TMPFILE).
 */
#include "sidecar/relay/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define SPOOL_MEMORY_MAX ((size_t)64 * 1024)

void spool_init(struct spool *spool, const char *directory, uint64_t max)
{
    *spool = (struct spool){ .fd = -1, .max = max, .directory = directory };
    buf_init(&spool->memory, SPOOL_MEMORY_MAX);
}

void spool_deinit(struct spool *spool)
{
    if (spool->fd >= 0) {
        close(spool->fd);
        spool->fd = -1;
    }
    buf_deinit(&spool->memory);
    spool->length = 0;
}

static int write_all(int fd, struct span piece)
{
    while (piece.len > 0) {
        ssize_t written = write(fd, piece.ptr, piece.len);

        if (written < 0 && errno != EINTR) {
            return -errno;
        }
        if (written > 0) {
            span_skip(&piece, (size_t)written);
        }
    }
    return 0;
}

/* From here on the body lives in a file. */
static int open_file(struct spool *spool)
{
    int error;

    spool->fd = open(spool->directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (spool->fd < 0) {
        spool->fd = -1;
        return -errno;
    }
    error = write_all(spool->fd, buf_span(&spool->memory));
    if (error == 0) {
        buf_clear(&spool->memory);
    }
    return error;
}

int spool_append(struct spool *spool, struct span piece)
{
    int error = 0;

    if (piece.len > spool->max - spool->length) {
        return -EFBIG;
    }
    if (spool->fd < 0) {
        error = buf_append_span(&spool->memory, piece);
        if (error != -ENOBUFS) {
            spool->length += error == 0 ? piece.len : 0;
            return error;
        }
        error = open_file(spool);
    }
    if (error == 0) {
        error = write_all(spool->fd, piece);
    }
    spool->length += error == 0 ? piece.len : 0;
    return error;
}

ssize_t spool_read(const struct spool *spool, uint64_t offset, uint8_t *bytes, size_t size)
{
    ssize_t got;

    if (spool->fd < 0) {
        struct span rest = buf_span(&spool->memory);

        if (offset >= rest.len) {
            return 0;
        }
        span_skip(&rest, offset);
        rest = span_take(&rest, size);
        memcpy(bytes, rest.ptr, rest.len);
        return (ssize_t)rest.len;
    }
    do {
        got = pread(spool->fd, bytes, size, (off_t)offset);
    } while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : got;
}
