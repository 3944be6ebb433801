/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_CONFIG_LINES_H
#define SIDECAR_CONFIG_LINES_H

/*
 * The lines of an ini file. inih takes them apart; it is fed line by line, because by itself it
 * neither tells line numbers nor empty sections, names only the first line that it cannot read, and
 * cuts long lines. Lines are counted from 1.
 */

#include "fcgi/span.h"

/* What the reader finds; strings are borrowed for the call. The calls give 0, or an error that ends
 * the reading. */
struct config_lines_events {
    /* A section begins, even if nothing follows. NULL: nobody can tell which; a problem with the
     * same line follows. */
    int (*on_section)(void *owner, unsigned line, const char *section);
    /* name = value in the section that began last; before the first one, the owner has not been
     * told of any. Comments and spaces around are removed. */
    int (*on_value)(void *owner, unsigned line, const char *name, const char *value);
    /* An indented line that continues the value before it. */
    int (*on_continuation)(void *owner, unsigned line, const char *value);
    /* A line that cannot be used, and why; it is passed over with the lines that continue it. */
    void (*on_problem)(void *owner, unsigned line, const char *problem);
};

/* 0, -ENOMEM, or what a callback gave. */
int config_lines_read(struct span bytes, const struct config_lines_events *events, void *owner);

#endif
