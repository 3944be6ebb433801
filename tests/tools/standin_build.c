/* SPDX-License-Identifier: MIT */
/* The life of one build at the stand-in. It must end each request exactly once: by an answer, by a
 * cut of its own, or because the client left. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <event2/bufferevent.h>
#include <event2/keyvalq_struct.h>
#include <openssl/evp.h>

#include "tests/tools/standin_build.h"
#include "tests/tools/standin_json.h"

#define WRITE_BLOCK_BYTES (1U << 20)

double clock_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

void standin_log(struct standin *standin, const char *format, ...)
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

const char *build_state_name(enum build_state state)
{
    static const char *const names[] = { "running", "finished", "cancelled", "cut" };

    return names[state];
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
    struct json name = { 0 }, value = { 0 };

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

/* Never zero, at which xorshift would stay. */
static uint64_t seed(const char *hex)
{
    uint64_t value = 1;

    for (int i = 0; i < 12; i++)
        value = value << 5 ^ (unsigned char)hex[i];
    return value;
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
    uint64_t state = seed(build->hash);
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
    standin_log(build->standin, "build %u %s status=%d request_id=%s", build->number,
                build_state_name(state), build->status, build->request_id ? build->request_id : "");
}

void build_free(struct build *build)
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

static void build_answer(struct build *build, int status, const char *content_type,
                         const char *body)
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

void build_answer_error(struct build *build, int status, const char *code, const char *message)
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

/* A byte every 2 ms. */
static void build_answer_slowly(struct build *build)
{
    const struct timeval pause = { 0, 2000 };
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
        build_answer(build, status,
                     script->content_type ? script->content_type : "application/json",
                     script->body);
    else if (build_behaves(build, "empty"))
        build_answer(build, status, "application/json", "");
    else if (build_behaves(build, "cut_before"))
        build_cut(build, "");
    else if (build_behaves(build, "cut_mid"))
        build_cut(build,
                  "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n"
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

/* The client is gone: a real Velox cancels the build with the request. evhttp itself does not look
 * at the connection while a request is being answered. */
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

bool build_has_twin(const struct build *build)
{
    const struct build *other;

    TAILQ_FOREACH(other, &build->standin->builds, link)
    {
        if (other != build && other->state == BUILD_RUNNING && other->key && build->key &&
            strcmp(other->key, build->key) == 0)
            return true;
    }
    return false;
}

static long build_attempt(const struct build *build)
{
    const struct build *other;
    long attempt = 0;

    TAILQ_FOREACH(other, &build->standin->builds, link)
    {
        if (other->request_id && build->request_id &&
            strcmp(other->request_id, build->request_id) == 0)
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

    TAILQ_FOREACH(header, headers, next)
    {
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
    struct json name = { 0 }, value = { 0 };
    struct evbuffer *key = evbuffer_new();
    unsigned char digest[EVP_MAX_MD_SIZE];

    while (json_next_member(object, &name, &value) == 1) {
        if (!json_is_name(&name, "request_id") && !json_is_name(&name, "force_rebuild")) {
            evbuffer_add(key, name.at, (size_t)(name.end - name.at));
            evbuffer_add(key, value.at, (size_t)(value.end - value.at));
        }
    }
    EVP_Digest(evbuffer_pullup(key, -1), evbuffer_get_length(key), digest, NULL, EVP_sha256(),
               NULL);
    hash_hex(digest, build->hash);
    evbuffer_add(key, "", 1);
    build->key = strdup((const char *)evbuffer_pullup(key, -1));
    evbuffer_free(key);
}

const char *build_read(struct build *build)
{
    struct evkeyvalq *headers = evhttp_request_get_input_headers(build->request);
    const char *content_type = evhttp_find_header(headers, "Content-Type");
    const char *version = evhttp_find_header(headers, "Connect-Protocol-Version");
    struct json object, value;
    size_t length;

    build_note_headers(build);
    evbuffer_add_buffer(build->body, evhttp_request_get_input_buffer(build->request));
    length = evbuffer_get_length(build->body);
    object.at = (const char *)evbuffer_pullup(build->body, -1);
    object.end = object.at ? object.at + length : NULL;
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
    struct script kept = { .delay_ms = build->script.delay_ms,
                           .size_bytes = build->script.size_bytes,
                           .sparse = build->script.sparse };

    script_deinit(&build->script);
    build->script = kept;
}

struct build *build_new(struct standin *standin, struct evhttp_request *request)
{
    struct build *build = calloc(1, sizeof(*build));
    struct evhttp_connection *connection = evhttp_request_get_connection(request);
    evutil_socket_t fd = bufferevent_getfd(evhttp_connection_get_bufferevent(connection));

    if (!build)
        abort();
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

void build_start(struct build *build)
{
    const struct script *script = &build->script;
    struct timeval delay;

    if (script->times > 0 && build_attempt(build) > script->times)
        build_forget_script(build);
    if (build_behaves(build, "hang"))
        return;
    delay.tv_sec = script->delay_ms / 1000;
    delay.tv_usec = script->delay_ms % 1000 * 1000;
    event_add(build->timer, &delay);
}
