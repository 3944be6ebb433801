/* SPDX-License-Identifier: MIT */

/* A request's params as PHP gets them: what is taken out, added and replaced, and nothing else. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>

#include "fcgi/params.h"
#include "sidecar/relay/exchange_parts.h"

#define PAIR_MAX 65000
#define PARAMS_MAX (256 * 1024)
#define VERSION "1.2.3"

struct scene {
    struct relay_options options;
    struct relay *relay;
    struct request *request;
    struct buf params;
};

static int set_up(void **state)
{
    struct scene *scene = calloc(1, sizeof(*scene));

    assert_non_null(scene);
    scene->options = (struct relay_options){
        .max_params_size = PARAMS_MAX,
        .max_spooled_body = 1000,
        .max_response_head = 65536,
        .spool_directory = (char *)(uintptr_t) "/var/tmp",
        .intercept = true,
    };
    scene->relay = calloc(1, sizeof(*scene->relay));
    assert_non_null(scene->relay);
    scene->relay->options = &scene->options;
    scene->relay->version = VERSION;
    scene->request = request_new(scene->relay);
    assert_non_null(scene->request);
    buf_init(&scene->params, PARAMS_MAX);
    *state = scene;
    return 0;
}

static int tear_down(void **state)
{
    struct scene *scene = *state;

    buf_deinit(&scene->params);
    request_free(scene->request);
    free(scene->relay);
    free(scene);
    return 0;
}

static struct scene *anew(void **state)
{
    tear_down(state);
    set_up(state);
    return *state;
}

static void add(struct buf *params, struct span name, struct span value)
{
    uint8_t *room;
    size_t size = params_size(name.len, value.len);

    assert_int_equal(buf_reserve(params, size, &room), 0);
    buf_commit(params, params_write(room, name, value));
}

/* Pairs as "NAME=value" strings up to NULL. */
static void add_all(struct buf *params, const char *const *pairs)
{
    for (; *pairs != NULL; pairs++) {
        const char *equals = strchr(*pairs, '=');

        assert_non_null(equals);
        add(params, span_of(*pairs, (size_t)(equals - *pairs)), span_of_string(equals + 1));
    }
}

static void assert_pairs(const struct buf *params, const char *const *pairs)
{
    struct buf expected;

    buf_init(&expected, PARAMS_MAX * 2);
    add_all(&expected, pairs);
    assert_int_equal(buf_length(params), buf_length(&expected));
    if (buf_length(params) > 0) {
        assert_memory_equal(buf_span(params).ptr, buf_span(&expected).ptr, buf_length(params));
    }
    buf_deinit(&expected);
}

static enum request_check check(struct scene *scene)
{
    return request_read_params(scene->request, &scene->params, scene->relay);
}

#define PAIRS_MAX 8
#define OURS "VELOX_SIDECAR=" VERSION

/* HTTP_PROXY goes, wherever it stands and however often; its neighbours stay as they are. */
static void test_proxy_is_removed(void **state)
{
    static const struct {
        const char *in[PAIRS_MAX];
        const char *out[PAIRS_MAX];
    } cases[] = {
        { { NULL }, { OURS } },
        { { "A=1", "B=2" }, { "A=1", "B=2", OURS } },
        { { "HTTP_PROXY=evil:1" }, { OURS } },
        { { "HTTP_PROXY=" }, { OURS } },
        { { "HTTP_PROXY=evil:1", "A=1", "B=2" }, { "A=1", "B=2", OURS } },
        { { "A=1", "HTTP_PROXY=evil:1", "B=2" }, { "A=1", "B=2", OURS } },
        { { "A=1", "B=2", "HTTP_PROXY=evil:1" }, { "A=1", "B=2", OURS } },
        { { "HTTP_PROXY=1", "HTTP_PROXY=22", "A=1", "HTTP_PROXY=333" }, { "A=1", OURS } },
        { { "HTTP_PROXY_X=1", "XHTTP_PROXY=2", "http_proxy=3", "HTTP_PROX=4" },
          { "HTTP_PROXY_X=1", "XHTTP_PROXY=2", "http_proxy=3", "HTTP_PROX=4", OURS } },
        { { "A=HTTP_PROXY", "=HTTP_PROXY", "B=" }, { "A=HTTP_PROXY", "=HTTP_PROXY", "B=", OURS } },
        { { "PHP_VALUE=x=y\nz", "PATH_INFO=/a/b" },
          { "PHP_VALUE=x=y\nz", "PATH_INFO=/a/b", OURS } },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct scene *scene = anew(state);

        add_all(&scene->params, cases[i].in);
        assert_int_equal(check(scene), REQUEST_OK);
        assert_pairs(&scene->params, cases[i].out);
    }
}

