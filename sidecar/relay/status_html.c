/* SPDX-License-Identifier: MIT */
/*
 * The status page for people: one file without scripts or anything from elsewhere, light or dark
 * as the reader's system is, on a phone as well. Must never hold a peer's text that is not escaped.
 */
#include <inttypes.h>
#include <stdio.h>

#include "sidecar/relay/status_page.h"

#define HUMAN_SIZE 32

/* Text and background of every pair that is used are at least 4.5 : 1 apart (WCAG 2, AA), in both
 * schemes: tests/daemon/test_status.py computes it from these lines. */
static const char style[] =
    "<style>\n"
    ":root{color-scheme:light dark;"
    "--back:#ffffff;--text:#1b1f24;--muted:#57606a;--stripe:#f3f5f8;--line:#d0d7de;"
    "--link:#0550ae}\n"
    "@media(prefers-color-scheme:dark){:root{"
    "--back:#0f1318;--text:#e6edf3;--muted:#9aa4af;--stripe:#181e25;--line:#343d47;"
    "--link:#79c0ff}}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0 auto;padding:1rem;max-width:72rem;background:var(--back);color:var(--text);"
    "font:1rem/1.45 system-ui,sans-serif}\n"
    "h1{font-size:1.35rem;margin:0}\n"
    "p{margin:.15rem 0 1rem;color:var(--muted)}\n"
    "a{color:var(--link)}\n"
    "table{border-collapse:collapse;width:100%}\n"
    ".figures{max-width:30rem}\n"
    ".figures th{white-space:nowrap}\n"
    "caption{text-align:left;font-weight:600;padding:.5rem 0;white-space:nowrap}\n"
    "th,td{padding:.3rem .6rem;border-bottom:1px solid var(--line);text-align:left;"
    "vertical-align:top}\n"
    "th{font-weight:400;color:var(--muted)}\n"
    "tbody tr:nth-child(odd){background:var(--stripe)}\n"
    ".n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}\n"
    ".t{text-align:right}\n"
    ".figures td{white-space:normal;overflow-wrap:anywhere}\n"
    ".r{font-family:ui-monospace,monospace;font-size:.9rem;overflow-wrap:anywhere;"
    "min-width:15rem}\n"
    ".b{font-family:ui-monospace,monospace;font-size:.9rem;overflow-wrap:anywhere;"
    "min-width:9rem}\n"
    "small{display:block;color:var(--muted)}\n"
    ".box{overflow-x:auto;margin-top:1.25rem}\n"
    ".box:focus-visible{outline:2px solid var(--link)}\n"
    "</style>\n";

