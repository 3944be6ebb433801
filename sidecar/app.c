/* SPDX-License-Identifier: MIT */
/*
 * Starts, watches and stops the threads. Must never end with a request that could still have been
 * finished, unless it was told to.
 */
#include "sidecar/app.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sysexits.h>
#include <unistd.h>

#include "sidecar/base/clock.h"
#include "sidecar/build/builder.h"
#include "sidecar/build/cache.h"
#include "sidecar/build/cache_folder.h"
#include "sidecar/io/prefetch.h"
#include "sidecar/pulse.h"
#include "sidecar/relay/deliver.h"
#include "sidecar/relay/relay.h"
#include "sidecar/rights.h"
#include "sidecar/sandbox/sandbox.h"

/* Descriptors for everything but connections: listeners, loops, files, Velox. */
#define RESERVED_DESCRIPTORS 64
/* That wait for disks: one that hangs must not hold up the files of another. */
#define PREFETCH_THREADS 4

/* How often it is seen whether the sandbox still knows the right files. */
#define OUTDATED_CHECK_MS 3000

struct app;

/* A thread with a loop, and the order that ends it. */
struct app_thread {
    struct app *app;
    pthread_t thread;
    struct loop *loop;
    struct mailbox orders;
    struct mail stop_order;
    struct pulse_thread pulse;
    struct stats stats;
    struct relay *relay;     /* in a relay thread */
    struct builder *builder; /* in the builder thread */
    struct cache *cache;     /* in the cache thread */
    struct mail closed;      /* to the main thread, as is the next */
    struct mail drained;
    bool is_set_up;
    bool is_running;
};

struct app {
    const struct app_init *init;
    struct log log;
    struct loop *loop; /* the main thread's */
    struct mailbox mailbox;
    struct watch control;
    struct timer shutdown;
    struct app_thread builder;
    struct app_thread cache;   /* runs where there is a cache */
    struct prefetch *prefetch; /* NULL where nothing is delivered */
    struct limit workers;      /* connections to PHP-FPM at once */
    struct limit fronts;       /* connections from web servers at once */
    struct status_board board;
    struct pulse pulse;
    struct pulse_thread **pulses; /* of all threads */
    struct watchlist known;       /* to the sandbox; the builder's thread looks at it */
    struct timer outdated;
    bool is_outdated_told;
    struct app_thread *relays;
    unsigned relay_count;
    unsigned closed_count;
    unsigned drained_count;
    bool is_draining;
};

static void on_order(struct mailbox *mailbox, struct mail *mail)
{
    struct app_thread *thread = list_entry(mailbox, struct app_thread, orders);

    if (mail == &thread->pulse.question) {
        pulse_answer(&thread->pulse);
        return;
    }
    if (thread->builder != NULL) {
        builder_stop(thread->builder);
    }
    if (thread->cache != NULL) {
        cache_stop(thread->cache);
    }
    loop_stop(thread->loop);
}

static int thread_set_up(struct app_thread *thread, struct app *app)
{
    int error;

    thread->app = app;
    error = loop_new(&thread->loop);
    if (error != 0) {
        return error;
    }
    error = mailbox_init(&thread->orders, thread->loop, on_order);
    if (error != 0) {
        loop_free(thread->loop);
        return error;
    }
    thread->is_set_up = true;
    return 0;
}

static void *thread_main(void *arg)
{
    struct app_thread *thread = arg;

    (void)prctl(PR_SET_NAME, thread->builder != NULL ? "builder"
                             : thread->cache != NULL ? "cache"
                                                     : "relay");
    loop_run(thread->loop);
    return NULL;
}

static int thread_run(struct app_thread *thread)
{
    int error = pthread_create(&thread->thread, NULL, thread_main, thread);

    if (error != 0) {
        return -error;
    }
    thread->is_running = true;
    return 0;
}

static void thread_stop(struct app_thread *thread)
{
    if (thread->is_running) {
        (void)mailbox_post(&thread->orders, &thread->stop_order);
        pthread_join(thread->thread, NULL);
        thread->is_running = false;
    }
}

static void thread_tear_down(struct app_thread *thread)
{
    if (thread->is_set_up) {
        mailbox_deinit(&thread->orders);
        loop_free(thread->loop);
        thread->is_set_up = false;
    }
}

/* In a relay's thread, as is the next. */
static void on_relay_closed(struct relay *relay, void *owner)
{
    struct app_thread *thread = owner;

    (void)relay;
    (void)mailbox_post(&thread->app->mailbox, &thread->closed);
}

static void on_relay_drained(struct relay *relay, void *owner)
{
    struct app_thread *thread = owner;

    (void)relay;
    (void)mailbox_post(&thread->app->mailbox, &thread->drained);
}

