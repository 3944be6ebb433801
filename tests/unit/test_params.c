/* SPDX-License-Identifier: MIT */

/* Name-value pairs: lengths at every edge, pairs that end anywhere, records of whole pairs. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>

#include "fcgi/params.h"

static const size_t lengths[] = { 0, 1, 126, 127, 128, 129, 255, 256, 65535, 65536, 1 << 24 };

#define LENGTHS (sizeof(lengths) / sizeof(lengths[0]))

static uint8_t *letters_new(size_t length, char letter)
{
    uint8_t *letters = malloc(length + 1);

    assert_non_null(letters);
    memset(letters, letter, length);
    return letters;
}

static void check_round_trip(size_t name_length, size_t value_length)
{
    size_t size = params_size(name_length, value_length);
    uint8_t *name_bytes = letters_new(name_length, 'n');
    uint8_t *value_bytes = letters_new(value_length, 'v');
    uint8_t *bytes = letters_new(size, '!');
    struct span pairs = span_of(bytes, size);
    struct span name;
    struct span value;

    bytes[size] = 0xaa;
    assert_int_equal(
        params_write(bytes, span_of(name_bytes, name_length), span_of(value_bytes, value_length)),
        size);
    assert_int_equal(bytes[size], 0xaa);
    assert_int_equal(params_next(&pairs, &name, &value), PARAMS_PAIR);
    assert_true(span_equal(name, span_of(name_bytes, name_length)));
    assert_true(span_equal(value, span_of(value_bytes, value_length)));
    assert_int_equal(params_next(&pairs, &name, &value), PARAMS_END);
    free(bytes);
    free(value_bytes);
    free(name_bytes);
}

static void test_round_trips(void **state)
{
    (void)state;
    for (size_t i = 0; i < LENGTHS; i++) {
        for (size_t j = 0; j < LENGTHS; j++) {
            if (lengths[i] + lengths[j] <= 1 << 24) {
                check_round_trip(lengths[i], lengths[j]);
            }
        }
    }
}

static void test_sizes(void **state)
{
    (void)state;
    assert_int_equal(params_size(0, 0), 2);
    assert_int_equal(params_size(127, 127), 2 + 254);
    assert_int_equal(params_size(128, 127), 5 + 255);
    assert_int_equal(params_size(127, 128), 5 + 255);
    assert_int_equal(params_size(0x7fffffff, 0x7fffffff), 8 + (size_t)0xfffffffe);
}

static const struct {
    const char *bytes;
    size_t length;
    enum params_result result;
} firsts[] = {
    { "", 0, PARAMS_END },
    { "\0\0", 2, PARAMS_PAIR },
    { "\0", 1, PARAMS_MALFORMED },
    { "\1\1ab", 4, PARAMS_PAIR },
    { "\1\1a", 3, PARAMS_MALFORMED },
    { "\1\1", 2, PARAMS_MALFORMED },
    { "\2\0a", 3, PARAMS_MALFORMED },
    { "\x7f\0a", 3, PARAMS_MALFORMED },
    /* a short length may be written in four bytes */
    { "\x80\0\0\1\x80\0\0\1ab", 10, PARAMS_PAIR },
    { "\x80\0\0\0\0", 5, PARAMS_PAIR },
    { "\x80\0\0\1\x80\0\0\1a", 9, PARAMS_MALFORMED },
    { "\x80", 1, PARAMS_MALFORMED },
    { "\x80\0\0", 3, PARAMS_MALFORMED },
    { "\x80\0\0\0", 4, PARAMS_MALFORMED },
    { "\x80\0\0\0\x80\0\0", 7, PARAMS_MALFORMED },
    { "\0\x80\0\0", 4, PARAMS_MALFORMED },
    /* 2^31-1 in one place and in both: their sum with the eight bytes overflows 32 bits */
    { "\xff\xff\xff\xff\0ab", 7, PARAMS_MALFORMED },
    { "\0\xff\xff\xff\xff"
      "ab",
      7, PARAMS_MALFORMED },
    { "\xff\xff\xff\xff\xff\xff\xff\xff"
      "ab",
      10, PARAMS_MALFORMED },
    { "\xff\xff\xff\xfb\xff\xff\xff\xfb"
      "ab",
      10, PARAMS_MALFORMED },
};

/* From a block of exactly their size, so that valgrind and AddressSanitizer see a byte too far. */
static void test_first_pair(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(firsts) / sizeof(firsts[0]); i++) {
        uint8_t *bytes = malloc(firsts[i].length + (firsts[i].length == 0));

        assert_non_null(bytes);
        memcpy(bytes, firsts[i].bytes, firsts[i].length);
        struct span pairs = span_of(bytes, firsts[i].length);
        struct span name = { 0 };
        struct span value = { 0 };

        assert_int_equal(params_next(&pairs, &name, &value), firsts[i].result);
        if (firsts[i].result != PARAMS_PAIR) {
            assert_null(name.ptr);
            assert_null(value.ptr);
            assert_ptr_equal(pairs.ptr, bytes);
            assert_int_equal(pairs.len, firsts[i].length);
        }
        free(bytes);
    }
}

/* Five pairs of 2, 6, 129, 133 and 140 bytes; ends[i] is where pair i ends. */
#define PAIRS 5
#define PAIRS_SIZE 410

