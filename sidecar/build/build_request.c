/* SPDX-License-Identifier: MIT */
/*
 * Checks the JSON that PHP sends. The strict scanner decides what is JSON, cJSON's tree tells the
 * shape. It must never print JSON from that tree: what Velox gets are the bytes that came.
 */
#include "sidecar/build/build_request.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "sidecar/build/build_key.h"
#include "sidecar/build/json_scan.h"
#include "sidecar/build/version.h"

_Static_assert(BUILD_REQUEST_KEY_SIZE == BUILD_KEY_SIZE, "the key is a SHA-256");

#define UUID_LENGTH 36
#define EXCERPT_SIZE 120

enum json_end_state {
    END_BEFORE, /* only white space so far */
    END_INSIDE, /* in the value, outside of strings */
    END_STRING,
    END_ESCAPE,
    END_FOUND,
    END_OTHER, /* no object or array: it ends with the stream */
};

void json_end_init(struct json_end *end)
{
    end->state = END_BEFORE;
    end->depth = 0;
}

static enum json_end_state end_before(struct json_end *end, uint8_t byte)
{
    switch (byte) {
    case ' ':
    case '\t':
    case '\r':
    case '\n':
        return END_BEFORE;
    case '{':
    case '[':
        end->depth = 1;
        return END_INSIDE;
    default:
        return END_OTHER;
    }
}

static enum json_end_state end_inside(struct json_end *end, uint8_t byte)
{
    switch (byte) {
    case '"':
        return END_STRING;
    case '{':
    case '[':
        end->depth++;
        return END_INSIDE;
    case '}':
    case ']':
        end->depth--;
        return end->depth == 0 ? END_FOUND : END_INSIDE;
    default:
        return END_INSIDE;
    }
}

static enum json_end_state end_step(struct json_end *end, uint8_t byte)
{
    switch (end->state) {
    case END_BEFORE:
        return end_before(end, byte);
    case END_INSIDE:
        return end_inside(end, byte);
    case END_STRING:
        return byte == '\\' ? END_ESCAPE : byte == '"' ? END_INSIDE : END_STRING;
    case END_ESCAPE:
        return END_STRING;
    default:
        return (enum json_end_state)end->state;
    }
}

enum json_end_result json_end_next(struct json_end *end, struct span piece, size_t *length)
{
    size_t at = 0;

    while (at < piece.len && end->state != END_FOUND && end->state != END_OTHER) {
        end->state = (uint8_t)end_step(end, piece.ptr[at]);
        at++;
    }
    if (end->state != END_FOUND) {
        return JSON_END_NEED_DATA;
    }
    *length = at;
    return JSON_END_FOUND;
}

__attribute__((format(printf, 2, 3))) static int refuse(char *message, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(message, BUILD_REQUEST_MESSAGE_SIZE, format, arguments);
    va_end(arguments);
    return -EINVAL;
}

static struct span without_space(struct span span)
{
    while (span.len > 0 && memchr(" \t\r\n", span.ptr[0], 4) != NULL) {
        span_skip(&span, 1);
    }
    return span;
}

/* The commonest mistakes, which a syntax error at byte 0 would not explain. */
static int check_begin(struct span body, char *message)
{
    struct span begin = without_space(body);
    char excerpt[EXCERPT_SIZE];

    if (begin.len == 0) {
        return refuse(message, "the body is empty; it must be a build request as a JSON object");
    }
    if (begin.len >= 3 && memcmp(begin.ptr, "\xef\xbb\xbf", 3) == 0) {
        return refuse(message, "the body begins with a UTF-8 byte order mark; save the PHP files "
                               "without it");
    }
    if (memchr("{[\"-0123456789tfn", begin.ptr[0], 17) != NULL) {
        return 0;
    }
    json_print_escaped(excerpt, sizeof(excerpt), begin);
    return refuse(message,
                  "the body begins with text that is no JSON, probably a PHP warning: %s%s",
                  excerpt, begin.len > sizeof(excerpt) ? "..." : "");
}

/* As opposed to what JSON allows and we refuse. */
static bool is_json_fault(enum json_fault fault)
{
    return fault != JSON_NUL && fault != JSON_DUPLICATE && fault != JSON_DEPTH;
}

static int check_json(struct span body, struct json_value *value, char *message)
{
    struct json_error error;
    int result = json_scan(body, 0, value, &error);

    if (result == 0 && value->type != JSON_OBJECT) {
        return refuse(message, "the body must be a JSON object");
    }
    if (result != -EINVAL) {
        return result;
    }
    return refuse(message, "the body %s: %s at byte %zu%s%s",
                  is_json_fault(error.fault) ? "is not valid JSON" : "cannot be accepted",
                  json_fault_text(error.fault), error.offset, error.place[0] == '\0' ? "" : ", in ",
                  error.place);
}

