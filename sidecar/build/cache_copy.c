/* SPDX-License-Identifier: MIT */
/*
 * Copying and hashing. Must never move a file offset: the original's descriptor may be shared with
 * downloads.
 */
#include "sidecar/build/cache_copy.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* A clone has all that the original has, so one that has grown is copied by hand. */
static bool clone_file(int from_fd, int to_fd, uint64_t size_bytes)
{
    struct stat status;

    if (ioctl(to_fd, FICLONE, from_fd) != 0) {
        return false;
    }
    if (fstat(to_fd, &status) == 0 && (uint64_t)status.st_size == size_bytes) {
        return true;
    }
    (void)!ftruncate(to_fd, 0);
    return false;
}

int cache_copy_init(struct cache_copy *copy, int from_fd, int to_fd, uint64_t size_bytes)
{
    *copy = (struct cache_copy){ .from_fd = from_fd, .to_fd = to_fd, .size_bytes = size_bytes };
    copy->hash = EVP_MD_CTX_new();
    if (copy->hash == NULL || EVP_DigestInit_ex(copy->hash, EVP_sha256(), NULL) != 1) {
        cache_copy_deinit(copy);
        return -ENOMEM;
    }
    if (to_fd >= 0 && clone_file(from_fd, to_fd, size_bytes)) {
        copy->from_fd = to_fd;
        copy->to_fd = -1;
    }
    (void)posix_fadvise(copy->from_fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    return 0;
}

void cache_copy_deinit(struct cache_copy *copy)
{
    EVP_MD_CTX_free(copy->hash);
    copy->hash = NULL;
}

static int write_piece(struct cache_copy *copy, const uint8_t *bytes, size_t length)
{
    size_t done = 0;

    while (done < length) {
        ssize_t written = pwrite(copy->to_fd, bytes + done, length - done,
                                 (off_t)(copy->done_bytes + done));

        if (written <= 0) {
            return written < 0 ? -errno : -ENOSPC;
        }
        done += (size_t)written;
    }
    return 0;
}

int cache_copy_step(struct cache_copy *copy, uint8_t *room)
{
    uint64_t left = copy->size_bytes - copy->done_bytes;
    size_t wanted = left < CACHE_COPY_STEP ? (size_t)left : CACHE_COPY_STEP;
    ssize_t got;
    int error = 0;

    if (left == 0) {
        return 0;
    }
    got = pread(copy->from_fd, room, wanted, (off_t)copy->done_bytes);
    if (got <= 0) {
        return got < 0 ? -errno : -EPIPE;
    }
    if (EVP_DigestUpdate(copy->hash, room, (size_t)got) != 1) {
        return -ENOMEM;
    }
    if (copy->to_fd >= 0) {
        error = write_piece(copy, room, (size_t)got);
    }
    copy->done_bytes += (uint64_t)got;
    return error != 0 ? error : copy->done_bytes < copy->size_bytes;
}

int cache_copy_finish(struct cache_copy *copy, uint8_t sha256[CACHE_SHA256_SIZE])
{
    return EVP_DigestFinal_ex(copy->hash, sha256, NULL) == 1 ? 0 : -ENOMEM;
}
