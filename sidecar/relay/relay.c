/* SPDX-License-Identifier: MIT */
/*
 * Accepting connections, handing results to their exchanges, ending. Must never give up a listener
 * because descriptors or memory run out: it pauses.
 */
#include "sidecar/relay/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sidecar/relay/exchange.h"

/* The most connections taken from one listener in one turn: some, so that under load a turn pays;
 * few, so that the threads share them evenly. */
#define ACCEPTS_PER_TURN 8
/* How long accepting rests when the system has no descriptor or memory for another connection. */
#define ACCEPT_PAUSE_MS 100
/* After so many connections a thread lets the others go first. */
#define ACCEPTS_IN_LINE 16
/* By which the relay itself waits for a place among the fronts; tickets begin at 1. */
#define DOOR_NUMBER 0
/* How long a connection without a request is kept when we are told to drain: the request of one
 * that has just been opened, or reused, is on its way. */
#define IDLE_GRACE_MS 200

int relay_receive(struct watch *watch, uint8_t *room, size_t size, struct span *input)
{
    ssize_t got;

    if ((watch->ready & WATCH_READ) == 0) {
        return 0;
    }
    do {
        got = recv(watch->fd, room, size, MSG_DONTWAIT);
    } while (got < 0 && errno == EINTR);
    if (got > 0) {
        *input = span_of(room, (size_t)got);
        return 1;
    }
    if (got == 0) {
        return -EPIPE;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
        watch_clear(watch, WATCH_READ);
        return 0;
    }
    return -errno;
}

unsigned relay_front_limit(const struct relay *relay)
{
    return relay->fronts->max;
}

static struct list *ticket_bucket(struct relay *relay, uint64_t ticket)
{
    return &relay->tickets[ticket % RELAY_TICKET_BUCKETS];
}

uint64_t relay_add_ticket(struct relay *relay, struct list *link)
{
    uint64_t ticket = ++relay->next_ticket;

    list_append(ticket_bucket(relay, ticket), link);
    return ticket;
}

static void on_listener(struct watch *watch);

static void stop_accepting(struct relay *relay)
{
    for (size_t i = 0; i < relay->listener_count; i++) {
        watch_stop(&relay->listeners[i].watch);
    }
    relay->is_accepting = false;
}

static void leave_door(struct relay *relay)
{
    if (relay->door != NULL) {
        limit_leave(relay->fronts, relay->door);
        relay->door = NULL;
    }
}

static int start_accepting(struct relay *relay)
{
    for (size_t i = 0; i < relay->listener_count; i++) {
        struct relay_listener *listener = &relay->listeners[i];
        int error = watch_start_shared(&listener->watch, relay->loop, listener->fd, on_listener);

        if (error != 0) {
            stop_accepting(relay);
            return error;
        }
    }
    relay->is_accepting = true;
    timer_stop(&relay->accept_pause);
    return 0;
}

static void rest_accepting(struct relay *relay)
{
    stop_accepting(relay);
    if (timer_start(&relay->accept_pause, ACCEPT_PAUSE_MS) != 0) {
        (void)start_accepting(relay);
    }
}

static void pause_accepting(struct relay *relay, int error)
{
    log_error(relay->log, "cannot accept connections, trying again shortly",
              log_errno("error", error), log_uint("connections", relay->exchange_count));
    rest_accepting(relay);
}

/* All places are taken: the others wait in the backlog, and we for a place, wherever it becomes
 * free. */
static void await_place(struct relay *relay)
{
    stop_accepting(relay);
    if (relay->door == NULL &&
        limit_wait(relay->fronts, &relay->turns, DOOR_NUMBER, &relay->door) != 0) {
        relay->door = NULL;
        rest_accepting(relay);
    }
}

static void on_accept_pause(struct timer *timer)
{
    struct relay *relay = list_entry(timer, struct relay, accept_pause);

    if (!relay->is_draining && !relay->is_accepting && start_accepting(relay) != 0) {
        pause_accepting(relay, ENOMEM);
    }
}