/* A copy for cJSON in which long numbers are a 0 and spaces: it cannot read them, and nothing here
 * asks for their value. */
static int copy_for_cjson(struct span text, uint8_t **copy)
{
    struct span number;
    size_t offset = 0;

    *copy = NULL;
    while (json_long_number(text, &offset, &number)) {
        if (*copy == NULL) {
            *copy = malloc(text.len);
            if (*copy == NULL) {
                return -ENOMEM;
            }
            memcpy(*copy, text.ptr, text.len);
        }
        memset(*copy + (number.ptr - text.ptr), ' ', number.len);
        (*copy)[number.ptr - text.ptr] = '0';
    }
    return 0;
}

static int parse_tree(struct span text, cJSON **tree)
{
    uint8_t *copy;
    int result = copy_for_cjson(text, &copy);

    if (result < 0) {
        return result;
    }
    *tree = cJSON_ParseWithLengthOpts((const char *)(copy == NULL ? text.ptr : copy), text.len,
                                      NULL, false);
    free(copy);
    /* The scanner has accepted the text, so there is no other reason. */
    return *tree == NULL ? -ENOMEM : 0;
}

/* NULL where it is absent or null. */
static const cJSON *member(const cJSON *object, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);

    return item == NULL || cJSON_IsNull(item) ? NULL : item;
}

static int check_twin(const cJSON *object, const char *name, const char *twin, const char *place,
                      char *message)
{
    if (cJSON_GetObjectItemCaseSensitive(object, twin) == NULL) {
        return 0;
    }
    return refuse(message, "%s%s is written %s here", place, twin, name);
}

static int check_string(const cJSON *object, const char *name, const char *place, char *message)
{
    const cJSON *item = member(object, name);

    if (item == NULL) {
        return refuse(message, "%s%s is missing; it must be a string", place, name);
    }
    return cJSON_IsString(item) ? 0 : refuse(message, "%s%s must be a string", place, name);
}

static int check_plugins(const cJSON *root, char *message)
{
    const cJSON *plugins = member(root, "plugins");
    const cJSON *plugin;
    unsigned index = 0;

    if (plugins == NULL) {
        return refuse(message, "plugins is missing; it must be an array of objects");
    }
    if (!cJSON_IsArray(plugins)) {
        return refuse(message, "plugins must be an array of objects");
    }
    cJSON_ArrayForEach(plugin, plugins)
    {
        char place[40];

        (void)snprintf(place, sizeof(place), "plugins[%u].", index);
        if (!cJSON_IsObject(plugin)) {
            return refuse(message, "plugins[%u] must be an object with module_name and tag", index);
        }
        if (check_twin(plugin, "module_name", "moduleName", place, message) < 0 ||
            check_string(plugin, "module_name", place, message) < 0 ||
            check_string(plugin, "tag", place, message) < 0) {
            return -EINVAL;
        }
        index++;
    }
    return 0;
}

static bool is_name(const char *text)
{
    size_t length = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789");

    return text[length] == '\0' && length >= 1 && length <= BUILD_REQUEST_NAME_MAX;
}

static int check_platform_part(const cJSON *platform, const char *name, char *message)
{
    int result = check_string(platform, name, "target_platform.", message);

    if (result == 0 && !is_name(member(platform, name)->valuestring)) {
        return refuse(message, "target_platform.%s must be 1 to %d characters of a-z and 0-9", name,
                      BUILD_REQUEST_NAME_MAX);
    }
    return result;
}

static int check_platform(const cJSON *root, char *message)
{
    const cJSON *platform = member(root, "target_platform");

    if (platform == NULL) {
        return 0;
    }
    if (!cJSON_IsObject(platform)) {
        return refuse(message, "target_platform must be an object with os and arch");
    }
    if (check_platform_part(platform, "os", message) < 0) {
        return -EINVAL;
    }
    return check_platform_part(platform, "arch", message);
}

static int check_id(const cJSON *root, char *message)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789._-";
    const cJSON *id = member(root, "request_id");
    size_t length;

    if (id == NULL) {
        return 0;
    }
    if (!cJSON_IsString(id)) {
        return refuse(message, "request_id must be a string");
    }
    length = strlen(id->valuestring);
    if (length < 1 || length > BUILD_REQUEST_ID_MAX || strspn(id->valuestring, allowed) != length) {
        return refuse(message,
                      "request_id must be 1 to %d characters of A-Z, a-z, 0-9, '.', '_' "
                      "and '-'",
                      BUILD_REQUEST_ID_MAX);
    }
    return 0;
}

