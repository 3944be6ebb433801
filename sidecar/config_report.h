/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_CONFIG_REPORT_H
#define SIDECAR_CONFIG_REPORT_H

/* Lines about mistakes and warnings, in the form that editors jump to. */

#include <stdio.h>

struct config_report {
    const char *path; /* borrowed */
    FILE *messages;   /* borrowed */
    unsigned mistakes;
    unsigned warnings;
};

/*
 * FILE:LINE: [section] key: text. line is 0 where the key is not in the file; key, or section and
 * key, are NULL where the mistake is about more than one.
 */
void config_mistake(struct config_report *report, unsigned line, const char *section,
                    const char *key, const char *format, ...) __attribute__((format(printf, 5, 6)));
/* The same with "warning: " before the text. */
void config_warning(struct config_report *report, unsigned line, const char *section,
                    const char *key, const char *format, ...) __attribute__((format(printf, 5, 6)));

#endif
