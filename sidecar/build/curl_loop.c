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

/*
 * A callback that fails is the end of a multi handle (curl's lib/multi.c:multi_runsingle, `dead`):
 * each transfer ends with an error when it is run the next time, so all are run; and the handle is
 * of no use any more.
 */
static int fail_callback(struct curl_loop *curl_loop)
{
    curl_loop->is_broken = true;
    task_defer(&curl_loop->task, curl_loop->loop);
    return -1;
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
    struct curl_loop *curl_loop = list_entry(task, struct curl_loop, task);
    int running;

    free_closed_sockets(curl_loop);
    if (curl_loop->is_broken && curl_loop->transfers > 0) {
        (void)curl_multi_perform(curl_loop->multi, &running);
        curl_loop->on_progress(curl_loop);
    }
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
            return fail_callback(curl_loop);
        }
    }
    watch_stop(&socket->watch);
    if (wanted == 0) {
        return 0;
    }
    return watch_start_level(&socket->watch, curl_loop->loop, fd, wanted, on_socket_ready) < 0
               ? fail_callback(curl_loop)
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
    return timer_start(&curl_loop->timer, (uint64_t)timeout_ms) < 0 ? fail_callback(curl_loop) : 0;
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

static int make_multi(struct curl_loop *curl_loop)
{
    CURLM *multi = curl_multi_init();

    curl_loop->multi = multi;
    if (multi == NULL ||
        curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, on_curl_socket) != CURLM_OK ||
        curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, curl_loop) != CURLM_OK ||
        curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, on_curl_timer) != CURLM_OK ||
        curl_multi_setopt(multi, CURLMOPT_TIMERDATA, curl_loop) != CURLM_OK ||
        curl_multi_setopt(multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING) != CURLM_OK ||
        curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, curl_loop->kept_connections) != CURLM_OK) {
        return -ENOMEM;
    }
    return 0;
}

int curl_loop_start(struct curl_loop *curl_loop, struct loop *loop, long kept_connections,
                    void (*on_progress)(struct curl_loop *curl_loop))
{
    *curl_loop = (struct curl_loop){
        .loop = loop,
        .kept_connections = kept_connections,
        .on_progress = on_progress,
    };
    list_init(&curl_loop->sockets);
    list_init(&curl_loop->closed_sockets);
    task_init(&curl_loop->task, on_task);
    timer_init(&curl_loop->timer, loop, on_timer);
    return make_multi(curl_loop);
}

/* The kept connections go with it. */
static void drop_multi(struct curl_loop *curl_loop)
{
    if (curl_loop->multi != NULL) {
        (void)curl_multi_cleanup(curl_loop->multi);
        curl_loop->multi = NULL;
    }
    while (!list_is_empty(&curl_loop->sockets)) {
        socket_retire(list_entry(curl_loop->sockets.next, struct socket_watch, link));
    }
    timer_stop(&curl_loop->timer);
}

void curl_loop_stop(struct curl_loop *curl_loop)
{
    drop_multi(curl_loop);
    task_stop(&curl_loop->task);
    free_closed_sockets(curl_loop);
}

int curl_loop_add(struct curl_loop *curl_loop, CURL *easy)
{
    if (curl_loop->is_broken && curl_loop->transfers > 0) {
        return -ENOMEM; /* until the last of them has been told */
    }
    if (curl_loop->is_broken || curl_loop->multi == NULL) {
        drop_multi(curl_loop);
        curl_loop->is_broken = false;
        if (make_multi(curl_loop) < 0) {
            drop_multi(curl_loop);
            return -ENOMEM;
        }
    }
    if (curl_multi_add_handle(curl_loop->multi, easy) != CURLM_OK) {
        return -ENOMEM;
    }
    curl_loop->transfers++;
    return 0;
}

void curl_loop_remove(struct curl_loop *curl_loop, CURL *easy)
{
    (void)curl_multi_remove_handle(curl_loop->multi, easy);
    curl_loop->transfers--;
}

bool curl_loop_take_ended(struct curl_loop *curl_loop, void **owner, CURLcode *code)
{
    CURLMsg *message;
    int left;

    while ((message = curl_multi_info_read(curl_loop->multi, &left)) != NULL) {
        if (message->msg == CURLMSG_DONE) {
            *code = message->data.result;
            *owner = NULL;
            (void)curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)owner);
            return true;
        }
    }
    return false;
}
