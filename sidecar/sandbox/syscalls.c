/* SPDX-License-Identifier: MIT */
/*
 * Two seccomp filters. The first holds the list: what is on it passes, what is known to be nobody's
 * business gets EPERM, anything else ENOSYS, which C libraries newer than this list answer by
 * falling back to older calls; the kernel logs what it refuses. The second refuses clone3 alone and
 * in silence: its flags are behind a pointer, where no filter sees them, and glibc tries it before
 * clone for every thread.
 *
 * Calls of the hot path must be on the list without conditions: the kernel remembers those as
 * always allowed (since 5.11) and runs no filter for them.
 */
#include "sidecar/sandbox/syscalls.h"

#include <errno.h>

#if defined(HAVE_SECCOMP) && (defined(__x86_64__) || defined(__aarch64__))

#include <linux/fs.h>
#include <linux/sockios.h>
#include <sched.h>
#include <seccomp.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define REFUSED SCMP_ACT_ERRNO(EPERM)
#define SOCKET_TYPE_MASK 0xf /* the rest are SOCK_NONBLOCK and SOCK_CLOEXEC */
#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41 /* glibc from 2.41 on names the memory that it takes */
#endif

/* Names, since those that this machine or this libseccomp does not know are then passed over. */
static const char *const passing[] = {
    /* sockets, files and pipes that are open */
    "accept", "accept4", "close", "close_range", "connect", "dup", "dup2", "dup3", "epoll_create",
    "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd",
    "eventfd2", "fadvise64", "fallocate", "fcntl", "fdatasync", "flock", "fstat", "fstatfs",
    "fsync", "ftruncate", "getpeername", "getsockname", "getsockopt", "lseek", "pipe", "pipe2",
    "poll", "ppoll", "pread64", "preadv", "preadv2", "pselect6", "pwrite64", "pwritev", "pwritev2",
    "read", "readahead", "readv", "recvfrom", "recvmmsg", "recvmsg", "select", "sendfile",
    "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown", "socketpair", "splice",
    "sync_file_range", "tee", "timerfd_create", "timerfd_gettime", "timerfd_settime", "write",
    "writev",
    /* For glibc, which binds a netlink socket in getaddrinfo; Landlock refuses TCP. */
    "bind",
    /* paths, where Landlock decides; copies into files that are open */
    "access", "copy_file_range", "faccessat", "faccessat2", "getcwd", "getdents64", "lstat",
    "newfstatat", "open", "openat", "openat2", "readlink", "readlinkat", "stat", "statfs", "statx",
    /* threads, memory, signals to ourselves */
    "brk", "exit", "exit_group", "futex", "futex_requeue", "futex_wait", "futex_waitv",
    "futex_wake", "get_robust_list", "getcpu", "madvise", "membarrier", "mincore", "mremap",
    "munmap", "restart_syscall", "rseq", "rt_sigaction", "rt_sigpending", "rt_sigprocmask",
    "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "sched_get_priority_max",
    "sched_get_priority_min", "sched_getaffinity", "sched_getparam", "sched_getscheduler",
    "sched_setscheduler", "sched_yield", "set_robust_list", "set_tid_address", "sigaltstack",
    /* time, chance, who and where we are */
    "clock_getres", "clock_gettime", "clock_nanosleep", "getegid", "geteuid", "getgid", "getgroups",
    "getpid", "getppid", "getpriority", "getrandom", "getresgid", "getresuid", "getrlimit",
    "getrusage", "gettid", "gettimeofday", "getuid", "ioprio_set", "nanosleep", "setpriority",
    "sysinfo", "time", "times", "umask", "uname"
};

/* What a folder of our own needs besides. */
static const char *const changing[] = { "chmod",     "fchmod",    "fchmodat", "fgetxattr",
                                        "fsetxattr", "futimesat", "link",     "linkat",
                                        "mkdir",     "mkdirat",   "rename",   "renameat",
                                        "renameat2", "rmdir",     "symlink",  "symlinkat",
                                        "truncate",  "unlink",    "unlinkat", "utime",
                                        "utimensat", "utimes" };

/* Not to be taken for calls that the kernel lacks: the caller's log shall say that they are
 * refused. */
