/* SPDX-License-Identifier: MIT */
/* Characters and what is none. */

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "sidecar/base/utf8.h"

static void test_characters(void **state)
{
    static const struct {
        const char *bytes;
        int length; /* as utf8_length has it */
        uint32_t code;
    } cases[] = {
        { "a", 1, 'a' },
        { "\xc2\x80", 2, 0x80 },
        { "\xdf\xbf!", 2, 0x7ff },
        { "\xe0\xa0\x80", 3, 0x800 },
        { "\xed\x9f\xbf", 3, 0xd7ff },
        { "\xef\xbf\xbf", 3, 0xffff },
        { "\xf0\x90\x80\x80", 4, 0x10000 },
        { "\xf4\x8f\xbf\xbf", 4, 0x10ffff },
        { "", -1, 0 },
        { "\xc3", -1, 0 },
        { "\xe2\x82", -1, 0 },
        { "\xf0\x9f\x98", -1, 0 },
        { "\x80", 0, 0 },
        { "\xc0\xaf", 0, 0 },             /* two bytes for a slash */
        { "\xe0\x80\xaf", 0, 0 },         /* three */
        { "\xed\xa0\x80", 0, 0 },         /* a surrogate */
        { "\xf4\x90\x80\x80", 0, 0 },     /* above U+10FFFF */
        { "\xf8\x88\x80\x80\x80", 0, 0 }, /* five bytes */
        { "\xc3(", 0, 0 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct span text = span_of_string(cases[i].bytes);
        uint32_t code = 0;

        assert_int_equal(utf8_length(text), cases[i].length);
        assert_int_equal(utf8_decode(text, &code), cases[i].length > 0 ? cases[i].length : 0);
        assert_int_equal(code, cases[i].code);
    }
}

static void test_controls(void **state)
{
    static const uint32_t controls[] = { 0,    '\n',   0x1b,   0x1f,   0x7f,   0x80,
                                         0x9f, 0x2028, 0x2029, 0x202e, 0x2066, 0x2069 };
    static const uint32_t others[] = { ' ', '~', 0xa0, 0x2027, 0x202f, 0x2065, 0x206a, 0x10ffff };

    (void)state;
    for (size_t i = 0; i < sizeof(controls) / sizeof(controls[0]); i++) {
        assert_true(utf8_is_control(controls[i]));
    }
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        assert_false(utf8_is_control(others[i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_characters),
        cmocka_unit_test(test_controls),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
