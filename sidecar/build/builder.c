/* SPDX-License-Identifier: MIT */
/*
 * Tickets, single flight and limits: who waits for which build, which builds run and which wait for
 * their turn. It must never touch a relay's objects: results go out by mailbox, as numbers and open
 * descriptors. Only builder_submit and builder_cancel may be called from other threads; they touch
 * nothing but the mailbox.
 */
#include "sidecar/build/builder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/random.h>

#include "sidecar/build/build.h"
#include "sidecar/build/cache_answer.h"
#include "sidecar/build/failed_builds.h"
#include "sidecar/build/ticket.h"

#define TABLE_SIZE 256
#define RETRY_AFTER_MAX_S 600
#define AVERAGE_WEIGHT 8 /* the newest build counts one eighth */

struct builder {
    struct build_services services;
    struct velox_client *own_client; /* NULL where it is borrowed */
    struct fetcher *own_fetcher;     /* NULL where nothing is fetched */
    struct mailbox mailbox;
    struct mailbox kept; /* answers of the cache; open where there is one */
    bool stopping;
    struct list tickets[TABLE_SIZE]; /* struct ticket by number */
    struct list builds[TABLE_SIZE];  /* struct build by key, those under way */
    struct list queue;               /* builds in QUEUED, first come first */
    size_t queued;
    struct list running;
    size_t running_count;
    struct failed_builds failed;
    uint64_t average_ms; /* of builds that were ready, from start to end; 0: none yet */
};

struct order {
    struct mail mail; /* first */
    bool is_cancel;
    uint64_t ticket_number;
    struct ticket *ticket; /* with a submit, owned */
    struct build_request request;
};

static void on_build_end(struct build *build);

static struct builder *builder_of(struct build *build)
{
    return list_entry(build->services, struct builder, services);
}

/* ---- answers --------------------------------------------------------------------------------- */

/* How long until a place may be free, by what builds took so far. */
static unsigned retry_after_s(const struct builder *builder)
{
    uint64_t places = builder->services.options->max_concurrent_builds;
    uint64_t ahead = builder->queued + 1;
    uint64_t wait_s = builder->average_ms * ahead / (places == 0 ? 1 : places) / 1000;

    return wait_s < 1 ? 1 : wait_s > RETRY_AFTER_MAX_S ? RETRY_AFTER_MAX_S : (unsigned)wait_s;
}

/* The artifact for one of those who wait; the last one gets the build's own descriptor. */
static int take_artifact(struct build *build, bool last, struct artifact *artifact)
{
    int fd = last ? build->artifact.fd : fcntl(build->artifact.fd, F_DUPFD_CLOEXEC, 0);

    if (fd < 0) {
        return -errno;
    }
    *artifact = build->artifact;
    artifact->fd = fd;
    if (last) {
        build->artifact.fd = -1;
    }
    return 0;
}

static void answer_ready(struct builder *builder, struct build *build, struct ticket *ticket)
{
    bool last = build->tickets.prev == build->tickets.next;

    ticket->result->duration_ms = loop_now_ms(builder->services.loop) - ticket->submitted_ms;
    if (take_artifact(build, last, &ticket->result->artifact) < 0) {
        ticket_fail(ticket, FAILURE_BUSY, span_of_string("the sidecar is out of descriptors"),
                    retry_after_s(builder));
        return;
    }
    ticket_answer(ticket);
}

/* ---- builds under way ------------------------------------------------------------------------ */

static void queue_add(struct builder *builder, struct build *build)
{
    list_append(&builder->queue, &build->link);
    builder->queued++;
    stats_count(builder->services.stats, STAT_BUILDS_QUEUED);
}

static void queue_remove(struct builder *builder, struct build *build)
{
    list_remove(&build->link);
    builder->queued--;
    stats_drop(builder->services.stats, STAT_BUILDS_QUEUED);
}

static void run(struct builder *builder, struct build *build)
{
    list_append(&builder->running, &build->link);
    builder->running_count++;
    stats_count(builder->services.stats, STAT_BUILDS_ACTIVE);
    build_start(build);
}

static void running_remove(struct builder *builder, struct build *build)
{
    list_remove(&build->link);
    builder->running_count--;
    stats_drop(builder->services.stats, STAT_BUILDS_ACTIVE);
}

/* Out of the queue or out of those that run; the gauges follow. One that ends by its deadline may
 * never have run. */
static void leave_list(struct builder *builder, struct build *build)
{
    if (build->was_started) {
        running_remove(builder, build);
    } else {
        queue_remove(builder, build);
    }
}

