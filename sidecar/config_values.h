/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_CONFIG_VALUES_H
#define SIDECAR_CONFIG_VALUES_H

/*
 * Texts of the configuration as numbers, and lists as items. Nothing here knows a key. The texts
 * have no spaces around. 0, -EINVAL where the text is none of its kind, -ERANGE where it is too
 * large for any key.
 */

#include "fcgi/span.h"

/* Digits only. */
int config_number_parse(const char *text, uint64_t *number);
/* "150ms", "1s", "5m", "1h30m", "2d": units from large to small, each once; a bare number is
 * seconds. */
int config_duration_parse(const char *text, uint64_t *duration_ms);
/* "64K", "10M", "1G", "1T" (powers of 1024, in either case); a bare number is bytes. */
int config_size_parse(const char *text, uint64_t *size_bytes);
/* yes/no, true/false, on/off, 1/0, in any case. */
int config_boolean_parse(const char *text, bool *boolean);
/* "2", "0.25": digits, and perhaps a point and digits. */
int config_decimal_parse(const char *text, double *decimal);
/* "0660" or "660". */
int config_octal_parse(const char *text, unsigned *number);

/*
 * Takes the next item off the front of a list: items end at a comma or at a line feed, and have no
 * spaces around. Returns false at the end. *item is empty only where two commas meet; empty lines
 * and a comma at the end of a line are passed over. *line goes up by the line feeds passed.
 */
bool config_item_next(const char **list, struct span *item, unsigned *line);

#endif
