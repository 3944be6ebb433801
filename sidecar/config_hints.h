/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_CONFIG_HINTS_H
#define SIDECAR_CONFIG_HINTS_H

/* What somebody who wrote something wrong may have meant. Private to sidecar/config*.c. The hints
 * begin with a separator, so that they can stand behind what is wrong; empty: no idea. */

#include <stddef.h>

/* For a key that its section does not have: the section that has it, or a key with a similar name
 * of this section, or else of another. */
void config_hint_key(const char *section, const char *name, char *hint, size_t size);

/* For an unknown section: one with a similar name. */
void config_hint_section(const char *section, char *hint, size_t size);

/* For a value that was refused: habits of other formats (quotes, comments behind values, spaces
 * before units). Static; never NULL. */
const char *config_hint_value(const char *text);

/* For a line that is neither a section nor a key with its value. Static; never NULL. */
const char *config_hint_line(const char *text, size_t length);

#endif