/* The same with long pairs, whose lengths take four bytes, around it. */
static void test_proxy_is_removed_between_long_pairs(void **state)
{
    static const size_t sizes[] = { 126, 127, 128, 129, 5000, 60000 };
    char *text = malloc(60000);

    assert_non_null(text);
    memset(text, 'v', 60000);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct scene *scene = anew(state);
        struct buf expected;

        buf_init(&expected, PARAMS_MAX);
        add(&scene->params, span_of_string("A"), span_of(text, sizes[i]));
        add(&scene->params, span_of_string("HTTP_PROXY"), span_of(text, sizes[i]));
        add(&scene->params, span_of(text, sizes[i]), span_of_string("B"));
        add(&expected, span_of_string("A"), span_of(text, sizes[i]));
        add(&expected, span_of(text, sizes[i]), span_of_string("B"));
        add_all(&expected, (const char *const[]){ OURS, NULL });
        assert_int_equal(check(scene), REQUEST_OK);
        assert_true(span_equal(buf_span(&scene->params), buf_span(&expected)));
        buf_deinit(&expected);
    }
    free(text);
}

static void test_nothing_is_added_without_a_velox_server(void **state)
{
    struct scene *scene = *state;

    scene->options.intercept = false;
    add_all(&scene->params, (const char *const[]){ "A=1", "HTTP_PROXY=x", NULL });
    assert_int_equal(check(scene), REQUEST_OK);
    assert_pairs(&scene->params, (const char *const[]){ "A=1", NULL });
}

/* What the sidecar needs to know of the request. */
static void test_method_and_length(void **state)
{
    static const struct {
        const char *in[PAIRS_MAX];
        bool may_build;
        bool has_length;
        uint64_t length;
    } cases[] = {
        { { NULL }, false, false, 0 },
        { { "REQUEST_METHOD=GET" }, true, false, 0 },
        { { "REQUEST_METHOD=" }, false, false, 0 },
        { { "REQUEST_METHOD=HEAD" }, false, false, 0 },
        { { "REQUEST_METHOD=head" }, true, false, 0 }, /* methods are case-sensitive */
        { { "REQUEST_METHOD=HEADER" }, true, false, 0 },
        { { "REQUEST_METHOD=POST", "CONTENT_LENGTH=10" }, true, true, 10 },
        { { "CONTENT_LENGTH=" }, false, false, 0 },
        { { "CONTENT_LENGTH=0" }, false, true, 0 },
        { { "CONTENT_LENGTH=007" }, false, true, 7 },
        { { "CONTENT_LENGTH=-1" }, false, false, 0 },
        { { "CONTENT_LENGTH=+1" }, false, false, 0 },
        { { "CONTENT_LENGTH= 1" }, false, false, 0 },
        { { "CONTENT_LENGTH=1 " }, false, false, 0 },
        { { "CONTENT_LENGTH=1,1" }, false, false, 0 },
        { { "CONTENT_LENGTH=0x10" }, false, false, 0 },
        { { "CONTENT_LENGTH=chunked" }, false, false, 0 },
        { { "CONTENT_LENGTH=18446744073709551615" }, false, true, UINT64_MAX },
        { { "CONTENT_LENGTH=18446744073709551616" }, false, true, UINT64_MAX },
        { { "CONTENT_LENGTH=99999999999999999999999999" }, false, true, UINT64_MAX },
        { { "content_length=5" }, false, false, 0 },
        { { "HTTP_CONTENT_LENGTH=5" }, false, false, 0 },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct scene *scene = anew(state);

        add_all(&scene->params, cases[i].in);
        assert_int_equal(check(scene), REQUEST_OK);
        assert_true(scene->request->may_build == cases[i].may_build);
        assert_true(scene->request->has_length == cases[i].has_length);
        if (cases[i].has_length) {
            assert_true(scene->request->body_left == cases[i].length);
        }
    }
}

/* A pair with this many bytes in all, four-byte lengths included. */
static void add_pair_of_size(struct buf *params, size_t size)
{
    char *text = malloc(size);

    assert_non_null(text);
    memset(text, 'v', size);
    add(params, span_of_string("A"), span_of(text, size - 1 - 1 - 4));
    assert_int_equal(buf_length(params) % size, 0);
    free(text);
}