static bool has_place(const struct builder *builder)
{
    uint64_t max = builder->services.options->max_concurrent_builds;

    return max == 0 || builder->running_count < max;
}

static struct list *builds_with(struct builder *builder, const uint8_t *key)
{
    return &builder->builds[key[0] % TABLE_SIZE];
}

/* One under way with that key; forced: only a forced one will do. */
static struct build *find_build(struct builder *builder, const struct build_request *request)
{
    struct list *head = builds_with(builder, request->key);
    struct list *link, *after;

    list_for_each (link, after, head) {
        struct build *build = list_entry(link, struct build, table_link);

        if (build_may_be_joined(build) &&
            memcmp(build->request.key, request->key, sizeof(request->key)) == 0 &&
            (build->request.force_rebuild || !request->force_rebuild)) {
            return build;
        }
    }
    return NULL;
}

/* A forced build waits until the one that is not forced has ended: Velox would refuse it as
 * already_exists, and its result would not be fresh. */
static bool must_wait(struct builder *builder, const struct build *build)
{
    struct list *head = builds_with(builder, build->request.key);
    struct list *link, *after;

    if (!build->request.force_rebuild) {
        return false;
    }
    list_for_each (link, after, head) {
        const struct build *other = list_entry(link, struct build, table_link);

        if (other != build && other->was_started &&
            memcmp(other->request.key, build->request.key, sizeof(build->request.key)) == 0) {
            return true;
        }
    }
    return false;
}

/* Starts what may start, in the order of coming. */
static void run_queue(struct builder *builder)
{
    struct list *link, *after;

    list_for_each (link, after, &builder->queue) {
        struct build *build = list_entry(link, struct build, link);

        if (!has_place(builder)) {
            return;
        }
        /* One whose deadline came in this very turn is still listed, but over. */
        if (build_is_under_way(build) && !must_wait(builder, build)) {
            queue_remove(builder, build);
            run(builder, build);
        }
    }
}

static void build_drop(struct builder *builder, struct build *build)
{
    list_remove(&build->table_link);
    leave_list(builder, build);
    build_free(build);
    if (!builder->stopping) {
        run_queue(builder);
    }
}

/* Without the wait for a place, which would be counted twice. */
static void observe_time(struct builder *builder, uint64_t time_ms)
{
    uint64_t average_ms = builder->average_ms;

    builder->average_ms = average_ms == 0
                              ? time_ms
                              : (average_ms * (AVERAGE_WEIGHT - 1) + time_ms) / AVERAGE_WEIGHT;
}

static void count_end(struct builder *builder, const struct build *build)
{
    struct stats *stats = builder->services.stats;

    if (build->state == BUILD_READY) {
        stats_count(stats, STAT_BUILDS_SUCCESS);
        stats_observe_ns(stats, STAT_BUILD_DURATION, build->duration_ms * 1000000);
        observe_time(builder, loop_now_ms(builder->services.loop) - build->started_ms);
    } else {
        stats_count(stats,
                    build->failure == FAILURE_TIMEOUT ? STAT_BUILDS_TIMEOUT : STAT_BUILDS_ERROR);
    }
}

static void on_build_end(struct build *build)
{
    struct builder *builder = builder_of(build);
    struct list *link;

    count_end(builder, build);
    if (build->failure == FAILURE_BUILD_FAILED) {
        failed_builds_add(&builder->failed, build->request.key, buf_span(&build->message),
                          loop_now_ms(builder->services.loop));
    } else if (build->state == BUILD_READY) {
        failed_builds_forget(&builder->failed, build->request.key);
    }
    while ((link = build->tickets.next) != &build->tickets) {
        struct ticket *ticket = list_entry(link, struct ticket, link);

        if (build->state == BUILD_READY) {
            answer_ready(builder, build, ticket);
        } else {
            ticket_fail(ticket, build->failure, buf_span(&build->message),
                        build->failure == FAILURE_BUSY ? retry_after_s(builder) : 0);
        }
    }
    build_drop(builder, build);
}

static void ticket_join(struct builder *builder, struct ticket *ticket, struct build *build)
{
    ticket->build = build;
    list_append(&build->tickets, &ticket->link);
    list_append(&builder->tickets[ticket->number % TABLE_SIZE], &ticket->table_link);
}

static bool is_full(const struct builder *builder)
{
    return !has_place(builder) && builder->queued >= builder->services.options->max_queued_builds;
}

/* ---- the cache ------------------------------------------------------------------------------- */

