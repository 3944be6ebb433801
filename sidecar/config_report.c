/* SPDX-License-Identifier: MIT */
/*
 * Prints mistakes and warnings, and counts them. Texts from the file are printed with control
 * characters shown as a question mark, since an administrator's terminal reads them.
 */

#include "sidecar/config_report.h"

#include <stdarg.h>

/* Longer lines are cut: they quote what the file says. */
#define CONFIG_LINE_MAX 2048

static void config_report_line(struct config_report *report, unsigned line, const char *section,
                               const char *key, const char *kind, const char *text)
{
    fprintf(report->messages, "%s:", report->path);
    if (line > 0) {
        fprintf(report->messages, "%u:", line);
    }
    if (section != NULL) {
        fprintf(report->messages, " [%s]", section);
    }
    if (key != NULL) {
        fprintf(report->messages, " %s", key);
    }
    if (section != NULL || key != NULL) {
        fputc(':', report->messages);
    }
    fprintf(report->messages, " %s%s\n", kind, text);
}

static void config_report_text(char *text, size_t size, const char *format, va_list args)
    __attribute__((format(printf, 3, 0)));

static void config_report_text(char *text, size_t size, const char *format, va_list args)
{
    vsnprintf(text, size, format, args);
    for (char *byte = text; *byte != '\0'; byte++) {
        if ((unsigned char)*byte < 0x20 || *byte == 0x7f) {
            *byte = '?';
        }
    }
}

void config_mistake(struct config_report *report, unsigned line, const char *section,
                    const char *key, const char *format, ...)
{
    char text[CONFIG_LINE_MAX];
    va_list args;

    va_start(args, format);
    config_report_text(text, sizeof(text), format, args);
    va_end(args);
    config_report_line(report, line, section, key, "", text);
    report->mistakes++;
}

void config_warning(struct config_report *report, unsigned line, const char *section,
                    const char *key, const char *format, ...)
{
    char text[CONFIG_LINE_MAX];
    va_list args;

    va_start(args, format);
    config_report_text(text, sizeof(text), format, args);
    va_end(args);
    config_report_line(report, line, section, key, "warning: ", text);
    report->warnings++;
}
