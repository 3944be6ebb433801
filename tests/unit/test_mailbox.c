/* SPDX-License-Identifier: MIT */

/* Messages between threads: none is lost or doubled, the order of each sender is kept, and the end
 * is clean. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sidecar/io/mailbox.h"

#define SENDERS 4
#define MAILS_EACH 5000
#define GUARD_MS 20000

struct letter {
    struct mail mail; /* first */
    unsigned sender;
    unsigned number;
};

struct scene {
    struct loop *loop;
    struct timer guard;
    struct mailbox mailbox;
    struct letter *letters; /* of all senders */
    unsigned next[SENDERS]; /* the number that must come next */
    unsigned received;
    unsigned stop_at; /* stops the loop after that many */
    unsigned last_number;
    void (*on_letter)(struct scene *scene, struct letter *letter);
};

static void on_guard(struct timer *timer)
{
    (void)timer;
    fail_msg("mail did not come within %d ms", GUARD_MS);
}

static void on_mail(struct mailbox *mailbox, struct mail *mail)
{
    struct scene *scene = list_entry(mailbox, struct scene, mailbox);
    struct letter *letter = list_entry(mail, struct letter, mail);

    assert_int_equal(letter->number, scene->next[letter->sender]);
    scene->next[letter->sender]++;
    scene->received++;
    scene->last_number = letter->number;
    if (scene->on_letter != NULL) {
        scene->on_letter(scene, letter);
    }
    if (scene->received >= scene->stop_at) {
        loop_stop(scene->loop);
    }
}

static int set_up(void **state)
{
    struct scene *scene = calloc(1, sizeof(*scene));

    assert_non_null(scene);
    scene->letters = calloc((size_t)SENDERS * MAILS_EACH, sizeof(*scene->letters));
    assert_non_null(scene->letters);
    assert_int_equal(loop_new(&scene->loop), 0);
    timer_init(&scene->guard, scene->loop, on_guard);
    assert_int_equal(mailbox_init(&scene->mailbox, scene->loop, on_mail), 0);
    *state = scene;
    return 0;
}

static int tear_down(void **state)
{
    struct scene *scene = *state;

    mailbox_close(&scene->mailbox);
    mailbox_deinit(&scene->mailbox);
    timer_stop(&scene->guard);
    loop_free(scene->loop);
    free(scene->letters);
    free(scene);
    return 0;
}

static void run_until(struct scene *scene, unsigned received)
{
    scene->stop_at = received;
    assert_int_equal(timer_start(&scene->guard, GUARD_MS), 0);
    loop_run(scene->loop);
    timer_stop(&scene->guard);
    assert_true(scene->received >= received); /* what waits is given before the loop stops */
}

/* The number-th letter of a sender. */
static struct letter *letter_of(struct scene *scene, unsigned sender, unsigned number)
{
    struct letter *letter = &scene->letters[sender * MAILS_EACH + number];

    letter->sender = sender;
    letter->number = number;
    return letter;
}

static void post(struct scene *scene, unsigned number)
{
    assert_int_equal(mailbox_post(&scene->mailbox, &letter_of(scene, 0, number)->mail), 0);
}

static void test_nothing_comes_before_the_loop_runs(void **state)
{
    struct scene *scene = *state;

    post(scene, 0);
    post(scene, 1);
    assert_int_equal(scene->received, 0);
    run_until(scene, 2);
}

static void test_later_mail_wakes_the_loop_again(void **state)
{
    struct scene *scene = *state;

    for (unsigned i = 0; i < 10; i++) {
        post(scene, i);
        run_until(scene, i + 1);
    }
}

static void post_next(struct scene *scene, struct letter *letter)
{
    if (letter->number < 99) {
        post(scene, letter->number + 1);
    }
}

static void test_mail_may_be_posted_from_the_callback(void **state)
{
    struct scene *scene = *state;

    scene->on_letter = post_next;
    post(scene, 0);
    run_until(scene, 100);
}

static void post_same_again(struct scene *scene, struct letter *letter)
{
    if (letter->number < 9) {
        letter->number++;
        assert_int_equal(mailbox_post(&scene->mailbox, &letter->mail), 0);
    }
}

/* The receiver owns the message, so it may send it on at once. */
static void test_mail_may_be_used_again_at_once(void **state)
{
    struct scene *scene = *state;

    scene->on_letter = post_same_again;
    post(scene, 0);
    run_until(scene, 10);
}

struct sender {
    struct scene *scene;
    unsigned index;
    unsigned posted; /* until -EPIPE */
    pthread_t thread;
};

