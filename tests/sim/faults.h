/* SPDX-License-Identifier: MIT */
#ifndef TESTS_SIM_FAULTS_H
#define TESTS_SIM_FAULTS_H

/*
 * Makes the n-th allocation fail. The program must be linked with faults_ldflags of Makefile.am, so
 * that malloc and its like come here. What the libraries allocate for themselves does not count.
 *
 * The one place of the tests with a writable global: the allocator has no argument to carry it.
 */

#include <stdbool.h>
#include <stddef.h>

/* From now on, while faults_run(true), the n-th chance (from 1) fails; 0: none. */
void faults_arm(unsigned n);
/* Chances count only between faults_run(true) and faults_run(false): in the code under test. */
void faults_run(bool running);
/* Whether the n-th chance has come. */
bool faults_have_struck(void);

/* One chance; true when it must fail. For what is not an allocation but may fail like one. */
bool faults_strike(void);

/* Blocks that were allocated and not freed. */
long faults_live_blocks(void);

#endif
