/* SPDX-License-Identifier: MIT */
/*
 * velox-standin: a small server that answers Velox's one call as a real Velox does, without building
 * anything: it writes a file of pseudo-random bytes, the same bytes for the same build, and names it.
 * For tests and for trying the sidecar out; it must never be used as a real service, since it trusts
 * its callers: a request may script its own answer by a member "standin" (see `usage` below).
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>
#include <openssl/evp.h>

#define BUILD_PATH "/api.service.v1.BuildService/Build"
#define WRITE_BLOCK_BYTES (1U << 20)
#define MAX_BODY_BYTES (16U << 20)
#define HASH_HEX_BYTES 65

static const char usage[] =
    "usage: velox-standin --listen HOST:PORT|unix:/PATH --directory DIR\n"
    "                     [--size BYTES] [--delay-ms N] [--strict-duplicates] [--log FILE]\n"
    "\n"
    "Port 0 takes a free port; the chosen address is printed on stdout.\n"
    "POST " BUILD_PATH "   a build; answers {\"path\": \"DIR/HASH/rr\", \"logs\": \"\"}\n"
    "GET  /standin/log             every build asked for so far, as JSON\n"
    "GET  /standin/build/N.sha256  hash of the file of build N (from 1)\n"
    "GET  /standin/reset           forget them\n"
    "\n"
    "A build request may carry \"standin\": {\n"
    "  \"delay_ms\": N, \"size\": N, \"sparse\": true, \"status\": N, \"body\": \"raw answer\",\n"
    "  \"content_type\": \"...\", \"retry_after\": \"...\", \"path\": \"verbatim\", \"times\": N,\n"
    "  \"behaviour\": \"ok|hang|cut_before|cut_mid|slow|no_path|empty|success_true|success_false\" }\n"
    "`times`: only the first N posts with the same request_id; those that follow are `ok`.\n";

/* What a request asks this server to do, and what the command line sets for all. Strings are owned. */
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
    struct standin *standin;            /* borrowed */
    struct evhttp_request *request;     /* borrowed from evhttp; NULL once answered or gone */
    struct event *timer;
    struct event *closed;               /* the client closes its side */
    unsigned number;
    enum build_state state;
    double arrival_ms, ended_ms;
    int status;
    struct evbuffer *headers_json;
    struct evbuffer *body;
    char *request_id;
    char *key;                          /* the request's bytes without what differs between equal builds */
    struct script script;
    char hash[HASH_HEX_BYTES];
    char sha256[HASH_HEX_BYTES];
    char *path;
    const char *slow_answer;            /* next byte of a `slow` answer */
    char *slow_answer_start;
};

TAILQ_HEAD(build_list, build);

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

static const char *const state_names[] = {"running", "finished", "cancelled", "cut"};

