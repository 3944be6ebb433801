/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_DOCTOR_DOCTOR_H
#define SIDECAR_DOCTOR_DOCTOR_H

/*
 * `velox-sidecar doctor`: looks at everything around the service that usually goes wrong and says
 * what to do, without touching the service.
 */

#include <stdio.h>

/*
 * Prints one line a finding to out: "ok", "warn" or "FAIL", what was looked at, and what to do.
 * Mistakes of the configuration go to stderr before. nginx_path: a file with what `nginx -T`
 * printed, "-" for standard input, or NULL. Gives up root for the configured user on the way, for
 * good. 0, or 1 where a line is FAIL.
 */
int doctor_run(const char *config_path, const char *nginx_path, FILE *out);

#endif
