/* SPDX-License-Identifier: MIT */
/*
 * Writing and removing the pid file. Must never remove one that another instance has written, nor
 * follow a link or wait for a pipe: the folder may belong to somebody with fewer rights than we
 * have.
 */
#include "sidecar/pid_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static bool write_number(const char *path)
{
    int fd;
    FILE *file;
    bool is_written;

    /* What is left of an interrupted start, or laid there: it goes, whatever it is. */
    (void)unlink(path);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    file = fd < 0 ? NULL : fdopen(fd, "w");
    if (file == NULL) {
        if (fd >= 0) {
            close(fd);
        }
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
    int fd = path[0] == '\0' ? -1 : open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    char text[24] = "";

    if (fd < 0) {
        return;
    }
    if (read(fd, text, sizeof(text) - 1) > 0 && strtol(text, NULL, 10) == (long)getpid()) {
        (void)unlink(path);
    }
    close(fd);
}