static const char *const refused[] = { "acct",
                                       "add_key",
                                       "bpf",
                                       "capset",
                                       "chroot",
                                       "delete_module",
                                       "execve",
                                       "execveat",
                                       "finit_module",
                                       "fork",
                                       "init_module",
                                       "io_uring_enter",
                                       "io_uring_register",
                                       "io_uring_setup",
                                       "kexec_file_load",
                                       "kexec_load",
                                       "keyctl",
                                       "kill",
                                       "landlock_restrict_self",
                                       "listen",
                                       "memfd_create",
                                       "memfd_secret",
                                       "mount",
                                       "mount_setattr",
                                       "move_mount",
                                       "name_to_handle_at",
                                       "open_by_handle_at",
                                       "open_tree",
                                       "perf_event_open",
                                       "personality",
                                       "pidfd_getfd",
                                       "pidfd_open",
                                       "pidfd_send_signal",
                                       "pivot_root",
                                       "pkey_mprotect",
                                       "process_vm_readv",
                                       "process_vm_writev",
                                       "ptrace",
                                       "quotactl",
                                       "reboot",
                                       "request_key",
                                       "rt_sigqueueinfo",
                                       "rt_tgsigqueueinfo",
                                       "setfsgid",
                                       "setfsuid",
                                       "setgid",
                                       "setgroups",
                                       "sethostname",
                                       "setns",
                                       "setregid",
                                       "setresgid",
                                       "setresuid",
                                       "setreuid",
                                       "setuid",
                                       "swapoff",
                                       "swapon",
                                       "tkill",
                                       "umount2",
                                       "unshare",
                                       "userfaultfd",
                                       "vfork" };

static const unsigned long controls[] = {
    FIONBIO, FIONREAD, SIOCOUTQ, TCGETS, FICLONE,
};

/* A filter while it is made: the first error stays. */
struct list {
    scmp_filter_ctx filter;
    int error;
};

static void list_add(struct list *list, uint32_t action, const char *name, unsigned count,
                     const struct scmp_arg_cmp *conditions)
{
    int number = seccomp_syscall_resolve_name(name);

    if (number != __NR_SCMP_ERROR && list->error == 0) {
        list->error = seccomp_rule_add_array(list->filter, action, number, count, conditions);
    }
}

static void list_add_all(struct list *list, uint32_t action, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        list_add(list, action, names[i], 0, NULL);
    }
}

