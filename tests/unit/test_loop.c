/* SPDX-License-Identifier: MIT */

/* The loop: what is told, when, in which order, and that nothing is told after a
 * stop. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "sidecar/base/clock.h"
#include "sidecar/io/loop.h"

#define GUARD_MS 5000
/* Turns after which something that has not come is taken not to come. */
#define QUIET_TURNS 20

struct scene;

/* A watch, timer or task that writes its letter into the scene's story, then does what its test
 * wants. */
struct actor {
    struct scene *scene;
    struct watch watch;
    struct timer timer;
    struct task task;
    char letter;
    void (*act)(struct actor *actor);
    struct actor *other;
    unsigned calls;
    unsigned seen; /* bits of the last call */
};

struct scene {
    struct loop *loop;
    struct timer guard;
    struct task quiet;
    unsigned quiet_left;
    int pair[2];
    char story[64];
    struct actor a;
    struct actor b;
    struct actor c;
};

static void tell(struct actor *actor)
{
    size_t len = strlen(actor->scene->story);

    if (len + 1 < sizeof(actor->scene->story)) {
        actor->scene->story[len] = actor->letter;
    }
    actor->calls++;
    if (actor->act != NULL) {
        actor->act(actor);
    }
}

static void on_ready(struct watch *watch)
{
    struct actor *actor = list_entry(watch, struct actor, watch);

    actor->seen = watch->ready;
    tell(actor);
}

static void on_due(struct timer *timer)
{
    tell(list_entry(timer, struct actor, timer));
}

static void on_task(struct task *task)
{
    tell(list_entry(task, struct actor, task));
}

static void on_guard(struct timer *timer)
{
    (void)timer;
    fail_msg("nothing happened for %d ms", GUARD_MS);
}

static void on_quiet(struct task *task)
{
    struct scene *scene = list_entry(task, struct scene, quiet);

    if (scene->quiet_left-- == 0) {
        loop_stop(scene->loop);
        return;
    }
    task_defer(&scene->quiet, scene->loop);
}

/* Runs turns that do not wait, so that whatever is possible now happens. */
static void run_quiet(struct scene *scene)
{
    scene->quiet_left = QUIET_TURNS;
    task_defer(&scene->quiet, scene->loop);
    loop_run(scene->loop);
}

/* Runs until an actor stops the loop. */
static void run(struct scene *scene)
{
    assert_int_equal(timer_start(&scene->guard, GUARD_MS), 0);
    loop_run(scene->loop);
    timer_stop(&scene->guard);
}

static void actor_init(struct actor *actor, struct scene *scene, char letter)
{
    *actor = (struct actor){ .scene = scene, .letter = letter };
    timer_init(&actor->timer, scene->loop, on_due);
    task_init(&actor->task, on_task);
}

static int set_up(void **state)
{
    struct scene *scene = calloc(1, sizeof(*scene));

    assert_non_null(scene);
    assert_int_equal(loop_new(&scene->loop), 0);
    assert_int_equal(
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, scene->pair), 0);
    timer_init(&scene->guard, scene->loop, on_guard);
    task_init(&scene->quiet, on_quiet);
    actor_init(&scene->a, scene, 'a');
    actor_init(&scene->b, scene, 'b');
    actor_init(&scene->c, scene, 'c');
    *state = scene;
    return 0;
}

static void actor_stop(struct actor *actor)
{
    watch_stop(&actor->watch);
    timer_stop(&actor->timer);
    task_stop(&actor->task);
}

static int tear_down(void **state)
{
    struct scene *scene = *state;

    actor_stop(&scene->a);
    actor_stop(&scene->b);
    actor_stop(&scene->c);
    close(scene->pair[0]);
    close(scene->pair[1]);
    loop_free(scene->loop);
    free(scene);
    return 0;
}

static void act_stop_loop(struct actor *actor)
{
    loop_stop(actor->scene->loop);
}

static void send_byte(int fd)
{
    assert_int_equal(write(fd, "x", 1), 1);
}