static void human_bytes(uint64_t bytes, char text[HUMAN_SIZE])
{
    static const char *const units[] = { "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    double value = (double)bytes / 1024;
    unsigned unit = 0;

    text[0] = '\0';
    if (bytes < 1024) {
        return;
    }
    while (value >= 1023.95 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1024;
        unit++;
    }
    snprintf(text, HUMAN_SIZE, "%.1f %s", value, units[unit]);
}

static void human_seconds(uint64_t seconds, char text[HUMAN_SIZE])
{
    uint64_t days = seconds / 86400;
    uint64_t hours = seconds / 3600 % 24;
    uint64_t minutes = seconds / 60 % 60;

    text[0] = '\0';
    if (days > 0) {
        snprintf(text, HUMAN_SIZE, "%" PRIu64 " d %" PRIu64 " h", days, hours);
    } else if (hours > 0) {
        snprintf(text, HUMAN_SIZE, "%" PRIu64 " h %" PRIu64 " min", hours, minutes);
    } else if (minutes > 0) {
        snprintf(text, HUMAN_SIZE, "%" PRIu64 " min %" PRIu64 " s", minutes, seconds % 60);
    }
}

static void put_number(uint64_t value, const char *human, struct status_out *out)
{
    status_printf(out, "<td class=\"n\">%" PRIu64, value);
    if (human[0] != '\0') {
        status_printf(out, "<small>%s</small>", human);
    }
    status_put(out, "</td>");
}

static void put_figure(const struct status_field *field, const struct status_numbers *numbers,
                       struct status_out *out)
{
    uint64_t value = status_value(field, numbers);
    char human[HUMAN_SIZE] = "";
    char time[STATUS_TIME_SIZE];

    status_printf(out, "<tr><th scope=\"row\">%s</th>", field->name);
    if (field->kind == STATUS_VERSION) {
        status_put(out, "<td class=\"t\">");
        status_put_markup(out, span_of_string(numbers->version));
        status_put(out, "</td>");
    } else if (field->kind == STATUS_TIME) {
        status_time_text(numbers->started_at, time);
        /* A narrow screen breaks it between date and time. */
        status_printf(out, "<td class=\"t\">%.12s<wbr>%s</td>", time,
                      strlen(time) > 12 ? time + 12 : "");
    } else {
        if (field->kind == STATUS_BYTES) {
            human_bytes(value, human);
        } else if (field->kind == STATUS_SECONDS) {
            human_seconds(value, human);
        }
        put_number(value, human, out);
    }
    status_put(out, "</tr>\n");
}

static void put_listing(const struct status_listing *listing, struct status_out *out)
{
    status_printf(out,
                  "<div class=\"box\" role=\"region\" aria-label=\"Exchanges\" tabindex=\"0\">\n"
                  "<table>\n<caption>Exchanges: %" PRIu64 " shown, %" PRIu64 " left out",
                  listing->shown, listing->left_out);
    if (listing->silent > 0) {
        status_printf(out, ", threads silent: %" PRIu64, listing->silent);
    }
    status_put(out, "</caption>\n<thead><tr><th scope=\"col\">state</th>"
                    "<th scope=\"col\" class=\"n\">age, s</th><th scope=\"col\">request</th>"
                    "<th scope=\"col\">build</th><th scope=\"col\" class=\"n\">bytes</th></tr>"
                    "</thead>\n<tbody>\n");
}

static void begin(const struct status_numbers *numbers, const struct status_listing *listing,
                  struct status_out *out)
{
    status_put(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                    "<meta name=\"robots\" content=\"noindex\">\n"
                    "<title>velox-sidecar status</title>\n");
    status_put(out, style);
    status_put(out, "</head>\n<body>\n<h1>velox-sidecar</h1>\n");
    status_put(out, listing == NULL ? "<p><a href=\"?html&amp;full\">Show every exchange</a></p>\n"
                                    : "<p><a href=\"?html\">Show the figures only</a></p>\n");
    status_put(out, "<table class=\"figures\">\n<caption>Since its start</caption>\n<tbody>\n");
    for (size_t i = 0; i < STATUS_FIELD_COUNT; i++) {
        put_figure(&status_fields[i], numbers, out);
    }
    status_put(out, "</tbody>\n</table>\n");
    if (listing != NULL) {
        put_listing(listing, out);
    }
}

static void row(const struct status_row *row, bool is_first, struct status_out *out)
{
    char human[HUMAN_SIZE];

    (void)is_first;
    human_bytes(row->bytes, human);
    status_printf(
        out, "<tr><td>%s</td><td class=\"n\">%" PRIu64 ".%03" PRIu64 "</td><td class=\"r\"><bdi>",
        row->state, row->age_ms / 1000, row->age_ms % 1000);
    status_put_markup(out, row->request);
    status_put(out, "</bdi></td><td class=\"b\">");
    status_put_markup(out, row->build);
    status_put(out, "</td>");
    put_number(row->bytes, human, out);
    status_put(out, "</tr>\n");
}

static void end(bool is_full, struct status_out *out)
{
    status_put(out,
               is_full ? "</tbody>\n</table>\n</div>\n</body>\n</html>\n" : "</body>\n</html>\n");
}

const struct status_writer status_writer_html = { "text/html; charset=utf-8", begin, row, end };