/* True: another try may succeed at once. */
static bool on_accept_error(struct relay *relay, int error)
{
    limit_release(relay->fronts);
    switch (error) {
    case EAGAIN: /* another thread was faster */
        return false;
    case EINTR:
    case ECONNABORTED:
        return true;
    /* no descriptors or memory, or a listener that is broken: not to be asked all the time */
    default:
        pause_accepting(relay, error);
        return false;
    }
}

/* With a place taken. False: nothing (more) can be accepted now. */
static bool accept_placed(struct relay_listener *listener)
{
    struct relay *relay = listener->relay;
    struct sockaddr_storage peer;
    socklen_t length = sizeof(peer);
    struct sockaddr *wanted = listener->is_unix ? NULL : (struct sockaddr *)&peer;
    int fd;

    fd = accept4(listener->fd, wanted, wanted == NULL ? NULL : &length,
                 SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        return on_accept_error(relay, errno);
    }
    if (!listener->is_unix) {
        if (!sock_is_allowed(&peer, relay->options->allowed_clients,
                             relay->options->allowed_client_count)) {
            log_warn(relay->log, "connection refused: address is not in allowed_clients",
                     log_uint("family", peer.ss_family));
            close(fd);
            limit_release(relay->fronts);
            return true;
        }
        sock_set_nodelay(fd);
    }
    if (exchange_new(relay, fd, listener->is_unix, listener->is_scgi) != 0) {
        close(fd);
        limit_release(relay->fronts);
        pause_accepting(relay, ENOMEM);
        return false;
    }
    return true;
}

static bool accept_one(struct relay_listener *listener)
{
    if (!limit_take(listener->relay->fronts)) {
        await_place(listener->relay);
        return false;
    }
    return accept_placed(listener);
}

/*
 * The kernel wakes the same thread again and again, the first of those that sleep. So who has more
 * than his share of the connections goes to the end of the line, and anybody does now and then.
 */
static bool gives_way(struct relay *relay)
{
    unsigned count = relay->relay_count;
    size_t own = relay->exchange_count;

    return own * count > atomic_load_explicit(&relay->fronts->taken, memory_order_relaxed) +
                             count * (1 + own / 8) ||
           ++relay->accept_count % ACCEPTS_IN_LINE == 0;
}

/* Where little goes on, a second connection is rarely there, and asking for it wasted. */
static size_t accepts_in_turn(const struct relay *relay)
{
    size_t likely = 1 + relay->exchange_count / 4;

    return likely < ACCEPTS_PER_TURN ? likely : ACCEPTS_PER_TURN;
}

static void on_listener(struct watch *watch)
{
    struct relay_listener *listener = list_entry(watch, struct relay_listener, watch);
    struct relay *relay = listener->relay;
    size_t accepts = accepts_in_turn(relay);

    for (size_t i = 0; i < accepts && relay->is_accepting; i++) {
        if (!accept_one(listener)) {
            return;
        }
        if (relay->relay_count > 1 && relay->is_accepting && gives_way(relay)) {
            watch_stop(watch);
            if (watch_start_shared(watch, relay->loop, listener->fd, on_listener) != 0) {
                pause_accepting(relay, ENOMEM);
            }
            return;
        }
    }
}

static void tell_if_drained(struct relay *relay)
{
    if (relay->is_draining && relay->exchange_count == 0 && !relay->drained_told) {
        relay->drained_told = true;
        relay->on_drained(relay, relay->owner);
    }
}

static void on_reap(struct task *task)
{
    struct relay *relay = list_entry(task, struct relay, reap);
    struct list *link;

    while ((link = list_shift(&relay->closed)) != NULL) {
        exchange_free(list_entry(link, struct exchange, link));
    }
    tell_if_drained(relay);
}

static void for_all(struct relay *relay, void (*action)(struct exchange *exchange))
{
    struct list *link;
    struct list *after;

    list_for_each (link, after, &relay->exchanges) {
        action(list_entry(link, struct exchange, link));
    }
}

static void close_listeners(struct relay *relay)
{
    for (size_t i = 0; i < relay->listener_count; i++) {
        close(relay->listeners[i].fd);
    }
    relay->listener_count = 0;
}

/* Who got into the backlog before the stop is served; who comes later is refused, as by a server
 * that is down, instead of waiting in a backlog that nobody empties. */