static void drop_bytes(int fd)
{
    char bytes[64];

    assert_true(read(fd, bytes, sizeof(bytes)) > 0);
}

/* ---- watches by edge ---- */

static void test_edge_starts_with_the_bits_given(void **state)
{
    struct scene *scene = *state;
    struct watch *watch = &scene->a.watch;

    assert_false(watch_is_started(watch));
    assert_int_equal(watch_start(watch, scene->loop, scene->pair[0], WATCH_READ, on_ready), 0);
    assert_true(watch_is_started(watch));
    assert_int_equal(watch->fd, scene->pair[0]);
    assert_int_equal(watch->ready, WATCH_READ);
    assert_int_equal(scene->a.calls, 0);
    watch_stop(watch);
    assert_false(watch_is_started(watch));
    assert_int_equal(watch->ready, 0);
    watch_stop(watch);
}

static void test_edge_tells_once_and_collects(void **state)
{
    struct scene *scene = *state;
    struct watch *watch = &scene->a.watch;

    assert_int_equal(watch_start(watch, scene->loop, scene->pair[0], 0, on_ready), 0);
    run_quiet(scene);
    assert_string_equal(scene->story, "a");
    assert_int_equal(scene->a.seen, WATCH_WRITE);

    /* The bit that nobody has cleared is still there when the other one comes. */
    send_byte(scene->pair[1]);
    run_quiet(scene);
    assert_string_equal(scene->story, "aa");
    assert_int_equal(scene->a.seen, WATCH_READ | WATCH_WRITE);

    /* Nothing new: nothing told, although there is something to read. */
    run_quiet(scene);
    assert_string_equal(scene->story, "aa");
    assert_int_equal(watch->ready, WATCH_READ | WATCH_WRITE);

    drop_bytes(scene->pair[0]);
    watch_clear(watch, WATCH_READ);
    assert_int_equal(watch->ready, WATCH_WRITE);
    run_quiet(scene);
    assert_string_equal(scene->story, "aa");
    send_byte(scene->pair[1]);
    run_quiet(scene);
    assert_string_equal(scene->story, "aaa");
    assert_true((scene->a.seen & WATCH_READ) != 0);
}

static void test_edge_tells_when_a_full_socket_has_room_again(void **state)
{
    struct scene *scene = *state;
    struct watch *watch = &scene->a.watch;
    char bytes[4096] = { 0 };

    assert_int_equal(watch_start(watch, scene->loop, scene->pair[0], 0, on_ready), 0);
    run_quiet(scene);
    while (write(scene->pair[0], bytes, sizeof(bytes)) > 0) {}
    assert_int_equal(errno, EAGAIN);
    watch_clear(watch, WATCH_WRITE);
    scene->a.calls = 0;
    run_quiet(scene);
    assert_int_equal(scene->a.calls, 0);
    while (read(scene->pair[1], bytes, sizeof(bytes)) > 0) {}
    run_quiet(scene);
    assert_true(scene->a.calls > 0);
    assert_true((watch->ready & WATCH_WRITE) != 0);
}

static void end_by_shutdown(int fd)
{
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
}

static void end_by_close(int fd)
{
    /* The number stays in use, so that the tear-down may close it again. */
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

    assert_true(null >= 0);
    assert_true(dup3(null, fd, O_CLOEXEC) >= 0);
    close(null);
}

static void end_by_reset(int fd)
{
    struct linger linger = { .l_onoff = 1 };

    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
    end_by_close(fd);
}

/* Puts a TCP connection in the place of the pair. */
static void make_tcp(struct scene *scene)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr = { .s_addr = htonl(INADDR_LOOPBACK) } };
    socklen_t length = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    close(scene->pair[0]);
    close(scene->pair[1]);
    assert_true(listener >= 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &length), 0);
    scene->pair[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(scene->pair[1] >= 0);
    assert_int_equal(connect(scene->pair[1], (struct sockaddr *)&address, length), 0);
    scene->pair[0] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(scene->pair[0] >= 0);
    close(listener);
}

