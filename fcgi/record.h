/* SPDX-License-Identifier: MIT */
#ifndef FCGI_RECORD_H
#define FCGI_RECORD_H

/*
 * FastCGI records as bytes: the 8-byte header and the bodies of fixed size
 * (FastCGI Specification 1.0, sections 3.3, 5.1, 5.5 and 4.2). Numbers of types, roles, flags and
 * protocol statuses are those of <fastcgi.h>.
 */

#include <fastcgi.h>

#include "fcgi/span.h"

/* Bytes of a record header, and of each body of fixed size. */
#define FCGI_HEADER_SIZE 8
#define FCGI_BODY_SIZE 8

/*
 * The most content that we put into one record: the largest multiple of eight, so that records need
 * no padding. PHP-FPM resets the connection where content and padding together pass 65535
 * (main/fastcgi.c:fcgi_read_request).
 */
#define FCGI_CONTENT_MAX 65528

struct fcgi_header {
    uint8_t type;
    uint8_t padding_length;
    uint16_t request_id;
    uint16_t content_length;
};

struct fcgi_begin {
    uint16_t role;
    uint8_t flags;
};

struct fcgi_end {
    uint32_t app_status;
    uint8_t protocol_status;
};

/* Reads a record header from 8 bytes. False, and *header untouched, if the version is not 1. */
bool fcgi_header_read(const uint8_t bytes[FCGI_HEADER_SIZE], struct fcgi_header *header);

/* Writes a record header of version 1 into 8 bytes; the reserved byte is zero. */
void fcgi_header_write(uint8_t bytes[FCGI_HEADER_SIZE], uint8_t type, uint16_t request_id,
                       uint16_t content_length, uint8_t padding_length);

/* Bodies of BEGIN_REQUEST and END_REQUEST; reserved bytes are not looked at. */
struct fcgi_begin fcgi_begin_read(const uint8_t body[FCGI_BODY_SIZE]);
struct fcgi_end fcgi_end_read(const uint8_t body[FCGI_BODY_SIZE]);

#endif
