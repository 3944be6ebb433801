/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_CONFIG_CHECK_PARTS_H
#define SIDECAR_CONFIG_CHECK_PARTS_H

/* What the files config_check*.c share. Private to them. */

#include "sidecar/config_file.h"
#include "sidecar/config_report.h"

/* The line of a key in the file, 0 where the default stands; its text. */
unsigned config_line(const struct config_file *file, const char *section, const char *name);
const char *config_text(const struct config_file *file, const char *section, const char *name);

/* A key that was refused has been reported and needs no second line. */
bool config_is_broken(const struct config_file *file, const char *section, const char *name);

/* Whether path is folder or lies below it, by whole components. */
bool config_is_below(const char *path, const char *folder);

/* Folders and files: whether they are there, and who may use them. */
void config_check_files(const struct config_file *file, struct config_report *report);

/* Addresses: circles, secrets in clear text; keys that do nothing as others are. */
void config_check_peers(const struct config_file *file, struct config_report *report);

#endif
