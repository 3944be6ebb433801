/* SPDX-License-Identifier: MIT */

/* Places at PHP-FPM: never more than there are, first come, first served, and none is lost. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <unistd.h>

#include "sidecar/relay/limit.h"

#define THREADS 4
#define ROUNDS 3000
#define GUARD_S 120

/* One relay thread's side: its mailbox, and whose turn it was told. */
struct side {
    struct loop *loop;
    struct mailbox mailbox;
    uint64_t numbers[8];
    unsigned count;
};

static void on_mail(struct mailbox *mailbox, struct mail *mail)
{
    struct side *side = list_entry(mailbox, struct side, mailbox);
    struct limit_waiter *waiter = list_entry(mail, struct limit_waiter, mail);

    side->numbers[side->count++ % 8] = waiter->number;
    free(waiter);
    loop_stop(side->loop);
}

static void side_init(struct side *side)
{
    *side = (struct side){ .count = 0 };
    assert_int_equal(loop_new(&side->loop), 0);
    assert_int_equal(mailbox_init(&side->mailbox, side->loop, on_mail), 0);
}

static void side_deinit(struct side *side)
{
    mailbox_close(&side->mailbox);
    mailbox_deinit(&side->mailbox);
    loop_free(side->loop);
}

/* Without running the loop: what has been posted by now. */
static void assert_told(struct side *side, const uint64_t *numbers, unsigned count)
{
    mailbox_close(&side->mailbox);
    assert_int_equal(side->count, count);
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(side->numbers[i], numbers[i]);
    }
}

static struct limit_waiter *wait_in(struct limit *limit, struct side *side, uint64_t number)
{
    struct limit_waiter *waiter = NULL;

    assert_int_equal(limit_wait(limit, &side->mailbox, number, &waiter), 0);
    assert_non_null(waiter);
    return waiter;
}

static void test_places(void **state)
{
    static const unsigned maxima[] = { 1, 2, 100 };

    (void)state;
    for (size_t i = 0; i < sizeof(maxima) / sizeof(maxima[0]); i++) {
        struct limit limit;

        limit_init(&limit, maxima[i]);
        for (unsigned round = 0; round < 2; round++) {
            for (unsigned taken = 0; taken < maxima[i]; taken++) {
                assert_true(limit_take(&limit));
            }
            assert_false(limit_take(&limit));
            limit_release(&limit);
            assert_true(limit_take(&limit));
            for (unsigned taken = 0; taken < maxima[i]; taken++) {
                limit_release(&limit);
            }
        }
        limit_deinit(&limit);
    }
}

static void test_first_come_first_served(void **state)
{
    struct limit limit;
    struct side side;

    (void)state;
    limit_init(&limit, 1);
    side_init(&side);
    assert_true(limit_take(&limit));
    wait_in(&limit, &side, 30);
    wait_in(&limit, &side, 10);
    wait_in(&limit, &side, 20);
    assert_false(limit_take(&limit));
    limit_release(&limit);
    /* The place went to the first, and two still wait: nobody overtakes them. */
    assert_false(limit_take(&limit));
    limit_release(&limit);
    limit_release(&limit);
    assert_false(limit_take(&limit)); /* the third has it now */
    limit_release(&limit);
    assert_true(limit_take(&limit));
    assert_told(&side, (const uint64_t[]){ 30, 10, 20 }, 3);
    side_deinit(&side);
    limit_deinit(&limit);
}

/* A place that became free between the attempt to take it and the waiting is not overlooked. */
static void test_waiting_while_a_place_is_free(void **state)
{
    struct limit limit;
    struct side side;

    (void)state;
    limit_init(&limit, 1);
    side_init(&side);
    wait_in(&limit, &side, 5);
    assert_false(limit_take(&limit));
    assert_told(&side, (const uint64_t[]){ 5 }, 1);
    limit_release(&limit);
    assert_true(limit_take(&limit));
    side_deinit(&side);
    limit_deinit(&limit);
}

static void test_leaving_the_queue(void **state)
{
    struct limit limit;
    struct side side;
    struct limit_waiter *second;

    (void)state;
    limit_init(&limit, 1);
    side_init(&side);
    assert_true(limit_take(&limit));
    wait_in(&limit, &side, 1);
    second = wait_in(&limit, &side, 2);
    wait_in(&limit, &side, 3);
    limit_leave(&limit, second);
    limit_release(&limit);
    limit_release(&limit);
    assert_told(&side, (const uint64_t[]){ 1, 3 }, 2);
    limit_release(&limit);
    assert_true(limit_take(&limit));
    side_deinit(&side);
    limit_deinit(&limit);
}

