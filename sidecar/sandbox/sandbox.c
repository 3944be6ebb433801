/* SPDX-License-Identifier: MIT */
/*
 * Landlock for paths and TCP, seccomp for the calls. Must never be half in without saying so.
 */
#include "sidecar/sandbox/sandbox.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>

#include "sidecar/sandbox/landlock.h"
#include "sidecar/sandbox/rules.h"
#include "sidecar/sandbox/syscalls.h"

/* Sanitizers read /proc, write reports and start a symbolizer: what the sandbox forbids. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANDBOX_IS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(memory_sanitizer) || __has_feature(undefined_behavior_sanitizer)
#define SANDBOX_IS_SANITIZED 1
#endif
#endif
#ifndef SANDBOX_IS_SANITIZED
#define SANDBOX_IS_SANITIZED 0
#endif

/* Landlock holds for the thread that calls it and those that it makes afterwards. */
static bool is_alone(void)
{
    DIR *threads = opendir("/proc/self/task");
    unsigned count = 0;
    const struct dirent *entry;

    if (threads == NULL) {
        return true; /* no /proc: nobody can tell */
    }
    while ((entry = readdir(threads)) != NULL) {
        count += entry->d_name[0] != '.';
    }
    closedir(threads);
    return count <= 1;
}

static int enter_landlock(const struct config *config, struct log *log, struct watchlist *known,
                          int *abi)
{
    struct landlock landlock;
    int error = landlock_init(&landlock);

    if (error == 0) {
        error = rules_add(&landlock, config, log, known);
    }
    if (error == 0) {
        error = landlock_enter(&landlock);
    }
    *abi = error == 0 ? landlock.abi : 0;
    if (error != 0) {
        watchlist_deinit(known);
    }
    landlock_deinit(&landlock);
    return error;
}

static const char *state_text(int error)
{
    return error == 0 ? "yes" : strerror(-error);
}

/* Landlock first: seccomp refuses its calls. */
static int enter(const struct config *config, struct log *log, struct watchlist *known)
{
    const struct syscalls_needs needs = {
        .changes_files = config->build.cache.enabled,
        .loads_modules = rules_need_names(&config->build),
    };
    int abi = 0;
    int landlock_error = enter_landlock(config, log, known, &abi);
    int seccomp_error = syscalls_restrict(&needs);

    if (landlock_error == 0 && seccomp_error == 0) {
        log_info(log, "sandbox active", log_int("landlock_abi", abi), log_str("seccomp", "yes"));
        return 0;
    }
    log_at(log, config->sandbox == SANDBOX_ON ? LOG_ERROR : LOG_WARN,
           "sandbox incomplete: this system lacks a part of it",
           log_str("landlock", state_text(landlock_error)), log_int("landlock_abi", abi),
           log_str("seccomp", state_text(seccomp_error)));
    return landlock_error != 0 ? landlock_error : seccomp_error;
}

int sandbox_enter(const struct config *config, struct log *log, struct watchlist *known)
{
    int error;

    if (config->sandbox == SANDBOX_OFF) {
        log_info(log, "sandbox off", log_str("sandbox", "off"));
        return 0;
    }
    if (SANDBOX_IS_SANITIZED) {
        log_at(log, config->sandbox == SANDBOX_ON ? LOG_ERROR : LOG_INFO,
               "no sandbox: this program is built with a sanitizer", log_str("seccomp", "no"));
        return config->sandbox == SANDBOX_ON ? -EOPNOTSUPP : 0;
    }
    if (!is_alone()) {
        log_error(log, "a thread has begun before the sandbox and would stay outside",
                  log_errno("error", EBUSY));
        return config->sandbox == SANDBOX_ON ? -EBUSY : 0;
    }
    error = enter(config, log, known);
    return config->sandbox == SANDBOX_ON ? error : 0;
}