static void put_pairs(uint8_t bytes[PAIRS_SIZE], size_t ends[PAIRS])
{
    const size_t sizes[PAIRS][2] = { { 0, 0 }, { 1, 3 }, { 127, 0 }, { 0, 128 }, { 5, 130 } };
    size_t length = 0;

    for (size_t i = 0; i < PAIRS; i++) {
        uint8_t *name = letters_new(sizes[i][0], 'n');
        uint8_t *value = letters_new(sizes[i][1], 'v');

        length += params_write(bytes + length, span_of(name, sizes[i][0]),
                               span_of(value, sizes[i][1]));
        ends[i] = length;
        free(value);
        free(name);
    }
    assert_int_equal(length, PAIRS_SIZE);
}

static size_t pairs_up_to(const size_t ends[PAIRS], size_t length)
{
    size_t count = 0;

    while (count < PAIRS && ends[count] <= length) {
        count++;
    }
    return count;
}

static void test_pairs_that_end_at_every_byte(void **state)
{
    uint8_t bytes[PAIRS_SIZE];
    size_t ends[PAIRS];

    (void)state;
    put_pairs(bytes, ends);
    for (size_t length = 0; length <= PAIRS_SIZE; length++) {
        struct span pairs = span_of(bytes, length);
        struct span name;
        struct span value;
        size_t count = 0;
        enum params_result result;

        while ((result = params_next(&pairs, &name, &value)) == PARAMS_PAIR) {
            count++;
        }
        size_t whole = pairs_up_to(ends, length);
        bool is_end = length == (whole == 0 ? 0 : ends[whole - 1]);

        assert_int_equal(count, whole);
        assert_int_equal(result, is_end ? PARAMS_END : PARAMS_MALFORMED);
    }
}

static void test_cut_at_every_maximum(void **state)
{
    uint8_t bytes[PAIRS_SIZE];
    size_t ends[PAIRS];

    (void)state;
    put_pairs(bytes, ends);
    for (size_t max = 0; max <= PAIRS_SIZE + 1; max++) {
        size_t whole = pairs_up_to(ends, max);

        assert_int_equal(params_cut(span_of(bytes, PAIRS_SIZE), max),
                         whole == 0 ? 0 : ends[whole - 1]);
    }
    assert_int_equal(params_cut(span_of(NULL, 0), 10), 0);
    assert_int_equal(params_cut(span_of(bytes + ends[3], PAIRS_SIZE - ends[3]), 138), 0);
}

static const struct {
    const char *asked[6];
    const char *answer;
    size_t answer_length;
} values[] = {
    { { NULL }, "", 0 },
    { { "FCGI_MPXS_CONNS" }, "\17\1FCGI_MPXS_CONNS0", 18 },
    { { "FCGI_MAX_CONNS" }, "\16\4FCGI_MAX_CONNS1000", 20 },
    { { "FCGI_MAX_REQS" }, "\15\4FCGI_MAX_REQS1000", 19 },
    { { "FCGI_MPXS_CONNS", "OTHER", "", "FCGI_MAX_REQS", "FCGI_MAX_CONNS", "FCGI_MAX_REQS" },
      "\16\4FCGI_MAX_CONNS1000\15\4FCGI_MAX_REQS1000\17\1FCGI_MPXS_CONNS0",
      57 },
    { { "fcgi_max_conns", "FCGI_MAX_CONN", "FCGI_MAX_CONNSX" }, "", 0 },
};

static void test_values(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        uint8_t asked[256];
        uint8_t answer[PARAMS_VALUES_MAX];
        size_t length = 0;

        for (size_t j = 0; j < 6 && values[i].asked[j] != NULL; j++) {
            length += params_write(asked + length, span_of_string(values[i].asked[j]),
                                   span_of_string(""));
        }
        assert_int_equal(params_values_answer(span_of(asked, length), 1000, answer),
                         values[i].answer_length);
        assert_memory_equal(answer, values[i].answer, values[i].answer_length);
    }
}

static void test_values_of_malformed_pairs(void **state)
{
    const char asked[] = "\17\1FCGI_MPXS_CONNSx\16\7FCGI_MAX_CONNS";
    uint8_t answer[PARAMS_VALUES_MAX];

    (void)state;
    assert_int_equal(params_values_answer(span_of(asked, sizeof(asked) - 1), 5, answer), 18);
    assert_memory_equal(answer, "\17\1FCGI_MPXS_CONNS0", 18);
}

static void test_values_of_the_largest_number(void **state)
{
    const char asked[] = "\16\0FCGI_MAX_CONNS\15\0FCGI_MAX_REQS\17\0FCGI_MPXS_CONNS";
    uint8_t answer[PARAMS_VALUES_MAX];

    (void)state;
    assert_int_equal(params_values_answer(span_of(asked, sizeof(asked) - 1), UINT32_MAX, answer),
                     69);
    assert_memory_equal(answer, "\16\12FCGI_MAX_CONNS4294967295", 26);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_first_pair),
        cmocka_unit_test(test_pairs_that_end_at_every_byte),
        cmocka_unit_test(test_cut_at_every_maximum),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_values_of_malformed_pairs),
        cmocka_unit_test(test_values_of_the_largest_number),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
