/* SPDX-License-Identifier: MIT */
/*
 * Preloaded into a program, this plays a kernel whose net.core.wmem_max is what BENCH_WMEM_MAX
 * says: no greater SO_SNDBUF is granted, and nothing of the machine has to be changed.
 */
#include <stddef.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int setsockopt(int fd, int level, int name, const void *value, socklen_t length)
{
    const char *text = getenv("BENCH_WMEM_MAX");
    int capped = text == NULL ? 0 : atoi(text);

    if (level == SOL_SOCKET && name == SO_SNDBUF && length == sizeof(int) && capped > 0 &&
        *(const int *)value > capped) {
        value = &capped;
    }
    return (int)syscall(SYS_setsockopt, fd, level, name, value, length);
}
