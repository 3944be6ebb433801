/* SPDX-License-Identifier: MIT */
/* One build at the Velox stand-in: what was asked, what its script says, and how it is answered.
 * A build is created when its request is complete and stays for the log until it is freed. */
#ifndef TESTS_TOOLS_STANDIN_BUILD_H
#define TESTS_TOOLS_STANDIN_BUILD_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/queue.h>

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>

#define HASH_HEX_BYTES 65

/* What a request asks this server to do, and what the command line sets for all. Owns strings. */
struct script {
    long delay_ms;
    long long size_bytes;
    bool sparse;
    long status;
    long times;
    char *body;
    char *content_type;
    char *retry_after;
    char *path;
    char *behaviour;
};

enum build_state { BUILD_RUNNING, BUILD_FINISHED, BUILD_CANCELLED, BUILD_CUT };

struct build {
    TAILQ_ENTRY(build) link;
    struct standin *standin;        /* borrowed */
    struct evhttp_request *request; /* borrowed from evhttp; NULL once answered or gone */
    struct event *timer;
    struct event *closed; /* the client closes its side */
    unsigned number;
    enum build_state state;
    double arrival_ms, ended_ms;
    int status;
    struct evbuffer *headers_json;
    struct evbuffer *body;
    char *request_id;
    char *key; /* the request's bytes without what differs between equal builds */
    struct script script;
    char hash[HASH_HEX_BYTES];
    char sha256[HASH_HEX_BYTES];
    char *path;
    const char *slow_answer; /* next byte of a `slow` answer */
    char *slow_answer_start;
};

TAILQ_HEAD(build_list, build);

/* The server: what all builds share. */
struct standin {
    struct event_base *base;
    struct evhttp *http;
    struct build_list builds;
    unsigned build_count;
    const char *directory;
    const char *unix_path;
    struct script defaults;
    bool strict_duplicates;
    FILE *log;
};

/* Now, on the monotonic clock, which a test on the same machine can compare with its own. */
double clock_ms(void);

void standin_log(struct standin *standin, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Aborts when out of memory. The build ends as cancelled when the client closes the connection. */
struct build *build_new(struct standin *standin, struct evhttp_request *request);
void build_free(struct build *build);

const char *build_state_name(enum build_state state);

/* Reads headers and body. Returns what is wrong with the request as Velox sees it, or NULL. */
const char *build_read(struct build *build);

/* The answer comes after the script's delay, or never. */
void build_start(struct build *build);

/* Another build of the same request is running. */
bool build_has_twin(const struct build *build);

/* Answers at once with an error as Connect words it. `code` and `message` need no escapes. */
void build_answer_error(struct build *build, int status, const char *code, const char *message);

#endif