static bool tell_parent(struct app *app, char what)
{
    return write(app->init->control_fd, &what, 1) == 1;
}

static void on_closed(struct app *app)
{
    app->closed_count++;
    if (app->closed_count == app->relay_count) {
        (void)tell_parent(app, APP_CLOSED);
    }
}

static void on_drained(struct app *app)
{
    app->drained_count++;
    if (app->drained_count == app->relay_count) {
        loop_stop(app->loop);
    }
}

static void on_mail(struct mailbox *mailbox, struct mail *mail)
{
    struct app *app = list_entry(mailbox, struct app, mailbox);

    for (unsigned i = 0; i < app->relay_count; i++) {
        if (mail == &app->relays[i].closed) {
            on_closed(app);
        } else if (mail == &app->relays[i].drained) {
            on_drained(app);
        }
    }
}

static void start_drain(struct app *app)
{
    uint64_t timeout_ms = app->init->config->shutdown_timeout_ms;

    app->is_draining = true;
    log_info(&app->log, "stopping: finishing the requests that have been received",
             log_uint("shutdown_timeout_ms", timeout_ms), log_int("pid", getpid()));
    for (unsigned i = 0; i < app->relay_count; i++) {
        relay_drain(app->relays[i].relay);
    }
    if (timer_start(&app->shutdown, timeout_ms) != 0) {
        loop_stop(app->loop);
    }
}

static void on_shutdown_timeout(struct timer *timer)
{
    struct app *app = list_entry(timer, struct app, shutdown);

    log_warn(&app->log, "shutdown_timeout reached: cutting what is left",
             log_uint("shutdown_timeout_ms", app->init->config->shutdown_timeout_ms));
    for (unsigned i = 0; i < app->relay_count; i++) {
        relay_cut(app->relays[i].relay);
    }
}

/* Orders come from the parent alone: a signal that a service manager sends to all processes must
 * not count twice. The end of the connection is the parent's. */
static void on_control(struct watch *watch)
{
    struct app *app = list_entry(watch, struct app, control);
    char order = APP_DRAIN;
    ssize_t got = read(watch->fd, &order, 1);

    if (got < 0) {
        return;
    }
    if (got == 0) {
        watch_stop(watch);
        log_error(&app->log, "the parent process is gone", log_int("parent", getppid()));
    }
    if (order == APP_STOP) {
        log_info(&app->log, "stopping at once", log_int("pid", getpid()));
        loop_stop(app->loop);
    } else if (order == APP_DRAIN && !app->is_draining) {
        start_drain(app);
    }
}

static int start_main_thread(struct app *app)
{
    int error = loop_new(&app->loop);

    if (error != 0) {
        return error;
    }
    error = mailbox_init(&app->mailbox, app->loop, on_mail);
    if (error != 0) {
        loop_free(app->loop);
        app->loop = NULL;
        return error;
    }
    timer_init(&app->shutdown, app->loop, on_shutdown_timeout);
    return watch_start_level(&app->control, app->loop, app->init->control_fd, WATCH_READ,
                             on_control);
}

/* Connections of all relays together, by configuration or by the file limit: a request takes two.
 * */
static unsigned front_limit(struct app *app)
{
    uint64_t wanted = app->init->config->relay.front_max_connections;
    uint64_t files = rights_raise_files();
    uint64_t possible = files > RESERVED_DESCRIPTORS * 2 ? (files - RESERVED_DESCRIPTORS) / 2 : 1;

    if (wanted > possible) {
        log_warn(&app->log, "max_connections is more than the limit of open files allows",
                 log_uint("max_connections", wanted), log_uint("possible", possible),
                 log_uint("open_files", files));
    } else if (wanted > 0) {
        possible = wanted;
    }
    return possible > 1000000 ? 1000000 : (unsigned)possible;
}

static unsigned worker_limit(const struct config *config)
{
    uint64_t max = config->relay.worker_max_connections;

    return max == 0 || max > UINT_MAX ? UINT_MAX : (unsigned)max;
}

static int set_up_builder(struct app *app)
{
    int error = thread_set_up(&app->builder, app);

    if (error == 0) {
        error = builder_new(&app->builder.builder, app->builder.loop, &app->init->config->build,
                            &app->log, &app->builder.stats);
    }
    return error;
}