/* The build may have ended without it. */
static void on_kept(struct mailbox *mailbox, struct mail *mail)
{
    struct builder *builder = list_entry(mailbox, struct builder, kept);
    struct cache_order *order = list_entry(mail, struct cache_order, mail);
    struct list *link, *after;

    list_for_each (link, after, &builder->running) {
        struct build *build = list_entry(link, struct build, link);

        if (build->order == order->number) {
            build_on_kept(build, &order->artifact);
            break;
        }
    }
    cache_order_free(order);
}

int builder_use_cache(struct builder *builder, struct cache *cache)
{
    int error = mailbox_init(&builder->kept, builder->services.loop, on_kept);

    if (error == 0) {
        builder->services.cache = cache;
        builder->services.kept_to = &builder->kept;
    }
    return error;
}

/* ---- submit and cancel ----------------------------------------------------------------------- */

static void begin_build(struct builder *builder, struct ticket *ticket,
                        struct build_request *request)
{
    struct build *build;

    if (build_new(&build, &builder->services, request, on_build_end) < 0) {
        ticket_fail(ticket, FAILURE_BUSY, span_of_string("the sidecar is out of memory"), 1);
        return;
    }
    list_append(builds_with(builder, build->request.key), &build->table_link);
    ticket_join(builder, ticket, build);
    queue_add(builder, build);
    run_queue(builder);
}

/* Takes the ticket and the request's content. */
static void on_submit(struct builder *builder, struct ticket *ticket, struct build_request *request)
{
    struct build *build;
    struct span message;

    ticket->submitted_ms = loop_now_ms(builder->services.loop);
    memcpy(ticket->request_id, request->id, sizeof(ticket->request_id));
    if (builder->stopping) {
        ticket_fail(ticket, FAILURE_BUSY, span_of_string("the sidecar is being stopped"), 1);
    } else if (builder->services.options->server_count == 0) {
        ticket_fail(ticket, FAILURE_VELOX_UNAVAILABLE, span_of_string("no server_url is set"), 0);
    } else if (cache_answer_ticket(&builder->services, ticket, request)) {
        /* nothing is left to do */
    } else if (!request->force_rebuild &&
               failed_builds_find(&builder->failed, request->key, ticket->submitted_ms, &message)) {
        log_info(builder->services.log, "build failed a moment ago, not tried again",
                 log_str("request_id", request->id));
        ticket_fail(ticket, FAILURE_BUILD_FAILED, message, 0);
    } else if ((build = find_build(builder, request)) != NULL) {
        stats_count(builder->services.stats, STAT_BUILDS_COALESCED);
        log_info(builder->services.log, "build shared", log_str("request_id", request->id),
                 log_str("with", build->request.id));
        ticket_join(builder, ticket, build);
    } else if (is_full(builder)) {
        log_warn(builder->services.log, "build refused, the queue is full",
                 log_str("request_id", request->id), log_uint("queued", builder->queued));
        ticket_fail(ticket, FAILURE_BUSY,
                    span_of_string("too many builds are waiting (max_queued_builds)"),
                    retry_after_s(builder));
    } else {
        begin_build(builder, ticket, request);
    }
    build_request_deinit(request);
}

static struct ticket *find_ticket(struct builder *builder, uint64_t number)
{
    struct list *head = &builder->tickets[number % TABLE_SIZE];
    struct list *link, *after;

    list_for_each (link, after, head) {
        struct ticket *ticket = list_entry(link, struct ticket, table_link);

        if (ticket->number == number) {
            return ticket;
        }
    }
    return NULL;
}

static void abandon(struct builder *builder, struct build *build)
{
    build_cancel(build);
    stats_count(builder->services.stats, STAT_BUILDS_CANCELLED);
    build_drop(builder, build);
}

static void note_leave(struct builder *builder, const struct ticket *ticket)
{
    bool was_started = ticket->build->was_started;

    stats_count(builder->services.stats,
                was_started ? STAT_CLIENTS_LEFT_BUILD : STAT_CLIENTS_LEFT_QUEUE);
    log_info(builder->services.log, "client left",
             log_str("stage", was_started ? "build" : "queue"),
             log_str("request_id", ticket->request_id));
}

/* A ticket that is unknown has been answered already. */
static void on_cancel(struct builder *builder, uint64_t number)
{
    struct ticket *ticket = find_ticket(builder, number);
    struct build *build;
    bool finish = builder->services.options->on_client_abort == CLIENT_ABORT_FINISH;

    if (ticket == NULL) {
        return;
    }
    build = ticket->build;
    note_leave(builder, ticket);
    ticket_free(ticket);
    if (!list_is_empty(&build->tickets) || !build_is_under_way(build)) {
        return; /* others wait, or it ends in this very turn */
    }
    if (!build->was_started || !finish) {
        abandon(builder, build);
    }
}

