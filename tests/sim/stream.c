/* SPDX-License-Identifier: MIT */
/* The scripts' ends of connections. It must never wait. */
#include "tests/sim/stream.h"

#include <assert.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#define STREAM_MAX ((size_t)256 * 1024 * 1024)
#define READ_SIZE (64 * 1024)
#define RECORD_MAX 32768

uint64_t draw(uint64_t *seed, uint64_t below)
{
    uint64_t z = *seed += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    z ^= z >> 31;
    return z % below;
}

static size_t cut(struct stream_cut *how, size_t whole)
{
    size_t len = how->max;

    if (len == 0) {
        return whole;
    }
    if (how->seed != 0) {
        len = 1 + (size_t)draw(&how->seed, len);
    }
    return len < whole ? len : whole;
}

void stream_open(struct stream *stream, int fd)
{
    *stream = (struct stream){ .fd = fd };
    buf_init(&stream->out, STREAM_MAX);
    buf_init(&stream->in, STREAM_MAX);
}

void stream_close(struct stream *stream)
{
    if (stream->fd >= 0) {
        close(stream->fd);
        stream->fd = -1;
    }
    buf_clear(&stream->out);
}

void stream_free(struct stream *stream)
{
    stream_close(stream);
    buf_deinit(&stream->in);
}

static void ended(struct stream *stream, uint64_t now_ms)
{
    stream->has_ended = true;
    stream->ended_at_ms = now_ms;
    buf_clear(&stream->out);
}

static bool send_piece(struct stream *stream)
{
    struct span out = buf_span(&stream->out);
    ssize_t sent;

    if (out.len == 0) {
        return false;
    }
    sent = send(stream->fd, out.ptr, cut(&stream->write_cut, out.len), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
        if (errno != EAGAIN) {
            buf_clear(&stream->out); /* the end is read */
        }
        return false;
    }
    buf_consume(&stream->out, (size_t)sent);
    return true;
}

static bool receive_piece(struct stream *stream, uint64_t now_ms)
{
    uint8_t room[READ_SIZE];
    ssize_t got;

    if (stream->has_ended || stream->is_stalled) {
        return false;
    }
    got = recv(stream->fd, room, cut(&stream->read_cut, sizeof(room)), MSG_DONTWAIT);
    if (got > 0) {
        int error = buf_append(&stream->in, room, (size_t)got);

        assert(error == 0);
        (void)error;
        return true;
    }
    if (got < 0 && errno == EAGAIN) {
        return false;
    }
    ended(stream, now_ms);
    return true;
}

bool stream_move(struct stream *stream, uint64_t now_ms)
{
    bool any;

    if (stream->fd < 0) {
        return false;
    }
    any = send_piece(stream);
    any |= receive_piece(stream, now_ms);
    if (stream->closes && buf_length(&stream->out) == 0) {
        stream_close(stream);
        any = true;
    }
    return any;
}

void stream_add_record(struct stream *stream, uint8_t type, uint16_t id, struct span content,
                       uint8_t padding)
{
    static const uint8_t zeros[256];
    uint8_t header[FCGI_HEADER_SIZE];
    int error;

    if (stream->fd < 0 || stream->has_ended) {
        return;
    }
    fcgi_header_write(header, type, id, (uint16_t)content.len, padding);
    error = buf_append(&stream->out, header, sizeof(header));
    error |= buf_append_span(&stream->out, content);
    error |= buf_append(&stream->out, zeros, padding);
    assert(error == 0);
    (void)error;
}

void stream_add_content(struct stream *stream, uint8_t type, uint16_t id, struct span content)
{
    while (content.len > 0) {
        struct span part = span_take(&content, RECORD_MAX);

        stream_add_record(stream, type, id, part, (uint8_t)(-part.len & 7));
    }
}
