/* SPDX-License-Identifier: MIT */
/*
 * Do PHP-FPM and Velox answer? Both are asked for something that starts nothing: PHP-FPM for its
 * FCGI_GET_VALUES, which no script sees, Velox for an empty build request, which it refuses.
 */
#include "sidecar/doctor/checks.h"

#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fcgi/params.h"
#include "fcgi/record.h"
#include "sidecar/base/clock.h"
#include "sidecar/build/velox.h"
#include "sidecar/io/sock.h"

#define SUBJECT_SIZE 256

/* ---- PHP-FPM --------------------------------------------------------------------------------- */

static int wait_for(int fd, short events, uint64_t until_ns)
{
    struct pollfd poll_fd = { .fd = fd, .events = events };
    uint64_t now_ns = clock_monotonic_ns();
    int ready = poll(&poll_fd, 1, now_ns < until_ns ? (int)((until_ns - now_ns) / 1000000) : 0);

    if (ready < 0) {
        return -errno;
    }
    return ready == 0 ? -ETIMEDOUT : 0;
}

static int connect_to(const struct sock_address *address, uint64_t until_ns, int *fd)
{
    int error = sock_connect(address, fd);

    if (error != -EINPROGRESS) {
        return error;
    }
    error = wait_for(*fd, POLLOUT, until_ns);
    if (error == 0) {
        error = sock_error(*fd);
    }
    if (error != 0) {
        close(*fd);
    }
    return error;
}

/* A FCGI_GET_VALUES record; returns its bytes. */
static size_t make_question(uint8_t bytes[64])
{
    size_t length = params_write(bytes + FCGI_HEADER_SIZE, span_of_string(FCGI_MAX_CONNS),
                                 span_of("", 0));

    fcgi_header_write(bytes, FCGI_GET_VALUES, 0, (uint16_t)length, 0);
    return FCGI_HEADER_SIZE + length;
}

/* 0 where the peer speaks FastCGI, -EPROTO where it says something else, -EPIPE where it hangs up,
 * -ETIMEDOUT where it is silent. */
static int ask_values(int fd, uint64_t until_ns)
{
    uint8_t question[64];
    uint8_t answer[FCGI_HEADER_SIZE];
    struct fcgi_header header;
    size_t length = make_question(question);
    size_t got = 0;

    if (send(fd, question, length, MSG_NOSIGNAL) != (ssize_t)length) {
        return -EPIPE;
    }
    while (got < sizeof(answer)) {
        int error = wait_for(fd, POLLIN, until_ns);
        ssize_t now = error == 0 ? recv(fd, answer + got, sizeof(answer) - got, 0) : error;

        if (now <= 0) {
            return error != 0 ? error : -EPIPE;
        }
        got += (size_t)now;
    }
    return fcgi_header_read(answer, &header) && header.type == FCGI_GET_VALUES_RESULT ? 0 : -EPROTO;
}

/* Why the socket's file keeps us out. */
static void report_rights(struct report *report, const char *subject, const char *path)
{
    struct stat file;
    struct group *group = NULL;

    if (stat(path, &file) == 0) {
        group = getgrgid(file.st_gid);
        report_line(report, FINDING_FAIL, subject,
                    "permission denied; the socket is for group %s (mode %04o): add the service's "
                    "user to that group, or set listen.group in PHP-FPM's pool",
                    group != NULL ? group->gr_name : "of an unknown name",
                    (unsigned)(file.st_mode & 07777));
        return;
    }
    report_line(report, FINDING_FAIL, subject,
                "permission denied; the service's user may not enter the socket's folder");
}

static void report_no_connection(struct report *report, const char *subject,
                                 const struct sock_address *address, int error)
{
    switch (error) {
    case -EACCES:
        report_rights(report, subject, address->text + strlen("unix:"));
        break;
    case -ENOENT:
        report_line(report, FINDING_FAIL, subject,
                    "no such socket; start PHP-FPM, or set [php_fpm] address to what `listen` says "
                    "in its pool");
        break;
    case -ECONNREFUSED:
        report_line(report, FINDING_FAIL, subject,
                    "nobody listens; start PHP-FPM, or set [php_fpm] address to what `listen` says "
                    "in its pool");
        break;
    case -EAGAIN:
        report_line(report, FINDING_FAIL, subject,
                    "its backlog is full: all workers are busy; raise pm.max_children, or set "
                    "[php_fpm] max_connections to it so that requests wait in line here");
        break;
    default:
        report_line(report, FINDING_FAIL, subject, "cannot connect: %s", strerror(-error));
        break;
    }
}

