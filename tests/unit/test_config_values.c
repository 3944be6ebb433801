/* SPDX-License-Identifier: MIT */
/* Numbers, durations, sizes and lists of the configuration. */

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>

#include "sidecar/config_values.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define UNTOUCHED 4711

struct value_case {
    const char *text;
    int result;
    uint64_t value;
};

static void check(int (*parse)(const char *, uint64_t *), const struct value_case *cases,
                  size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t value = UNTOUCHED;
        int result = parse(cases[i].text, &value);

        if (result != cases[i].result || value != (result == 0 ? cases[i].value : UNTOUCHED)) {
            fail_msg("\"%s\": result %d, value %llu", cases[i].text, result,
                     (unsigned long long)value);
        }
    }
}

static void test_numbers(void **state)
{
    static const struct value_case cases[] = {
        { "0", 0, 0 },
        { "007", 0, 7 },
        { "4096", 0, 4096 },
        { "18446744073709551615", 0, UINT64_MAX },
        { "18446744073709551616", -ERANGE, 0 },
        { "99999999999999999999999", -ERANGE, 0 },
        { "", -EINVAL, 0 },
        { "-1", -EINVAL, 0 },
        { "+1", -EINVAL, 0 },
        { " 1", -EINVAL, 0 },
        { "1 ", -EINVAL, 0 },
        { "1.0", -EINVAL, 0 },
        { "0x10", -EINVAL, 0 },
        { "1K", -EINVAL, 0 },
    };

    (void)state;
    check(config_number_parse, cases, COUNT(cases));
}

static void test_durations(void **state)
{
    static const struct value_case cases[] = {
        { "0", 0, 0 },
        { "150ms", 0, 150 },
        { "1s", 0, 1000 },
        { "5m", 0, 300000 },
        { "1h30m", 0, 5400000 },
        { "1d", 0, 86400000 },
        { "2d3h4m5s6ms", 0, 183845006 },
        { "90", 0, 90000 },
        { "330s", 0, 330000 },
        { "365d", 0, 31536000000 },
        { "1000d", 0, 86400000000 },
        { "0s", 0, 0 },
        { "", -EINVAL, 0 },
        { "s", -EINVAL, 0 },
        { "1x", -EINVAL, 0 },
        { "1h30", -EINVAL, 0 },
        { "0s5", -EINVAL, 0 },
        { "30m1h", -EINVAL, 0 },
        { "1m1m", -EINVAL, 0 },
        { "1 s", -EINVAL, 0 },
        { "-1s", -EINVAL, 0 },
        { "1.5s", -EINVAL, 0 },
        { "1S", -EINVAL, 0 },
        { "1sm", -EINVAL, 0 },
        { "1ms1", -EINVAL, 0 },
        { "18446744073709551615", -ERANGE, 0 },
        { "99999999999999999999d", -ERANGE, 0 },
        { "213503982335d", -ERANGE, 0 },
    };

    (void)state;
    check(config_duration_parse, cases, COUNT(cases));
}

static void test_sizes(void **state)
{
    static const struct value_case cases[] = {
        { "0", 0, 0 },
        { "1", 0, 1 },
        { "64K", 0, 65536 },
        { "64k", 0, 65536 },
        { "10M", 0, 10485760 },
        { "1G", 0, 1073741824 },
        { "1T", 0, 1099511627776 },
        { "", -EINVAL, 0 },
        { "K", -EINVAL, 0 },
        { "1KB", -EINVAL, 0 },
        { "1 K", -EINVAL, 0 },
        { "1P", -EINVAL, 0 },
        { "1.5G", -EINVAL, 0 },
        { "-1K", -EINVAL, 0 },
        { "16777216T", -ERANGE, 0 },
        { "99999999999999999999K", -ERANGE, 0 },
    };

    (void)state;
    check(config_size_parse, cases, COUNT(cases));
}

