/* SPDX-License-Identifier: MIT */

/* Which address of PHP-FPM the next connection goes to. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "sidecar/relay/gate.h"

#define SKIP_MS 1000

struct scene {
    struct sock_address addresses[3];
    struct relay_options options;
    struct gate gate;
};

static void scene_init(struct scene *scene, size_t count)
{
    *scene = (struct scene){ .options = { .address_count = count } };
    scene->options.addresses = scene->addresses;
    assert_int_equal(gate_init(&scene->gate, &scene->options), 0);
}

/* The number of the address that is picked, or -1. */
static int pick(struct scene *scene, uint64_t now_ms, size_t tried)
{
    const struct sock_address *address = gate_pick(&scene->gate, now_ms, tried);

    return address == NULL ? -1 : (int)(address - scene->addresses);
}

static void refuse(struct scene *scene, int number, uint64_t now_ms)
{
    gate_skip(&scene->gate, &scene->addresses[number], now_ms);
}

static void test_one_address_is_always_picked(void **state)
{
    struct scene scene;

    (void)state;
    scene_init(&scene, 1);
    assert_int_equal(pick(&scene, 0, 0), 0);
    assert_int_equal(pick(&scene, 0, 0), 0);
    assert_int_equal(pick(&scene, 0, 1), -1);
    refuse(&scene, 0, 10);
    assert_int_equal(pick(&scene, 10, 0), 0); /* all are passed over, so none is */
    gate_deinit(&scene.gate);
}

static void test_round_robin(void **state)
{
    struct scene scene;

    (void)state;
    scene_init(&scene, 3);
    for (int i = 0; i < 9; i++) {
        assert_int_equal(pick(&scene, 0, 0), i % 3);
    }
    gate_deinit(&scene.gate);
}

static void test_refusing_address_is_passed_over_for_a_second(void **state)
{
    struct scene scene;

    (void)state;
    scene_init(&scene, 3);
    assert_int_equal(pick(&scene, 5000, 0), 0);
    refuse(&scene, 1, 5000);
    assert_int_equal(pick(&scene, 5000, 0), 2);
    assert_int_equal(pick(&scene, 5001, 0), 0);
    assert_int_equal(pick(&scene, 5000 + SKIP_MS - 1, 0), 2);
    assert_int_equal(pick(&scene, 5000 + SKIP_MS, 0), 0);
    assert_int_equal(pick(&scene, 5000 + SKIP_MS, 0), 1);
    gate_deinit(&scene.gate);
}

static void test_refusing_again_begins_a_new_second(void **state)
{
    struct scene scene;

    (void)state;
    scene_init(&scene, 2);
    refuse(&scene, 0, 0);
    refuse(&scene, 0, 600);
    assert_int_equal(pick(&scene, SKIP_MS, 0), 1);
    assert_int_equal(pick(&scene, 600 + SKIP_MS - 1, 0), 1);
    assert_int_equal(pick(&scene, 600 + SKIP_MS, 0), 0);
    gate_deinit(&scene.gate);
}

/* All refuse: the request tries each of them once, and the next request does so again. */
static void test_all_refuse(void **state)
{
    struct scene scene;

    (void)state;
    scene_init(&scene, 3);
    for (unsigned request = 0; request < 2; request++) {
        unsigned seen = 0;

        for (size_t tried = 0; tried < 3; tried++) {
            int number = pick(&scene, 100, tried);

            assert_in_range(number, 0, 2);
            seen |= 1u << number;
            refuse(&scene, number, 100);
        }
        assert_int_equal(seen, 7);
        assert_int_equal(pick(&scene, 100, 3), -1);
        assert_int_equal(pick(&scene, 100, 4), -1);
    }
    gate_deinit(&scene.gate);
}

/* One of two is down: the request that meets it goes to the other one. */
static void test_request_goes_on_to_the_next_address(void **state)
{
    struct scene scene;

    (void)state;
    scene_init(&scene, 2);
    assert_int_equal(pick(&scene, 0, 0), 0);
    refuse(&scene, 0, 0);
    assert_int_equal(pick(&scene, 0, 1), 1);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(pick(&scene, SKIP_MS - 1, 0), 1);
    }
    gate_deinit(&scene.gate);
}

static void test_deinit_twice(void **state)
{
    struct scene scene;

    (void)state;
    scene_init(&scene, 2);
    gate_deinit(&scene.gate);
    gate_deinit(&scene.gate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_address_is_always_picked),
        cmocka_unit_test(test_round_robin),
        cmocka_unit_test(test_refusing_address_is_passed_over_for_a_second),
        cmocka_unit_test(test_refusing_again_begins_a_new_second),
        cmocka_unit_test(test_all_refuse),
        cmocka_unit_test(test_request_goes_on_to_the_next_address),
        cmocka_unit_test(test_deinit_twice),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
