/* SPDX-License-Identifier: MIT */
/*
 * Every step is checked: a child that could not give something up must not go on as if it had.
 */
#include "sidecar/rights.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The bounding set limits what a program with file capabilities could get; only who may change it
 * can, and that is root before it becomes somebody else. */
static int drop_bounding_set(void)
{
    for (int capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; capability++) {
        if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0) {
            return errno == EPERM ? 0 : -errno; /* root of a container that may not */
        }
    }
    return 0;
}

int rights_become(const struct config *config)
{
    int error;

    if (!config->has_user) {
        if (config->has_group &&
            (setgroups(1, &config->group) != 0 || setgid(config->group) != 0)) {
            return -errno;
        }
        return 0;
    }
    error = config->user == 0 ? 0 : drop_bounding_set();
    if (error != 0) {
        return error;
    }
    if (initgroups(config->user_name, config->group) != 0 || setgid(config->group) != 0 ||
        setuid(config->user) != 0) {
        return -errno;
    }
    return config->user != 0 && setuid(0) == 0 ? -EPERM : 0;
}

/* All sets of this thread, the only one. Ambient ones come from a service manager. Where there are
 * none nothing is set, since a unit may have filtered capset, as ours does. */
static int drop_capabilities(void)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { { 0 } };
    /* Set, since valgrind believes that only the first is written. */
    struct __user_cap_data_struct own[_LINUX_CAPABILITY_U32S_3] = { { 0 } };

    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); /* from Linux 4.3 on */
    if (syscall(SYS_capget, &header, own) == 0 && memcmp(own, none, sizeof(own)) == 0) {
        return 0;
    }
    return syscall(SYS_capset, &header, none) == 0 ? 0 : -errno;
}

int rights_drop(const struct config *config)
{
    const struct rlimit no_core = { 0, 0 };
    int error = 0;

    (void)umask(077);
    (void)setrlimit(RLIMIT_CORE, &no_core);
    /* Started as somebody else there is no becoming; the configuration's check has warned. */
    if (geteuid() == 0) {
        error = rights_become(config);
    }
    if (error == 0 && geteuid() != 0) {
        error = drop_capabilities();
    }
    if (error != 0) {
        return error;
    }
    /* The kernel does that itself where the user has changed. */
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) {
        return -errno;
    }
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 ? 0 : -errno;
}

/* The hard limit may be over what the system allows by now; nothing can be set then but less. */
static uint64_t most_files(void)
{
    FILE *file = fopen("/proc/sys/fs/nr_open", "re");
    unsigned long most = 0;

    if (file != NULL) {
        if (fscanf(file, "%lu", &most) != 1) {
            most = 0;
        }
        fclose(file);
    }
    return most;
}

uint64_t rights_raise_files(void)
{
    struct rlimit limit;
    uint64_t most;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return 1024;
    }
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
        most = most_files();
        if (most > 0 && most < limit.rlim_max) {
            limit = (struct rlimit){ .rlim_cur = most, .rlim_max = most };
            (void)setrlimit(RLIMIT_NOFILE, &limit);
        }
    }
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur;
}