static void test_booleans(void **state)
{
    static const char *const yes[] = { "yes", "true", "on", "1", "YES", "True" };
    static const char *const no[] = { "no", "false", "off", "0", "Off" };
    static const char *const wrong[] = { "", "y", "2", "enabled", "yes ", "nope" };
    bool boolean = false;

    (void)state;
    for (size_t i = 0; i < COUNT(yes); i++) {
        boolean = false;
        assert_int_equal(config_boolean_parse(yes[i], &boolean), 0);
        assert_true(boolean);
    }
    for (size_t i = 0; i < COUNT(no); i++) {
        boolean = true;
        assert_int_equal(config_boolean_parse(no[i], &boolean), 0);
        assert_false(boolean);
    }
    for (size_t i = 0; i < COUNT(wrong); i++) {
        assert_int_equal(config_boolean_parse(wrong[i], &boolean), -EINVAL);
    }
}

static void test_decimals(void **state)
{
    static const char *const wrong[] = { "",    ".",   "1.",  ".5",  "-1",  "1e3",
                                         "inf", "nan", "0x1", "1,5", "1.5s" };
    double decimal = 0;

    (void)state;
    assert_int_equal(config_decimal_parse("2.0", &decimal), 0);
    assert_true(decimal == 2);
    assert_int_equal(config_decimal_parse("0.25", &decimal), 0);
    assert_true(decimal == 0.25);
    assert_int_equal(config_decimal_parse("100", &decimal), 0);
    assert_true(decimal == 100);
    for (size_t i = 0; i < COUNT(wrong); i++) {
        assert_int_equal(config_decimal_parse(wrong[i], &decimal), -EINVAL);
    }
    assert_true(decimal == 100);
}

static void test_octal_numbers(void **state)
{
    static const char *const wrong[] = { "", "8", "0o660", "-1", "660 ", "rw" };
    unsigned number = 0;

    (void)state;
    assert_int_equal(config_octal_parse("0660", &number), 0);
    assert_int_equal(number, 0660);
    assert_int_equal(config_octal_parse("777", &number), 0);
    assert_int_equal(number, 0777);
    for (size_t i = 0; i < COUNT(wrong); i++) {
        assert_int_equal(config_octal_parse(wrong[i], &number), -EINVAL);
    }
    assert_int_equal(config_octal_parse("777777777", &number), -ERANGE);
    assert_int_equal(number, 0777);
}

/* Items are shown as LINE:ITEM, with a bar after each. */
static void test_lists(void **state)
{
    static const struct {
        const char *list;
        const char *items;
    } cases[] = {
        { "", "" },
        { " ", "" },
        { "a", "0:a|" },
        { "a, b ,c", "0:a|0:b|0:c|" },
        { "a b", "0:a b|" },
        { "a,\nb", "0:a|1:b|" },
        { "a\nb", "0:a|1:b|" },
        { "\na,b\n\n\nc,\n", "1:a|1:b|4:c|" },
        { "a,", "0:a|" },
        { ",a", "0:a|" },
        { "a\n,b", "0:a|1:b|" },
        { "a,,b", "0:a|0:|0:b|" },
        { "a, ,b", "0:a|0:|0:b|" },
        { ",,", "0:|" },
        { "a,,", "0:a|0:|" },
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        const char *left = cases[i].list;
        struct span item;
        unsigned line = 0;
        char items[128] = "";

        while (config_item_next(&left, &item, &line)) {
            size_t length = strlen(items);

            snprintf(items + length, sizeof(items) - length, "%u:%.*s|", line, (int)item.len,
                     (const char *)item.ptr);
        }
        assert_string_equal(items, cases[i].items);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),  cmocka_unit_test(test_durations),
        cmocka_unit_test(test_sizes),    cmocka_unit_test(test_booleans),
        cmocka_unit_test(test_decimals), cmocka_unit_test(test_octal_numbers),
        cmocka_unit_test(test_lists),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
