/* SPDX-License-Identifier: MIT */
#ifndef FCGI_WRITER_H
#define FCGI_WRITER_H

/*
 * Whole records of fixed size, written into the caller's memory. Every reserved byte is zero: a
 * peer must never see what lay in memory before.
 */

#include "fcgi/record.h"

/* Header and body together. */
#define FCGI_FIXED_RECORD_SIZE 16

void fcgi_begin_write(uint8_t record[FCGI_FIXED_RECORD_SIZE], uint16_t request_id, uint16_t role,
                      uint8_t flags);

/* protocol_status is FCGI_REQUEST_COMPLETE, FCGI_CANT_MPX_CONN, FCGI_OVERLOADED or
 * FCGI_UNKNOWN_ROLE. */
void fcgi_end_write(uint8_t record[FCGI_FIXED_RECORD_SIZE], uint16_t request_id,
                    uint32_t app_status, uint8_t protocol_status);

/* FCGI_UNKNOWN_TYPE, the answer to a management record of a type that we do not know. */
void fcgi_unknown_type_write(uint8_t record[FCGI_FIXED_RECORD_SIZE], uint8_t type);

/*
 * Cuts content into records of at most FCGI_CONTENT_MAX bytes and writes them one after the other
 * to records, which must have room for fcgi_stream_size(content.len) bytes. Empty content writes
 * nothing (an empty record would end the stream). Returns the bytes written.
 */
size_t fcgi_stream_write(uint8_t *records, uint8_t type, uint16_t request_id, struct span content);
size_t fcgi_stream_size(size_t content_length);

#endif
