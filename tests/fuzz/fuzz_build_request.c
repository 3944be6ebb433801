/* SPDX-License-Identifier: MIT */
/*
 * Build requests. What the strict scanner accepts, cJSON must be able to parse; what is accepted as
 * a build request differs from what Velox gets by nothing but a request_id that was put in; and the
 * end of the value is found at the same place however the bytes come in. [policy] can judge
 * whatever is accepted.
 */
#include <cjson/cJSON.h>
#include <errno.h>

#include "sidecar/build/build_key.h"
#include "sidecar/build/build_request.h"
#include "sidecar/build/json_scan.h"
#include "sidecar/build/policy.h"
#include "tests/unit/cuts.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void trace_end(struct trace *trace, struct span input, struct cuts cuts)
{
    struct json_end end;
    size_t before = 0;

    json_end_init(&end);
    while (input.len > 0) {
        struct span piece = cuts_take(&cuts, &input);
        size_t length = 0;
        enum json_end_result result = json_end_next(&end, piece, &length);

        cuts_give_back(piece.ptr);
        if (result == JSON_END_FOUND) {
            trace_line(trace, "%zu", before + length);
            return;
        }
        before += piece.len;
    }
}

/* cJSON refuses numbers longer than its buffer, so texts that have one are not compared. */
static void check_agreement(struct span text)
{
    struct json_value value;
    struct json_error error;
    struct span number;
    size_t offset = 0;
    cJSON *tree;

    if (json_scan(text, 0, &value, &error) != 0 || json_long_number(text, &offset, &number)) {
        return;
    }
    tree = cJSON_ParseWithLength((const char *)value.text.ptr, value.text.len);
    CUTS_CHECK(tree != NULL);
    CUTS_CHECK(cJSON_IsObject(tree) == (value.type == JSON_OBJECT));
    CUTS_CHECK(cJSON_IsString(tree) == (value.type == JSON_STRING));
    if (value.type == JSON_STRING) {
        struct buf decoded;

        buf_init(&decoded, value.text.len);
        CUTS_CHECK(json_text_decode(json_string_raw(value), &decoded) == 0);
        CUTS_CHECK(span_is(buf_span(&decoded), tree->valuestring));
        buf_deinit(&decoded);
    }
    cJSON_Delete(tree);
}

/* The key's canonical form is a fixed point: it is its own canonical form. */
static void check_key(struct span text)
{
    struct json_value value;
    struct json_error error;
    struct buf once, twice;

    CUTS_CHECK(json_scan(text, 0, &value, &error) == 0);
    buf_init(&once, text.len);
    buf_init(&twice, text.len);
    CUTS_CHECK(build_key_canonical(value, &once) == 0);
    CUTS_CHECK(json_scan(buf_span(&once), 0, &value, &error) == 0);
    CUTS_CHECK(build_key_canonical(value, &twice) == 0);
    CUTS_CHECK(span_equal(buf_span(&once), buf_span(&twice)));
    buf_deinit(&once);
    buf_deinit(&twice);
}

/* What is accepted can be judged. */
static void check_policy(const struct build_request *request)
{
    static char module[] = "*a*";
    static char platform[] = "linux/*";
    static char *modules[] = { module };
    static char *platforms[] = { platform };
    const struct policy_options strict = { .allow_modules = { .items = modules, .count = 1 },
                                           .allow_platforms = { .items = platforms, .count = 1 },
                                           .max_plugins = 3 };
    const struct policy_options open = { .allow_replaces = true, .max_plugins = UINT32_MAX };
    char message[POLICY_MESSAGE_SIZE] = "";
    int result = policy_check(&strict, request, message);

    CUTS_CHECK(result == 0 || (result == -EPERM && message[0] != '\0'));
    CUTS_CHECK(policy_check(&open, request, message) == 0);
}

static void check_request(struct span text)
{
    struct build_request first, second;
    char message[BUILD_REQUEST_MESSAGE_SIZE] = "";
    struct span body;

    if (build_request_parse(text, &first, message) != 0) {
        CUTS_CHECK(message[0] != '\0');
        return;
    }
    body = buf_span(&first.body);
    CUTS_CHECK(first.id[0] != '\0');
    CUTS_CHECK(span_equal(body, text) || body.len > text.len);
    CUTS_CHECK(build_request_parse(body, &second, message) == 0);
    CUTS_CHECK(span_equal(body, buf_span(&second.body)));
    CUTS_CHECK(strcmp(first.id, second.id) == 0);
    CUTS_CHECK(memcmp(first.key, second.key, sizeof(first.key)) == 0);
    check_key(body);
    check_policy(&first);
    build_request_deinit(&first);
    build_request_deinit(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct span input = span_of(bytes, size);
    struct cuts cuts = cuts_of_fuzz(&input);

    cuts_compare(trace_end, input, cuts_whole(), cuts);
    check_agreement(input);
    check_request(input);
    return 0;
}
