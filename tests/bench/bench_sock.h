/* SPDX-License-Identifier: MIT */
#ifndef TESTS_BENCH_BENCH_SOCK_H
#define TESTS_BENCH_BENCH_SOCK_H

/*
 * Unix sockets for the programs of the benchmark.
 */

/* Gives a non-blocking listening socket that everybody may connect to; replaces what lies at path.
 * Ends the program on an error. */
int bench_listen(const char *path);

/* Gives a non-blocking socket connected to path, or -errno (-EAGAIN: the backlog is full). */
int bench_connect(const char *path);

/* Raises the limit of descriptors as far as it goes. */
void bench_raise_descriptors(void);

/* Ends the program with a line that says what failed, and errno. */
_Noreturn void bench_die(const char *what);

#endif
