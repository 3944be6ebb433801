/* SPDX-License-Identifier: MIT */

/*
 * Writes whole FastCGI records. No byte of a record may be left as the caller's memory had it, and
 * none may need padding.
 */

#include "fcgi/writer.h"

/* A header and a body of zeros. Gives the body. */
static uint8_t *fixed_write(uint8_t record[FCGI_FIXED_RECORD_SIZE], uint8_t type,
                            uint16_t request_id)
{
    fcgi_header_write(record, type, request_id, FCGI_BODY_SIZE, 0);
    memset(record + FCGI_HEADER_SIZE, 0, FCGI_BODY_SIZE);
    return record + FCGI_HEADER_SIZE;
}

void fcgi_begin_write(uint8_t record[FCGI_FIXED_RECORD_SIZE], uint16_t request_id, uint16_t role,
                      uint8_t flags)
{
    uint8_t *body = fixed_write(record, FCGI_BEGIN_REQUEST, request_id);

    body[0] = (uint8_t)(role >> 8);
    body[1] = (uint8_t)role;
    body[2] = flags;
}

void fcgi_end_write(uint8_t record[FCGI_FIXED_RECORD_SIZE], uint16_t request_id,
                    uint32_t app_status, uint8_t protocol_status)
{
    uint8_t *body = fixed_write(record, FCGI_END_REQUEST, request_id);

    body[0] = (uint8_t)(app_status >> 24);
    body[1] = (uint8_t)(app_status >> 16);
    body[2] = (uint8_t)(app_status >> 8);
    body[3] = (uint8_t)app_status;
    body[4] = protocol_status;
}

void fcgi_unknown_type_write(uint8_t record[FCGI_FIXED_RECORD_SIZE], uint8_t type)
{
    uint8_t *body = fixed_write(record, FCGI_UNKNOWN_TYPE, FCGI_NULL_REQUEST_ID);

    body[0] = type;
}

size_t fcgi_stream_write(uint8_t *records, uint8_t type, uint16_t request_id, struct span content)
{
    uint8_t *end = records;

    while (content.len > 0) {
        struct span piece = span_take(&content, FCGI_CONTENT_MAX);

        fcgi_header_write(end, type, request_id, (uint16_t)piece.len, 0);
        memcpy(end + FCGI_HEADER_SIZE, piece.ptr, piece.len);
        end += FCGI_HEADER_SIZE + piece.len;
    }
    return (size_t)(end - records);
}

size_t fcgi_stream_size(size_t content_length)
{
    size_t records = content_length / FCGI_CONTENT_MAX + (content_length % FCGI_CONTENT_MAX != 0);

    return content_length + records * FCGI_HEADER_SIZE;
}
