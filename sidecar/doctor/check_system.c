/* SPDX-License-Identifier: MIT */
/* The kernel's limits, and those of the running service. Must never change one. */
#include "sidecar/doctor/checks.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>

/* A build takes four descriptors for its time, a relayed request two; fewer than this many are not
 * enough for a busy site. */
#define DESCRIPTORS_MIN 4096
#define DESCRIPTORS_RESERVED 128
/* From half a megabyte on the send buffer of a unix socket no longer slows a download; the kernel
 * doubles what is asked for, and wmem_max is compared before that (net/core/sock.c). */
#define SEND_BUFFER_WANTED (512 * 1024)

static bool read_number(const char *path, uint64_t *number)
{
    FILE *file = fopen(path, "re");
    unsigned long long value = 0;
    bool is_read = file != NULL && fscanf(file, "%llu", &value) == 1;

    if (file != NULL) {
        (void)fclose(file);
    }
    *number = value;
    return is_read;
}

void check_kernel(struct report *report, const struct config *config)
{
    uint64_t value;

    if (read_number("/proc/sys/net/core/wmem_max", &value)) {
        if (value < SEND_BUFFER_WANTED) {
            report_line(report, FINDING_WARN, "net.core.wmem_max",
                        "%llu bytes keep downloads at about half their speed; raise it: sysctl -w "
                        "net.core.wmem_max=1048576, and a line in /etc/sysctl.d/",
                        (unsigned long long)value);
        } else {
            report_line(report, FINDING_OK, "net.core.wmem_max", "%llu bytes",
                        (unsigned long long)value);
        }
    }
    if (read_number("/proc/sys/net/core/somaxconn", &value)) {
        if (value < (uint64_t)config->listen.backlog) {
            report_line(report, FINDING_WARN, "net.core.somaxconn",
                        "%llu caps [listen] backlog = %d; raise it: sysctl -w "
                        "net.core.somaxconn=%d, and a line in /etc/sysctl.d/",
                        (unsigned long long)value, config->listen.backlog, config->listen.backlog);
        } else {
            report_line(report, FINDING_OK, "net.core.somaxconn", "%llu connections",
                        (unsigned long long)value);
        }
    }
}

/* The hard limit of a process, by its line "Max open files  SOFT  HARD  files". */
static bool limit_of_process(unsigned long pid, uint64_t *limit)
{
    char path[64];
    char line[256];
    unsigned long long hard = 0;
    bool found = false;
    FILE *file;

    (void)snprintf(path, sizeof(path), "/proc/%lu/limits", pid);
    file = fopen(path, "re");
    while (file != NULL && !found && fgets(line, sizeof(line), file) != NULL) {
        found = sscanf(line, "Max open files %*s %llu", &hard) == 1;
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    *limit = hard;
    return found;
}

/* The limit of the service where it runs and says where, else of ours: a service that is started
 * from here has the same. */
static uint64_t descriptor_limit(const struct config *config, const char **whose)
{
    struct rlimit own;
    uint64_t limit;

    if (config->pid_file[0] != '\0' && read_number(config->pid_file, &limit) &&
        limit_of_process((unsigned long)limit, &limit)) {
        *whose = "of the running service";
        return limit;
    }
    *whose = "of this shell";
    return getrlimit(RLIMIT_NOFILE, &own) == 0 ? own.rlim_max : 0;
}

void check_descriptors(struct report *report, const struct config *config)
{
    const char *whose;
    uint64_t limit = descriptor_limit(config, &whose);
    uint64_t wanted = config->relay.front_max_connections * 2 + DESCRIPTORS_RESERVED;

    if (wanted < DESCRIPTORS_MIN) {
        wanted = DESCRIPTORS_MIN;
    }
    if (limit < wanted) {
        report_line(report, FINDING_WARN, "file limit",
                    "%llu %s, at least %llu are wanted; set LimitNOFILE= in the systemd unit (or "
                    "ulimit -Hn)",
                    (unsigned long long)limit, whose, (unsigned long long)wanted);
    } else {
        report_line(report, FINDING_OK, "file limit", "%llu (%s)", (unsigned long long)limit,
                    whose);
    }
}