static void on_mail(struct mailbox *mailbox, struct mail *mail)
{
    struct builder *builder = list_entry(mailbox, struct builder, mailbox);
    struct order *order = list_entry(mail, struct order, mail);

    if (order->is_cancel) {
        on_cancel(builder, order->ticket_number);
    } else {
        on_submit(builder, order->ticket, &order->request);
    }
    free(order);
}

int builder_submit(struct builder *builder, uint64_t ticket, struct build_request *request,
                   struct mailbox *reply_to)
{
    struct order *order = calloc(1, sizeof(*order));
    int result;

    if (order == NULL) {
        return -ENOMEM;
    }
    order->ticket = ticket_new(ticket, reply_to);
    if (order->ticket == NULL) {
        free(order);
        return -ENOMEM;
    }
    order->request = *request;
    result = mailbox_post(&builder->mailbox, &order->mail);
    if (result < 0) {
        ticket_free(order->ticket);
        free(order);
        return result;
    }
    buf_init(&request->body, 0); /* its memory travels with the order */
    return 0;
}

void builder_cancel(struct builder *builder, uint64_t ticket)
{
    struct order *order = calloc(1, sizeof(*order));

    if (order == NULL) {
        return;
    }
    order->is_cancel = true;
    order->ticket_number = ticket;
    if (mailbox_post(&builder->mailbox, &order->mail) < 0) {
        free(order);
    }
}

/* ---- the builder ----------------------------------------------------------------------------- */

int builder_new_with_client(struct builder **builder, struct loop *loop,
                            const struct build_options *options, struct log *log,
                            struct stats *stats, struct velox_client *client)
{
    struct builder *made = calloc(1, sizeof(*made));
    int result;

    if (made == NULL) {
        return -ENOMEM;
    }
    made->services = (struct build_services){
        .loop = loop,
        .options = options,
        .client = client,
        .log = log,
        .stats = stats,
    };
    (void)!getrandom(&made->services.random_state, sizeof(made->services.random_state), 0);
    for (size_t i = 0; i < TABLE_SIZE; i++) {
        list_init(&made->tickets[i]);
        list_init(&made->builds[i]);
    }
    failed_builds_init(&made->failed, options->failure_ttl_ms);
    list_init(&made->queue);
    list_init(&made->running);
    result = mailbox_init(&made->mailbox, loop, on_mail);
    if (result < 0) {
        free(made);
        return result;
    }
    *builder = made;
    return 0;
}

int builder_new(struct builder **builder, struct loop *loop, const struct build_options *options,
                struct log *log, struct stats *stats)
{
    struct velox_client *client;
    int result = velox_new(&client, loop, options, log);

    if (result < 0) {
        return result;
    }
    result = builder_new_with_client(builder, loop, options, log, stats, client);
    if (result < 0) {
        velox_free(client);
        return result;
    }
    (*builder)->own_client = client;
    if (options->artifact.url[0] != '\0') {
        result = fetcher_new(&(*builder)->own_fetcher, loop, options, log);
        (*builder)->services.fetcher = (*builder)->own_fetcher;
    }
    if (result < 0) {
        builder_stop(*builder);
        builder_free(*builder);
    }
    return result;
}

static void stop_build(struct builder *builder, struct build *build)
{
    struct list *link;

    while ((link = build->tickets.next) != &build->tickets) {
        ticket_fail(list_entry(link, struct ticket, link), FAILURE_BUSY,
                    span_of_string("the sidecar is being stopped"), 1);
    }
    if (build_is_under_way(build)) {
        abandon(builder, build);
    } else {
        build_drop(builder, build); /* ended in this very turn */
    }
}

void builder_stop(struct builder *builder)
{
    struct list *link;

    if (builder->stopping) {
        return;
    }
    builder->stopping = true;
    mailbox_close(&builder->mailbox);
    if (builder->services.cache != NULL) {
        mailbox_close(&builder->kept);
    }
    while ((link = builder->queue.next) != &builder->queue) {
        stop_build(builder, list_entry(link, struct build, link));
    }
    while ((link = builder->running.next) != &builder->running) {
        stop_build(builder, list_entry(link, struct build, link));
    }
    if (builder->own_fetcher != NULL) {
        fetcher_stop(builder->own_fetcher);
    }
}

void builder_free(struct builder *builder)
{
    if (builder == NULL) {
        return;
    }
    mailbox_deinit(&builder->mailbox);
    if (builder->services.cache != NULL) {
        mailbox_deinit(&builder->kept);
    }
    failed_builds_deinit(&builder->failed);
    fetcher_free(builder->own_fetcher);
    velox_free(builder->own_client);
    free(builder);
}
