/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_PID_FILE_H
#define SIDECAR_PID_FILE_H

/* The file that holds the parent's process id. An empty path means that none is wanted. */

/* 0 or -errno. Whoever finds the file finds a number in it. */
int pid_file_write(const char *path);
/* Removes it if it holds our number. */
void pid_file_remove(const char *path);

#endif
