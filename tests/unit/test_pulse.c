/* SPDX-License-Identifier: MIT */

/* Threads that answer and threads that do not, on a clock moved by hand: what the parent gets. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sidecar/pulse.h"
#include "tests/sim/loop_manual.h"

#define REPORT_MS 1000
#define STUCK_MS 3000

struct bench {
    struct loop *loop;
    struct mailbox mailboxes[2];
    struct pulse_thread threads[2];
    struct pulse_thread *list[2];
    struct stats stats;
    const struct stats *blocks[1];
    struct status_board board;
    struct log log;
    struct pulse pulse;
    bool is_silent[2];
    unsigned asked;
    uint64_t now_ms;
    int log_fds[2];
    int control_fds[2];
};

static void on_question(struct bench *bench, size_t number, const struct mail *mail)
{
    assert_ptr_equal(mail, &bench->threads[number].question);
    bench->asked++;
    if (!bench->is_silent[number]) {
        pulse_answer(&bench->threads[number]);
    }
}

static void on_first(struct mailbox *mailbox, struct mail *mail)
{
    on_question(list_entry(mailbox, struct bench, mailboxes[0]), 0, mail);
}

static void on_second(struct mailbox *mailbox, struct mail *mail)
{
    on_question(list_entry(mailbox, struct bench, mailboxes[1]), 1, mail);
}

static void set_up(struct bench *bench, unsigned report_ms)
{
    struct pulse_init init = {
        .log = &bench->log,
        .board = &bench->board,
        .report_ms = report_ms,
        .stuck_ms = STUCK_MS,
        .threads = bench->list,
        .thread_count = 2,
    };

    memset(bench, 0, sizeof(*bench));
    assert_int_equal(pipe(bench->log_fds), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, bench->control_fds), 0);
    log_init(&bench->log, bench->log_fds[1], LOG_INFO, LOG_TEXT);
    assert_int_equal(loop_new(&bench->loop), 0);
    bench->now_ms = LOOP_MANUAL_BEGIN_MS;
    bench->blocks[0] = &bench->stats;
    bench->board =
        (struct status_board){ .version = "1", .blocks = bench->blocks, .block_count = 1 };
    assert_int_equal(mailbox_init(&bench->mailboxes[0], bench->loop, on_first), 0);
    assert_int_equal(mailbox_init(&bench->mailboxes[1], bench->loop, on_second), 0);
    pulse_thread_init(&bench->threads[0], &bench->mailboxes[0], "builder", 0);
    pulse_thread_init(&bench->threads[1], &bench->mailboxes[1], "relay", 7);
    bench->list[0] = &bench->threads[0];
    bench->list[1] = &bench->threads[1];
    init.loop = bench->loop;
    init.control_fd = bench->control_fds[0];
    assert_int_equal(pulse_start(&bench->pulse, &init), 0);
}

static void tear_down(struct bench *bench)
{
    pulse_stop(&bench->pulse);
    for (size_t i = 0; i < 2; i++) {
        mailbox_close(&bench->mailboxes[i]);
        mailbox_deinit(&bench->mailboxes[i]);
        close(bench->log_fds[i]);
        close(bench->control_fds[i]);
    }
    loop_free(bench->loop);
}

static void pass(struct bench *bench, uint64_t ms)
{
    while (loop_manual_turn(bench->loop)) {}
    bench->now_ms += ms;
    loop_manual_advance(bench->loop, bench->now_ms);
    while (loop_manual_turn(bench->loop)) {}
}

static void expect_report(struct bench *bench, const char *text)
{
    char got[128] = "";

    assert_true(recv(bench->control_fds[1], got, sizeof(got) - 1, MSG_DONTWAIT) > 0);
    assert_string_equal(got, text);
}

static void expect_no_report(struct bench *bench)
{
    char got[128];

    assert_true(recv(bench->control_fds[1], got, sizeof(got), MSG_DONTWAIT) < 0);
}

static void expect_line(struct bench *bench, const char *part)
{
    char got[1024] = "";

    assert_true(read(bench->log_fds[0], got, sizeof(got) - 1) > 0);
    assert_non_null(strstr(got, part));
}

static void the_figures(void **state)
{
    struct bench bench;

    (void)state;
    set_up(&bench, REPORT_MS);
    expect_report(&bench, "S 0 0 0");
    stats_add(&bench.stats, STAT_FRONTS_ACTIVE, 12);
    stats_add(&bench.stats, STAT_BUILDS_ACTIVE, 2);
    stats_add(&bench.stats, STAT_BUILDS_QUEUED, 1);
    stats_add(&bench.stats, STAT_DOWNLOADS_ACTIVE, 4);
    pass(&bench, REPORT_MS - 1);
    expect_no_report(&bench);
    pass(&bench, 1);
    expect_report(&bench, "S 12 3 4");
    tear_down(&bench);
}

static void a_silent_thread_is_named(void **state)
{
    struct bench bench;

    (void)state;
    set_up(&bench, REPORT_MS);
    expect_report(&bench, "S 0 0 0");
    pass(&bench, REPORT_MS);
    expect_report(&bench, "S 0 0 0");
    bench.is_silent[1] = true;
    for (unsigned i = 0; i < STUCK_MS / REPORT_MS; i++) {
        pass(&bench, REPORT_MS);
        expect_report(&bench, "S 0 0 0");
    }
    pass(&bench, REPORT_MS);
    expect_report(&bench, "S 0 0 0 relay-7");
    expect_line(&bench, "thread=relay-7");
    pass(&bench, REPORT_MS); /* and told in the log once */
    expect_report(&bench, "S 0 0 0 relay-7");
    bench.is_silent[1] = false;
    pulse_answer(&bench.threads[1]);
    pass(&bench, REPORT_MS);
    expect_report(&bench, "S 0 0 0");
    expect_line(&bench, "again");
    tear_down(&bench);
}

static void nobody_is_asked_where_no_report_is_wanted(void **state)
{
    struct bench bench;
    uint64_t due_ms;

    (void)state;
    set_up(&bench, 0);
    pass(&bench, 10 * REPORT_MS);
    expect_no_report(&bench);
    assert_int_equal(bench.asked, 0);
    assert_false(loop_manual_next_due(bench.loop, &due_ms));
    tear_down(&bench);
}

/* The parent reads nothing: the child does not wait for it. */
static void a_parent_that_is_stuck(void **state)
{
    struct bench bench;

    (void)state;
    set_up(&bench, REPORT_MS);
    for (unsigned i = 0; i < 2000; i++) {
        pass(&bench, REPORT_MS);
    }
    expect_report(&bench, "S 0 0 0");
    tear_down(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_figures),
        cmocka_unit_test(a_silent_thread_is_named),
        cmocka_unit_test(nobody_is_asked_where_no_report_is_wanted),
        cmocka_unit_test(a_parent_that_is_stuck),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
