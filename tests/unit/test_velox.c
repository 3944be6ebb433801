/* SPDX-License-Identifier: MIT */

/* curl's client on the real loop, against a scripted server in a thread. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "sidecar/build/velox.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ANSWER(status, body) "HTTP/1.1 " status "\r\nConnection: close\r\n\r\n" body
#define WAIT_MS 5000

struct scene {
    char folder[64];
    char url[128];
    char socket_path[108];
    char token_file[100];
    struct velox_server server;
    struct build_options options;
    struct log log;
    int log_fd;
    struct loop *loop;
    struct velox_client *client;
    struct timer timer;
    /* the server's */
    int listen_fd;
    pthread_t thread;
    bool has_thread;
    const char *answer;      /* NULL: none; the connection stays open until the client closes it */
    size_t filler_bytes;     /* sent behind the answer */
    unsigned per_connection; /* requests that one is kept for; 0 counts as 1 */
    unsigned unanswered;     /* the request of this number is read, and the connection closed */
    sem_t closed;            /* posted for each connection that the server has closed */
    _Atomic unsigned connections; /* what it has seen; read by the test while it runs */
    _Atomic unsigned requests;
    bool client_closed;
    char request[4096];
    /* the client's */
    unsigned answers;
    struct velox_answer got;
    char text[300]; /* path or message */
    struct velox_call *call;
};

/* ---- the server ---- */

static bool request_is_complete(const char *request)
{
    const char *end = strstr(request, "\r\n\r\n");
    const char *length = strcasestr(request, "Content-Length:");

    return end != NULL && length != NULL &&
           strlen(end + 4) >= strtoul(length + strlen("Content-Length:"), NULL, 10);
}

/* False at the end of the connection. */
static bool read_request(struct scene *scene, int fd)
{
    size_t used = 0;

    memset(scene->request, 0, sizeof(scene->request));
    while (!request_is_complete(scene->request) && used < sizeof(scene->request) - 1) {
        ssize_t length = read(fd, scene->request + used, sizeof(scene->request) - 1 - used);

        if (length <= 0) {
            return false;
        }
        used += (size_t)length;
    }
    scene->requests++;
    return true;
}

static void send_all(int fd, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t sent = send(fd, bytes, len, MSG_NOSIGNAL);

        if (sent <= 0) {
            return;
        }
        bytes += sent;
        len -= (size_t)sent;
    }
}

static void serve_one(struct scene *scene, int fd)
{
    static char filler[65536];
    char byte;

    if (scene->answer == NULL) {
        struct pollfd waiting = { .fd = fd, .events = POLLIN };

        scene->client_closed = poll(&waiting, 1, WAIT_MS) == 1 && recv(fd, &byte, 1, 0) <= 0;
        return;
    }
    send_all(fd, scene->answer, strlen(scene->answer));
    for (size_t left = scene->filler_bytes; left > 0;) {
        size_t piece = left < sizeof(filler) ? left : sizeof(filler);

        send_all(fd, filler, piece);
        left -= piece;
    }
}

/* Until the listener is shut down. */
static void *serve(void *scene_pointer)
{
    struct scene *scene = scene_pointer;
    int fd;

    while ((fd = accept4(scene->listen_fd, NULL, NULL, SOCK_CLOEXEC)) >= 0 || errno == EMFILE) {
        unsigned left = scene->per_connection < 1 ? 1 : scene->per_connection;

        if (fd < 0) {
            sched_yield(); /* test_out_of_descriptors is at work */
            continue;
        }

        scene->connections++;
        while (left-- > 0 && read_request(scene, fd) && scene->requests != scene->unanswered) {
            serve_one(scene, fd);
        }
        close(fd);
        sem_post(&scene->closed);
    }
    return NULL;
}

static void listen_tcp(struct scene *scene)
{
    struct sockaddr_in address = { .sin_family = AF_INET };
    socklen_t length = sizeof(address);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    scene->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(scene->listen_fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(scene->listen_fd, 8), 0);
    assert_int_equal(getsockname(scene->listen_fd, (struct sockaddr *)&address, &length), 0);
    (void)snprintf(scene->url, sizeof(scene->url), "http://127.0.0.1:%u/build",
                   (unsigned)ntohs(address.sin_port));
}