static void close_doors(struct relay *relay)
{
    for (size_t i = 0; i < relay->listener_count; i++) {
        while (relay->is_accepting && accept_one(&relay->listeners[i])) {}
    }
    leave_door(relay);
    stop_accepting(relay);
    close_listeners(relay);
}

static void on_order(struct relay *relay, bool is_cut)
{
    if (!relay->is_draining) {
        close_doors(relay);
        if (relay->on_closed != NULL) {
            relay->on_closed(relay, relay->owner);
        }
    }
    relay->is_draining = true;
    relay->is_cutting = is_cut;
    relay->closes_idle = is_cut || timer_start(&relay->idle_grace, IDLE_GRACE_MS) != 0;
    for_all(relay, is_cut ? exchange_cut : exchange_drain);
    tell_if_drained(relay);
}

static void on_idle_grace(struct timer *timer)
{
    struct relay *relay = list_entry(timer, struct relay, idle_grace);

    relay->closes_idle = true;
    for_all(relay, exchange_drain);
}

static struct request *find_request(struct relay *relay, uint64_t ticket)
{
    struct list *bucket = ticket_bucket(relay, ticket);
    struct list *link;

    for (link = bucket->next; link != bucket; link = link->next) {
        struct request *request = list_entry(link, struct request, ticket_link);

        if (request->ticket == ticket) {
            return request;
        }
    }
    return NULL;
}

static void on_result(struct relay *relay, struct build_result *result)
{
    struct request *request = find_request(relay, result->ticket);

    if (request != NULL) {
        exchange_on_result(request->exchange, result);
    } else {
        build_result_free(result); /* whose client has left meanwhile */
    }
}

/* A place among the fronts is free and taken for us. */
static void on_place(struct relay *relay)
{
    bool is_used = false;

    relay->door = NULL;
    if (relay->is_draining || start_accepting(relay) != 0) {
        limit_release(relay->fronts);
        if (!relay->is_draining) {
            pause_accepting(relay, ENOMEM);
        }
        return;
    }
    for (size_t i = 0; i < relay->listener_count && !is_used && relay->is_accepting; i++) {
        is_used = i == 0 ? accept_placed(&relay->listeners[i]) : accept_one(&relay->listeners[i]);
    }
}

static void on_turn(struct mailbox *mailbox, struct mail *mail)
{
    struct relay *relay = list_entry(mailbox, struct relay, turns);
    struct limit_waiter *waiter = list_entry(mail, struct limit_waiter, mail);
    uint64_t number = waiter->number;
    struct request *request = find_request(relay, number);

    free(waiter);
    if (number == DOOR_NUMBER) {
        on_place(relay);
    } else if (request != NULL) {
        exchange_on_turn(request->exchange);
    } else {
        limit_release(relay->limit); /* who waited has left meanwhile */
    }
}

/* The orders are not allocated: a relay must be able to end when memory is short. */
static void on_mail(struct mailbox *mailbox, struct mail *mail)
{
    struct relay *relay = list_entry(mailbox, struct relay, mailbox);

    if (mail == &relay->drain_order) {
        on_order(relay, false);
    } else if (mail == &relay->cut_order) {
        on_order(relay, true);
    } else {
        on_result(relay, list_entry(mail, struct build_result, mail));
    }
}

void relay_drain(struct relay *relay)
{
    (void)mailbox_post(&relay->mailbox, &relay->drain_order);
}

void relay_cut(struct relay *relay)
{
    (void)mailbox_post(&relay->mailbox, &relay->cut_order);
}

static bool is_unix_listener(int fd)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof(address);

    return getsockname(fd, (struct sockaddr *)&address, &length) == 0 &&
           address.ss_family == AF_UNIX;
}

static int add_listeners(struct relay *relay, const struct relay_init *init)
{
    relay->listeners = calloc(init->listener_count, sizeof(*relay->listeners));
    if (relay->listeners == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < init->listener_count; i++) {
        int fd = fcntl(init->listeners[i], F_DUPFD_CLOEXEC, 0);

        if (fd < 0) {
            return -errno;
        }
        relay->listener_count++;
        relay->listeners[i] = (struct relay_listener){
            .relay = relay,
            .fd = fd,
            .is_unix = is_unix_listener(init->listeners[i]),
            .is_scgi = i + init->scgi_count >= init->listener_count,
        };
    }
    return start_accepting(relay);
}