/* Without a folder that can be used there is no cache: a reason to shout, not to be gone. */
static int set_up_cache(struct app *app)
{
    const struct build_options *options = &app->init->config->build;
    struct app_thread *thread = &app->cache;
    int error;

    if (!options->cache.enabled || options->server_count == 0) {
        return 0;
    }
    error = thread_set_up(thread, app);
    if (error != 0) {
        return error;
    }
    error = cache_new(&thread->cache, thread->loop, &options->cache, &app->log, &thread->stats);
    if (error != 0) {
        log_error(&app->log, "the cache cannot be used: built files are not kept",
                  log_str("directory", options->cache.directory), log_errno("error", error));
        return 0;
    }
    return builder_use_cache(app->builder.builder, thread->cache);
}

static int set_up_relay(struct app *app, unsigned index)
{
    struct app_thread *thread = &app->relays[index];
    struct relay_init init = {
        .options = &app->init->config->relay,
        .policy = &app->init->config->build.policy,
        .version = PACKAGE_VERSION,
        .index = index,
        .count = app->init->config->threads,
        .fronts = &app->fronts,
        .builder = app->builder.builder,
        .prefetch = app->prefetch,
        .limit = &app->workers,
        .board = &app->board,
        .log = &app->log,
        .stats = &thread->stats,
        .listeners = app->init->listeners,
        .listener_count = app->init->listener_count,
        .scgi_count = app->init->scgi_count,
        .on_closed = on_relay_closed,
        .on_drained = on_relay_drained,
        .owner = thread,
    };
    int error = thread_set_up(thread, app);

    if (error != 0) {
        return error;
    }
    init.loop = thread->loop;
    return relay_new(&thread->relay, &init);
}

/* Before any thread starts; the surveys come with the relays. */
static int set_up_board(struct app *app, unsigned relay_count)
{
    struct status_board *board = &app->board;

    *board = (struct status_board){
        .version = PACKAGE_VERSION,
        .started_at = clock_wall().tv_sec,
        .started_ns = clock_monotonic_ns(),
        .workers = &app->workers,
        .blocks = calloc(relay_count + 2, sizeof(*board->blocks)),
        .block_count = relay_count + 2,
        .surveys = calloc(relay_count, sizeof(*board->surveys)),
        .survey_count = relay_count,
    };
    if (board->blocks == NULL || board->surveys == NULL) {
        return -ENOMEM;
    }
    board->blocks[0] = &app->builder.stats;
    board->blocks[1] = &app->cache.stats;
    for (unsigned i = 0; i < relay_count; i++) {
        board->blocks[i + 2] = &app->relays[i].stats;
    }
    return 0;
}

static int start_pulse(struct app *app)
{
    struct pulse_init init = {
        .loop = app->loop,
        .log = &app->log,
        .board = &app->board,
        .control_fd = app->init->control_fd,
        .report_ms = app->init->report_ms,
        .stuck_ms = app->init->stuck_ms,
        .thread_count = app->relay_count + 1 + (app->cache.cache != NULL),
    };

    app->pulses = calloc(init.thread_count, sizeof(struct pulse_thread *));
    if (app->pulses == NULL) {
        return -ENOMEM;
    }
    pulse_thread_init(&app->builder.pulse, &app->builder.orders, "builder", 0);
    app->pulses[0] = &app->builder.pulse;
    for (unsigned i = 0; i < app->relay_count; i++) {
        pulse_thread_init(&app->relays[i].pulse, &app->relays[i].orders, "relay", i);
        app->pulses[i + 1] = &app->relays[i].pulse;
    }
    if (app->cache.cache != NULL) {
        pulse_thread_init(&app->cache.pulse, &app->cache.orders, "cache", 0);
        app->pulses[app->relay_count + 1] = &app->cache.pulse;
    }
    init.threads = app->pulses;
    return pulse_start(&app->pulse, &init);
}

static int run_threads(struct app *app)
{
    int error = start_pulse(app);

    if (error == 0 && app->cache.cache != NULL) {
        error = thread_run(&app->cache);
    }
    if (error == 0) {
        error = thread_run(&app->builder);
    }
    if (error == 0 && app->prefetch != NULL) {
        error = prefetch_run(app->prefetch);
    }
    for (unsigned i = 0; error == 0 && i < app->relay_count; i++) {
        error = thread_run(&app->relays[i]);
    }
    return error;
}

/* In the builder's thread, which may have to wait for a file system anyway. Told again and again:
 * the parent lets such children follow each other slowly. */
static void on_outdated_check(struct timer *timer)
{
    struct app *app = list_entry(timer, struct app, outdated);
    const char *path = watchlist_changed(&app->known);

    if (path != NULL) {
        if (!app->is_outdated_told) {
            log_info(&app->log,
                     "the sandbox does not know what is at a path now: time for a new child",
                     log_str("path", path), log_int("pid", getpid()));
            app->is_outdated_told = true;
        }
        (void)tell_parent(app, APP_OUTDATED);
    }
    (void)timer_start(timer, OUTDATED_CHECK_MS);
}