static void act_stop_at_the_end(struct actor *actor)
{
    char bytes[16];
    ssize_t got;

    if ((actor->seen & WATCH_READ) == 0) {
        return;
    }
    while ((got = read(actor->watch.fd, bytes, sizeof(bytes))) > 0) {}
    if (got == 0) {
        assert_true((actor->seen & WATCH_END) != 0);
        loop_stop(actor->scene->loop);
    } else if (errno == ECONNRESET) {
        loop_stop(actor->scene->loop);
    } else {
        assert_int_equal(errno, EAGAIN);
    }
}

/* However the peer leaves, with and without unread bytes on the way: a reset by READ, every other
 * end by END as well. */
static void test_edge_tells_the_end(void **state)
{
    static const struct {
        const char *name;
        bool is_tcp;
        bool has_bytes;  /* to be read by us */
        bool has_unread; /* by the peer: closing then resets */
        void (*end)(int fd);
    } cases[] = {
        { "unix, half closed", false, false, false, end_by_shutdown },
        { "unix, half closed behind bytes", false, true, false, end_by_shutdown },
        { "unix, closed", false, false, false, end_by_close },
        { "unix, closed behind bytes", false, true, false, end_by_close },
        { "unix, closed with unread bytes", false, false, true, end_by_close },
        { "unix, closed with unread bytes, behind bytes", false, true, true, end_by_close },
        { "TCP, half closed", true, false, false, end_by_shutdown },
        { "TCP, closed", true, true, false, end_by_close },
        { "TCP, closed with unread bytes", true, false, true, end_by_close },
        { "TCP, reset", true, false, false, end_by_reset },
        { "TCP, reset behind bytes", true, true, false, end_by_reset },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        tear_down(state);
        set_up(state);
        struct scene *scene = *state;

        print_message("%s\n", cases[i].name);
        if (cases[i].is_tcp) {
            make_tcp(scene);
        }
        assert_int_equal(watch_start(&scene->a.watch, scene->loop, scene->pair[0], 0, on_ready), 0);
        run_quiet(scene);
        if (cases[i].has_bytes) {
            send_byte(scene->pair[1]);
        }
        if (cases[i].has_unread) {
            send_byte(scene->pair[0]);
        }
        cases[i].end(scene->pair[1]);
        scene->a.act = act_stop_at_the_end;
        run(scene);
    }
}

/* ---- watches by level ---- */

static void act_read_at_third(struct actor *actor)
{
    if (actor->calls == 3) {
        drop_bytes(actor->watch.fd);
    }
}

static void test_level_tells_in_each_turn(void **state)
{
    struct scene *scene = *state;
    struct watch *watch = &scene->a.watch;

    assert_int_equal(watch_start_level(watch, scene->loop, scene->pair[0], WATCH_READ, on_ready),
                     0);
    assert_true(watch_is_started(watch));
    assert_int_equal(watch->ready, 0);
    scene->a.act = act_read_at_third;
    run_quiet(scene);
    assert_int_equal(scene->a.calls, 0);
    send_byte(scene->pair[1]);
    run_quiet(scene);
    assert_string_equal(scene->story, "aaa");
    assert_int_equal(scene->a.seen, WATCH_READ); /* not WRITE, which is possible but not wanted */
}

static void act_stop_at_third(struct actor *actor)
{
    if (actor->calls == 3) {
        watch_stop(&actor->watch);
    }
}

static void test_level_tells_only_what_is_possible(void **state)
{
    struct scene *scene = *state;
    struct watch *watch = &scene->a.watch;

    assert_int_equal(
        watch_start_level(watch, scene->loop, scene->pair[0], WATCH_READ | WATCH_WRITE, on_ready),
        0);
    scene->a.act = act_stop_at_third;
    run_quiet(scene);
    assert_string_equal(scene->story, "aaa");
    assert_int_equal(scene->a.seen, WATCH_WRITE);
    assert_false(watch_is_started(watch));

    /* To want other bits: started again. */
    scene->a.calls = 0;
    send_byte(scene->pair[1]);
    assert_int_equal(
        watch_start_level(watch, scene->loop, scene->pair[0], WATCH_READ | WATCH_WRITE, on_ready),
        0);
    run_quiet(scene);
    assert_int_equal(scene->a.calls, 3);
    assert_int_equal(scene->a.seen, WATCH_READ | WATCH_WRITE);
}

