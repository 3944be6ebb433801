/* SPDX-License-Identifier: MIT */
/*
 * The three system calls, which glibc has no functions for. Whatever right this file knows and the
 * kernel too is handled, which means refused unless a rule allows it; execution and listening never
 * are. Must not leave a right out because nothing of ours uses it: that would allow it.
 */
#include "sidecar/sandbox/landlock.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The same on every architecture. */
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif

#define CREATE_RULESET_VERSION 1u
#define RULE_PATH_BENEATH 1
#define RULE_NET_PORT 2
#define NET_BIND_TCP (1ULL << 0)
#define NET_CONNECT_TCP (1ULL << 1)
#define SCOPE_ABSTRACT_UNIX_SOCKET (1ULL << 0)
#define SCOPE_SIGNAL (1ULL << 1)

#define ABI_NETWORK 4
#define ABI_SCOPES 6

/* What a rule for a file, not a folder, may hold; more is EINVAL. */
#define FILE_RIGHTS (LANDLOCK_FILE_READ | LANDLOCK_FILE_WRITE | LANDLOCK_TRUNCATE)

/* The kernel takes a longer struct than it knows only if the rest is 0, so that old ones get what
 * they know. */
struct ruleset_attr {
    uint64_t handled_files;
    uint64_t handled_network;
    uint64_t scoped;
};

struct path_beneath_attr {
    uint64_t rights;
    int32_t parent_fd;
} __attribute__((packed));

struct net_port_attr {
    uint64_t rights;
    uint64_t port;
};

/* Bits 0 to 12 came with ABI 1: execute, write, read, folders, and making all kinds of files. */
static uint64_t known_file_rights(int abi)
{
    unsigned count = 13;

    count += abi >= 2; /* refer */
    count += abi >= 3; /* truncate */
    count += abi >= 5; /* ioctl on devices */
    return (1ULL << count) - 1;
}

int landlock_init(struct landlock *landlock)
{
    struct ruleset_attr attr = { 0 };
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_RULESET_VERSION);
    long fd;

    *landlock = (struct landlock){ .fd = -1 };
    if (abi < 0) {
        return -errno;
    }
    landlock->abi = (int)abi;
    landlock->handled_files = known_file_rights(landlock->abi);
    attr.handled_files = landlock->handled_files;
    if (abi >= ABI_NETWORK) {
        attr.handled_network = NET_BIND_TCP | NET_CONNECT_TCP;
    }
    if (abi >= ABI_SCOPES) {
        attr.scoped = SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL;
    }
    fd = syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
    if (fd < 0) {
        return -errno;
    }
    landlock->fd = (int)fd;
    return 0;
}

void landlock_deinit(struct landlock *landlock)
{
    if (landlock->fd >= 0) {
        close(landlock->fd);
        landlock->fd = -1;
    }
}

int landlock_allow_beneath(struct landlock *landlock, const char *path, uint64_t rights)
{
    struct path_beneath_attr attr = { .rights = rights & landlock->handled_files };
    struct stat status;
    int error = 0;

    attr.parent_fd = open(path, O_PATH | O_CLOEXEC);
    if (attr.parent_fd < 0) {
        return -errno;
    }
    if (fstat(attr.parent_fd, &status) == 0 && !S_ISDIR(status.st_mode)) {
        attr.rights &= FILE_RIGHTS;
    }
    if (syscall(SYS_landlock_add_rule, landlock->fd, RULE_PATH_BENEATH, &attr, 0) != 0) {
        error = -errno;
    }
    close(attr.parent_fd);
    return error;
}

int landlock_allow_connect(struct landlock *landlock, uint16_t port)
{
    struct net_port_attr attr = { .rights = NET_CONNECT_TCP, .port = port };

    if (landlock->abi < ABI_NETWORK) {
        return 0;
    }
    return syscall(SYS_landlock_add_rule, landlock->fd, RULE_NET_PORT, &attr, 0) == 0 ? 0 : -errno;
}

int landlock_enter(struct landlock *landlock)
{
    return syscall(SYS_landlock_restrict_self, landlock->fd, 0) == 0 ? 0 : -errno;
}
