/* SPDX-License-Identifier: MIT */
/* The table of failures against the manual's. */

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "sidecar/base/failure.h"

static const struct {
    enum failure failure;
    unsigned status;
    const char *error;
} expected[] = {
    { FAILURE_NONE, 0, "" },
    { FAILURE_REQUEST_INVALID, 400, "invalid_request" },
    { FAILURE_BODY_SHORT, 400, "invalid_request" },
    { FAILURE_FORBIDDEN, 403, "forbidden" },
    { FAILURE_BODY_TOO_LARGE, 413, "too_large" },
    { FAILURE_PARAMS_TOO_LARGE, 431, "too_large" },
    { FAILURE_BUILD_FAILED, 500, "build_failed" },
    { FAILURE_ARTIFACT_UNAVAILABLE, 500, "artifact_unavailable" },
    { FAILURE_VELOX_UNAVAILABLE, 502, "velox_unavailable" },
    { FAILURE_WORKER_FAILED, 502, "worker_failed" },
    { FAILURE_BUSY, 503, "busy" },
    { FAILURE_TIMEOUT, 504, "timeout" },
};

static void test_every_failure_has_its_answer(void **state)
{
    (void)state;
    assert_int_equal(sizeof(expected) / sizeof(expected[0]), FAILURE_COUNT);
    for (size_t i = 0; i < FAILURE_COUNT; i++) {
        const struct failure_info *info = failure_info(expected[i].failure);

        assert_int_equal(info->status, expected[i].status);
        assert_string_equal(info->error, expected[i].error);
        assert_int_equal(info->retry_after, info->status == 503);
        assert_int_equal(strlen(info->reason) > 0, info->status != 0);
    }
}

static void test_an_unknown_failure_is_none(void **state)
{
    (void)state;
    assert_int_equal(failure_info(FAILURE_COUNT)->status, 0);
    assert_int_equal(failure_info((enum failure) - 1)->status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_failure_has_its_answer),
        cmocka_unit_test(test_an_unknown_failure_is_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