static void test_level_tells_the_end_as_readable(void **state)
{
    struct scene *scene = *state;

    assert_int_equal(
        watch_start_level(&scene->a.watch, scene->loop, scene->pair[0], WATCH_READ, on_ready), 0);
    end_by_close(scene->pair[1]);
    scene->a.act = act_stop_at_third;
    run_quiet(scene);
    assert_int_equal(scene->a.calls, 3);
    assert_int_equal(scene->a.seen, WATCH_READ);
}

/* ---- stopping ---- */

static void act_stop_other_watch(struct actor *actor)
{
    watch_stop(&actor->other->watch);
}

/* Both ends of the pair are ready in the same turn; whichever comes first silences the other. */
static void check_stop_of_other(struct scene *scene, bool by_level,
                                void (*act)(struct actor *actor))
{
    struct actor *actors[] = { &scene->a, &scene->b };

    send_byte(scene->pair[0]);
    send_byte(scene->pair[1]);
    scene->a.other = &scene->b;
    scene->b.other = &scene->a;
    for (size_t i = 0; i < 2; i++) {
        struct watch *watch = &actors[i]->watch;

        actors[i]->act = act;
        assert_int_equal(by_level ? watch_start_level(watch, scene->loop, scene->pair[i],
                                                      WATCH_READ | WATCH_WRITE, on_ready)
                                  : watch_start(watch, scene->loop, scene->pair[i], 0, on_ready),
                         0);
    }
    run_quiet(scene);
    assert_true((scene->a.calls == 0) != (scene->b.calls == 0));
}

static void test_watch_stopped_by_another_is_silent(void **state)
{
    check_stop_of_other(*state, false, act_stop_other_watch);
    tear_down(state);
    set_up(state);
    check_stop_of_other(*state, true, act_stop_other_watch);
}

static void act_close_other_watch(struct actor *actor)
{
    watch_close(&actor->other->watch);
}

/* The number is free by then, and the next connection takes it; what was to be told of the old one
 * is told to nobody. */
static void test_watch_closed_by_another_is_silent(void **state)
{
    struct scene *scene = *state;
    struct actor *closed;

    check_stop_of_other(scene, false, act_close_other_watch);
    closed = scene->a.calls == 0 ? &scene->a : &scene->b;
    assert_false(watch_is_started(&closed->watch));
    assert_int_equal(closed->watch.fd, -1);
    /* For the tear-down to close. */
    assert_int_equal(open("/dev/null", O_RDONLY | O_CLOEXEC), scene->pair[closed == &scene->b]);
    run_quiet(scene);
    assert_int_equal(closed->calls, 0);
}

static void act_stop_self(struct actor *actor)
{
    watch_stop(&actor->watch);
}

static void test_watch_stopped_by_itself_is_silent(void **state)
{
    struct scene *scene = *state;

    scene->a.act = act_stop_self;
    assert_int_equal(watch_start(&scene->a.watch, scene->loop, scene->pair[0], 0, on_ready), 0);
    run_quiet(scene);
    send_byte(scene->pair[1]);
    end_by_close(scene->pair[1]);
    run_quiet(scene);
    assert_string_equal(scene->story, "a");
}

