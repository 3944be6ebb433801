/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_DOCTOR_NGINX_DUMP_H
#define SIDECAR_DOCTOR_NGINX_DUMP_H

/*
 * The configuration of nginx as `nginx -T` prints it, as a tree of directives. The dump holds the
 * text of each file behind a line "# configuration file /path:"; include directives are still in
 * there, and are replaced here by what they name. Pure: text in, tree out.
 */

#include "fcgi/span.h"

/* One directive, such as `listen 80;` or `location / { ... }`. */
struct nginx_directive {
    char **words; /* unquoted; words[0] is the directive's name */
    size_t word_count;
    bool is_block;
    const char *file; /* path as in the dump; borrowed from the dump */
    unsigned line;
    struct nginx_directive *children; /* of a block; the first one */
    struct nginx_directive *next;     /* behind it in the same block */
};

struct nginx_dump;

enum nginx_result {
    NGINX_PARSED,
    NGINX_NOT_A_DUMP, /* no line "# configuration file PATH:" */
    NGINX_BROKEN,     /* braces or quotes that do not match, or files that include each other */
    NGINX_NO_MEMORY,
};

/* The most bytes of a dump that are read, and how deep blocks and includes may be nested. */
#define NGINX_DUMP_MAX ((size_t)64 * 1024 * 1024)
#define NGINX_DEPTH_MAX 64

/* Parses; gives *dump (nginx_dump_free) on NGINX_PARSED only. Nothing is borrowed from text. */
enum nginx_result nginx_dump_parse(struct span text, struct nginx_dump **dump);
void nginx_dump_free(struct nginx_dump *dump);

/* The first directive of the main context; NULL where there is none. */
const struct nginx_directive *nginx_dump_first(const struct nginx_dump *dump);

/* Milliseconds of a time such as "330s", "5m", "1h 30m", "60" (seconds): nginx's
 * src/core/ngx_parse.c:ngx_parse_time. False if it is none. */
bool nginx_time_parse(const char *text, uint64_t *time_ms);
/* Bytes of a size such as "64k", "1M", "512": src/core/ngx_parse.c:ngx_parse_size. */
bool nginx_size_parse(const char *text, uint64_t *size);

#endif
