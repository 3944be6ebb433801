/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_SANDBOX_LANDLOCK_H
#define SIDECAR_SANDBOX_LANDLOCK_H

/*
 * Landlock: what a process may still open, counted up; everything else is refused from
 * landlock_enter on, for the calling thread and those that it makes. The names and numbers are
 * those of the kernel's include/uapi/linux/landlock.h, which old systems lack; what an old kernel
 * does not know (the access rights have grown with its "ABI" version) is left out silently.
 */

#include <stdint.h>

#define LANDLOCK_FILE_WRITE (1ULL << 1)
#define LANDLOCK_FILE_READ (1ULL << 2)
#define LANDLOCK_FOLDER_READ (1ULL << 3)
#define LANDLOCK_FOLDER_REMOVE (1ULL << 4)
#define LANDLOCK_FILE_REMOVE (1ULL << 5)
#define LANDLOCK_FOLDER_MAKE (1ULL << 7)
#define LANDLOCK_FILE_MAKE (1ULL << 8)
#define LANDLOCK_REFER (1ULL << 13)    /* rename and link into another folder; ABI 2 */
#define LANDLOCK_TRUNCATE (1ULL << 14) /* ABI 3 */

/* What artifacts need, and what a folder of our own does. */
#define LANDLOCK_READ (LANDLOCK_FILE_READ | LANDLOCK_FOLDER_READ)
#define LANDLOCK_READ_WRITE (LANDLOCK_READ | LANDLOCK_FILE_WRITE | LANDLOCK_TRUNCATE)
#define LANDLOCK_OWN                                                                               \
    (LANDLOCK_READ_WRITE | LANDLOCK_FOLDER_REMOVE | LANDLOCK_FILE_REMOVE | LANDLOCK_FOLDER_MAKE |  \
     LANDLOCK_FILE_MAKE | LANDLOCK_REFER)

struct landlock {
    int fd;  /* -1: none */
    int abi; /* the kernel's version, from 1 on; 0: no Landlock */
    uint64_t handled_files;
};

/* Begins with nothing allowed. 0; -ENOSYS or -EOPNOTSUPP where the kernel has no Landlock or it is
 * switched off, or another -errno. landlock_deinit is due either way. */
int landlock_init(struct landlock *landlock);
void landlock_deinit(struct landlock *landlock);

/* Allows rights in all that lies beneath a folder, or for a file those of them that files have. The
 * rule holds for what is at path now, not for what takes its place. 0, -ENOENT and other -errno of
 * opening path. */
int landlock_allow_beneath(struct landlock *landlock, const char *path, uint64_t rights);

/* Allows connections to a TCP port of any host; where the kernel cannot tell ports (before ABI 4)
 * every one is allowed anyway. 0 or -errno. */
int landlock_allow_connect(struct landlock *landlock, uint16_t port);

/* For good. Needs no_new_privs. 0 or -errno. */
int landlock_enter(struct landlock *landlock);

#endif