/* A descriptor number that comes back belongs to its new watch alone. */
static void test_watch_of_a_reused_descriptor(void **state)
{
    struct scene *scene = *state;
    int fresh[2];

    assert_int_equal(watch_start(&scene->a.watch, scene->loop, scene->pair[0], 0, on_ready), 0);
    run_quiet(scene);
    watch_stop(&scene->a.watch);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fresh), 0);
    assert_int_equal(dup3(fresh[0], scene->pair[0], O_CLOEXEC), scene->pair[0]);
    close(fresh[0]);
    assert_int_equal(watch_start(&scene->b.watch, scene->loop, scene->pair[0], 0, on_ready), 0);
    send_byte(fresh[1]);
    run_quiet(scene);
    assert_int_equal(scene->a.calls, 1);
    assert_true((scene->b.watch.ready & WATCH_READ) != 0);
    close(fresh[1]);
}

static void act_restart_watch(struct actor *actor)
{
    watch_stop(&actor->watch);
    if (actor->calls < 3) {
        assert_int_equal(
            watch_start(&actor->watch, actor->scene->loop, actor->scene->pair[0], 0, on_ready), 0);
    }
}

static void test_watch_may_be_started_again_from_its_callback(void **state)
{
    struct scene *scene = *state;

    scene->a.act = act_restart_watch;
    assert_int_equal(watch_start(&scene->a.watch, scene->loop, scene->pair[0], 0, on_ready), 0);
    run_quiet(scene);
    assert_string_equal(scene->story, "aaa"); /* what is possible is told anew to each */
}

/* ---- timers ---- */

static void test_timers_fire_in_the_order_of_their_time(void **state)
{
    struct scene *scene = *state;
    uint64_t begin_ns = clock_monotonic_ns();

    scene->a.act = act_stop_loop;
    assert_int_equal(timer_start(&scene->a.timer, 30), 0);
    assert_int_equal(timer_start(&scene->b.timer, 10), 0);
    assert_int_equal(timer_start(&scene->c.timer, 0), 0);
    assert_true(scene->a.timer.armed);
    assert_in_range(scene->a.timer.due_ms, begin_ns / 1000000 + 30, loop_now_ms(scene->loop) + 30);
    run(scene);
    assert_string_equal(scene->story, "cba");
    assert_false(scene->a.timer.armed);
    /* libevent takes the kernel's coarse clock, so a timer may be early by one of its ticks. */
    assert_true(clock_monotonic_ns() - begin_ns >= 20 * 1000000u);
}

#define MANY_TIMERS 200

static void act_stop_after_many(struct actor *actor)
{
    struct scene *scene = actor->scene;

    /* Not before its time, nor long after it: the loop knows at each moment which is the next. */
    assert_in_range(loop_now_ms(scene->loop) - actor->timer.due_ms, 0, 500);
    if (++scene->a.calls == MANY_TIMERS) {
        loop_stop(scene->loop);
    }
}

/* Armed in any order, and every third stopped again, or put off once. */
static void test_many_timers_fire_at_their_time(void **state)
{
    struct scene *scene = *state;
    struct actor *actors = calloc(MANY_TIMERS, sizeof(*actors));
    uint64_t begin_ms = loop_now_ms(scene->loop);

    assert_non_null(actors);
    for (unsigned i = 0; i < MANY_TIMERS; i++) {
        actor_init(&actors[i], scene, 'm');
        actors[i].act = act_stop_after_many;
        assert_int_equal(timer_start(&actors[i].timer, i * 7919 % MANY_TIMERS), 0);
    }
    for (unsigned i = 0; i < MANY_TIMERS; i += 3) {
        timer_stop(&actors[i].timer);
        assert_int_equal(timer_start(&actors[i].timer, i * 104729 % MANY_TIMERS), 0);
    }
    run(scene);
    assert_true(clock_monotonic_ns() / 1000000 - begin_ms >= MANY_TIMERS - 10);
    for (unsigned i = 0; i < MANY_TIMERS; i++) {
        assert_int_equal(actors[i].calls, 1);
        timer_stop(&actors[i].timer);
    }
    free(actors);
}