static void on_watch_them(struct timer *timer)
{
    struct relay *relay = list_entry(timer, struct relay, watch_them);
    struct list *link;

    while ((link = list_shift(&relay->unwatched)) != NULL) {
        exchange_watch_front(list_entry(link, struct exchange, unwatched_link));
    }
}

static void set_up(struct relay *relay, const struct relay_init *init)
{
    relay->loop = init->loop;
    relay->options = init->options;
    relay->policy = init->policy;
    relay->version = init->version;
    relay->builder = init->builder;
    relay->limit = init->limit;
    relay->log = init->log;
    relay->stats = init->stats;
    relay->fronts = init->fronts;
    relay->relay_count = init->count > 0 ? init->count : 1;
    relay->on_closed = init->on_closed;
    relay->on_drained = init->on_drained;
    relay->owner = init->owner;
    /* Unique among all relays of the builder. */
    relay->next_ticket = (uint64_t)init->index << 48;
    list_init(&relay->exchanges);
    list_init(&relay->closed);
    list_init(&relay->lingering);
    list_init(&relay->unwatched);
    for (size_t i = 0; i < RELAY_TICKET_BUCKETS; i++) {
        list_init(&relay->tickets[i]);
    }
    task_init(&relay->reap, on_reap);
    timer_init(&relay->accept_pause, relay->loop, on_accept_pause);
    timer_init(&relay->watch_them, relay->loop, on_watch_them);
    timer_init(&relay->idle_grace, relay->loop, on_idle_grace);
}

static int open_mailboxes(struct relay *relay, const struct relay_init *init)
{
    int error = mailbox_init(&relay->mailbox, relay->loop, on_mail);

    if (error != 0) {
        return error;
    }
    error = mailbox_init(&relay->turns, relay->loop, on_turn);
    if (error == 0) {
        error = survey_init(&relay->survey, relay, init->board, init->index);
        if (error == 0) {
            error = carrier_init(&relay->carrier, relay->loop, init->prefetch, exchange_on_pages);
            if (error != 0) {
                survey_deinit(&relay->survey);
            }
        }
        if (error != 0) {
            mailbox_deinit(&relay->turns);
        }
    }
    if (error != 0) {
        mailbox_deinit(&relay->mailbox);
    }
    return error;
}

static void close_mailboxes(struct relay *relay)
{
    survey_deinit(&relay->survey);
    mailbox_close(&relay->mailbox);
    mailbox_close(&relay->turns);
    carrier_close(&relay->carrier);
    mailbox_deinit(&relay->mailbox);
    mailbox_deinit(&relay->turns);
    carrier_deinit(&relay->carrier);
}

int relay_new(struct relay **relay, const struct relay_init *init)
{
    struct relay *made = calloc(1, sizeof(*made));
    int error;

    if (made == NULL) {
        return -ENOMEM;
    }
    set_up(made, init);
    error = gate_init(&made->gate, init->options);
    if (error == 0) {
        error = open_mailboxes(made, init);
        if (error == 0) {
            error = add_listeners(made, init);
            if (error == 0) {
                *relay = made;
                return 0;
            }
            close_listeners(made);
            close_mailboxes(made);
        }
        gate_deinit(&made->gate);
    }
    free(made->listeners);
    free(made);
    return error;
}

void relay_free(struct relay *relay)
{
    struct list *link;

    relay->is_draining = true;
    relay->drained_told = true;
    leave_door(relay);
    stop_accepting(relay);
    close_listeners(relay);
    for_all(relay, exchange_close);
    while ((link = list_shift(&relay->lingering)) != NULL) {
        worker_free(list_entry(link, struct worker, link));
    }
    task_stop(&relay->reap);
    on_reap(&relay->reap);
    timer_stop(&relay->accept_pause);
    timer_stop(&relay->watch_them);
    timer_stop(&relay->idle_grace);
    close_mailboxes(relay);
    gate_deinit(&relay->gate);
    free(relay->listeners);
    free(relay);
}
