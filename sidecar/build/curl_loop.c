/* SPDX-License-Identifier: MIT */
/*
 * libcurl's sockets and timer on our loop. Must never call into curl from one of curl's callbacks,
 * and never leave a descriptor watched that curl has closed.
 */
#include "sidecar/build/curl_loop.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

struct socket_watch {
    struct list link;
    struct curl_loop *owner;
    struct watch watch;
};

static void act(struct curl_loop *curl_loop, curl_socket_t fd, int events)
{
    int running;

    (void)curl_multi_socket_action(curl_loop->multi, fd, events, &running);
    curl_loop->on_progress(curl_loop);
}

static void on_timer(struct timer *timer)
{
    act(list_entry(timer, struct curl_loop, timer), CURL_SOCKET_TIMEOUT, 0);
}

static void on_socket_ready(struct watch *watch)
{
    struct socket_watch *socket = list_entry(watch, struct socket_watch, watch);
    int events = ((watch->ready & WATCH_READ) != 0 ? CURL_CSELECT_IN : 0) |
                 ((watch->ready & WATCH_WRITE) != 0 ? CURL_CSELECT_OUT : 0);

    act(socket->owner, watch->fd, events);
}

/* A socket may be closed by what its own callback does, so it is freed later. */
static void socket_retire(struct socket_watch *socket)
{
    watch_stop(&socket->watch);
    list_remove(&socket->link);
    list_append(&socket->owner->closed_sockets, &socket->link);
    task_defer(&socket->owner->task, socket->owner->loop);
}

static void free_closed_sockets(struct curl_loop *curl_loop)
{
    struct list *link;

    while ((link = list_shift(&curl_loop->closed_sockets)) != NULL) {
        free(list_entry(link, struct socket_watch, link));
    }
}

static void on_task(struct task *task)
{
    free_closed_sockets(list_entry(task, struct curl_loop, task));
}

static struct socket_watch *socket_new(struct curl_loop *curl_loop, curl_socket_t fd)
{
    struct socket_watch *socket = calloc(1, sizeof(*socket));

    if (socket == NULL) {
        return NULL;
    }
    if (curl_multi_assign(curl_loop->multi, fd, socket) != CURLM_OK) {
        free(socket);
        return NULL;
    }
    socket->owner = curl_loop;
    list_append(&curl_loop->sockets, &socket->link);
    return socket;
}

/* curl tells what it wants to know of a socket. -1 makes curl fail the calls with
 * CURLM_ABORTED_BY_CALLBACK. */
static int on_curl_socket(CURL *easy, curl_socket_t fd, int what, void *loop_pointer,
                          void *socket_pointer)
{
    struct curl_loop *curl_loop = loop_pointer;
    struct socket_watch *socket = socket_pointer;
    unsigned wanted = ((what & CURL_POLL_IN) != 0 ? WATCH_READ : 0u) |
                      ((what & CURL_POLL_OUT) != 0 ? WATCH_WRITE : 0u);

    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (socket != NULL) {
            socket_retire(socket);
        }
        return 0;
    }
    if (socket == NULL) {
        socket = socket_new(curl_loop, fd);
        if (socket == NULL) {
            return -1;
        }
    }
    watch_stop(&socket->watch);
    if (wanted == 0) {
        return 0;
    }
    return watch_start_level(&socket->watch, curl_loop->loop, fd, wanted, on_socket_ready) < 0 ? -1
                                                                                               : 0;
}

static int on_curl_timer(CURLM *multi, long timeout_ms, void *loop_pointer)
{
    struct curl_loop *curl_loop = loop_pointer;

    (void)multi;
    if (timeout_ms < 0) {
        timer_stop(&curl_loop->timer);
        return 0;
    }
    return timer_start(&curl_loop->timer, (uint64_t)timeout_ms) < 0 ? -1 : 0;
}

/*
 * Belt and braces: curl announces the removal of a socket before it closes it, except that a
 * connection that no transfer owns any more has once been closed without a word. A descriptor that
 * is closed while it is watched would be mistaken for the next one of its number.
 */
int curl_loop_close_socket(void *loop_pointer, curl_socket_t fd)
{
    struct curl_loop *curl_loop = loop_pointer;
    struct list *link, *after;

    list_for_each (link, after, &curl_loop->sockets) {
        struct socket_watch *socket = list_entry(link, struct socket_watch, link);

        if (watch_is_started(&socket->watch) && socket->watch.fd == fd) {
            watch_stop(&socket->watch);
        }
    }
    return close(fd);
}

int curl_loop_start(struct curl_loop *curl_loop, struct loop *loop,
                    void (*on_progress)(struct curl_loop *curl_loop))
{
    CURLM *multi = curl_multi_init();

    *curl_loop = (struct curl_loop){ .loop = loop, .multi = multi, .on_progress = on_progress };
    list_init(&curl_loop->sockets);
    list_init(&curl_loop->closed_sockets);
    task_init(&curl_loop->task, on_task);
    timer_init(&curl_loop->timer, loop, on_timer);
    if (multi == NULL ||
        curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, on_curl_socket) != CURLM_OK ||
        curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, curl_loop) != CURLM_OK ||
        curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, on_curl_timer) != CURLM_OK ||
        curl_multi_setopt(multi, CURLMOPT_TIMERDATA, curl_loop) != CURLM_OK ||
        curl_multi_setopt(multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING) != CURLM_OK) {
        return -ENOMEM;
    }
    return 0;
}

void curl_loop_stop(struct curl_loop *curl_loop)
{
    struct list *link;

    if (curl_loop->multi != NULL) {
        (void)curl_multi_cleanup(curl_loop->multi);
    }
    while ((link = list_shift(&curl_loop->sockets)) != NULL) {
        struct socket_watch *socket = list_entry(link, struct socket_watch, link);

        watch_stop(&socket->watch);
        free(socket);
    }
    timer_stop(&curl_loop->timer);
    task_stop(&curl_loop->task);
    free_closed_sockets(curl_loop);
}
