/* SPDX-License-Identifier: MIT */
/*
 * Writing and removing the pid file. Must never remove one that another instance has written.
 */
#include "sidecar/pid_file.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static bool write_number(const char *path)
{
    FILE *file = fopen(path, "we");
    bool is_written;

    if (file == NULL) {
        return false;
    }
    is_written = fprintf(file, "%ld\n", (long)getpid()) > 0;
    return fclose(file) == 0 && is_written;
}

int pid_file_write(const char *path)
{
    char *new_path;
    int error = 0;

    if (path[0] == '\0') {
        return 0;
    }
    /* Under another name first, so that it is never empty. */
    if (asprintf(&new_path, "%s.new", path) < 0) {
        return -ENOMEM;
    }
    if (!write_number(new_path) || rename(new_path, path) != 0) {
        error = -errno;
        (void)unlink(new_path);
    }
    free(new_path);
    return error;
}

void pid_file_remove(const char *path)
{
    FILE *file = path[0] == '\0' ? NULL : fopen(path, "re");
    long pid = 0;

    if (file == NULL) {
        return;
    }
    if (fscanf(file, "%ld", &pid) == 1 && pid == (long)getpid()) {
        (void)unlink(path);
    }
    fclose(file);
}