/* A timer that is put off wakes nobody at its old time. */
static void test_timer_put_off_does_not_keep_the_loop_awake(void **state)
{
    struct scene *scene = *state;
    uint64_t begin_ns;
    struct timespec cpu[2];

    assert_int_equal(timer_start(&scene->a.timer, 1), 0);
    assert_int_equal(timer_start(&scene->a.timer, 600000), 0);
    scene->b.act = act_stop_loop;
    assert_int_equal(timer_start(&scene->b.timer, 100), 0);
    begin_ns = clock_monotonic_ns();
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu[0]);
    run(scene);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu[1]);
    assert_true(clock_monotonic_ns() - begin_ns >= 90 * 1000000u);
    assert_true((cpu[1].tv_sec - cpu[0].tv_sec) * 1000000000 + cpu[1].tv_nsec - cpu[0].tv_nsec <
                50 * 1000000);
    assert_string_equal(scene->story, "b");
}

static void test_timer_fires_once(void **state)
{
    struct scene *scene = *state;

    assert_int_equal(timer_start(&scene->a.timer, 0), 0);
    scene->b.act = act_stop_loop;
    assert_int_equal(timer_start(&scene->b.timer, 5), 0);
    run(scene);
    run_quiet(scene);
    assert_string_equal(scene->story, "ab");
}

static void test_timer_armed_again_has_only_its_last_time(void **state)
{
    struct scene *scene = *state;

    scene->b.act = act_stop_loop;
    assert_int_equal(timer_start(&scene->a.timer, 0), 0);
    assert_int_equal(timer_start(&scene->a.timer, 600000), 0);
    assert_int_equal(timer_start(&scene->b.timer, 600000), 0);
    assert_int_equal(timer_start(&scene->b.timer, 5), 0);
    run(scene);
    assert_string_equal(scene->story, "b");
    assert_true(scene->a.timer.armed);
}

static void act_rearm(struct actor *actor)
{
    assert_false(actor->timer.armed);
    if (actor->calls == 3) {
        loop_stop(actor->scene->loop);
    } else {
        assert_int_equal(timer_start(&actor->timer, 1), 0);
    }
}

static void test_timer_may_be_armed_again_from_its_callback(void **state)
{
    struct scene *scene = *state;

    scene->a.act = act_rearm;
    assert_int_equal(timer_start(&scene->a.timer, 0), 0);
    run(scene);
    assert_string_equal(scene->story, "aaa");
}

static void act_stop_other_timer(struct actor *actor)
{
    timer_stop(&actor->other->timer);
    timer_stop(&actor->timer); /* does nothing on one that has fired */
}

static void test_timer_stopped_by_another_is_silent(void **state)
{
    struct scene *scene = *state;

    scene->a.act = act_stop_other_timer;
    scene->a.other = &scene->b;
    scene->b.act = act_stop_other_timer;
    scene->b.other = &scene->a;
    scene->c.act = act_stop_loop;
    timer_stop(&scene->a.timer);
    assert_int_equal(timer_start(&scene->a.timer, 0), 0);
    assert_int_equal(timer_start(&scene->b.timer, 0), 0);
    assert_int_equal(timer_start(&scene->c.timer, 5), 0);
    run(scene);
    assert_int_equal(scene->a.calls + scene->b.calls, 1);
    assert_false(scene->a.timer.armed || scene->b.timer.armed);
}

static void test_timer_of_a_year_does_not_fire(void **state)
{
    struct scene *scene = *state;

    assert_int_equal(timer_start(&scene->a.timer, (uint64_t)365 * 86400 * 1000), 0);
    run_quiet(scene);
    assert_int_equal(scene->a.calls, 0);
}

/* ---- tasks ---- */

static void test_tasks_run_once_in_order(void **state)
{
    struct scene *scene = *state;

    task_defer(&scene->b.task, scene->loop);
    task_defer(&scene->a.task, scene->loop);
    task_defer(&scene->b.task, scene->loop); /* waits already */
    task_defer(&scene->c.task, scene->loop);
    run_quiet(scene);
    assert_string_equal(scene->story, "bac");
}