static int check_shape(const cJSON *root, char *message)
{
    static const char *const twins[][2] = {
        { "request_id", "requestId" },
        { "rr_version", "rrVersion" },
        { "force_rebuild", "forceRebuild" },
        { "target_platform", "targetPlatform" },
    };

    for (size_t i = 0; i < sizeof(twins) / sizeof(twins[0]); i++) {
        if (check_twin(root, twins[i][0], twins[i][1], "", message) < 0) {
            return -EINVAL;
        }
    }
    if (check_string(root, "rr_version", "", message) < 0 || check_plugins(root, message) < 0 ||
        check_id(root, message) < 0) {
        return -EINVAL;
    }
    return check_platform(root, message);
}

/* A random UUID (RFC 9562, version 4). */
static int make_uuid(char text[UUID_LENGTH + 1])
{
    uint8_t b[16];

    if (getrandom(b, sizeof(b), 0) != (ssize_t)sizeof(b)) {
        return -ENOMEM; /* so few bytes come whole, or the system has none at all */
    }
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    (void)snprintf(text, UUID_LENGTH + 1,
                   "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
                   b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13],
                   b[14], b[15]);
    return 0;
}

static bool is_fixed(const cJSON *object, const char *name)
{
    return version_is_fixed(span_of_string(member(object, name)->valuestring));
}

static bool names_what_moves(const cJSON *root)
{
    const cJSON *plugin;
    bool moves = !is_fixed(root, "rr_version");

    cJSON_ArrayForEach(plugin, member(root, "plugins"))
    {
        moves = moves || !is_fixed(plugin, "tag");
    }
    return moves;
}

/* Takes what the tree tells; the copies fit, check_shape has seen to that. */
static void take_id(struct build_request *request, const cJSON *root)
{
    const cJSON *id = member(root, "request_id");

    if (id != NULL) {
        (void)snprintf(request->id, sizeof(request->id), "%s", id->valuestring);
    }
}

static void take_members(struct build_request *request, const cJSON *root)
{
    const cJSON *platform = member(root, "target_platform");

    take_id(request, root);
    if (platform != NULL) {
        (void)snprintf(request->os, sizeof(request->os), "%s", member(platform, "os")->valuestring);
        (void)snprintf(request->arch, sizeof(request->arch), "%s",
                       member(platform, "arch")->valuestring);
    }
    request->is_mutable = names_what_moves(root);
    request->force_rebuild = cJSON_IsTrue(member(root, "force_rebuild"));
}

/*
 * The bytes with request_id put in: in place of its null, or as the first member. The object is not
 * empty, since rr_version is in it, so a comma follows.
 */
static int append_with_id(struct buf *body, struct span text, struct json_value object,
                          const char *id)
{
    struct json_value null_id;
    struct span tail = text;
    struct span head;
    int result;
    bool is_null = json_member(object, "request_id", &null_id);

    if (is_null) {
        head = span_take(&tail, (size_t)(null_id.text.ptr - text.ptr));
        span_skip(&tail, null_id.text.len);
    } else {
        head = span_take(&tail, (size_t)(object.text.ptr - text.ptr) + 1);
    }
    result = buf_append_span(body, head);
    if (result == 0) {
        result = is_null ? buf_printf(body, "\"%s\"", id)
                         : buf_printf(body, "\"request_id\":\"%s\",", id);
    }
    return result < 0 ? result : buf_append_span(body, tail);
}

static int fill(struct build_request *request, struct span text, struct json_value object,
                const cJSON *root)
{
    int result;

    take_members(request, root);
    buf_init(&request->body, text.len + 2 * UUID_LENGTH);
    if (request->id[0] != '\0') {
        result = buf_append_span(&request->body, text);
    } else {
        result = make_uuid(request->id);
        if (result == 0) {
            result = append_with_id(&request->body, text, object, request->id);
        }
    }
    if (result == 0) {
        result = build_key_compute(object, request->key);
    }
    if (result < 0) {
        buf_deinit(&request->body);
    }
    return result;
}

int build_request_parse(struct span body, struct build_request *request,
                        char message[BUILD_REQUEST_MESSAGE_SIZE])
{
    struct build_request parsed;
    struct json_value object = { .type = JSON_NULL };
    char unused[BUILD_REQUEST_MESSAGE_SIZE];
    cJSON *root = NULL;
    int result = check_begin(body, message);

    request->id[0] = '\0';
    if (result == 0) {
        result = check_json(body, &object, message);
    }
    if (result == 0) {
        result = parse_tree(object.text, &root);
    }
    if (result < 0) {
        return result;
    }
    memset(&parsed, 0, sizeof(parsed));
    result = check_shape(root, message);
    if (result == -EINVAL && check_id(root, unused) == 0) {
        take_id(request, root); /* so that the refusal can be told from others */
    }
    if (result == 0) {
        result = fill(&parsed, body, object, root);
    }
    cJSON_Delete(root);
    if (result == 0) {
        *request = parsed;
    }
    return result;
}

void build_request_deinit(struct build_request *request)
{
    buf_deinit(&request->body);
}
