/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BASE_MEMORY_H
#define SIDECAR_BASE_MEMORY_H

#include <stdlib.h>
#include <string.h>

/*
 * Zeroed memory, freed with free(); NULL when there is none. For objects that come and go with
 * every request: calloc does not use the thread's cache of free pieces (glibc before 2.41), malloc
 * does.
 */
static inline void *memory_zeroed(size_t size)
{
    void *memory = malloc(size);

    /* Or the compiler makes a calloc of the two (gcc's tree-ssa-strlen.cc does). */
    __asm__("" : "+r"(memory));
    return memory == NULL ? NULL : memset(memory, 0, size);
}

#endif