static void listen_unix(struct scene *scene)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/velox.sock", scene->folder);
    (void)snprintf(scene->socket_path, sizeof(scene->socket_path), "%s", address.sun_path);
    scene->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(scene->listen_fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(scene->listen_fd, 8), 0);
    (void)snprintf(scene->url, sizeof(scene->url), "http://localhost/build");
}

static void start_server(struct scene *scene)
{
    assert_int_equal(pthread_create(&scene->thread, NULL, serve, scene), 0);
    scene->has_thread = true;
}

static void stop_server(struct scene *scene)
{
    if (scene->listen_fd >= 0) {
        shutdown(scene->listen_fd, SHUT_RDWR);
    }
    if (scene->has_thread) {
        pthread_join(scene->thread, NULL);
        scene->has_thread = false;
    }
    if (scene->listen_fd >= 0) {
        close(scene->listen_fd);
        scene->listen_fd = -1;
    }
}

/* ---- the client ---- */

static void on_answer(void *waiter, const struct velox_answer *answer)
{
    struct scene *scene = waiter;
    struct span text = answer->outcome == VELOX_BUILT ? answer->path : answer->message;

    scene->answers++;
    scene->got = *answer;
    (void)snprintf(scene->text, sizeof(scene->text), "%.*s", (int)text.len, (const char *)text.ptr);
    loop_stop(scene->loop);
}

static void on_timer(struct timer *timer)
{
    struct scene *scene = list_entry(timer, struct scene, timer);

    loop_stop(scene->loop);
}

static void run_for(struct scene *scene, uint64_t delay_ms)
{
    assert_int_equal(timer_start(&scene->timer, delay_ms), 0);
    loop_run(scene->loop);
    timer_stop(&scene->timer);
}

static const char body[] = "{\"rr_version\":\"v1\",\"plugins\":[]}";

static void start_call(struct scene *scene, uint64_t timeout_ms)
{
    assert_int_equal(scene->client->start(scene->client, 0, span_of_string(body), timeout_ms,
                                          on_answer, scene, &scene->call),
                     0);
    assert_int_equal(scene->answers, 0);
}

static void call_and_wait(struct scene *scene, uint64_t timeout_ms)
{
    scene->answers = 0;
    start_call(scene, timeout_ms);
    run_for(scene, WAIT_MS);
    assert_int_equal(scene->answers, 1);
}

static char empty[] = "";