static void act_defer_self_and_other(struct actor *actor)
{
    if (actor->calls < 3) {
        task_defer(&actor->task, actor->scene->loop);
        task_defer(&actor->other->task, actor->scene->loop);
    }
}

static void test_task_deferred_by_a_task_runs_in_the_next_turn(void **state)
{
    struct scene *scene = *state;

    scene->a.act = act_defer_self_and_other;
    scene->a.other = &scene->b;
    task_defer(&scene->a.task, scene->loop);
    task_defer(&scene->c.task, scene->loop);
    run_quiet(scene);
    /* In the second turn b waits already when a defers it. */
    assert_string_equal(scene->story, "acaba");
}

static void act_stop_other_task(struct actor *actor)
{
    task_stop(&actor->other->task);
    task_stop(&actor->task);
}

static void test_task_stopped_is_silent(void **state)
{
    struct scene *scene = *state;

    task_defer(&scene->a.task, scene->loop);
    task_stop(&scene->a.task);
    task_stop(&scene->a.task);
    run_quiet(scene);
    assert_string_equal(scene->story, "");

    /* Within the turn in which it would have run. */
    scene->a.act = act_stop_other_task;
    scene->a.other = &scene->b;
    task_defer(&scene->a.task, scene->loop);
    task_defer(&scene->b.task, scene->loop);
    task_defer(&scene->c.task, scene->loop);
    run_quiet(scene);
    assert_string_equal(scene->story, "ac");

    /* It can be deferred again. */
    task_defer(&scene->b.task, scene->loop);
    run_quiet(scene);
    assert_string_equal(scene->story, "acb");
}

static void act_defer_task(struct actor *actor)
{
    task_defer(&actor->other->task, actor->scene->loop);
}

/* What a watch or a timer defers runs in the same turn: the guard would fire otherwise. */
static void test_task_deferred_by_events_runs_without_another_event(void **state)
{
    struct scene *scene = *state;

    scene->a.act = act_defer_task;
    scene->a.other = &scene->b;
    scene->b.act = act_stop_loop;
    assert_int_equal(watch_start(&scene->a.watch, scene->loop, scene->pair[0], 0, on_ready), 0);
    run(scene);
    assert_string_equal(scene->story, "ab");
    watch_stop(&scene->a.watch);
    assert_int_equal(timer_start(&scene->a.timer, 0), 0);
    run(scene);
    assert_string_equal(scene->story, "abab");
}

static void act_defer_self(struct actor *actor)
{
    task_defer(&actor->task, actor->scene->loop);
}

/* A task that always has more to do starves neither watches nor timers. */
static void test_task_for_ever_starves_nothing(void **state)
{
    struct scene *scene = *state;

    scene->a.act = act_defer_self;
    task_defer(&scene->a.task, scene->loop);
    scene->b.act = act_stop_loop;
    send_byte(scene->pair[1]);
    assert_int_equal(watch_start(&scene->b.watch, scene->loop, scene->pair[0], 0, on_ready), 0);
    run(scene);
    assert_int_equal(scene->b.calls, 1);
    scene->c.act = act_stop_loop;
    assert_int_equal(timer_start(&scene->c.timer, 1), 0);
    run(scene);
    assert_int_equal(scene->c.calls, 1);
}

/* Nor does a descriptor that is always ready starve tasks: each turn has its end. */
static void test_level_ready_for_ever_starves_no_task(void **state)
{
    struct scene *scene = *state;

    assert_int_equal(
        watch_start_level(&scene->a.watch, scene->loop, scene->pair[0], WATCH_WRITE, on_ready), 0);
    run_quiet(scene); /* a task that defers itself */
    assert_in_range(scene->a.calls, QUIET_TURNS / 2, QUIET_TURNS + 2);
}

static void run_and_free(struct task *task)
{
    loop_stop(list_entry(task, struct actor, task)->scene->loop);
    free(list_entry(task, struct actor, task));
}