static void *send_all(void *arg)
{
    struct sender *sender = arg;

    for (unsigned i = 0; i < MAILS_EACH; i++) {
        if (mailbox_post(&sender->scene->mailbox,
                         &letter_of(sender->scene, sender->index, i)->mail) != 0) {
            break;
        }
        sender->posted++;
    }
    return NULL;
}

static void senders_start(struct scene *scene, struct sender senders[SENDERS])
{
    for (unsigned i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){ .scene = scene, .index = i };
        assert_int_equal(pthread_create(&senders[i].thread, NULL, send_all, &senders[i]), 0);
    }
}

static unsigned senders_join(struct sender senders[SENDERS])
{
    unsigned posted = 0;

    for (unsigned i = 0; i < SENDERS; i++) {
        assert_int_equal(pthread_join(senders[i].thread, NULL), 0);
        posted += senders[i].posted;
    }
    return posted;
}

static void test_threads_lose_nothing_and_keep_their_order(void **state)
{
    struct scene *scene = *state;
    struct sender senders[SENDERS];

    senders_start(scene, senders);
    run_until(scene, SENDERS * MAILS_EACH); /* on_mail checks the order */
    assert_int_equal(senders_join(senders), SENDERS * MAILS_EACH);
}

static void close_at_the_hundredth(struct scene *scene, struct letter *letter)
{
    (void)letter;
    if (scene->received == 100) {
        mailbox_close(&scene->mailbox);
    }
}

/* Closed in the middle of it: each message was either received or is still its sender's. */
static void test_close_while_threads_post(void **state)
{
    struct scene *scene = *state;
    struct sender senders[SENDERS];

    scene->on_letter = close_at_the_hundredth;
    senders_start(scene, senders);
    run_until(scene, 100);
    assert_int_equal(senders_join(senders), scene->received);
    for (unsigned i = 0; i < SENDERS; i++) {
        assert_int_equal(scene->next[i], senders[i].posted);
    }
}

static void test_close_gives_what_waits_and_takes_no_more(void **state)
{
    struct scene *scene = *state;

    post(scene, 0);
    post(scene, 1);
    mailbox_close(&scene->mailbox);
    assert_int_equal(scene->received, 2);
    assert_int_equal(mailbox_post(&scene->mailbox, &letter_of(scene, 0, 2)->mail), -EPIPE);
    mailbox_close(&scene->mailbox); /* twice does no harm */
    assert_int_equal(scene->received, 2);
}

static void post_is_refused(struct scene *scene, struct letter *letter)
{
    (void)letter;
    assert_int_equal(mailbox_post(&scene->mailbox, &letter_of(scene, 1, 0)->mail), -EPIPE);
}

static void test_close_refuses_mail_from_the_callback(void **state)
{
    struct scene *scene = *state;

    scene->on_letter = post_is_refused;
    post(scene, 0);
    mailbox_close(&scene->mailbox);
    assert_int_equal(scene->received, 1);
}

static void close_once(struct scene *scene, struct letter *letter)
{
    if (letter->number == 0) {
        mailbox_close(&scene->mailbox);
    }
}

static void test_close_from_the_callback_gives_the_rest(void **state)
{
    struct scene *scene = *state;

    scene->on_letter = close_once;
    post(scene, 0);
    post(scene, 1);
    post(scene, 2);
    run_until(scene, 3);
    assert_int_equal(scene->last_number, 2);
}

static unsigned count_descriptors(void)
{
    unsigned count = 0;

    for (int fd = 0; fd < 256; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

static void test_descriptor_is_given_back(void **state)
{
    struct scene *scene = *state;
    struct mailbox other;
    unsigned before = count_descriptors();

    assert_int_equal(mailbox_init(&other, scene->loop, on_mail), 0);
    assert_int_equal(count_descriptors(), before + 1);
    assert_true((fcntl(other.event_fd, F_GETFD) & FD_CLOEXEC) != 0);
    mailbox_close(&other);
    mailbox_deinit(&other);
    assert_int_equal(count_descriptors(), before);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_nothing_comes_before_the_loop_runs),
        TEST(test_later_mail_wakes_the_loop_again),
        TEST(test_mail_may_be_posted_from_the_callback),
        TEST(test_mail_may_be_used_again_at_once),
        TEST(test_threads_lose_nothing_and_keep_their_order),
        TEST(test_close_while_threads_post),
        TEST(test_close_gives_what_waits_and_takes_no_more),
        TEST(test_close_refuses_mail_from_the_callback),
        TEST(test_close_from_the_callback_gives_the_rest),
        TEST(test_descriptor_is_given_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
