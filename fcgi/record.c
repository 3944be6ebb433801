/* SPDX-License-Identifier: MIT */

/*
 * The fixed bytes of FastCGI records. Every number is put together from single bytes: nothing here
 * may depend on alignment or byte order, or judge more than the version.
 */

#include "fcgi/record.h"

static uint16_t read_u16(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] << 8 | bytes[1]);
}

bool fcgi_header_read(const uint8_t bytes[FCGI_HEADER_SIZE], struct fcgi_header *header)
{
    if (bytes[0] != FCGI_VERSION_1) {
        return false;
    }
    header->type = bytes[1];
    header->request_id = read_u16(bytes + 2);
    header->content_length = read_u16(bytes + 4);
    header->padding_length = bytes[6];
    return true;
}

void fcgi_header_write(uint8_t bytes[FCGI_HEADER_SIZE], uint8_t type, uint16_t request_id,
                       uint16_t content_length, uint8_t padding_length)
{
    bytes[0] = FCGI_VERSION_1;
    bytes[1] = type;
    bytes[2] = (uint8_t)(request_id >> 8);
    bytes[3] = (uint8_t)request_id;
    bytes[4] = (uint8_t)(content_length >> 8);
    bytes[5] = (uint8_t)content_length;
    bytes[6] = padding_length;
    bytes[7] = 0;
}

struct fcgi_begin fcgi_begin_read(const uint8_t body[FCGI_BODY_SIZE])
{
    return (struct fcgi_begin){ .role = read_u16(body), .flags = body[2] };
}

struct fcgi_end fcgi_end_read(const uint8_t body[FCGI_BODY_SIZE])
{
    uint32_t app_status = (uint32_t)read_u16(body) << 16 | read_u16(body + 2);

    return (struct fcgi_end){ .app_status = app_status, .protocol_status = body[4] };
}
