/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_CONFIG_CHECK_H
#define SIDECAR_CONFIG_CHECK_H

/* What no key shows alone. Private to sidecar/config*.c. */

#include "sidecar/config_file.h"
#include "sidecar/config_report.h"

/* Looks at a configuration whose keys are all valid, and reports mistakes and warnings. Changes
 * nothing and opens nothing. */
void config_check(const struct config_file *file, struct config_report *report);

#endif
