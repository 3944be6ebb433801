/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_CONFIG_PARSE_H
#define SIDECAR_CONFIG_PARSE_H

/* From the text of one key to its field. Private to sidecar/config*.c. */

#include "sidecar/config_file.h"
#include "sidecar/config_table.h"

struct config_value {
    struct config_file *file; /* borrowed; gets the value */
    const struct config_key *key;
    const char *text;  /* borrowed; no spaces around; lists may have line feeds */
    unsigned line;     /* set on -EINVAL: how many lines below the key's the problem is */
    char problem[512]; /* set on -EINVAL: what is wrong and what is allowed */
};

/* 0, -EINVAL or -ENOMEM. The field must be zero before; it is untouched on an error, and must be
 * freed by config_value_free otherwise. */
int config_value_parse(struct config_value *value);
/* Frees what the field of a key holds and zeroes it. */
void config_value_free(struct config_file *file, const struct config_key *key);

/* Whether the kind is a list, whose text may go on in further lines. */
bool config_kind_is_list(enum config_kind kind);

/* The rest is for config_parse.c and config_parse_lists.c. */

/* Writes the problem and returns -EINVAL. */
int config_refuse(struct config_value *value, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void *config_field(const struct config_value *value);
int config_parse_list(struct config_value *value);
void config_list_free(struct config_file *file, const struct config_key *key);
/* What follows http:// or https:// and a host, perhaps with a port; ends: the bytes that end it.
 * NULL where text does not begin so, or names a user. */
const char *config_url_behind_authority(const char *text, const char *ends);

/*
 * An absolute path without doubled slashes, "." components and a slash at the end (except "/"
 * itself); the caller frees it. -EINVAL if it is not absolute or has a ".." component, -ENOMEM.
 */
int config_folder_make(struct span text, char **folder);

#endif
