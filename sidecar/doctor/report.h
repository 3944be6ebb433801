/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_DOCTOR_REPORT_H
#define SIDECAR_DOCTOR_REPORT_H

/*
 * The lines that the doctor prints, one a finding:
 *
 *     ok    PHP-FPM at unix:/run/php/php-fpm.sock: answers
 *     FAIL  artifact root /srv/velox: does not exist; set [artifact] root to ...
 *
 * Control characters in what is printed (paths and texts come from files and peers) become '?', so
 * that a finding is always one line.
 */

#include <stdbool.h>
#include <stdio.h>

enum finding { FINDING_OK, FINDING_WARN, FINDING_FAIL };

struct report {
    FILE *out; /* borrowed */
    bool has_failed;
};

/* subject: what was looked at. The format makes the rest of the line: how it is, and for what is
 * not ok, what to do. */
void report_line(struct report *report, enum finding finding, const char *subject,
                 const char *format, ...) __attribute__((format(printf, 4, 5)));

#endif
