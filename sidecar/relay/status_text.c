/* SPDX-License-Identifier: MIT */
/*
 * The status page as plain text, laid out as PHP-FPM's (sapi/fpm/fpm/fpm_status.c), so that what
 * reads the one reads the other.
 */
#include <inttypes.h>

#include "sidecar/relay/status_page.h"

/* "name:   value", the values in column 22. */
static void put_name(const char *name, struct status_out *out)
{
    int gap = 21 - (int)strlen(name);

    status_printf(out, "%s:%*s", name, gap > 1 ? gap : 1, "");
}

static void put_number(const char *name, uint64_t value, struct status_out *out)
{
    put_name(name, out);
    status_printf(out, "%" PRIu64 "\n", value);
}

static void put_text(const char *name, struct span value, struct status_out *out)
{
    put_name(name, out);
    status_put_span(out, value);
    status_put(out, "\n");
}

static void begin(const struct status_numbers *numbers, const struct status_listing *listing,
                  struct status_out *out)
{
    for (size_t i = 0; i < STATUS_FIELD_COUNT; i++) {
        const struct status_field *field = &status_fields[i];
        char time[STATUS_TIME_SIZE];

        if (field->kind == STATUS_VERSION) {
            put_text(field->name, span_of_string(numbers->version), out);
        } else if (field->kind == STATUS_TIME) {
            status_time_text(numbers->started_at, time);
            put_text(field->name, span_of_string(time), out);
        } else {
            put_number(field->name, status_value(field, numbers), out);
        }
    }
    if (listing != NULL) {
        put_number("exchanges shown", listing->shown, out);
        put_number("exchanges left out", listing->left_out, out);
        put_number("threads silent", listing->silent, out);
    }
}

static void row(const struct status_row *row, bool is_first, struct status_out *out)
{
    (void)is_first;
    status_put(out, "\n************************\n");
    put_text("state", span_of_string(row->state), out);
    put_name("age", out);
    status_printf(out, "%" PRIu64 ".%03" PRIu64 "\n", row->age_ms / 1000, row->age_ms % 1000);
    put_text("request", row->request, out);
    put_text("build", row->build, out);
    put_number("bytes", row->bytes, out);
}

static void end(bool is_full, struct status_out *out)
{
    (void)is_full;
    (void)out;
}

const struct status_writer status_writer_text = { "text/plain; charset=utf-8", begin, row, end };
