/* SPDX-License-Identifier: MIT */
/*
 * The decision table for Velox's answers. It must never trust one: whatever is not understood
 * exactly is no usable answer, and nothing here copies a header or prints an unknown value.
 */
#include "sidecar/build/velox_answer.h"

#include "sidecar/build/json_scan.h"

#define ANSWER_OWN_TEXT_MAX 256 /* what we put in front of the server's words */

/* What the JSON says; spans are decoded strings in the caller's text. */
struct members {
    bool success_false;
    struct span path;
    struct span build_id;
    struct span error;
    struct span code;
    struct span message;
};

enum content {
    CONTENT_EMPTY,
    CONTENT_OBJECT,
    CONTENT_NO_OBJECT, /* JSON, though */
    CONTENT_CUT_SHORT,
    CONTENT_NO_JSON,
    CONTENT_NO_MEMORY,
};

struct code_rule {
    const char *code;
    enum velox_outcome outcome;
    bool is_timeout;
};

/* All codes of the Connect protocol; those that are missing in the retry rules are final. */
static const struct code_rule code_rules[] = {
    { "unavailable", VELOX_RETRY, false },
    { "aborted", VELOX_RETRY, false },
    { "resource_exhausted", VELOX_RETRY, false },
    { "deadline_exceeded", VELOX_RETRY, true },
    { "already_exists", VELOX_ALREADY_RUNS, false },
    { "invalid_argument", VELOX_REQUEST_INVALID, false },
    { "internal", VELOX_BUILD_FAILED, false },
    { "unknown", VELOX_BUILD_FAILED, false },
    { "failed_precondition", VELOX_BUILD_FAILED, false },
    { "not_found", VELOX_BUILD_FAILED, false },
    { "canceled", VELOX_UNUSABLE, false },
    { "data_loss", VELOX_UNUSABLE, false },
    { "out_of_range", VELOX_UNUSABLE, false },
    { "permission_denied", VELOX_UNUSABLE, false },
    { "unauthenticated", VELOX_UNUSABLE, false },
    { "unimplemented", VELOX_UNUSABLE, false },
};

static const struct code_rule *find_code(struct span code)
{
    for (size_t i = 0; i < sizeof(code_rules) / sizeof(code_rules[0]); i++) {
        if (span_is(code, code_rules[i].code)) {
            return &code_rules[i];
        }
    }
    return NULL;
}

/* A decoded string; anything but a string counts as absent. */
static int take_string(struct json_value value, struct buf *text, struct span *string)
{
    size_t before = buf_length(text);
    int result;

    if (value.type != JSON_STRING) {
        return 0;
    }
    result = json_text_decode(json_string_raw(value), text);
    if (result == 0) {
        struct span all = buf_span(text);

        *string = span_of(all.ptr + before, all.len - before);
    }
    return result;
}

static int take_members(struct json_value object, struct buf *text, struct members *members)
{
    const struct {
        const char *name;
        struct span *string;
    } strings[] = {
        { "path", &members->path },       { "build_id", &members->build_id },
        { "error", &members->error },     { "code", &members->code },
        { "message", &members->message },
    };
    struct json_cursor cursor;
    struct json_value value;
    struct span name;

    json_cursor_init(&cursor, object);
    while (json_cursor_next(&cursor, &name, &value)) {
        if (json_name_is(name, "success")) {
            members->success_false = value.type == JSON_FALSE;
        }
        for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++) {
            if (json_name_is(name, strings[i].name) &&
                take_string(value, text, strings[i].string) < 0) {
                return -1;
            }
        }
    }
    return 0;
}

static enum content read_content(struct span body, struct buf *text, struct members *members)
{
    struct json_value value;
    struct json_error error;
    uint8_t *room;

    if (json_scan(body, JSON_ALLOW_NUL, &value, &error) == 0) {
        if (value.type != JSON_OBJECT) {
            return CONTENT_NO_OBJECT;
        }
        /* Reserved at once: the spans point into it, so it must not move. */
        buf_init(text, body.len + ANSWER_OWN_TEXT_MAX);
        if (buf_reserve(text, text->max, &room) < 0 || take_members(value, text, members) < 0) {
            return CONTENT_NO_MEMORY;
        }
        return CONTENT_OBJECT;
    }
    if (error.fault == JSON_NO_MEMORY) {
        return CONTENT_NO_MEMORY;
    }
    while (body.len > 0 && memchr(" \t\r\n", body.ptr[0], 4) != NULL) {
        span_skip(&body, 1);
    }
    if (body.len == 0) {
        return CONTENT_EMPTY;
    }
    return error.fault == JSON_TRUNCATED && body.ptr[0] == '{' ? CONTENT_CUT_SHORT
                                                               : CONTENT_NO_JSON;
}

static void decide(struct velox_answer *answer, enum velox_outcome outcome, const char *message)
{
    answer->outcome = outcome;
    answer->message = span_of_string(message);
}

static void decide_retry(struct velox_answer *answer, enum velox_retry_reason reason,
                         const char *message)
{
    decide(answer, VELOX_RETRY, message);
    answer->reason = reason;
}

/* The server's own words, where it has any. */
static void say_servers(struct velox_answer *answer, const struct members *members)
{
    if (members->message.len > 0) {
        answer->message = members->message;
    } else if (members->error.len > 0) {
        answer->message = members->error;
    }
}

