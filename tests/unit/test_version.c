/* SPDX-License-Identifier: MIT */

/* Which versions stay what they are. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "sidecar/build/version.h"

static void expect(const char *const *versions, bool expected)
{
    for (; *versions != NULL; versions++) {
        if (version_is_fixed(span_of_string(*versions)) != expected) {
            fail_msg("%s", *versions);
        }
    }
}

static void test_fixed(void **state)
{
    static const char *const versions[] = {
        "v1.2.3",
        "v0.0.0",
        "v2025.1.2",
        "v10.20.30",
        "v1.2.3-rc.1",
        "v2025.1.0-beta.2",
        "v1.2.3+incompatible",
        "v1.2.3-rc.1+meta",
        "v0.0.0-20250101120000-0123456789ab",
        "0123456789abcdef0123456789abcdef01234567",
        "0123456789ABCDEF0123456789ABCDEF01234567",
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        NULL,
    };

    (void)state;
    expect(versions, true);
}

static void test_moving(void **state)
{
    static const char *const versions[] = {
        "",
        "v",
        "latest",
        "master",
        "main",
        "v1",
        "v1.2",
        "v1.2.",
        "v1..3",
        "v.1.2",
        "1.2.3",
        "V1.2.3",
        "v1.2.x",
        "v1.2.3x",
        "v1.2.3.4",
        "vv1.2.3",
        " v1.2.3",
        "v1.2.3 ",
        "v-1.2.3",
        "release/v1.2.3",
        "deadbeef",
        "0123456",
        "0123456789ab",
        "0123456789abcdef0123456789abcdef0123456",
        "0123456789abcdef0123456789abcdef012345678",
        "g123456789abcdef0123456789abcdef01234567",
        NULL,
    };

    (void)state;
    expect(versions, false);
    assert_false(version_is_fixed(span_of(NULL, 0)));
    assert_false(version_is_fixed(span_of("v1.2.3\0", 7)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fixed),
        cmocka_unit_test(test_moving),
    };

    return cmocka_run_group_tests_name("version", tests, NULL, NULL);
}
