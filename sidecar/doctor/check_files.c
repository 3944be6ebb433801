/* SPDX-License-Identifier: MIT */
/*
 * Folders: where Velox's files are read, where the sidecar may write. Must never open or create a
 * file in them.
 */
#include "sidecar/doctor/checks.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define SUBJECT_SIZE 512
#define MOUNTINFO_LINE 4096
/* Less free space than this does not hold a few built files (each has some 30 to 100 MB). */
#define SPACE_MIN ((uint64_t)1024 * 1024 * 1024)

/* ---- roots ----------------------------------------------------------------------------------- */

static bool is_local(const struct velox_server *server)
{
    const char *host = strstr(server->url, "://");

    if (server->unix_socket[0] != '\0' || host == NULL) {
        return true;
    }
    host += 3;
    return strncmp(host, "127.", 4) == 0 || strncmp(host, "localhost", 9) == 0 ||
           strncmp(host, "[::1]", 5) == 0;
}

static void check_root(struct report *report, const struct config *config, const char *root)
{
    bool is_fetched = config->build.artifact.url[0] != '\0';
    char subject[SUBJECT_SIZE];
    struct stat folder;

    (void)snprintf(subject, sizeof(subject), "artifact root %s", root);
    if (stat(root, &folder) != 0) {
        report_line(report, is_fetched ? FINDING_WARN : FINDING_FAIL, subject,
                    errno == EACCES
                        ? "%s: the service's user may not enter a folder above it"
                        : "%s; set [artifact] root to the folder that Velox builds in, or path_map "
                          "where Velox sees it under another name",
                    strerror(errno));
    } else if (!S_ISDIR(folder.st_mode)) {
        report_line(report, FINDING_FAIL, subject, "is no folder");
    } else if (access(root, X_OK) != 0) {
        report_line(report, FINDING_FAIL, subject,
                    "the service's user may not enter it; give it the right (mode %04o, owner %u), "
                    "or add the user to a group that has it",
                    (unsigned)(folder.st_mode & 07777), (unsigned)folder.st_uid);
    } else {
        report_line(report, FINDING_OK, subject, "there, and the service's user may enter it");
    }
}

void check_roots(struct report *report, const struct config *config)
{
    const struct artifact_options *artifact = &config->build.artifact;
    bool all_local = true;

    if (config->build.server_count == 0) {
        return;
    }
    for (size_t i = 0; i < artifact->roots.count; i++) {
        check_root(report, config, artifact->roots.items[i]);
    }
    for (size_t i = 0; i < config->build.server_count; i++) {
        all_local = all_local && is_local(&config->build.servers[i]);
    }
    if (!all_local && artifact->url[0] == '\0') {
        report_line(report, FINDING_WARN, "artifact root",
                    "Velox is on another machine: its files must be here too, by a shared file "
                    "system (and path_map), or be fetched ([artifact] artifact_url)");
    }
}

/* ---- folders that we write to ---------------------------------------------------------------- */

static bool is_writable(struct report *report, const struct config *config, const char *subject,
                        const char *path)
{
    struct stat folder;

    if (stat(path, &folder) != 0) {
        report_line(report, FINDING_FAIL, subject,
                    "%s; make it, for the service's user alone: install -d -m 0700 -o %s %s",
                    strerror(errno), config->has_user ? config->user_name : "USER", path);
        return false;
    }
    if (!S_ISDIR(folder.st_mode) || access(path, W_OK | X_OK) != 0) {
        report_line(report, FINDING_FAIL, subject,
                    "the service's user may not write there (mode %04o, owner %u)",
                    (unsigned)(folder.st_mode & 07777), (unsigned)folder.st_uid);
        return false;
    }
    return true;
}

static void check_space(struct report *report, const char *subject, const char *path,
                        uint64_t wanted)
{
    struct statvfs file_system;
    uint64_t free_bytes;

    if (statvfs(path, &file_system) != 0) {
        report_line(report, FINDING_WARN, subject, "free space unknown: %s", strerror(errno));
        return;
    }
    free_bytes = (uint64_t)file_system.f_bavail * file_system.f_frsize;
    if (free_bytes < wanted) {
        report_line(report, FINDING_WARN, subject, "%llu MB free, %llu MB may be needed",
                    (unsigned long long)(free_bytes >> 20), (unsigned long long)(wanted >> 20));
        return;
    }
    report_line(report, FINDING_OK, subject, "may be written, %llu MB free",
                (unsigned long long)(free_bytes >> 20));
}

