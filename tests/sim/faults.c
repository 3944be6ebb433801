/* SPDX-License-Identifier: MIT */
/* The allocator in between. It must never allocate itself. */
#include "tests/sim/faults.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Named by the linker: -Wl,--wrap=malloc makes malloc __wrap_malloc, and __real_malloc malloc. */
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_reallocarray(void *old, size_t count, size_t size);
char *__real_strdup(const char *string);
char *__real_strndup(const char *string, size_t max);
int __real_vasprintf(char **text, const char *format, va_list args);
void __real_free(void *block);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_reallocarray(void *old, size_t count, size_t size);
char *__wrap_strdup(const char *string);
char *__wrap_strndup(const char *string, size_t max);
int __wrap_vasprintf(char **text, const char *format, va_list args);
/* What glibc makes of vasprintf under _FORTIFY_SOURCE. */
int __wrap___vasprintf_chk(char **text, int flag, const char *format, va_list args);
void __wrap_free(void *block);

static struct {
    unsigned left; /* chances until the one that fails; 0: none fails */
    bool running;
    bool struck;
    long live_blocks;
} faults;

void faults_arm(unsigned n)
{
    faults.left = n;
    faults.struck = false;
}

void faults_run(bool running)
{
    faults.running = running;
}

bool faults_have_struck(void)
{
    return faults.struck;
}

bool faults_strike(void)
{
    if (!faults.running || faults.left == 0 || --faults.left > 0) {
        return false;
    }
    faults.struck = true;
    errno = ENOMEM;
    return true;
}

long faults_live_blocks(void)
{
    return faults.live_blocks;
}

static void *counted(void *block)
{
    faults.live_blocks += block != NULL;
    return block;
}

void *__wrap_malloc(size_t size)
{
    return faults_strike() ? NULL : counted(__real_malloc(size));
}

void *__wrap_calloc(size_t count, size_t size)
{
    return faults_strike() ? NULL : counted(__real_calloc(count, size));
}

void *__wrap_realloc(void *old, size_t size)
{
    void *block;

    if (faults_strike()) {
        return NULL;
    }
    block = __real_realloc(old, size);
    faults.live_blocks += old == NULL && block != NULL;
    return block;
}

void *__wrap_reallocarray(void *old, size_t count, size_t size)
{
    void *block;

    if (faults_strike()) {
        return NULL;
    }
    block = __real_reallocarray(old, count, size);
    faults.live_blocks += old == NULL && block != NULL;
    return block;
}

char *__wrap_strdup(const char *string)
{
    return faults_strike() ? NULL : counted(__real_strdup(string));
}

char *__wrap_strndup(const char *string, size_t max)
{
    return faults_strike() ? NULL : counted(__real_strndup(string, max));
}

__attribute__((format(printf, 2, 0))) int __wrap_vasprintf(char **text, const char *format,
                                                           va_list args)
{
    int length = faults_strike() ? -1 : __real_vasprintf(text, format, args);

    faults.live_blocks += length >= 0;
    return length;
}

__attribute__((format(printf, 3, 0))) int __wrap___vasprintf_chk(char **text, int flag,
                                                                 const char *format, va_list args)
{
    (void)flag;
    return __wrap_vasprintf(text, format, args);
}

void __wrap_free(void *block)
{
    faults.live_blocks -= block != NULL;
    __real_free(block);
}
