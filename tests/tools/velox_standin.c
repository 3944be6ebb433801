/* SPDX-License-Identifier: MIT */
/*
 * velox-standin: a small server that answers Velox's one call as a real Velox does, without
 * building anything: it writes a file of pseudo-random bytes, the same bytes for the same build,
 * and names it. For tests and for trying the sidecar out; it must never be used as a real service,
 * since it trusts its callers: a request may script its own answer by a member "standin" (see
 * `usage` below).
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/listener.h>
#include <openssl/evp.h>

#include "tests/tools/standin_build.h"
#include "tests/tools/standin_json.h"

#define BUILD_PATH "/api.service.v1.BuildService/Build"
#define MAX_BODY_BYTES (16U << 20)

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
    "  \"behaviour\": \"ok|hang|cut_before|cut_mid|slow|no_path|empty|success_true|\n"
    "                success_false\" }\n"
    "`times`: only the first N posts with the same request_id; those that follow are `ok`.\n";

static void die(const char *what)
{
    fprintf(stderr, "velox-standin: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void on_build_request(struct evhttp_request *request, void *argument)
{
    struct standin *standin = argument;
    struct build *build;
    const char *mistake;

    if (evhttp_request_get_command(request) != EVHTTP_REQ_POST) {
        evhttp_send_error(request, 405, "Method Not Allowed");
        return;
    }
    build = build_new(standin, request);
    mistake = build_read(build);
    standin_log(standin, "build %u asked request_id=%s", build->number,
                build->request_id ? build->request_id : "");
    if (mistake) {
        build_answer_error(build, 400, "invalid_argument", mistake);
        return;
    }
    if (standin->strict_duplicates && build_has_twin(build)) {
        build_answer_error(build, 409, "already_exists", "this build is already running");
        return;
    }
    build_start(build);
}

/* ---- control ---- */

static void print_base64(struct evbuffer *out, struct evbuffer *bytes)
{
    size_t length = evbuffer_get_length(bytes);
    unsigned char *text = malloc(length / 3 * 4 + 5);

    if (!text)
        return;
    EVP_EncodeBlock(text, length ? evbuffer_pullup(bytes, -1) : (const unsigned char *)"",
                    (int)length);
    evbuffer_add_printf(out, "\"%s\"", (const char *)text);
    free(text);
}

static void print_build(struct evbuffer *out, const struct build *build)
{
    size_t headers_length = evbuffer_get_length(build->headers_json);

    evbuffer_add_printf(out, "{\"number\":%u,\"state\":\"%s\",\"status\":%d,\"arrival_ms\":%.3f,",
                        build->number, build_state_name(build->state), build->status,
                        build->arrival_ms);
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
    TAILQ_FOREACH(build, &standin->builds, link)
    {
        print_build(out, build);
        if (TAILQ_NEXT(build, link))
            evbuffer_add_printf(out, ",\n");
    }
    evbuffer_add_printf(out, "]}\n");
    evhttp_add_header(evhttp_request_get_output_headers(request), "Content-Type",
                      "application/json");
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

    if (sscanf(evhttp_request_get_uri(request), "/standin/build/%u.sha256%n", &number, &consumed) ==
            1 &&
        consumed > 0) {
        TAILQ_FOREACH(build, &standin->builds, link)
        {
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
    struct sockaddr_un address = { .sun_family = AF_UNIX };
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
    if (!bound ||
        getsockname(evhttp_bound_socket_get_fd(bound), (struct sockaddr *)&local, &length))
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
    struct standin standin = { .defaults = { .size_bytes = 1 << 20 } };
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
