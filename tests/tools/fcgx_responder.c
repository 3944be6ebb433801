/* SPDX-License-Identifier: MIT */
/*
 * fcgx-responder: a FastCGI application on libfcgi's own FCGX_* functions, which share no code with
 * the sidecar. The tests put it where PHP-FPM would stand. What a request gets is said by its
 * QUERY_STRING; `usage` below lists the actions. It must stay as plain as the library's examples,
 * so that what it proves is how the library behaves.
 */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <fcgiapp.h>

#define MAX_WORKERS 256

static const char usage[] =
    "usage: fcgx-responder --listen unix:/PATH|:PORT [--workers N]\n"
    "\n"
    "QUERY_STRING holds name=value pairs joined by '&'; all are optional:\n"
    "  do=params   (default) the parameters as a JSON object\n"
    "  do=echo     the request body\n"
    "  do=body     `size` bytes, byte i being i % 251\n"
    "  do=build    X-Velox-Build and the request body as JSON, `gap_ms` between its halves\n"
    "  do=silent   no output at all, only the end of the request\n"
    "  status=N    a Status line           app_status=N  exit status in the end of the request\n"
    "  stderr=N    N bytes of error text before the head\n"
    "  head=N      a header of N bytes     flush_head=1  flush after every byte of the head\n"
    "  flush_ms=N  flush after every 1000 bytes of the body, then wait N ms\n"
    "  delay_ms=N  wait before the head    linger_ms=N   wait after the end of the request\n"
    "  exit=head|body  leave the process in the middle of the head or of the body\n";

static const char *query_find(const char *query, const char *name)
{
    size_t length = strlen(name);

    for (const char *p = query; p && *p; p = strchr(p, '&'), p = p ? p + 1 : NULL) {
        if (strncmp(p, name, length) == 0 && p[length] == '=')
            return p + length + 1;
    }
    return NULL;
}

static long long query_number(const char *query, const char *name)
{
    const char *value = query_find(query, name);

    return value ? strtoll(value, NULL, 10) : 0;
}

static bool query_is(const char *query, const char *name, const char *wanted)
{
    const char *value = query_find(query, name);
    size_t length = strlen(wanted);

    return value && strncmp(value, wanted, length) == 0 &&
           (value[length] == '\0' || value[length] == '&');
}

static void pause_ms(long long duration_ms)
{
    const struct timespec pause = { duration_ms / 1000, duration_ms % 1000 * 1000000 };

    if (duration_ms > 0)
        nanosleep(&pause, NULL);
}

static void write_repeated(FCGX_Stream *stream, char byte, long long count)
{
    while (count-- > 0)
        FCGX_PutChar(byte, stream);
}

static void write_json_string(FCGX_Stream *out, const char *text, size_t length)
{
    FCGX_PutChar('"', out);
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)text[i];

        if (byte < 0x20 || byte >= 0x7f || byte == '"' || byte == '\\')
            FCGX_FPrintF(out, "\\u%04x", byte);
        else
            FCGX_PutChar(byte, out);
    }
    FCGX_PutChar('"', out);
}

static void write_params(const FCGX_Request *request)
{
    FCGX_PutS("{", request->out);
    for (char **entry = request->envp; *entry; entry++) {
        const char *equals = strchr(*entry, '=');

        if (entry != request->envp)
            FCGX_PutS(",\n", request->out);
        write_json_string(request->out, *entry, (size_t)(equals - *entry));
        FCGX_PutS(":", request->out);
        write_json_string(request->out, equals + 1, strlen(equals + 1));
    }
    FCGX_PutS("}\n", request->out);
}

static void write_echo(const FCGX_Request *request)
{
    char block[8192];
    int length;

    while ((length = FCGX_GetStr(block, sizeof(block), request->in)) > 0)
        FCGX_PutStr(block, length, request->out);
}

static void write_body(const FCGX_Request *request, const char *query)
{
    long long size = query_number(query, "size");
    long long flush_ms = query_number(query, "flush_ms");
    bool leave = query_is(query, "exit", "body");

    for (long long i = 0; i < size; i++) {
        FCGX_PutChar((int)(i % 251), request->out);
        if (leave && i == size / 2) {
            FCGX_FFlush(request->out);
            _exit(1);
        }
        if (flush_ms && i % 1000 == 999) {
            FCGX_FFlush(request->out);
            pause_ms(flush_ms);
        }
    }
}

/* The request body as the build request, in two writes when `gap_ms` is given. */
static void write_build(const FCGX_Request *request, const char *query)
{
    long long gap_ms = query_number(query, "gap_ms");
    const char *announced = FCGX_GetParam("CONTENT_LENGTH", request->envp);
    long long half = announced ? strtoll(announced, NULL, 10) / 2 : 0;
    int byte;

    for (long long i = 0; (byte = FCGX_GetChar(request->in)) != EOF; i++) {
        FCGX_PutChar(byte, request->out);
        if (gap_ms && i == half) {
            FCGX_FFlush(request->out);
            pause_ms(gap_ms);
        }
    }
}