static double clock_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void die(const char *what)
{
    fprintf(stderr, "velox-standin: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void log_line(struct standin *standin, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void log_line(struct standin *standin, const char *format, ...)
{
    va_list arguments;

    if (!standin->log)
        return;
    fprintf(standin->log, "%.3f ", clock_ms());
    va_start(arguments, format);
    vfprintf(standin->log, format, arguments);
    va_end(arguments);
    fputc('\n', standin->log);
    fflush(standin->log);
}

/* ---- JSON: just enough to find members; values are spans of the text ---- */

struct json {
    const char *at, *end;
};

static const char *json_skip_space(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r'))
        p++;
    return p;
}

static const char *json_skip_string(const char *p, const char *end)
{
    for (p++; p < end; p++) {
        if (*p == '\\')
            p++;
        else if (*p == '"')
            return p + 1;
    }
    return NULL;
}

/* Past one value, or NULL. Nesting is counted, brackets are not matched by kind. */
static const char *json_skip_value(const char *p, const char *end)
{
    int depth = 0;

    for (p = json_skip_space(p, end); p < end;) {
        if (*p == '"') {
            p = json_skip_string(p, end);
            if (!p || depth == 0)
                return p;
            continue;
        }
        if (*p == '{' || *p == '[')
            depth++;
        else if (*p == '}' || *p == ']') {
            if (depth == 0)
                return p;
            if (--depth == 0)
                return p + 1;
        } else if (depth == 0 && strchr(", \t\r\n", *p))
            return p;
        p++;
    }
    return depth == 0 ? p : NULL;
}

/* Steps through an object: *member starts as zeros. Returns 1 for a member, 0 at the end, -1 when the
 * text is no object. `name` still carries its quotes. */
static int json_next_member(const struct json *object, struct json *name, struct json *value)
{
    const char *end = object->end;
    const char *p = value->end ? value->end : object->at;

    p = json_skip_space(p, end);
    if (p == end || (!value->end && *p != '{'))
        return -1;
    if (value->end && *p == '}')
        return 0;
    if (value->end && *p != ',')
        return -1;
    p = json_skip_space(p + 1, end);
    if (!value->end && p < end && *p == '}')
        return 0;
    if (p == end || *p != '"' || !(name->end = json_skip_string(p, end)))
        return -1;
    name->at = p;
    p = json_skip_space(name->end, end);
    if (p == end || *p != ':')
        return -1;
    value->at = json_skip_space(p + 1, end);
    value->end = json_skip_value(value->at, end);
    return value->end && value->end > value->at ? 1 : -1;
}

static bool json_is_name(const struct json *name, const char *wanted)
{
    size_t length = strlen(wanted);

    return (size_t)(name->end - name->at) == length + 2 && memcmp(name->at + 1, wanted, length) == 0;
}

static bool json_find(const struct json *object, const char *wanted, struct json *found)
{
    struct json name = {0}, value = {0};

    while (json_next_member(object, &name, &value) == 1) {
        if (json_is_name(&name, wanted)) {
            *found = value;
            return true;
        }
    }
    return false;
}

static void json_unescape(struct evbuffer *out, const char **p)
{
    unsigned code = 0;
    const char *plain = strchr("n\nt\tr\rb\bf\f", **p);

    if (**p != 'u') {
        evbuffer_add(out, plain ? plain + 1 : *p, 1);
        return;
    }
    sscanf(*p + 1, "%4x", &code);
    *p += 4;
    if (code < 0x80)
        evbuffer_add_printf(out, "%c", (int)code);
    else if (code < 0x800)
        evbuffer_add_printf(out, "%c%c", (int)(0xc0 | code >> 6), (int)(0x80 | (code & 63)));
    else
        evbuffer_add_printf(out, "%c%c%c", (int)(0xe0 | code >> 12), (int)(0x80 | (code >> 6 & 63)),
                            (int)(0x80 | (code & 63)));
}

/* The text of a string value, to be freed; NULL when it is no string. */
static char *json_string(const struct json *value)
{
    struct evbuffer *out;
    char *text;
    size_t length;

    if (value->end - value->at < 2 || *value->at != '"')
        return NULL;
    out = evbuffer_new();
    for (const char *p = value->at + 1; p < value->end - 1; p++) {
        if (*p == '\\' && p + 1 < value->end - 1) {
            p++;
            json_unescape(out, &p);
        } else
            evbuffer_add(out, p, 1);
    }
    length = evbuffer_get_length(out);
    text = calloc(1, length + 1);
    if (text)
        evbuffer_remove(out, text, length);
    evbuffer_free(out);
    return text;
}

static void json_print_string(struct evbuffer *out, const char *text)
{
    evbuffer_add(out, "\"", 1);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            evbuffer_add_printf(out, "\\%c", *text);
        else if ((unsigned char)*text < 0x20)
            evbuffer_add_printf(out, "\\u%04x", (unsigned char)*text);
        else
            evbuffer_add(out, text, 1);
    }
    evbuffer_add(out, "\"", 1);
}

/* ---- the script of one request ---- */

static void script_deinit(struct script *script)
{
    free(script->body);
    free(script->content_type);
    free(script->retry_after);
    free(script->path);
    free(script->behaviour);
}

static void script_read(struct script *script, const struct json *object)
{
    struct json name = {0}, value = {0};

    while (json_next_member(object, &name, &value) == 1) {
        if (json_is_name(&name, "delay_ms"))
            script->delay_ms = strtol(value.at, NULL, 10);
        else if (json_is_name(&name, "size"))
            script->size_bytes = strtoll(value.at, NULL, 10);
        else if (json_is_name(&name, "sparse"))
            script->sparse = *value.at == 't';
        else if (json_is_name(&name, "status"))
            script->status = strtol(value.at, NULL, 10);
        else if (json_is_name(&name, "times"))
            script->times = strtol(value.at, NULL, 10);
        else if (json_is_name(&name, "body") && !script->body)
            script->body = json_string(&value);
        else if (json_is_name(&name, "content_type") && !script->content_type)
            script->content_type = json_string(&value);
        else if (json_is_name(&name, "retry_after") && !script->retry_after)
            script->retry_after = json_string(&value);
        else if (json_is_name(&name, "path") && !script->path)
            script->path = json_string(&value);
        else if (json_is_name(&name, "behaviour") && !script->behaviour)
            script->behaviour = json_string(&value);
    }
}

static bool build_behaves(const struct build *build, const char *behaviour)
{
    return build->script.behaviour && strcmp(build->script.behaviour, behaviour) == 0;
}

/* ---- the built file ---- */

static void hash_hex(const unsigned char *digest, char *hex)
{
    for (int i = 0; i < 32; i++)
        sprintf(hex + 2 * i, "%02x", digest[i]);
}

/* xorshift64*: fast, and the same bytes for the same build on every machine. */
static void fill_block(uint64_t *block, size_t words, uint64_t *state)
{
    uint64_t x = *state;

    for (size_t i = 0; i < words; i++) {
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        block[i] = htole64(x * 0x2545f4914f6cdd1dULL);
    }
    *state = x;
}

static bool write_all(int fd, const void *bytes, size_t length)
{
    const char *p = bytes;

    while (length > 0) {
        ssize_t written = write(fd, p, length);

        if (written < 0 && errno != EINTR)
            return false;
        if (written > 0) {
            p += written;
            length -= (size_t)written;
        }
    }
    return true;
}

/* A sparse file has bytes in its first and last block and a hole between them. */
static bool write_content(int fd, const struct build *build, EVP_MD_CTX *digest)
{
    uint64_t state = strtoull((char[17]){build->hash[0], build->hash[1], build->hash[2], build->hash[3],
                                         build->hash[4], build->hash[5], build->hash[6], '1'}, NULL, 16);
    long long left = build->script.size_bytes;
    uint64_t *block = malloc(WRITE_BLOCK_BYTES);
    bool first = true, done = block != NULL;

    while (done && left > 0) {
        size_t length = left < WRITE_BLOCK_BYTES ? (size_t)left : WRITE_BLOCK_BYTES;
        bool hole = build->script.sparse && !first && left > WRITE_BLOCK_BYTES;

        if (hole) {
            memset(block, 0, length);
            done = lseek(fd, (off_t)length, SEEK_CUR) >= 0;
        } else {
            fill_block(block, WRITE_BLOCK_BYTES / sizeof(*block), &state);
            done = write_all(fd, block, length);
        }
        if (digest)
            EVP_DigestUpdate(digest, block, length);
        left -= (long long)length;
        first = false;
    }
    free(block);
    return done;
}

/* Writes beside the name and renames, as a download of an earlier equal build may still run. */
static bool write_artifact(struct build *build)
{
    unsigned char value[EVP_MAX_MD_SIZE];
    char folder[PATH_MAX], draft[PATH_MAX + 32], path[PATH_MAX + 8];
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    bool done = false;
    int fd;

    snprintf(folder, sizeof(folder), "%s/%s", build->standin->directory, build->hash);
    snprintf(draft, sizeof(draft), "%s/rr.%u", folder, build->number);
    snprintf(path, sizeof(path), "%s/rr", folder);
    mkdir(folder, 0755);
    fd = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
    if (fd >= 0 && digest) {
        EVP_DigestInit_ex(digest, EVP_sha256(), NULL);
        done = write_content(fd, build, digest);
        EVP_DigestFinal_ex(digest, value, NULL);
        hash_hex(value, build->sha256);
    }
    EVP_MD_CTX_free(digest);
    if (fd >= 0)
        close(fd);
    build->path = strdup(path);
    return done && build->path && rename(draft, path) == 0;
}

/* ---- one build ---- */

static void build_end(struct build *build, enum build_state state)
{
    build->state = state;
    build->ended_ms = clock_ms();
    build->request = NULL;
    event_del(build->timer);
    if (build->closed)
        event_del(build->closed);
    log_line(build->standin, "build %u %s status=%d request_id=%s", build->number, state_names[state],
             build->status, build->request_id ? build->request_id : "");
}

static void build_free(struct build *build)
{
    TAILQ_REMOVE(&build->standin->builds, build, link);
    if (build->timer)
        event_free(build->timer);
    if (build->closed)
        event_free(build->closed);
    if (build->headers_json)
        evbuffer_free(build->headers_json);
    if (build->body)
        evbuffer_free(build->body);
    script_deinit(&build->script);
    free(build->request_id);
    free(build->key);
    free(build->path);
    free(build->slow_answer_start);
    free(build);
}

static void build_answer(struct build *build, int status, const char *content_type, const char *body)
{
    struct evhttp_request *request = build->request;
    struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
    struct evbuffer *content = evbuffer_new();

    evhttp_add_header(headers, "Content-Type", content_type);
    if (build->script.retry_after)
        evhttp_add_header(headers, "Retry-After", build->script.retry_after);
    evbuffer_add(content, body, strlen(body));
    build->status = status;
    build_end(build, BUILD_FINISHED);
    evhttp_send_reply(request, status, status == 200 ? "OK" : "Scripted", content);
    evbuffer_free(content);
}

static void build_answer_error(struct build *build, int status, const char *code, const char *message)
{
    char body[512];

    snprintf(body, sizeof(body), "{\"code\":\"%s\",\"message\":\"%s\"}", code, message);
    build_answer(build, status, "application/json", body);
}

/* Closes the connection at once, after `bytes`, which fit into any socket buffer. */
static void build_cut(struct build *build, const char *bytes)
{
    struct evhttp_connection *connection = evhttp_request_get_connection(build->request);
    struct bufferevent *stream = evhttp_connection_get_bufferevent(connection);

    if (*bytes)
        (void)!write(bufferevent_getfd(stream), bytes, strlen(bytes));
    build_end(build, BUILD_CUT);
    evhttp_connection_free(connection);
}

/* A byte every 20 ms. */
static void build_answer_slowly(struct build *build)
{
    const struct timeval pause = {0, 20000};
    struct evbuffer *byte;

    if (!*build->slow_answer) {
        struct evhttp_request *request = build->request;

        build_end(build, BUILD_FINISHED);
        evhttp_send_reply_end(request);
        return;
    }
    byte = evbuffer_new();
    evbuffer_add(byte, build->slow_answer++, 1);
    evhttp_send_reply_chunk(build->request, byte);
    evbuffer_free(byte);
    event_add(build->timer, &pause);
}

static void build_start_slow_answer(struct build *build, const char *body)
{
    build->slow_answer = build->slow_answer_start = strdup(body);
    build->status = 200;
    evhttp_add_header(evhttp_request_get_output_headers(build->request), "Content-Type",
                      "application/json");
    evhttp_send_reply_start(build->request, 200, "OK");
    build_answer_slowly(build);
}

static void build_succeed(struct build *build)
{
    struct evbuffer *out = evbuffer_new();
    const char *path = build->script.path ? build->script.path : build->path;
    bool seed_shape = build_behaves(build, "success_true");
    int status = build->script.status ? (int)build->script.status : 200;

    evbuffer_add_printf(out, seed_shape ? "{\"success\":true," : "{");
    if (!build_behaves(build, "no_path")) {
        evbuffer_add_printf(out, "\"path\":");
        json_print_string(out, path);
        evbuffer_add_printf(out, ",");
    }
    if (seed_shape)
        evbuffer_add_printf(out, "\"build_id\":\"b%u\",\"duration_ms\":%.0f}", build->number,
                            clock_ms() - build->arrival_ms);
    else
        evbuffer_add_printf(out, "\"logs\":\"\"}");
    evbuffer_add(out, "", 1);
    if (build_behaves(build, "slow"))
        build_start_slow_answer(build, (const char *)evbuffer_pullup(out, -1));
    else
        build_answer(build, status, "application/json", (const char *)evbuffer_pullup(out, -1));
    evbuffer_free(out);
}

/* The delay is over. */
static void build_finish(struct build *build)
{
    const struct script *script = &build->script;
    int status = script->status ? (int)script->status : 200;

    if (script->body)
        build_answer(build, status, script->content_type ? script->content_type : "application/json",
                     script->body);
    else if (build_behaves(build, "empty"))
        build_answer(build, status, "application/json", "");
    else if (build_behaves(build, "cut_before"))
        build_cut(build, "");
    else if (build_behaves(build, "cut_mid"))
        build_cut(build, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n"
                  "\r\n{\"path\":\"/tm");
    else if (build_behaves(build, "success_false"))
        build_answer(build, status, "application/json",
                     "{\"success\":false,\"error\":\"scripted failure\",\"code\":\"BUILD_ERROR\"}");
    else if (!write_artifact(build))
        build_answer_error(build, 500, "internal", "cannot write the file");
    else
        build_succeed(build);
}

static void on_build_timer(evutil_socket_t fd, short events, void *argument)
{
    struct build *build = argument;

    (void)fd;
    (void)events;
    if (build->slow_answer)
        build_answer_slowly(build);
    else
        build_finish(build);
}

/* The client is gone: a real Velox cancels the build with the request. evhttp itself does not look at
 * the connection while a request is being answered. */
static void on_client_closed(evutil_socket_t fd, short events, void *argument)
{
    struct build *build = argument;
    struct evhttp_connection *connection;

    (void)fd;
    (void)events;
    if (!build->request)
        return;
    connection = evhttp_request_get_connection(build->request);
    build_end(build, BUILD_CANCELLED);
    evhttp_connection_free(connection);
}

static bool build_has_twin(const struct build *build)
{
    const struct build *other;

    TAILQ_FOREACH(other, &build->standin->builds, link) {
        if (other != build && other->state == BUILD_RUNNING && other->key && build->key
            && strcmp(other->key, build->key) == 0)
            return true;
    }
    return false;
}

static long build_attempt(const struct build *build)
{
    const struct build *other;
    long attempt = 0;

    TAILQ_FOREACH(other, &build->standin->builds, link) {
        if (other->request_id && build->request_id
            && strcmp(other->request_id, build->request_id) == 0)
            attempt++;
    }
    return attempt;
}

/* ---- reading a build request ---- */

static void build_note_headers(struct build *build)
{
    struct evkeyvalq *headers = evhttp_request_get_input_headers(build->request);
    const struct evkeyval *header;
    const char *separator = "";

    TAILQ_FOREACH(header, headers, next) {
        evbuffer_add_printf(build->headers_json, "%s[", separator);
        json_print_string(build->headers_json, header->key);
        evbuffer_add_printf(build->headers_json, ",");
        json_print_string(build->headers_json, header->value);
        evbuffer_add_printf(build->headers_json, "]");
        separator = ",";
    }
}

/* Members, their order kept, without the two in which equal builds may differ. */
static void build_make_key(struct build *build, const struct json *object)
{
    struct json name = {0}, value = {0};
    struct evbuffer *key = evbuffer_new();
    unsigned char digest[EVP_MAX_MD_SIZE];

    while (json_next_member(object, &name, &value) == 1) {
        if (!json_is_name(&name, "request_id") && !json_is_name(&name, "force_rebuild")) {
            evbuffer_add(key, name.at, (size_t)(name.end - name.at));
            evbuffer_add(key, value.at, (size_t)(value.end - value.at));
        }
    }
    EVP_Digest(evbuffer_pullup(key, -1), evbuffer_get_length(key), digest, NULL, EVP_sha256(), NULL);
    hash_hex(digest, build->hash);
    evbuffer_add(key, "", 1);
    build->key = strdup((const char *)evbuffer_pullup(key, -1));
    evbuffer_free(key);
}

/* What is wrong with the request as Velox sees it, or NULL. */
static const char *build_read(struct build *build)
{
    struct evkeyvalq *headers = evhttp_request_get_input_headers(build->request);
    const char *content_type = evhttp_find_header(headers, "Content-Type");
    const char *version = evhttp_find_header(headers, "Connect-Protocol-Version");
    size_t length = evbuffer_get_length(build->body);
    const char *text = (const char *)evbuffer_pullup(build->body, -1);
    struct json object = {text, text + length}, value;

    if (!content_type || strncasecmp(content_type, "application/json", 16) != 0)
        return "Content-Type must be application/json";
    if (!version || strcmp(version, "1") != 0)
        return "Connect-Protocol-Version must be 1";
    if (length == 0 || !json_find(&object, "rr_version", &value) || *value.at != '"')
        return "rr_version: value is required";
    if (!json_find(&object, "plugins", &value) || *value.at != '[')
        return "plugins: value is required";
    if (json_find(&object, "request_id", &value))
        build->request_id = json_string(&value);
    build_make_key(build, &object);
    if (json_find(&object, "standin", &value))
        script_read(&build->script, &value);
    return NULL;
}

/* Past its `times` a script is forgotten, all but size and delay. */
static void build_forget_script(struct build *build)
{
    struct script kept = {.delay_ms = build->script.delay_ms, .size_bytes = build->script.size_bytes,
                          .sparse = build->script.sparse};

    script_deinit(&build->script);
    build->script = kept;
}

static struct build *build_new(struct standin *standin, struct evhttp_request *request)
{
    struct build *build = calloc(1, sizeof(*build));
    struct evhttp_connection *connection = evhttp_request_get_connection(request);
    evutil_socket_t fd = bufferevent_getfd(evhttp_connection_get_bufferevent(connection));

    if (!build)
        die("out of memory");
    build->standin = standin;
    build->request = request;
    build->number = ++standin->build_count;
    build->arrival_ms = clock_ms();
    build->script = standin->defaults;
    build->headers_json = evbuffer_new();
    build->body = evbuffer_new();
    build->timer = event_new(standin->base, -1, 0, on_build_timer, build);
    build->closed = event_new(standin->base, fd, EV_CLOSED, on_client_closed, build);
    TAILQ_INSERT_TAIL(&standin->builds, build, link);
    event_add(build->closed, NULL);
    return build;
}

static void on_build_request(struct evhttp_request *request, void *argument)
{
    struct standin *standin = argument;
    struct timeval delay = {0, 0};
    struct build *build;
    const char *mistake;

    if (evhttp_request_get_command(request) != EVHTTP_REQ_POST) {
        evhttp_send_error(request, 405, "Method Not Allowed");
        return;
    }
    build = build_new(standin, request);
    build_note_headers(build);
    evbuffer_add_buffer(build->body, evhttp_request_get_input_buffer(request));
    mistake = build_read(build);
    log_line(standin, "build %u asked request_id=%s", build->number,
             build->request_id ? build->request_id : "");
    if (mistake) {
        build_answer_error(build, 400, "invalid_argument", mistake);
        return;
    }
    if (standin->strict_duplicates && build_has_twin(build)) {
        build_answer_error(build, 409, "already_exists", "this build is already running");
        return;
    }
    if (build->script.times > 0 && build_attempt(build) > build->script.times)
        build_forget_script(build);
    if (build_behaves(build, "hang"))
        return;
    delay.tv_sec = build->script.delay_ms / 1000;
    delay.tv_usec = build->script.delay_ms % 1000 * 1000;
    event_add(build->timer, &delay);
}

/* ---- control ---- */

static void print_base64(struct evbuffer *out, struct evbuffer *bytes)
{
    size_t length = evbuffer_get_length(bytes);
    unsigned char *text = malloc(length / 3 * 4 + 5);

    if (!text)
        return;
    EVP_EncodeBlock(text, length ? evbuffer_pullup(bytes, -1) : (const unsigned char *)"", (int)length);
    evbuffer_add_printf(out, "\"%s\"", (const char *)text);
    free(text);
}

static void print_build(struct evbuffer *out, const struct build *build)
{
    size_t headers_length = evbuffer_get_length(build->headers_json);

    evbuffer_add_printf(out, "{\"number\":%u,\"state\":\"%s\",\"status\":%d,\"arrival_ms\":%.3f,",
                        build->number, state_names[build->state], build->status, build->arrival_ms);
    evbuffer_add_printf(out, "\"ended_ms\":%.3f,\"request_id\":", build->ended_ms);
    json_print_string(out, build->request_id ? build->request_id : "");
    evbuffer_add_printf(out, ",\"path\":");
    json_print_string(out, build->path ? build->path : "");
    evbuffer_add_printf(out, ",\"sha256\":\"%s\",\"headers\":[", build->sha256);
    evbuffer_add(out, evbuffer_pullup(build->headers_json, -1), headers_length);
    evbuffer_add_printf(out, "],\"body_base64\":");
    print_base64(out, build->body);
    evbuffer_add_printf(out, "}");
}

static void on_log_request(struct evhttp_request *request, void *argument)
{
    struct standin *standin = argument;
    struct evbuffer *out = evbuffer_new();
    const struct build *build;

    evbuffer_add_printf(out, "{\"now_ms\":%.3f,\"builds\":[", clock_ms());
    TAILQ_FOREACH(build, &standin->builds, link) {
        print_build(out, build);
        if (TAILQ_NEXT(build, link))
            evbuffer_add_printf(out, ",\n");
    }
    evbuffer_add_printf(out, "]}\n");
    evhttp_add_header(evhttp_request_get_output_headers(request), "Content-Type", "application/json");
    evhttp_send_reply(request, 200, "OK", out);
    evbuffer_free(out);
}

static void on_reset_request(struct evhttp_request *request, void *argument)
{
    struct standin *standin = argument;
    struct build *build, *next;

    for (build = TAILQ_FIRST(&standin->builds); build; build = next) {
        next = TAILQ_NEXT(build, link);
        if (build->state != BUILD_RUNNING)
            build_free(build);
    }
    evhttp_send_reply(request, 204, "No Content", NULL);
}

static void on_other_request(struct evhttp_request *request, void *argument)
{
    struct standin *standin = argument;
    const struct build *build;
    unsigned number;
    int consumed = 0;

    if (sscanf(evhttp_request_get_uri(request), "/standin/build/%u.sha256%n", &number, &consumed) == 1
        && consumed > 0) {
        TAILQ_FOREACH(build, &standin->builds, link) {
            if (build->number == number && build->sha256[0]) {
                struct evbuffer *out = evbuffer_new();

                evbuffer_add_printf(out, "%s\n", build->sha256);
                evhttp_send_reply(request, 200, "OK", out);
                evbuffer_free(out);
                return;
            }
        }
    }
    evhttp_send_error(request, 404, "Not Found");
}

/* ---- start and end ---- */

static void listen_unix(struct standin *standin, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct evconnlistener *listener;

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    unlink(path);
    listener = evconnlistener_new_bind(standin->base, NULL, NULL,
                                       LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 128,
                                       (struct sockaddr *)&address, sizeof(address));
    if (!listener || !evhttp_bind_listener(standin->http, listener))
        die(path);
    standin->unix_path = path;
    printf("listening on unix:%s\n", path);
}

static void listen_tcp(struct standin *standin, char *address)
{
    struct evhttp_bound_socket *bound;
    struct sockaddr_storage local;
    socklen_t length = sizeof(local);
    char *colon = strrchr(address, ':');
    char *host = address;

    errno = EINVAL;
    if (!colon)
        die(address);
    *colon = '\0';
    if (*host == '[' && colon[-1] == ']') {
        colon[-1] = '\0';
        host++;
    }
    bound = evhttp_bind_socket_with_handle(standin->http, host,
                                           (uint16_t)strtoul(colon + 1, NULL, 10));
    if (!bound || getsockname(evhttp_bound_socket_get_fd(bound), (struct sockaddr *)&local, &length))
        die(address);
    /* sin_port and sin6_port lie at the same place. */
    printf("listening on http://%s%s%s:%u\n", strchr(host, ':') ? "[" : "", host,
           strchr(host, ':') ? "]" : "", ntohs(((struct sockaddr_in *)&local)->sin_port));
}

static void on_signal(evutil_socket_t signal_number, short events, void *argument)
{
    struct standin *standin = argument;

    (void)signal_number;
    (void)events;
    event_base_loopbreak(standin->base);
}

static void serve(struct standin *standin)
{
    struct event *term = evsignal_new(standin->base, SIGTERM, on_signal, standin);
    struct event *interrupt = evsignal_new(standin->base, SIGINT, on_signal, standin);

    event_add(term, NULL);
    event_add(interrupt, NULL);
    event_base_dispatch(standin->base);
    event_free(term);
    event_free(interrupt);
    while (!TAILQ_EMPTY(&standin->builds))
        build_free(TAILQ_FIRST(&standin->builds));
    evhttp_free(standin->http);
    event_base_free(standin->base);
    if (standin->unix_path)
        unlink(standin->unix_path);
    if (standin->log)
        fclose(standin->log);
}

/* Returns the address to listen on. */
static char *read_options(struct standin *standin, int argc, char **argv)
{
    char *address = NULL;

    for (int i = 1; i < argc; i++) {
        char *value = i + 1 < argc ? argv[i + 1] : NULL;

        if (strcmp(argv[i], "--help") == 0) {
            fputs(usage, stdout);
            exit(0);
        }
        if (strcmp(argv[i], "--strict-duplicates") == 0) {
            standin->strict_duplicates = true;
            continue;
        }
        if (value && strcmp(argv[i], "--listen") == 0)
            address = value;
        else if (value && strcmp(argv[i], "--directory") == 0)
            standin->directory = value;
        else if (value && strcmp(argv[i], "--size") == 0)
            standin->defaults.size_bytes = strtoll(value, NULL, 10);
        else if (value && strcmp(argv[i], "--delay-ms") == 0)
            standin->defaults.delay_ms = strtol(value, NULL, 10);
        else if (value && strcmp(argv[i], "--log") == 0) {
            standin->log = fopen(value, "ae");
            if (!standin->log)
                die(value);
        } else
            address = NULL, i = argc;
        i++;
    }
    if (!address || !standin->directory) {
        fputs(usage, stderr);
        exit(64);
    }
    return address;
}

int main(int argc, char **argv)
{
    struct standin standin = {.defaults = {.size_bytes = 1 << 20}};
    char *address = read_options(&standin, argc, argv);

    signal(SIGPIPE, SIG_IGN);
    TAILQ_INIT(&standin.builds);
    standin.base = event_base_new();
    standin.http = standin.base ? evhttp_new(standin.base) : NULL;
    if (!standin.http)
        die("event loop");
    evhttp_set_allowed_methods(standin.http, EVHTTP_REQ_GET | EVHTTP_REQ_POST);
    evhttp_set_max_body_size(standin.http, MAX_BODY_BYTES);
    evhttp_set_cb(standin.http, BUILD_PATH, on_build_request, &standin);
    evhttp_set_cb(standin.http, "/standin/log", on_log_request, &standin);
    evhttp_set_cb(standin.http, "/standin/reset", on_reset_request, &standin);
    evhttp_set_gencb(standin.http, on_other_request, &standin);
    if (strncmp(address, "unix:", 5) == 0)
        listen_unix(&standin, address + 5);
    else
        listen_tcp(&standin, address);
    fflush(stdout);
    serve(&standin);
    return 0;
}