static void check_php_fpm_at(struct report *report, const struct sock_address *address)
{
    uint64_t until_ns = clock_monotonic_ns() + (uint64_t)DOCTOR_PATIENCE_MS * 1000000;
    char subject[SUBJECT_SIZE];
    int fd;
    int error;

    (void)snprintf(subject, sizeof(subject), "PHP-FPM at %s", address->text);
    error = connect_to(address, until_ns, &fd);
    if (error != 0) {
        report_no_connection(report, subject, address, error);
        return;
    }
    error = ask_values(fd, until_ns);
    close(fd);
    if (error == 0) {
        report_line(report, FINDING_OK, subject, "answers");
    } else if (error == -ETIMEDOUT) {
        report_line(report, FINDING_WARN, subject,
                    "takes the connection, but no worker answers within %d s: all are busy; see "
                    "pm.max_children",
                    DOCTOR_PATIENCE_MS / 1000);
    } else {
        report_line(report, FINDING_FAIL, subject,
                    "what listens there does not speak FastCGI as PHP-FPM does; set [php_fpm] "
                    "address to what `listen` says in PHP-FPM's pool");
    }
}

void check_php_fpm(struct report *report, const struct config *config)
{
    for (size_t i = 0; i < config->relay.address_count; i++) {
        check_php_fpm_at(report, &config->relay.addresses[i]);
    }
}

/* ---- Velox ----------------------------------------------------------------------------------- */

struct velox_question {
    struct report *report;
    struct loop *loop;
    const char *subject;
};

static void report_retry(const struct velox_question *question, const struct velox_answer *answer)
{
    int length = (int)(answer->detail.len < 512 ? answer->detail.len : 512);
    const char *detail = length > 0 ? (const char *)answer->detail.ptr : "";

    switch (answer->reason) {
    case VELOX_RETRY_CONNECT:
        report_line(question->report, FINDING_FAIL, question->subject,
                    "cannot connect (%.*s); start Velox, or set [velox] server_url to where it is",
                    length, detail);
        break;
    case VELOX_RETRY_TIMEOUT:
        report_line(question->report, FINDING_FAIL, question->subject,
                    "takes the connection, but does not answer within %d s",
                    DOCTOR_PATIENCE_MS / 1000);
        break;
    case VELOX_RETRY_CUT:
        report_line(question->report, FINDING_FAIL, question->subject,
                    "closes the connection without an answer (%.*s); is it http or https?", length,
                    detail);
        break;
    default:
        report_line(question->report, FINDING_WARN, question->subject,
                    "answers HTTP %u: it is there, but not ready to build", answer->status);
        break;
    }
}

static void report_answer(const struct velox_question *question, const struct velox_answer *answer)
{
    int length = (int)(answer->message.len < 512 ? answer->message.len : 512);

    switch (answer->outcome) {
    case VELOX_BUILT:
    case VELOX_ALREADY_RUNS:
    case VELOX_BUILD_FAILED:
    case VELOX_REQUEST_INVALID:
        report_line(question->report, FINDING_OK, question->subject, "answers");
        break;
    case VELOX_RETRY:
        report_retry(question, answer);
        break;
    default:
        report_line(question->report, FINDING_FAIL, question->subject,
                    answer->status == 401 || answer->status == 403
                        ? "refuses us (HTTP %u); check [velox] token_file"
                        : "answers HTTP %u, not as Velox's build service does; check [velox] "
                          "server_url and build_path",
                    answer->status);
        if (length > 0 && answer->status == 0) {
            report_line(question->report, FINDING_FAIL, question->subject, "%.*s", length,
                        (const char *)answer->message.ptr);
        }
        break;
    }
}

static void on_answer(void *waiter, const struct velox_answer *answer)
{
    struct velox_question *question = waiter;

    report_answer(question, answer);
    loop_stop(question->loop);
}

static void ask_velox(struct report *report, const struct config *config, struct loop *loop,
                      struct velox_client *client)
{
    for (size_t i = 0; i < config->build.server_count; i++) {
        const struct velox_server *server = &config->build.servers[i];
        struct velox_question question = { .report = report, .loop = loop };
        struct velox_call *call;
        char subject[SUBJECT_SIZE];

        (void)snprintf(subject, sizeof(subject), "Velox at %s%s",
                       server->unix_socket[0] != '\0' ? "unix:" : "",
                       server->unix_socket[0] != '\0' ? server->unix_socket : server->url);
        question.subject = subject;
        if (client->start(client, i, span_of_string("{}"), DOCTOR_PATIENCE_MS, on_answer, &question,
                          &call) != 0) {
            report_line(report, FINDING_FAIL, subject, "out of memory");
            return;
        }
        loop_run(loop);
    }
}

void check_velox(struct report *report, const struct config *config)
{
    struct velox_client *client;
    struct loop *loop;
    struct log log;

    if (config->build.server_count == 0) {
        report_line(report, FINDING_WARN, "Velox",
                    "[velox] server_url is empty, so no response is intercepted and nothing is "
                    "built");
        return;
    }
    log_init(&log, STDERR_FILENO, LOG_ERROR, LOG_TEXT);
    if (loop_new(&loop) != 0) {
        report_line(report, FINDING_FAIL, "Velox", "out of memory");
        return;
    }
    if (velox_new(&client, loop, &config->build, &log) == 0) {
        ask_velox(report, config, loop, client);
        velox_free(client);
    } else {
        report_line(report, FINDING_FAIL, "Velox",
                    "[velox] token_file or ca_file cannot be used, see the line above; the "
                    "service's user must be able to read them");
    }
    loop_free(loop);
}