static void write_head(const FCGX_Request *request, const char *query, const char *type)
{
    char head[256];
    long long status = query_number(query, "status");
    bool flush = query_number(query, "flush_head") != 0;
    int length = 0;

    if (status)
        length = snprintf(head, sizeof(head), "Status: %lld Scripted\r\n", status);
    length += snprintf(head + length, sizeof(head) - (size_t)length, "Content-Type: %s\r\n", type);
    if (query_is(query, "do", "build"))
        length += snprintf(head + length, sizeof(head) - (size_t)length, "X-Velox-Build: true\r\n");
    for (int i = 0; i < length; i++) {
        FCGX_PutChar(head[i], request->out);
        if (flush)
            FCGX_FFlush(request->out);
    }
    if (query_number(query, "head")) {
        FCGX_PutS("X-Long: ", request->out);
        write_repeated(request->out, 'h', query_number(query, "head"));
        FCGX_PutS("\r\n", request->out);
    }
    if (query_is(query, "exit", "head")) {
        FCGX_FFlush(request->out);
        _exit(1);
    }
    FCGX_PutS("\r\n", request->out);
}

static void answer(FCGX_Request *request)
{
    const char *query = FCGX_GetParam("QUERY_STRING", request->envp);
    long long app_status;

    query = query ? query : "";
    app_status = query_number(query, "app_status");
    if (query_number(query, "stderr")) {
        write_repeated(request->err, 'e', query_number(query, "stderr"));
        FCGX_FFlush(request->err);
    }
    pause_ms(query_number(query, "delay_ms"));
    if (app_status)
        FCGX_SetExitStatus((int)app_status, request->out);
    if (query_is(query, "do", "silent"))
        return;
    if (query_is(query, "do", "echo")) {
        write_head(request, query, "application/octet-stream");
        write_echo(request);
    } else if (query_is(query, "do", "body")) {
        write_head(request, query, "application/octet-stream");
        write_body(request, query);
    } else if (query_is(query, "do", "build")) {
        write_head(request, query, "application/json");
        write_build(request, query);
    } else {
        write_head(request, query, "application/json");
        write_params(request);
    }
}

static int serve(int listener)
{
    FCGX_Request request;
    long long linger_ms;
    const char *query;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (FCGX_Init() || FCGX_InitRequest(&request, listener, 0))
        return 1;
    while (FCGX_Accept_r(&request) == 0) {
        answer(&request);
        query = FCGX_GetParam("QUERY_STRING", request.envp);
        linger_ms = query ? query_number(query, "linger_ms") : 0;
        FCGX_Finish_r(&request);
        pause_ms(linger_ms);
    }
    return 1;
}

static pid_t start_worker(int listener, const sigset_t *signals)
{
    pid_t pid = fork();

    if (pid == 0) {
        sigprocmask(SIG_UNBLOCK, signals, NULL);
        _exit(serve(listener));
    }
    return pid;
}

static pid_t *find_worker(pid_t *workers, int count, pid_t pid)
{
    for (int i = 0; i < count; i++) {
        if (workers[i] == pid)
            return &workers[i];
    }
    return NULL;
}

/* A worker that left is replaced, as PHP-FPM replaces its children. Returns at SIGTERM, SIGINT. */
static void watch_workers(int listener, pid_t *workers, int count, const sigset_t *signals)
{
    int number = 0;
    pid_t gone;

    while (number != SIGTERM && number != SIGINT) {
        if (sigwait(signals, &number) != 0 || number != SIGCHLD)
            continue;
        while ((gone = waitpid(-1, NULL, WNOHANG)) > 0) {
            pid_t *place = find_worker(workers, count, gone);
            if (place)
                *place = start_worker(listener, signals);
        }
    }
    for (int i = 0; i < count; i++) {
        if (workers[i] > 0)
            kill(workers[i], SIGKILL);
    }
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
        ;
}

int main(int argc, char **argv)
{
    sigset_t signals;
    const char *address = NULL;
    pid_t workers[MAX_WORKERS];
    int count = 1, listener;

    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--listen") == 0)
            address = argv[i + 1];
        else if (strcmp(argv[i], "--workers") == 0)
            count = atoi(argv[i + 1]);
    }
    if (!address || argc % 2 == 0 || count < 1 || count > MAX_WORKERS) {
        fputs(usage, stderr);
        return 64;
    }
    if (strncmp(address, "unix:", 5) == 0)
        address += 5;
    unlink(address);
    listener = FCGX_OpenSocket(address, 1024);
    if (listener < 0) {
        fprintf(stderr, "fcgx-responder: cannot listen on %s\n", address);
        return 1;
    }
    chmod(address, 0666);
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    for (int i = 0; i < count; i++)
        workers[i] = start_worker(listener, &signals);
    puts("listening");
    fflush(stdout);
    watch_workers(listener, workers, count, &signals);
    if (*address == '/')
        unlink(address);
    return 0;
}