/* Without memory for the timer it is as before: an order to reload helps. */
static void watch_known(struct app *app)
{
    timer_init(&app->outdated, app->builder.loop, on_outdated_check);
    if (app->known.count > 0) {
        (void)timer_start(&app->outdated, OUTDATED_CHECK_MS);
    }
}

/* First everything that opens files and sockets of the start, then the sandbox, then the threads,
 * which inherit it. */
static int start_threads(struct app *app)
{
    unsigned count = app->init->config->threads;
    int error;

    deliver_tell_of_cap(&app->init->config->relay, &app->log);
    app->relays = calloc(count, sizeof(*app->relays));
    if (app->relays == NULL) {
        return -ENOMEM;
    }
    limit_init(&app->workers, worker_limit(app->init->config));
    limit_init(&app->fronts, front_limit(app));
    error = set_up_board(app, count);
    if (error == 0) {
        error = set_up_builder(app);
    }
    if (error == 0) {
        error = set_up_cache(app);
    }
    if (error == 0 && app->init->config->relay.intercept) {
        error = prefetch_new(&app->prefetch, PREFETCH_THREADS);
    }
    for (unsigned i = 0; error == 0 && i < count; i++) {
        app->relay_count = i + 1;
        error = set_up_relay(app, i);
    }
    if (error == 0) {
        error = sandbox_enter(app->init->config, &app->log, &app->known);
    }
    if (error == 0) {
        watch_known(app);
    }
    return error != 0 ? error : run_threads(app);
}

/* Relays first, so that the last results find a mailbox; the builder's mailboxes outlive them, and
 * the cache. */
static void stop_threads(struct app *app)
{
    for (unsigned i = 0; i < app->relay_count; i++) {
        thread_stop(&app->relays[i]);
    }
    thread_stop(&app->builder);
    thread_stop(&app->cache);
    if (app->prefetch != NULL) {
        prefetch_stop(app->prefetch);
    }
    for (unsigned i = 0; i < app->relay_count; i++) {
        if (app->relays[i].relay != NULL) {
            relay_free(app->relays[i].relay);
        }
        thread_tear_down(&app->relays[i]);
    }
    if (app->known.count > 0) {
        timer_stop(&app->outdated);
        watchlist_deinit(&app->known);
    }
    if (app->builder.builder != NULL) {
        builder_free(app->builder.builder);
    }
    thread_tear_down(&app->builder);
    cache_free(app->cache.cache);
    thread_tear_down(&app->cache);
    limit_deinit(&app->workers);
    limit_deinit(&app->fronts);
}

static void stop_main_thread(struct app *app)
{
    if (app->loop == NULL) {
        return;
    }
    watch_stop(&app->control);
    pulse_stop(&app->pulse);
    timer_stop(&app->shutdown);
    mailbox_close(&app->mailbox);
    mailbox_deinit(&app->mailbox);
    loop_free(app->loop);
}

/* The relays have duplicates of their own, which they close when they drain. */
static void close_listeners(const struct app_init *init)
{
    for (size_t i = 0; i < init->listener_count; i++) {
        close(init->listeners[i]);
    }
}

void app_prepare(const struct config *config)
{
    if (config->build.cache.enabled && geteuid() == 0) {
        (void)cache_folder_make(config->build.cache.directory, config->user, config->group);
    }
}

int app_run(const struct app_init *init)
{
    struct app *app = calloc(1, sizeof(*app));
    int error;

    if (app == NULL) {
        return EX_OSERR;
    }
    app->init = init;
    log_init(&app->log, init->log_fd, init->config->log_level, init->config->log_format);
    error = start_main_thread(app);
    if (error == 0) {
        error = start_threads(app);
    }
    close_listeners(init);
    if (error == 0) {
        if (!tell_parent(app, APP_READY)) {
            log_error(&app->log, "the parent process cannot be told", log_errno("error", errno));
        }
        log_info(&app->log, "ready", log_uint("threads", app->relay_count),
                 log_uint("listeners", init->listener_count), log_int("pid", getpid()));
        loop_run(app->loop);
    } else {
        log_error(&app->log, "cannot start", log_errno("error", error));
    }
    stop_threads(app);
    stop_main_thread(app);
    /* Last, since what a relay told the main thread may still have been in its mailbox. */
    free(app->board.blocks);
    free(app->board.surveys);
    free(app->pulses);
    free(app->relays);
    free(app);
    return error == 0 ? EX_OK : EX_OSERR;
}