static void decide_by_code(struct velox_answer *answer, const struct code_rule *rule,
                           const struct members *members)
{
    static const char *const defaults[] = {
        [VELOX_ALREADY_RUNS] = "the same build is running for somebody else",
        [VELOX_RETRY] = "Velox cannot build at the moment",
        [VELOX_BUILD_FAILED] = "the build failed; Velox gives no reason",
        [VELOX_REQUEST_INVALID] = "Velox refuses the build request and gives no reason",
        [VELOX_UNUSABLE] = "Velox refuses to build and gives no reason",
    };

    decide(answer, rule->outcome, defaults[rule->outcome]);
    answer->reason = VELOX_RETRY_CODE;
    answer->is_timeout = rule->is_timeout;
    answer->detail = members->code;
    say_servers(answer, members);
}

static bool is_busy_status(unsigned status)
{
    return status == 429 || status == 502 || status == 503 || status == 504;
}

/* "Velox answered HTTP 404 <what>", into text: it is printed behind what is there. */
static void say_status(struct velox_answer *answer, struct buf *text, const char *what)
{
    size_t before = buf_length(text);

    if (text->max < before + ANSWER_OWN_TEXT_MAX) {
        text->max = before + ANSWER_OWN_TEXT_MAX; /* nothing decoded: no span points into it */
    }
    if (buf_printf(text, "Velox answered HTTP %u %s", answer->status, what) == 0) {
        struct span all = buf_span(text);

        answer->message = span_of(all.ptr + before, all.len - before);
    } else {
        answer->message = span_of_string("Velox gave no usable answer");
    }
}

/* Without a known code and without success:false. */
static void decide_by_status(struct velox_answer *answer, enum content content, struct buf *text,
                             const struct members *members)
{
    if (answer->status == 200 && content == CONTENT_OBJECT && members->path.len > 0) {
        answer->outcome = VELOX_BUILT;
        answer->path = members->path;
        return;
    }
    if (is_busy_status(answer->status)) {
        decide_retry(answer, VELOX_RETRY_HTTP_STATUS, "");
        say_status(answer, text, "and is not available");
    } else if (content == CONTENT_CUT_SHORT) {
        decide_retry(answer, VELOX_RETRY_CUT, "");
        say_status(answer, text, "with JSON that ends in the middle");
    } else if (answer->status >= 500 && content != CONTENT_OBJECT && content != CONTENT_NO_OBJECT) {
        decide_retry(answer, VELOX_RETRY_HTTP_STATUS, "");
        say_status(answer, text, "with a body that is no JSON");
    } else {
        decide(answer, VELOX_UNUSABLE, "");
        say_status(answer, text,
                   answer->status != 200       ? "instead of a built file"
                   : content == CONTENT_OBJECT ? "without the path of a built file"
                   : content == CONTENT_EMPTY  ? "with an empty body"
                                               : "with a body that is no JSON object");
    }
    say_servers(answer, members);
}

static void decide_answered(const struct velox_reply *reply, struct buf *text,
                            struct velox_answer *answer)
{
    struct members members = { .success_false = false };
    enum content content = read_content(reply->body, text, &members);
    const struct code_rule *rule = find_code(members.code);

    answer->build_id = members.build_id;
    answer->detail = members.code;
    if (content == CONTENT_NO_MEMORY) {
        decide(answer, VELOX_NO_MEMORY, "out of memory");
    } else if (members.success_false) {
        decide(answer, VELOX_BUILD_FAILED, "the build failed; Velox gives no reason");
        say_servers(answer, &members);
    } else if (rule != NULL) {
        decide_by_code(answer, rule, &members);
    } else {
        decide_by_status(answer, content, text, &members);
    }
}

void velox_answer_decide(const struct velox_reply *reply, struct buf *text,
                         struct velox_answer *answer)
{
    struct velox_answer decided = {
        .status = reply->status,
        .retry_after_ms = reply->retry_after_ms,
        .detail = reply->detail,
    };

    switch (reply->transport) {
    case VELOX_ANSWERED:
        decide_answered(reply, text, &decided);
        break;
    case VELOX_NOT_CONNECTED:
        decide_retry(&decided, VELOX_RETRY_CONNECT, "Velox cannot be reached");
        break;
    case VELOX_CUT:
        decide_retry(&decided, VELOX_RETRY_CUT, "the connection to Velox was cut");
        break;
    case VELOX_TIMED_OUT:
        decide_retry(&decided, VELOX_RETRY_TIMEOUT, "Velox did not answer within request_timeout");
        decided.is_timeout = true;
        break;
    case VELOX_TOO_LARGE:
        decide(&decided, VELOX_UNUSABLE, "the answer of Velox is too long");
        break;
    case VELOX_NOT_HTTP:
        decide(&decided, VELOX_UNUSABLE, "the answer of Velox is no HTTP that we understand");
        break;
    case VELOX_OUT_OF_MEMORY:
        decide(&decided, VELOX_NO_MEMORY, "out of memory");
        break;
    }
    *answer = decided;
}

const char *velox_retry_reason_name(enum velox_retry_reason reason)
{
    static const char *const names[] = {
        [VELOX_RETRY_CONNECT] = "connect", [VELOX_RETRY_CUT] = "cut",
        [VELOX_RETRY_TIMEOUT] = "timeout", [VELOX_RETRY_HTTP_STATUS] = "http_status",
        [VELOX_RETRY_CODE] = "code",
    };

    return names[reason];
}
