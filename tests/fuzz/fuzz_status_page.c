/* SPDX-License-Identifier: MIT */
/*
 * What a client can bring into the status page: its first byte says how much of the rest is a query
 * string, what remains is a URI. Whatever it is, a row is UTF-8 without control characters; in HTML
 * and XML it opens no element, in JSON it is a string, and as text it is one line.
 */
#include <cjson/cJSON.h>

#include "sidecar/base/utf8.h"
#include "sidecar/relay/status_page.h"
#include "tests/unit/cuts.h"

#define URI_MAX 256
#define PAGE_MAX ((size_t)64 * 1024)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static size_t count(struct span text, char wanted)
{
    size_t found = 0;

    for (size_t i = 0; i < text.len; i++) {
        found += text.ptr[i] == (uint8_t)wanted;
    }
    return found;
}

static void check_visible(struct span text)
{
    while (text.len > 0) {
        uint32_t code = 0;
        size_t length = utf8_decode(text, &code);

        CUTS_CHECK(length > 0 && !utf8_is_control(code) && code != 0xfffe && code != 0xffff);
        span_skip(&text, length);
    }
}

/* The row holds as many of these as one with a text of no interest. */
static void check_as_plain(enum status_format format, struct span text, const char *specials)
{
    struct status_row row = { .state = "head", .request = text, .build = span_of("", 0) };
    struct status_row plain = { .state = "head", .request = span_of("x", 1), .build = row.build };
    struct status_out out = { .error = 0 };
    struct status_out expected = { .error = 0 };

    buf_init(&out.buf, PAGE_MAX);
    buf_init(&expected.buf, PAGE_MAX);
    status_writer(format)->row(&row, true, &out);
    status_writer(format)->row(&plain, true, &expected);
    CUTS_CHECK(out.error == 0 && expected.error == 0);
    for (const char *special = specials; *special != '\0'; special++) {
        CUTS_CHECK(count(buf_span(&out.buf), *special) == count(buf_span(&expected.buf), *special));
    }
    buf_deinit(&out.buf);
    buf_deinit(&expected.buf);
}

static void check_json(struct span text)
{
    struct status_row row = { .state = "head", .request = text, .build = span_of("", 0) };
    struct status_out out = { .error = 0 };
    struct span json;
    cJSON *root;
    const cJSON *request;

    buf_init(&out.buf, PAGE_MAX);
    status_writer_json.row(&row, true, &out);
    json = buf_span(&out.buf);
    root = cJSON_ParseWithLength((const char *)json.ptr, json.len);
    request = cJSON_GetObjectItemCaseSensitive(root, "request");
    CUTS_CHECK(cJSON_IsString(request) && span_is(text, request->valuestring));
    cJSON_Delete(root);
    buf_deinit(&out.buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct span input = span_of(bytes, size);
    struct span first = span_take(&input, 1);
    struct span query = span_take(&input, first.len == 0 ? 0 : first.ptr[0]);
    struct status_wish wish = status_wish_parse(query);
    struct buf shown;

    CUTS_CHECK(status_writer(wish.format)->content_type[0] != '\0');
    buf_init(&shown, PAGE_MAX);
    CUTS_CHECK(status_visible(input, URI_MAX, &shown) == 0);
    CUTS_CHECK(buf_length(&shown) <= (size_t)URI_MAX * 4 + 3);
    check_visible(buf_span(&shown));
    check_as_plain(STATUS_HTML, buf_span(&shown), "<>\"'\n");
    check_as_plain(STATUS_XML, buf_span(&shown), "<>\"'\n");
    check_as_plain(STATUS_TEXT, buf_span(&shown), "\n\r");
    check_json(buf_span(&shown));
    buf_deinit(&shown);
    return 0;
}
