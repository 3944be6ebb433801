/* SPDX-License-Identifier: MIT */
/*
 * The status page as XML; names as in the text with hyphens for spaces, times and sizes as numbers.
 */
#include <inttypes.h>

#include "sidecar/relay/status_page.h"

#define NAME_SIZE 32

static void put_element(const char *name, struct span value, struct status_out *out)
{
    status_printf(out, "<%s>", name);
    status_put_markup(out, value);
    status_printf(out, "</%s>", name);
}

static void put_number(const char *name, uint64_t value, struct status_out *out)
{
    status_printf(out, "<%s>%" PRIu64 "</%s>", name, value, name);
}

static void hyphenate(const char *name, char hyphenated[NAME_SIZE])
{
    size_t i;

    for (i = 0; i < NAME_SIZE - 1 && name[i] != '\0'; i++) {
        hyphenated[i] = name[i] == ' ' ? '-' : name[i];
    }
    hyphenated[i] = '\0';
}

static void begin(const struct status_numbers *numbers, const struct status_listing *listing,
                  struct status_out *out)
{
    status_put(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<status>\n");
    for (size_t i = 0; i < STATUS_FIELD_COUNT; i++) {
        const struct status_field *field = &status_fields[i];
        char name[NAME_SIZE];

        hyphenate(field->name, name);
        if (field->kind == STATUS_VERSION) {
            put_element(name, span_of_string(numbers->version), out);
        } else {
            put_number(name, status_value(field, numbers), out);
        }
        status_put(out, "\n");
    }
    if (listing != NULL) {
        put_number("exchanges-shown", listing->shown, out);
        status_put(out, "\n");
        put_number("exchanges-left-out", listing->left_out, out);
        status_put(out, "\n");
        put_number("threads-silent", listing->silent, out);
        status_put(out, "\n<exchanges>\n");
    }
}

static void row(const struct status_row *row, bool is_first, struct status_out *out)
{
    (void)is_first;
    status_put(out, "<exchange>");
    put_element("state", span_of_string(row->state), out);
    status_printf(out, "<age>%" PRIu64 ".%03" PRIu64 "</age>", row->age_ms / 1000,
                  row->age_ms % 1000);
    put_element("request", row->request, out);
    put_element("build", row->build, out);
    put_number("bytes", row->bytes, out);
    status_put(out, "</exchange>\n");
}

static void end(bool is_full, struct status_out *out)
{
    status_put(out, is_full ? "</exchanges>\n</status>\n" : "</status>\n");
}

const struct status_writer status_writer_xml = { "text/xml; charset=utf-8", begin, row, end };