/* The last one leaves: places are taken without the queue again. */
static void test_leaving_an_otherwise_empty_queue(void **state)
{
    struct limit limit;
    struct side side;

    (void)state;
    limit_init(&limit, 2);
    side_init(&side);
    assert_true(limit_take(&limit));
    assert_true(limit_take(&limit));
    limit_leave(&limit, wait_in(&limit, &side, 1));
    limit_release(&limit);
    assert_true(limit_take(&limit));
    assert_told(&side, NULL, 0);
    side_deinit(&side);
    limit_deinit(&limit);
}

/* His mail is on its way when he leaves: it still comes, with a place that is to be given back. */
static void test_leaving_too_late(void **state)
{
    struct limit limit;
    struct side side;
    struct limit_waiter *waiter;

    (void)state;
    limit_init(&limit, 1);
    side_init(&side);
    assert_true(limit_take(&limit));
    waiter = wait_in(&limit, &side, 1);
    limit_release(&limit);
    limit_leave(&limit, waiter);
    assert_false(limit_take(&limit));
    assert_told(&side, (const uint64_t[]){ 1 }, 1);
    limit_release(&limit);
    assert_true(limit_take(&limit));
    side_deinit(&side);
    limit_deinit(&limit);
}

/* A relay that has stopped takes no place from those of the others. */
static void test_waiters_of_a_stopped_relay(void **state)
{
    struct limit limit;
    struct side stopped;
    struct side side;

    (void)state;
    limit_init(&limit, 1);
    side_init(&stopped);
    side_init(&side);
    assert_true(limit_take(&limit));
    wait_in(&limit, &stopped, 1);
    wait_in(&limit, &stopped, 2);
    wait_in(&limit, &side, 3);
    mailbox_close(&stopped.mailbox);
    limit_release(&limit);
    assert_told(&side, (const uint64_t[]){ 3 }, 1);
    limit_release(&limit);
    assert_true(limit_take(&limit));
    assert_told(&stopped, NULL, 0);
    side_deinit(&side);
    side_deinit(&stopped);
    limit_deinit(&limit);
}

struct crowd {
    struct limit limit;
    atomic_uint inside;
    atomic_uint most;
};

static void be_inside(struct crowd *crowd)
{
    unsigned inside = atomic_fetch_add(&crowd->inside, 1) + 1;
    unsigned most = atomic_load(&crowd->most);

    while (inside > most && !atomic_compare_exchange_weak(&crowd->most, &most, inside)) {}
    atomic_fetch_sub(&crowd->inside, 1);
    limit_release(&crowd->limit);
}

static void *come_and_go(void *arg)
{
    struct crowd *crowd = arg;
    struct side side;

    side_init(&side);
    for (unsigned i = 0; i < ROUNDS; i++) {
        if (!limit_take(&crowd->limit)) {
            wait_in(&crowd->limit, &side, i);
            loop_run(side.loop); /* until the turn has come; a lost one ends by the alarm */
        }
        be_inside(crowd);
    }
    side_deinit(&side);
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    for (unsigned max = 1; max < THREADS; max++) {
        struct crowd crowd = { .inside = 0 };
        pthread_t threads[THREADS];

        limit_init(&crowd.limit, max);
        for (unsigned i = 0; i < THREADS; i++) {
            assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, &crowd), 0);
        }
        for (unsigned i = 0; i < THREADS; i++) {
            assert_int_equal(pthread_join(threads[i], NULL), 0);
        }
        assert_in_range(atomic_load(&crowd.most), 1, max);
        /* All places are back, and nobody is thought to wait. */
        for (unsigned i = 0; i < max; i++) {
            assert_true(limit_take(&crowd.limit));
        }
        assert_false(limit_take(&crowd.limit));
        limit_deinit(&crowd.limit);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_first_come_first_served),
        cmocka_unit_test(test_waiting_while_a_place_is_free),
        cmocka_unit_test(test_leaving_the_queue),
        cmocka_unit_test(test_leaving_an_otherwise_empty_queue),
        cmocka_unit_test(test_leaving_too_late),
        cmocka_unit_test(test_waiters_of_a_stopped_relay),
        cmocka_unit_test(test_threads),
    };

    alarm(GUARD_S);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
