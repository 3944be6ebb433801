/* SPDX-License-Identifier: MIT */
/* What a Velox client reads once, at its start. It must never put a byte of a file into a log
 * line. */
#include "sidecar/build/velox_files.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define TOKEN_FILE_MAX_BYTES (64u * 1024u)
#define PIECE_BYTES 4096

static int read_all(int fd, struct buf *content)
{
    for (;;) {
        uint8_t *room;
        size_t size = content->max - buf_length(content);
        ssize_t length;
        int result;

        size = size < PIECE_BYTES ? size : PIECE_BYTES;
        if (size == 0) {
            return -EFBIG;
        }
        result = buf_reserve(content, size, &room);
        if (result < 0) {
            return result;
        }
        length = read(fd, room, size);
        if (length < 0) {
            return -errno;
        }
        if (length == 0) {
            return 0;
        }
        buf_commit(content, (size_t)length);
    }
}

int velox_read_file(struct log *log, const char *key, const char *path, struct buf *content)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    int result = fd < 0 ? -errno : read_all(fd, content);

    if (fd >= 0) {
        close(fd);
    }
    if (result == 0 && buf_length(content) == 0) {
        result = -ENODATA;
    }
    if (result < 0) {
        log_error(log, "a file that the configuration names cannot be used", log_str("key", key),
                  log_str("path", path), log_errno("error", result));
        return result == -ENOMEM ? -ENOMEM : -EINVAL;
    }
    return 0;
}

/* The token must not be able to add a header line of its own. */
static bool is_token(struct span token)
{
    if (token.ptr == NULL || token.len == 0) {
        return false;
    }
    for (size_t i = 0; i < token.len; i++) {
        if (token.ptr[i] <= 0x20 || token.ptr[i] >= 0x7f) {
            return false;
        }
    }
    return true;
}

static struct span without_space_at_end(struct span token)
{
    while (token.len > 0 && memchr(" \t\r\n", token.ptr[token.len - 1], 4) != NULL) {
        token.len--;
    }
    return token;
}

static int append_header(struct buf *header, struct span token)
{
    int result = buf_append_string(header, "Authorization: Bearer ");

    if (result == 0) {
        result = buf_append_span(header, token);
    }
    return result < 0 ? result : buf_append(header, "", 1);
}

int velox_read_token(struct log *log, const char *path, struct buf *header)
{
    struct buf content;
    int result;

    buf_init(&content, TOKEN_FILE_MAX_BYTES);
    result = velox_read_file(log, "token_file", path, &content);
    if (result == 0) {
        struct span token = without_space_at_end(buf_span(&content));

        if (is_token(token)) {
            result = append_header(header, token);
        } else {
            log_error(log, "a token file must hold one line of printable characters without spaces",
                      log_str("key", "token_file"), log_str("path", path));
            result = -EINVAL;
        }
    }
    buf_deinit(&content);
    return result;
}
