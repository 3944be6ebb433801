/* SPDX-License-Identifier: MIT */
/*
 * The status page as one JSON object; names as in the text, times and sizes as numbers.
 */
#include <inttypes.h>

#include "sidecar/relay/status_page.h"

/* The text is visible already: only what JSON itself needs is left to escape. */
static void put_string(struct span text, struct status_out *out)
{
    status_put(out, "\"");
    while (text.len > 0) {
        size_t plain = 0;

        while (plain < text.len && text.ptr[plain] != '"' && text.ptr[plain] != '\\') {
            plain++;
        }
        status_put_span(out, span_take(&text, plain));
        if (text.len > 0) {
            status_printf(out, "\\%c", text.ptr[0]);
            span_skip(&text, 1);
        }
    }
    status_put(out, "\"");
}

static void begin(const struct status_numbers *numbers, const struct status_listing *listing,
                  struct status_out *out)
{
    for (size_t i = 0; i < STATUS_FIELD_COUNT; i++) {
        const struct status_field *field = &status_fields[i];

        status_printf(out, "%s\"%s\":", i == 0 ? "{" : ",", field->name);
        if (field->kind == STATUS_VERSION) {
            put_string(span_of_string(numbers->version), out);
        } else {
            status_printf(out, "%" PRIu64, status_value(field, numbers));
        }
    }
    if (listing != NULL) {
        status_printf(out,
                      ",\"exchanges shown\":%" PRIu64 ",\"exchanges left out\":%" PRIu64
                      ",\"threads silent\":%" PRIu64 ",\"exchanges\":[",
                      listing->shown, listing->left_out, listing->silent);
    }
}

static void row(const struct status_row *row, bool is_first, struct status_out *out)
{
    status_printf(out, "%s{\"state\":\"%s\",\"age\":%" PRIu64 ".%03" PRIu64 ",\"request\":",
                  is_first ? "" : ",", row->state, row->age_ms / 1000, row->age_ms % 1000);
    put_string(row->request, out);
    status_put(out, ",\"build\":");
    put_string(row->build, out);
    status_printf(out, ",\"bytes\":%" PRIu64 "}", row->bytes);
}

static void end(bool is_full, struct status_out *out)
{
    status_put(out, is_full ? "]}" : "}");
}

const struct status_writer status_writer_json = { "application/json", begin, row, end };