/* The service makes a missing folder of the cache, if the one above it is there. */
static bool is_made_at_start(const char *path)
{
    char above[PATH_MAX];
    struct stat folder;
    const char *slash = strrchr(path, '/');

    if (stat(path, &folder) == 0 || errno != ENOENT || slash == NULL ||
        (size_t)(slash - path) + 2 > sizeof(above)) {
        return false;
    }
    (void)snprintf(above, sizeof(above), "%.*s/", (int)(slash - path), path);
    return access(above, W_OK | X_OK) == 0;
}

void check_folders(struct report *report, const struct config *config)
{
    const struct cache_options *cache = &config->build.cache;
    const char *spool = config->relay.spool_directory;
    char subject[SUBJECT_SIZE];

    (void)snprintf(subject, sizeof(subject), "spool_directory %s", spool);
    if (is_writable(report, config, subject, spool)) {
        check_space(report, subject, spool, config->relay.max_spooled_body);
    }
    if (!cache->enabled) {
        return;
    }
    (void)snprintf(subject, sizeof(subject), "cache %s", cache->directory);
    if (is_made_at_start(cache->directory)) {
        report_line(report, FINDING_OK, subject, "is not there yet; the service makes it");
    } else if (is_writable(report, config, subject, cache->directory)) {
        check_space(report, subject, cache->directory,
                    cache->max_size > SPACE_MIN ? cache->max_size : SPACE_MIN);
    }
}

/* ---- PrivateTmp ------------------------------------------------------------------------------ */

/* The first of /tmp and /var/tmp that a root lies in, or NULL. */
static const char *temporary_folder(const struct config *config)
{
    static const char *const folders[] = { "/tmp", "/var/tmp" };

    for (size_t i = 0; i < config->build.artifact.roots.count; i++) {
        const char *root = config->build.artifact.roots.items[i];

        for (size_t k = 0; k < 2; k++) {
            size_t length = strlen(folders[k]);

            if (strncmp(root, folders[k], length) == 0 &&
                (root[length] == '\0' || root[length] == '/')) {
                return folders[k];
            }
        }
    }
    return NULL;
}

/* Whether systemd has put a folder of its own over `folder` in that process: its mount is made of
 * /tmp/systemd-private-... (proc(5), mountinfo: fields 4 and 5 are root and mount point). */
static bool has_private(const char *pid, const char *folder)
{
    char path[64];
    char line[MOUNTINFO_LINE];
    bool found = false;
    FILE *file;

    (void)snprintf(path, sizeof(path), "/proc/%.16s/mountinfo", pid);
    file = fopen(path, "re");
    while (file != NULL && !found && fgets(line, sizeof(line), file) != NULL) {
        char root[MOUNTINFO_LINE];
        char point[MOUNTINFO_LINE];

        found = sscanf(line, "%*s %*s %*s %4095s %4095s", root, point) == 2 &&
                strcmp(point, folder) == 0 && strstr(root, "/systemd-private-") != NULL;
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return found;
}

static bool read_name(const char *pid, char name[32])
{
    char path[64];
    bool is_read;
    FILE *file;

    (void)snprintf(path, sizeof(path), "/proc/%.16s/comm", pid);
    file = fopen(path, "re");
    if (file == NULL) {
        return false;
    }
    is_read = fgets(name, 32, file) != NULL;
    (void)fclose(file);
    name[strcspn(name, "\n")] = '\0';
    return is_read;
}

static bool is_concerned(const char *name)
{
    return strcmp(name, "velox-sidecar") == 0 || strcmp(name, "velox") == 0 ||
           strcmp(name, "vx") == 0;
}

void check_private_tmp(struct report *report, const struct config *config)
{
    const char *folder = temporary_folder(config);
    bool found = false;
    struct dirent *entry;
    DIR *processes;

    if (folder == NULL || config->build.server_count == 0) {
        return;
    }
    processes = opendir("/proc");
    while (processes != NULL && (entry = readdir(processes)) != NULL) {
        char name[32];

        if (isdigit((unsigned char)entry->d_name[0]) && read_name(entry->d_name, name) &&
            is_concerned(name) && has_private(entry->d_name, folder)) {
            report_line(report, FINDING_FAIL, "PrivateTmp",
                        "%s (pid %s) has a %s of its own, so Velox's files are not seen; set "
                        "PrivateTmp=no in its systemd unit, or let Velox build elsewhere",
                        name, entry->d_name, folder);
            found = true;
        }
    }
    if (processes != NULL) {
        closedir(processes);
    }
    if (!found) {
        report_line(report, FINDING_OK, "PrivateTmp",
                    "no running Velox or sidecar has a %s of its own", folder);
    }
}