static void test_task_may_free_itself(void **state)
{
    struct scene *scene = *state;
    struct actor *brief = calloc(1, sizeof(*brief));

    assert_non_null(brief);
    brief->scene = scene;
    task_init(&brief->task, run_and_free);
    task_defer(&brief->task, scene->loop);
    run(scene);
}

/* ---- the loop itself ---- */

static void test_loop_stops_from_each_kind_and_runs_again(void **state)
{
    struct scene *scene = *state;

    scene->a.act = act_stop_loop;
    scene->b.act = act_stop_loop;
    scene->c.act = act_stop_loop;
    task_defer(&scene->a.task, scene->loop);
    run(scene);
    assert_int_equal(timer_start(&scene->b.timer, 0), 0);
    run(scene);
    assert_int_equal(watch_start(&scene->c.watch, scene->loop, scene->pair[0], 0, on_ready), 0);
    run(scene);
    assert_string_equal(scene->story, "abc");
}

static void test_loop_ends_its_turn_before_it_stops(void **state)
{
    struct scene *scene = *state;

    scene->a.act = act_stop_loop;
    task_defer(&scene->a.task, scene->loop);
    task_defer(&scene->b.task, scene->loop);
    run(scene);
    assert_string_equal(scene->story, "ab");
}

static void test_loops_know_nothing_of_each_other(void **state)
{
    struct scene *scene = *state;
    void *other_state;

    assert_int_equal(set_up(&other_state), 0);
    struct scene *other = other_state;

    task_defer(&other->a.task, other->loop);
    assert_int_equal(timer_start(&other->b.timer, 0), 0);
    run_quiet(scene);
    assert_string_equal(other->story, "");
    run_quiet(other);
    assert_int_equal(other->a.calls, 1);
    assert_int_equal(other->b.calls, 1);
    tear_down(&other_state);
}

/* An administrator's EVENT_NOEPOLL would leave the loop without edges. */
static void test_loop_does_not_obey_the_environment(void **state)
{
    struct loop *loop;

    (void)state;
    assert_int_equal(setenv("EVENT_NOEPOLL", "1", 1), 0);
    assert_int_equal(loop_new(&loop), 0);
    loop_free(loop);
    assert_int_equal(unsetenv("EVENT_NOEPOLL"), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_edge_starts_with_the_bits_given),
        TEST(test_edge_tells_once_and_collects),
        TEST(test_edge_tells_when_a_full_socket_has_room_again),
        TEST(test_edge_tells_the_end),
        TEST(test_level_tells_in_each_turn),
        TEST(test_level_tells_only_what_is_possible),
        TEST(test_level_tells_the_end_as_readable),
        TEST(test_watch_stopped_by_another_is_silent),
        TEST(test_watch_closed_by_another_is_silent),
        TEST(test_watch_stopped_by_itself_is_silent),
        TEST(test_watch_of_a_reused_descriptor),
        TEST(test_watch_may_be_started_again_from_its_callback),
        TEST(test_timers_fire_in_the_order_of_their_time),
        TEST(test_many_timers_fire_at_their_time),
        TEST(test_timer_put_off_does_not_keep_the_loop_awake),
        TEST(test_timer_fires_once),
        TEST(test_timer_armed_again_has_only_its_last_time),
        TEST(test_timer_may_be_armed_again_from_its_callback),
        TEST(test_timer_stopped_by_another_is_silent),
        TEST(test_timer_of_a_year_does_not_fire),
        TEST(test_tasks_run_once_in_order),
        TEST(test_task_deferred_by_a_task_runs_in_the_next_turn),
        TEST(test_task_stopped_is_silent),
        TEST(test_task_deferred_by_events_runs_without_another_event),
        TEST(test_task_for_ever_starves_nothing),
        TEST(test_level_ready_for_ever_starves_no_task),
        TEST(test_task_may_free_itself),
        TEST(test_loop_stops_from_each_kind_and_runs_again),
        TEST(test_loop_ends_its_turn_before_it_stops),
        TEST(test_loops_know_nothing_of_each_other),
        TEST(test_loop_does_not_obey_the_environment),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