static void test_pair_that_does_not_fit_a_record(void **state)
{
    struct scene *scene = *state;

    add_pair_of_size(&scene->params, PAIR_MAX);
    add_pair_of_size(&scene->params, PAIR_MAX);
    assert_int_equal(check(scene), REQUEST_OK);

    scene = anew(state);
    add_pair_of_size(&scene->params, PAIR_MAX + 1);
    assert_int_equal(check(scene), REQUEST_PAIR_TOO_LARGE);

    /* As the last one of several, and in one that would be dropped anyway. */
    scene = anew(state);
    add_all(&scene->params, (const char *const[]){ "A=1", "HTTP_PROXY=x", NULL });
    char *text = calloc(1, PAIR_MAX);

    assert_non_null(text);
    add(&scene->params, span_of_string("HTTP_PROXY"), span_of(text, PAIR_MAX));
    free(text);
    assert_int_equal(check(scene), REQUEST_PAIR_TOO_LARGE);
}

/* Cut anywhere within a pair, and lengths that promise more than there is. */
static void test_malformed(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
    } cases[] = {
        { "\x01", 1 },
        { "\x01\x01"
          "A",
          3 },
        { "\x00\x05"
          "abcd",
          6 },
        { "\x80\x00\x00", 3 },
        { "\xff\xff\xff\xff\x00", 5 },
        { "\x00\xff\xff\xff\xff", 5 },
        { "\xff\xff\xff\xff\xff\xff\xff\xff"
          "A",
          9 },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct scene *scene = anew(state);

        add_all(&scene->params, (const char *const[]){ "A=1", "HTTP_PROXY=x", NULL });
        assert_int_equal(buf_append(&scene->params, cases[i].bytes, cases[i].len), 0);
        assert_int_equal(check(scene), REQUEST_MALFORMED);
    }
}

static void test_length_is_replaced(void **state)
{
    static const struct {
        const char *in[PAIRS_MAX];
        const char *out[PAIRS_MAX];
    } cases[] = {
        { { NULL }, { "CONTENT_LENGTH=42" } },
        { { "A=1" }, { "A=1", "CONTENT_LENGTH=42" } },
        { { "CONTENT_LENGTH=" }, { "CONTENT_LENGTH=42" } },
        { { "CONTENT_LENGTH=", "A=1" }, { "A=1", "CONTENT_LENGTH=42" } },
        { { "A=1", "CONTENT_LENGTH=chunked", "B=2" }, { "A=1", "B=2", "CONTENT_LENGTH=42" } },
        { { "CONTENT_LENGTH=-1", "A=1", "CONTENT_LENGTH=x" }, { "A=1", "CONTENT_LENGTH=42" } },
        { { "HTTP_CONTENT_LENGTH=1" }, { "HTTP_CONTENT_LENGTH=1", "CONTENT_LENGTH=42" } },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct scene *scene = anew(state);

        add_all(&scene->params, cases[i].in);
        assert_int_equal(request_set_length(&scene->params, 42), 0);
        assert_pairs(&scene->params, cases[i].out);
    }
}

static void test_longest_length(void **state)
{
    struct scene *scene = *state;

    assert_int_equal(request_set_length(&scene->params, UINT64_MAX), 0);
    assert_pairs(&scene->params,
                 (const char *const[]){ "CONTENT_LENGTH=18446744073709551615", NULL });
}

/* Ours are added even where the web server's fill their maximum to the last bytes. */
static void check_nearly_full(struct scene *scene, size_t left, uint64_t length, const char *pair)
{
    char text[4000] = { 0 };
    size_t filler = sizeof(text) - left;
    struct buf expected;

    buf_init(&scene->params, sizeof(text) + params_size(1, sizeof(text)) - sizeof(text));
    buf_init(&expected, 5000);
    add(&scene->params, span_of_string("A"), span_of(text, filler));
    add(&expected, span_of_string("A"), span_of(text, filler));
    add_all(&expected, (const char *const[]){ OURS, pair, NULL });
    assert_int_equal(check(scene), REQUEST_OK);
    assert_int_equal(request_set_length(&scene->params, length), 0);
    assert_true(span_equal(buf_span(&scene->params), buf_span(&expected)));
    buf_deinit(&expected);
}

static void test_ours_do_not_count_against_the_maximum(void **state)
{
    for (size_t left = 0; left < 64; left++) {
        check_nearly_full(anew(state), left, 7, "CONTENT_LENGTH=7");
        check_nearly_full(anew(state), left, 12345, "CONTENT_LENGTH=12345");
    }
}

static void test_free_of_nothing(void **state)
{
    (void)state;
    request_free(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_proxy_is_removed),
        TEST(test_proxy_is_removed_between_long_pairs),
        TEST(test_nothing_is_added_without_a_velox_server),
        TEST(test_method_and_length),
        TEST(test_pair_that_does_not_fit_a_record),
        TEST(test_malformed),
        TEST(test_length_is_replaced),
        TEST(test_longest_length),
        TEST(test_ours_do_not_count_against_the_maximum),
        TEST(test_free_of_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