static int scene_set_up(void **state)
{
    struct scene *scene = calloc(1, sizeof(*scene));

    assert_non_null(scene);
    (void)snprintf(scene->folder, sizeof(scene->folder), "/tmp/test_velox.XXXXXX");
    assert_non_null(mkdtemp(scene->folder));
    scene->log_fd = open(scene->folder, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    log_init(&scene->log, scene->log_fd, LOG_DEBUG, LOG_TEXT);
    assert_int_equal(sem_init(&scene->closed, 0, 0), 0);
    scene->listen_fd = -1;
    scene->server = (struct velox_server){ .url = scene->url, .unix_socket = scene->socket_path };
    scene->options = (struct build_options){
        .servers = &scene->server,
        .server_count = 1,
        .token_file = scene->token_file,
        .ca_file = empty,
    };
    assert_int_equal(loop_new(&scene->loop), 0);
    timer_init(&scene->timer, scene->loop, on_timer);
    *state = scene;
    return 0;
}

static void make_client(struct scene *scene)
{
    assert_int_equal(velox_new(&scene->client, scene->loop, &scene->options, &scene->log), 0);
}

static int scene_tear_down(void **state)
{
    struct scene *scene = *state;

    velox_free(scene->client);
    stop_server(scene);
    sem_destroy(&scene->closed);
    loop_free(scene->loop);
    close(scene->log_fd);
    unlink(scene->socket_path);
    unlink(scene->token_file);
    rmdir(scene->folder);
    free(scene);
    return 0;
}

static void serve_answer(struct scene *scene, const char *answer)
{
    listen_tcp(scene);
    scene->answer = answer;
    start_server(scene);
    make_client(scene);
}

static bool has_header(const struct scene *scene, const char *line)
{
    char wanted[200];

    (void)snprintf(wanted, sizeof(wanted), "\r\n%s\r\n", line);
    return strstr(scene->request, wanted) != NULL;
}

/* ---- cases ---- */

static void test_request_and_answer(void **state)
{
    struct scene *scene = *state;

    serve_answer(scene, ANSWER("200 OK", "{\"path\":\"/tmp/rr\"}"));
    call_and_wait(scene, 4321);
    stop_server(scene);
    assert_int_equal(scene->got.outcome, VELOX_BUILT);
    assert_string_equal(scene->text, "/tmp/rr");
    assert_int_equal(strncmp(scene->request, "POST /build HTTP/1.1\r\n", 22), 0);
    assert_true(has_header(scene, "Content-Type: application/json"));
    assert_true(has_header(scene, "Connect-Protocol-Version: 1"));
    assert_true(has_header(scene, "Connect-Timeout-Ms: 4321"));
    assert_null(strcasestr(scene->request, "\r\nExpect:"));
    assert_null(strcasestr(scene->request, "\r\nAccept-Encoding:"));
    assert_null(strcasestr(scene->request, "\r\nAuthorization:"));
    assert_string_equal(strstr(scene->request, "\r\n\r\n") + 4, body);
}

static void test_unix_socket(void **state)
{
    struct scene *scene = *state;

    listen_unix(scene);
    scene->answer = ANSWER("200 OK", "{\"path\":\"/tmp/rr\"}");
    start_server(scene);
    make_client(scene);
    call_and_wait(scene, 3000);
    assert_int_equal(scene->got.outcome, VELOX_BUILT);
}

#define KEPT_ANSWER "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"path\":\"/rr\"} "

static void test_a_connection_is_kept(void **state)
{
    struct scene *scene = *state;

    scene->per_connection = 3;
    serve_answer(scene, KEPT_ANSWER);
    for (unsigned i = 0; i < 3; i++) {
        call_and_wait(scene, 3000);
        assert_int_equal(scene->got.outcome, VELOX_BUILT);
    }
    stop_server(scene);
    assert_int_equal(scene->connections, 1);
    assert_int_equal(scene->requests, 3);
}

/* One that Velox has closed meanwhile is not taken up again. */
static void test_a_closed_connection_is_not_used(void **state)
{
    struct scene *scene = *state;

    serve_answer(scene, KEPT_ANSWER);
    for (unsigned i = 0; i < 3; i++) {
        call_and_wait(scene, 3000);
        assert_int_equal(scene->got.outcome, VELOX_BUILT);
        sem_wait(&scene->closed);
    }
    stop_server(scene);
    assert_int_equal(scene->connections, 3);
    assert_int_equal(scene->requests, 3);
}

/* curl by itself would post once more, without a word. */
static void test_a_kept_connection_that_is_cut(void **state)
{
    struct scene *scene = *state;

    scene->per_connection = 3;
    scene->unanswered = 2;
    serve_answer(scene, KEPT_ANSWER);
    call_and_wait(scene, 3000);
    assert_int_equal(scene->got.outcome, VELOX_BUILT);
    call_and_wait(scene, 3000);
    assert_int_equal(scene->got.outcome, VELOX_RETRY);
    assert_int_equal(scene->got.reason, VELOX_RETRY_CUT);
    assert_int_equal(scene->requests, 2);
    call_and_wait(scene, 3000);
    assert_int_equal(scene->got.outcome, VELOX_BUILT);
    velox_free(scene->client); /* closes what it keeps */
    scene->client = NULL;
    stop_server(scene);
    assert_int_equal(scene->requests, 3);
}

static void test_status_and_retry_after(void **state)
{
    struct scene *scene = *state;

    serve_answer(scene, "HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n");
    call_and_wait(scene, 3000);
    assert_int_equal(scene->got.outcome, VELOX_RETRY);
    assert_int_equal(scene->got.reason, VELOX_RETRY_HTTP_STATUS);
    assert_int_equal(scene->got.status, 503);
    assert_int_equal(scene->got.retry_after_ms, 7000);
}

static void assert_retry(struct scene *scene, enum velox_retry_reason reason)
{
    assert_int_equal(scene->got.outcome, VELOX_RETRY);
    assert_int_equal(scene->got.reason, reason);
    assert_int_equal(scene->got.is_timeout, reason == VELOX_RETRY_TIMEOUT);
}

static void test_cut_before_the_answer(void **state)
{
    struct scene *scene = *state;

    serve_answer(scene, "");
    call_and_wait(scene, 3000);
    assert_retry(scene, VELOX_RETRY_CUT);
    stop_server(scene);
    assert_int_equal(scene->connections, 1); /* counted by us, not tried again by curl */
}

static void test_cut_in_the_head(void **state)
{
    struct scene *scene = *state;

    serve_answer(scene, "HTTP/1.1 200 OK\r\nContent-");
    call_and_wait(scene, 3000);
    assert_retry(scene, VELOX_RETRY_CUT);
}

/* Trailers of a chunked answer come as head lines too, behind the body. */
static void test_trailers(void **state)
{
    struct scene *scene = *state;

    serve_answer(scene, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"
                        "Transfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n"
                        "e\r\n{\"path\":\"/rr\"}\r\n0\r\nX-A: 1\r\n\r\n");
    call_and_wait(scene, 3000);
    assert_int_equal(scene->got.outcome, VELOX_BUILT);
    assert_string_equal(scene->text, "/rr");
}

static void test_cut_in_the_answer(void **state)
{
    struct scene *scene = *state;

    serve_answer(scene, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"path\":\"/rr\"}");
    call_and_wait(scene, 3000);
    assert_retry(scene, VELOX_RETRY_CUT);
}

static void test_json_cut_short(void **state)
{
    struct scene *scene = *state;

    serve_answer(scene, ANSWER("200 OK", "{\"path\":\"/r"));
    call_and_wait(scene, 3000);
    assert_retry(scene, VELOX_RETRY_CUT);
}

static void test_timeout(void **state)
{
    struct scene *scene = *state;

    serve_answer(scene, NULL);
    call_and_wait(scene, 100);
    assert_retry(scene, VELOX_RETRY_TIMEOUT);
    stop_server(scene);
    assert_true(scene->client_closed);
}

static void test_refused(void **state)
{
    struct scene *scene = *state;

    listen_tcp(scene);
    close(scene->listen_fd);
    scene->listen_fd = -1;
    make_client(scene);
    call_and_wait(scene, 3000);
    assert_retry(scene, VELOX_RETRY_CONNECT);
    assert_string_equal(scene->text, "Velox cannot be reached");
    assert_true(scene->got.detail.len > 0);
}

/* The server is there, but no socket to reach it by. */
static void test_out_of_descriptors(void **state)
{
    struct scene *scene = *state;
    struct rlimit limit;
    struct rlimit none;

    serve_answer(scene, KEPT_ANSWER);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    none.rlim_cur = 0; /* what is open stays open */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    call_and_wait(scene, 3000);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(scene->got.outcome, VELOX_NO_MEMORY);
    call_and_wait(scene, 3000);
    assert_int_equal(scene->got.outcome, VELOX_BUILT);
}

static void test_no_such_socket(void **state)
{
    struct scene *scene = *state;

    (void)snprintf(scene->url, sizeof(scene->url), "http://localhost/build");
    (void)snprintf(scene->socket_path, sizeof(scene->socket_path), "%s/none", scene->folder);
    make_client(scene);
    call_and_wait(scene, 3000);
    assert_retry(scene, VELOX_RETRY_CONNECT);
    assert_null(strstr(scene->text, scene->folder));
}

static void test_cancel(void **state)
{
    struct scene *scene = *state;

    serve_answer(scene, NULL);
    start_call(scene, 60000);
    for (unsigned i = 0; i < WAIT_MS / 10 && scene->requests == 0; i++) {
        run_for(scene, 10);
    }
    scene->client->cancel(scene->client, scene->call);
    stop_server(scene); /* joins: the server has seen the close */
    assert_true(scene->client_closed);
    assert_int_equal(scene->answers, 0);
}

static void test_answer_too_long(void **state)
{
    struct scene *scene = *state;

    scene->filler_bytes = 1024u * 1024u + 1;
    serve_answer(scene, ANSWER("200 OK", ""));
    call_and_wait(scene, 5000);
    assert_int_equal(scene->got.outcome, VELOX_UNUSABLE);
    assert_non_null(strstr(scene->text, "too long"));
}

static void test_no_http(void **state)
{
    struct scene *scene = *state;

    serve_answer(scene, "SSH-2.0-OpenSSH_9.2\r\n");
    call_and_wait(scene, 3000);
    assert_int_equal(scene->got.outcome, VELOX_UNUSABLE);
}

static void test_redirect_is_not_followed(void **state)
{
    struct scene *scene = *state;
    char answer[300];

    listen_tcp(scene);
    (void)snprintf(answer, sizeof(answer),
                   "HTTP/1.1 307 Moved\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n", scene->url);
    scene->answer = answer;
    start_server(scene);
    make_client(scene);
    call_and_wait(scene, 3000);
    stop_server(scene);
    assert_int_equal(scene->got.outcome, VELOX_UNUSABLE);
    assert_int_equal(scene->connections, 1);
}

static void test_proxy_of_the_environment(void **state)
{
    struct scene *scene = *state;

    assert_int_equal(setenv("http_proxy", "http://127.0.0.1:9", 1), 0);
    assert_int_equal(setenv("ALL_PROXY", "http://127.0.0.1:9", 1), 0);
    serve_answer(scene, ANSWER("200 OK", "{\"path\":\"/rr\"}"));
    call_and_wait(scene, 3000);
    assert_int_equal(unsetenv("http_proxy"), 0);
    assert_int_equal(unsetenv("ALL_PROXY"), 0);
    assert_int_equal(scene->got.outcome, VELOX_BUILT);
}

static void write_token(struct scene *scene, const char *content)
{
    int fd;

    (void)snprintf(scene->token_file, sizeof(scene->token_file), "%s/token", scene->folder);
    fd = open(scene->token_file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, content, strlen(content)), strlen(content));
    close(fd);
}

