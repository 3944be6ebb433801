/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_SANDBOX_SYSCALLS_H
#define SIDECAR_SANDBOX_SYSCALLS_H

/*
 * seccomp: which system calls a process may still make. Paths are Landlock's business; this is
 * about what no part of the program does at all.
 */

#include <stdbool.h>

struct syscalls_needs {
    bool changes_files; /* makes, renames and removes files with names: the cache */
    bool loads_modules; /* loads shared libraries: glibc does, where names are looked up */
};

/*
 * For good, for every thread of the process. Needs no_new_privs. A call that is refused returns
 * EPERM or, where this version does not know it, ENOSYS, and the kernel's log has a line about it.
 * 0; -EOPNOTSUPP where the program is built without libseccomp or for a machine whose calls this
 * file does not list; or another -errno.
 */
int syscalls_restrict(const struct syscalls_needs *needs);

#endif
