/* SPDX-License-Identifier: MIT */
/* Prints findings. Must never let a path or a peer's text break a line or reach a terminal raw. */
#include "sidecar/doctor/report.h"

#include <stdarg.h>

#define LINE_SIZE 2048

static const char *const report_words[] = {
    [FINDING_OK] = "ok   ",
    [FINDING_WARN] = "warn ",
    [FINDING_FAIL] = "FAIL ",
};

static void report_clean(char *text)
{
    for (; *text != '\0'; text++) {
        unsigned char byte = (unsigned char)*text;

        if (byte < 0x20 || byte == 0x7f) {
            *text = '?';
        }
    }
}

void report_line(struct report *report, enum finding finding, const char *subject,
                 const char *format, ...)
{
    char where[LINE_SIZE];
    char text[LINE_SIZE];
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    (void)snprintf(where, sizeof(where), "%s", subject);
    report_clean(where);
    report_clean(text);
    fprintf(report->out, "%s %s: %s\n", report_words[finding], where, text);
    if (finding == FINDING_FAIL) {
        report->has_failed = true;
    }
}