static void test_token(void **state)
{
    struct scene *scene = *state;

    write_token(scene, "s3cret~token==\n");
    serve_answer(scene, ANSWER("200 OK", "{\"path\":\"/rr\"}"));
    call_and_wait(scene, 3000);
    stop_server(scene);
    assert_true(has_header(scene, "Authorization: Bearer s3cret~token=="));
}

static void assert_refused_token(struct scene *scene)
{
    char log[2000];
    ssize_t length;

    assert_int_equal(velox_new(&scene->client, scene->loop, &scene->options, &scene->log), -EINVAL);
    length = pread(scene->log_fd, log, sizeof(log) - 1, 0);
    assert_true(length > 0);
    log[length] = '\0';
    assert_non_null(strstr(log, "token"));
    assert_null(strstr(log, "s3cret"));
}

static void test_bad_tokens(void **state)
{
    struct scene *scene = *state;

    write_token(scene, "s3cret\r\nX-Evil: 1\n");
    assert_refused_token(scene);
    write_token(scene, " s3cret");
    assert_refused_token(scene);
    write_token(scene, "");
    assert_refused_token(scene);
    write_token(scene, "\n\n");
    assert_refused_token(scene);
    unlink(scene->token_file);
    assert_refused_token(scene);
}

#define SCENE(test) cmocka_unit_test_setup_teardown(test, scene_set_up, scene_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE(test_request_and_answer),
        SCENE(test_unix_socket),
        SCENE(test_a_connection_is_kept),
        SCENE(test_a_closed_connection_is_not_used),
        SCENE(test_a_kept_connection_that_is_cut),
        SCENE(test_status_and_retry_after),
        SCENE(test_cut_before_the_answer),
        SCENE(test_cut_in_the_head),
        SCENE(test_trailers),
        SCENE(test_cut_in_the_answer),
        SCENE(test_json_cut_short),
        SCENE(test_timeout),
        SCENE(test_refused),
        SCENE(test_out_of_descriptors),
        SCENE(test_no_such_socket),
        SCENE(test_cancel),
        SCENE(test_answer_too_long),
        SCENE(test_no_http),
        SCENE(test_redirect_is_not_followed),
        SCENE(test_proxy_of_the_environment),
        SCENE(test_token),
        SCENE(test_bad_tokens),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
