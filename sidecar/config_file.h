/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_CONFIG_FILE_H
#define SIDECAR_CONFIG_FILE_H

/*
 * What config_load really allocates: the configuration that everybody sees, and around it what only
 * reading, checking and printing need. Private to sidecar/config*.c.
 */

#include "sidecar/config.h"

/* The table has fewer rows; config_table.c checks that. */
#define CONFIG_KEYS_MAX 96

struct config_file {
    struct config config; /* first, so that config_print finds the rest */
    char *build_path;
    gid_t user_group;   /* the group of [sidecar] user, if has_user */
    uint64_t gigabytes; /* [cache] max_size_gb in bytes */
    /* For each row of the table its value as text, as the file or the default has it, and the line
     * of the key in the file, 0 where the default stands. Continuation lines follow behind as many
     * line feeds as they are lines further down. */
    char *texts[CONFIG_KEYS_MAX];
    unsigned lines[CONFIG_KEYS_MAX];
    bool broken[CONFIG_KEYS_MAX]; /* reported as a mistake; the default stands in */
};

#endif
