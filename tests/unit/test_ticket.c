/* SPDX-License-Identifier: MIT */

/* Each ticket is answered once or not at all, and what it held is closed. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "sidecar/build/ticket.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

struct scene {
    struct loop *loop;
    struct mailbox mailbox;
    struct build_result *result; /* the last that came */
    unsigned count;
};

static void on_mail(struct mailbox *mailbox, struct mail *mail)
{
    struct scene *scene = list_entry(mailbox, struct scene, mailbox);

    build_result_free(scene->result);
    scene->result = list_entry(mail, struct build_result, mail);
    scene->count++;
    loop_stop(scene->loop);
}

static void scene_init(struct scene *scene)
{
    *scene = (struct scene){ .count = 0 };
    assert_int_equal(loop_new(&scene->loop), 0);
    assert_int_equal(mailbox_init(&scene->mailbox, scene->loop, on_mail), 0);
}

static void scene_deinit(struct scene *scene)
{
    mailbox_close(&scene->mailbox);
    mailbox_deinit(&scene->mailbox);
    loop_free(scene->loop);
    build_result_free(scene->result);
}

static int open_something(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    return fd;
}

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static void test_answer(void **state)
{
    struct scene scene;
    struct ticket *ticket;
    int fd = open_something();

    (void)state;
    scene_init(&scene);
    ticket = ticket_new(UINT64_C(1) << 40, &scene.mailbox);
    assert_non_null(ticket);
    assert_int_equal(ticket->result->artifact.fd, -1);
    ticket->result->artifact.fd = fd;
    ticket_answer(ticket);
    loop_run(scene.loop);
    assert_int_equal(scene.count, 1);
    assert_true(scene.result->ticket == UINT64_C(1) << 40);
    assert_int_equal(scene.result->failure, FAILURE_NONE);
    assert_int_equal(scene.result->artifact.fd, fd);
    assert_true(is_open(fd));
    scene_deinit(&scene); /* frees the result */
    assert_false(is_open(fd));
}

static void test_fail(void **state)
{
    struct scene scene;

    (void)state;
    scene_init(&scene);
    ticket_fail(ticket_new(1, &scene.mailbox), FAILURE_BUSY, span_of_string("why"), 7);
    loop_run(scene.loop);
    assert_int_equal(scene.result->failure, FAILURE_BUSY);
    assert_int_equal(scene.result->retry_after_s, 7);
    assert_true(span_is(buf_span(&scene.result->message), "why"));
    scene_deinit(&scene);
}

/* Better none than no answer. */
static void test_a_message_that_is_too_long(void **state)
{
    static uint8_t text[BUILD_MESSAGE_MAX + 1];
    struct scene scene;

    (void)state;
    scene_init(&scene);
    ticket_fail(ticket_new(1, &scene.mailbox), FAILURE_BUSY, span_of(text, sizeof(text)), 1);
    loop_run(scene.loop);
    assert_int_equal(scene.count, 1);
    assert_int_equal(scene.result->failure, FAILURE_BUSY);
    scene_deinit(&scene);
}

static void test_who_has_left_gets_nothing(void **state)
{
    struct scene scene;
    struct ticket *ticket;
    int fd = open_something();

    (void)state;
    scene_init(&scene);
    ticket = ticket_new(1, &scene.mailbox);
    ticket->result->artifact.fd = fd;
    ticket_free(ticket);
    assert_false(is_open(fd));
    scene_deinit(&scene);
    assert_int_equal(scene.count, 0);
}

/* The relay has stopped: nobody takes the file. */
static void test_a_closed_mailbox(void **state)
{
    struct scene scene;
    struct ticket *ticket;
    int fd = open_something();

    (void)state;
    scene_init(&scene);
    mailbox_close(&scene.mailbox);
    ticket = ticket_new(1, &scene.mailbox);
    ticket->result->artifact.fd = fd;
    ticket_answer(ticket);
    assert_false(is_open(fd));
    scene_deinit(&scene);
    assert_int_equal(scene.count, 0);
}

/* Out of the lists that it stood in. */
static void test_lists(void **state)
{
    struct scene scene;
    struct list waiting, table;
    struct ticket *ticket;

    (void)state;
    scene_init(&scene);
    list_init(&waiting);
    list_init(&table);
    ticket = ticket_new(1, &scene.mailbox);
    list_append(&waiting, &ticket->link);
    list_append(&table, &ticket->table_link);
    ticket_answer(ticket);
    assert_true(list_is_empty(&waiting));
    assert_true(list_is_empty(&table));
    scene_deinit(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answer),
        cmocka_unit_test(test_fail),
        cmocka_unit_test(test_a_message_that_is_too_long),
        cmocka_unit_test(test_who_has_left_gets_nothing),
        cmocka_unit_test(test_a_closed_mailbox),
        cmocka_unit_test(test_lists),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