/* Argument number compares to value. */
#define ARG(number, compare, value)                                                                \
    ((struct scmp_arg_cmp){ .arg = (number), .op = SCMP_CMP_##compare, .datum_a = (value) })
/* The bits of mask in it are those of value. */
#define ARG_BITS(number, mask, value)                                                              \
    ((struct scmp_arg_cmp){                                                                        \
        .arg = (number), .op = SCMP_CMP_MASKED_EQ, .datum_a = (mask), .datum_b = (value) })

static void list_add_if(struct list *list, uint32_t action, const char *name,
                        struct scmp_arg_cmp condition)
{
    list_add(list, action, name, 1, &condition);
}

static void list_add_if_both(struct list *list, uint32_t action, const char *name,
                             struct scmp_arg_cmp one, struct scmp_arg_cmp other)
{
    const struct scmp_arg_cmp conditions[] = { one, other };

    list_add(list, action, name, 2, conditions);
}

/* Netlink is for glibc, which asks the kernel for our addresses to sort those of a host. */
static void add_sockets(struct list *list)
{
    for (unsigned family = 0; family <= AF_NETLINK; family++) {
        switch (family) {
        case AF_UNIX:
            list_add_if(list, SCMP_ACT_ALLOW, "socket", ARG(0, EQ, family));
            break;
        case AF_INET:
        case AF_INET6:
            for (unsigned type = SOCK_STREAM; type <= SOCK_DGRAM; type++) {
                list_add_if_both(list, SCMP_ACT_ALLOW, "socket", ARG(0, EQ, family),
                                 ARG_BITS(1, SOCKET_TYPE_MASK, type));
            }
            break;
        case AF_NETLINK:
            list_add_if_both(list, SCMP_ACT_ALLOW, "socket", ARG(0, EQ, family),
                             ARG(2, EQ, 0)); /* NETLINK_ROUTE */
            list_add_if_both(list, REFUSED, "socket", ARG(0, EQ, family), ARG(2, NE, 0));
            break;
        default:
            list_add_if(list, REFUSED, "socket", ARG(0, EQ, family));
            break;
        }
    }
    list_add_if(list, REFUSED, "socket", ARG(0, GT, AF_NETLINK));
}

/* No code but that of the program and its libraries. glibc loads modules for looking up names when
 * it needs the first one: those are files, and nobody writes to them. */
static void add_memory(struct list *list, bool loads_modules)
{
    const unsigned both = PROT_EXEC | PROT_WRITE;

    list_add_if(list, SCMP_ACT_ALLOW, "mprotect", ARG_BITS(2, PROT_EXEC, 0));
    list_add_if(list, REFUSED, "mprotect", ARG_BITS(2, PROT_EXEC, PROT_EXEC));
    list_add_if(list, SCMP_ACT_ALLOW, "mmap", ARG_BITS(2, PROT_EXEC, 0));
    if (!loads_modules) {
        list_add_if(list, REFUSED, "mmap", ARG_BITS(2, PROT_EXEC, PROT_EXEC));
        return;
    }
    list_add_if(list, REFUSED, "mmap", ARG_BITS(2, both, both));
    list_add_if_both(list, REFUSED, "mmap", ARG_BITS(2, both, PROT_EXEC),
                     ARG_BITS(3, MAP_ANONYMOUS, MAP_ANONYMOUS));
    list_add_if_both(list, SCMP_ACT_ALLOW, "mmap", ARG_BITS(2, both, PROT_EXEC),
                     ARG_BITS(3, MAP_ANONYMOUS, 0));
}

/* Threads, but no processes and no namespaces; signals to ourselves (abort), to nobody else; our
 * own limits. */
static void add_processes(struct list *list)
{
    const uint64_t self = (uint64_t)getpid();

    list_add_if(list, SCMP_ACT_ALLOW, "clone", ARG_BITS(0, CLONE_THREAD, CLONE_THREAD));
    list_add_if(list, REFUSED, "clone", ARG_BITS(0, CLONE_THREAD, 0));
    list_add_if(list, SCMP_ACT_ALLOW, "tgkill", ARG(0, EQ, self));
    list_add_if(list, REFUSED, "tgkill", ARG(0, NE, self));
    list_add_if(list, SCMP_ACT_ALLOW, "prlimit64", ARG(0, EQ, 0));
    list_add_if(list, REFUSED, "prlimit64", ARG(0, NE, 0));
    list_add_if(list, SCMP_ACT_ALLOW, "prctl", ARG(0, EQ, PR_SET_NAME));
    list_add_if(list, SCMP_ACT_ALLOW, "prctl", ARG(0, EQ, PR_GET_NAME));
    list_add_if(list, SCMP_ACT_ALLOW, "prctl", ARG(0, EQ, PR_SET_VMA));
    for (size_t i = 0; i < COUNT(controls); i++) {
        list_add_if(list, SCMP_ACT_ALLOW, "ioctl", ARG(1, EQ, controls[i]));
    }
}

static void list_init(struct list *list, uint32_t otherwise)
{
    list->filter = seccomp_init(otherwise);
    list->error = list->filter == NULL ? -ENOMEM : 0;
    if (list->error == 0) {
        /* Calls of another machine (32 bits): refused like any other, not killed. */
        list->error = seccomp_attr_set(list->filter, SCMP_FLTATR_ACT_BADARCH, REFUSED);
    }
    if (list->error == 0) {
        list->error = seccomp_attr_set(list->filter, SCMP_FLTATR_CTL_TSYNC, 1);
    }
    if (list->error == 0) {
        /* Whoever runs code of others pays for a mitigation of Spectre here; we run none. Kernels
         * before 4.17 do not know it. */
        (void)seccomp_attr_set(list->filter, SCMP_FLTATR_CTL_SSB, 1);
        (void)seccomp_attr_set(list->filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
        (void)seccomp_attr_set(list->filter, SCMP_FLTATR_API_SYSRAWRC, 1);
    }
}

static int list_enter(struct list *list)
{
    if (list->error == 0) {
        list->error = seccomp_load(list->filter);
    }
    if (list->filter != NULL) {
        seccomp_release(list->filter);
    }
    return list->error;
}

int syscalls_restrict(const struct syscalls_needs *needs)
{
    struct list list;
    struct list silent;
    int error;

    list_init(&list, SCMP_ACT_ERRNO(ENOSYS));
    list_init(&silent, SCMP_ACT_ALLOW);
    if (list.error == 0) {
        (void)seccomp_attr_set(list.filter, SCMP_FLTATR_CTL_LOG, 1); /* from Linux 4.14 on */
        list_add_all(&list, SCMP_ACT_ALLOW, passing, COUNT(passing));
        list_add_all(&list, SCMP_ACT_ALLOW, needs->changes_files ? changing : NULL,
                     needs->changes_files ? COUNT(changing) : 0);
        list_add_all(&list, REFUSED, refused, COUNT(refused));
        list_add(&list, SCMP_ACT_ALLOW, "clone3", 0, NULL); /* by this filter */
        add_sockets(&list);
        add_memory(&list, needs->loads_modules);
        add_processes(&list);
    }
    if (silent.error == 0) {
        list_add(&silent, SCMP_ACT_ERRNO(ENOSYS), "clone3", 0, NULL);
    }
    /* The silent one first: the other would have to allow the call that loads it. */
    error = list_enter(&silent);
    (void)list_enter(&list);
    return error != 0 ? error : list.error;
}

#else

int syscalls_restrict(const struct syscalls_needs *needs)
{
    (void)needs;
    return -EOPNOTSUPP;
}

#endif
