/* SPDX-License-Identifier: MIT */
/*
 * Folders and files that the configuration names. Only warnings: what is missing now may be there
 * when it is needed. Must open nothing, since reading a file is more than looking at its rights.
 */

#include "sidecar/config_check_parts.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define GROUPS_MAX 256
#define STANDARD_FOLDER "/run/velox-sidecar/"

/* Whether the one that the child will be has all of rights (R_OK, W_OK, X_OK) on what info is
 * about. Folders above it, access lists and the like are left to the doctor, which tries. */
static bool config_may_use(const struct config *config, const struct stat *info, int rights)
{
    gid_t groups[GROUPS_MAX];
    int count = GROUPS_MAX;
    unsigned mode = (unsigned)info->st_mode;
    bool is_member = info->st_gid == config->group;

    if (config->user == 0) {
        return true;
    }
    if (getgrouplist(config->user_name, config->group, groups, &count) < 0) {
        return true; /* in more groups than fit: nobody can tell */
    }
    for (int i = 0; i < count && config->has_user; i++) {
        is_member = is_member || groups[i] == info->st_gid;
    }
    if (info->st_uid == config->user) {
        mode >>= 6;
    } else if (is_member) {
        mode >>= 3;
    }
    return ((int)mode & rights) == rights;
}

/* What is there, and of the kind and with the rights that the child needs. */
struct config_need {
    const char *section;
    const char *name;
    const char *path;
    bool is_folder;
    int rights;
    const char *what_for; /* "to read built files in it" */
};

static void config_check_need(const struct config_file *file, struct config_report *report,
                              const struct config_need *need)
{
    unsigned line = config_line(file, need->section, need->name);
    const char *user = file->config.user_name;
    struct stat info;

    if (config_is_broken(file, need->section, need->name)) {
        return;
    }
    if (stat(need->path, &info) != 0) {
        config_warning(report, line, need->section, need->name, "%s cannot be found: %s; %s",
                       need->path, strerror(errno),
                       need->is_folder ? "make the folder, then start or reload"
                                       : "name a file that is there");
    } else if (need->is_folder && !S_ISDIR(info.st_mode)) {
        config_warning(report, line, need->section, need->name, "%s is not a folder", need->path);
    } else if (geteuid() != 0) {
        if (access(need->path, need->rights) != 0) {
            config_warning(report, line, need->section, need->name, "%s cannot be used %s: %s",
                           need->path, need->what_for, strerror(errno));
        }
    } else if (!config_may_use(&file->config, &info, need->rights)) {
        config_warning(report, line, need->section, need->name,
                       "the user %s lacks the right %s; change the owner, group or mode of %s",
                       user[0] != '\0' ? user : "of the service", need->what_for, need->path);
    }
}

static void config_check_root(const struct config_file *file, struct config_report *report,
                              const char *root)
{
    const struct cache_options *cache = &file->config.build.cache;
    const struct config_need need = { "artifact", "root", root, true, X_OK, "to enter it" };
    unsigned line = config_line(file, "artifact", "root");
    unsigned cache_line = config_line(file, "cache", "directory");

    config_check_need(file, report, &need);
    if (access(root, F_OK) != 0 && strpbrk(root, " ;:") != NULL) {
        config_warning(report, line, "artifact", "root",
                       "\"%s\" is taken as one folder; several are separated by commas", root);
    }
    if (strcmp(root, "/") == 0) {
        config_warning(report, line, "artifact", "root",
                       "/ lets Velox name any file of this machine that the sidecar can read");
    }
    if (!cache->enabled) {
        return;
    }
    if (config_is_below(cache->directory, root)) {
        config_warning(report, cache_line, "cache", "directory",
                       "%s lies in the artifact root %s: the cache's files could be named as "
                       "artifacts; choose a folder outside",
                       cache->directory, root);
    } else if (config_is_below(root, cache->directory)) {
        config_warning(report, cache_line, "cache", "directory",
                       "the artifact root %s lies in %s; choose a folder of its own for the cache",
                       root, cache->directory);
    }
}

static void config_check_token(const struct config_file *file, struct config_report *report)
{
    const char *path = file->config.build.token_file;
    const struct config_need need = { "velox", "token_file", path, false, R_OK, "to read it" };
    struct stat info;

    if (path[0] == '\0') {
        return;
    }
    config_check_need(file, report, &need);
    if (stat(path, &info) == 0 && S_ISREG(info.st_mode) && (info.st_mode & S_IROTH) != 0) {
        config_warning(report, config_line(file, "velox", "token_file"), "velox", "token_file",
                       "every user of this machine can read the token; chmod o-r %s", path);
    }
}

/* Whether a line of the file begins a certificate (RFC 7468). Files that cannot be read count as if
 * one did: that is told elsewhere. */
static bool config_has_certificate(const char *path)
{
    char line[128];
    bool found = false;
    FILE *certificates = fopen(path, "re");

    while (certificates != NULL && !found && fgets(line, sizeof(line), certificates) != NULL) {
        found = strncmp(line, "-----BEGIN ", strlen("-----BEGIN ")) == 0;
    }
    if (certificates != NULL) {
        (void)fclose(certificates);
    }
    return found || certificates == NULL;
}

static void config_check_authorities(const struct config_file *file, struct config_report *report)
{
    const char *path = file->config.build.ca_file;
    const struct config_need need = { "velox", "ca_file", path, false, R_OK, "to read it" };

    if (path[0] == '\0') {
        return;
    }
    config_check_need(file, report, &need);
    if (!config_has_certificate(path)) {
        config_warning(report, config_line(file, "velox", "ca_file"), "velox", "ca_file",
                       "%s has no certificate in it, so no https server can be trusted; PEM is "
                       "wanted, which has lines \"-----BEGIN CERTIFICATE-----\"",
                       path);
    }
}

/* The service makes a folder that is missing, if the one above it is there. */
static bool config_is_made_at_start(const char *path)
{
    struct stat info;
    char above[PATH_MAX];
    const char *slash = strrchr(path, '/');

    if (stat(path, &info) == 0 || errno != ENOENT || slash == NULL ||
        (size_t)(slash - path) + 2 > sizeof(above)) {
        return false;
    }
    (void)snprintf(above, sizeof(above), "%.*s/", (int)(slash - path), path);
    return access(above, W_OK | X_OK) == 0;
}

/* A file that is made at the start needs its folder. */
static void config_check_folder_of(const struct config_file *file, struct config_report *report,
                                   const char *section, const char *name, const char *path)
{
    struct stat info;
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');

    if (path[0] != '/' || config_is_broken(file, section, name) ||
        (size_t)(slash - path) + 2 > sizeof(folder)) {
        return;
    }
    (void)snprintf(folder, sizeof(folder), "%.*s", slash == path ? 1 : (int)(slash - path), path);
    if (stat(folder, &info) != 0) {
        config_warning(report, config_line(file, section, name), section, name,
                       "the folder %s cannot be found: %s; make it before the start", folder,
                       strerror(errno));
    } else if (!S_ISDIR(info.st_mode)) {
        config_warning(report, config_line(file, section, name), section, name,
                       "%s is not a folder", folder);
    }
}

/* The service manager makes the folder of the standard socket, but no other. */
static void config_check_sockets(const struct config_file *file, struct config_report *report,
                                 const char *name, const struct sock_address *addresses,
                                 size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const char *text = addresses[i].text;

        if (strncmp(text, "unix:", 5) == 0 &&
            strncmp(text + 5, STANDARD_FOLDER, strlen(STANDARD_FOLDER)) != 0) {
            config_check_folder_of(file, report, "listen", name, text + 5);
        }
    }
}

static void config_check_made(const struct config_file *file, struct config_report *report)
{
    const struct listen_options *listen = &file->config.listen;

    config_check_folder_of(file, report, "sidecar", "log_file", file->config.log_file);
    config_check_folder_of(file, report, "sidecar", "pid_file", file->config.pid_file);
    config_check_sockets(file, report, "fastcgi", listen->fastcgi, listen->fastcgi_count);
    config_check_sockets(file, report, "scgi", listen->scgi, listen->scgi_count);
}

void config_check_files(const struct config_file *file, struct config_report *report)
{
    const struct config *config = &file->config;
    const struct string_list *roots = &config->build.artifact.roots;
    const struct config_need spool = { "php_fpm", "spool_directory", config->relay.spool_directory,
                                       true,      W_OK | X_OK,       "to write uploads to it" };
    const struct config_need cache = { "cache", "directory", config->build.cache.directory,
                                       true,    W_OK | X_OK, "to write to it" };

    if (roots->count == 0) {
        config_mistake(report, config_line(file, "artifact", "root"), "artifact", "root",
                       "empty; allowed is at least one folder that built files lie in");
    }
    for (size_t i = 0; i < roots->count; i++) {
        config_check_root(file, report, roots->items[i]);
    }
    config_check_made(file, report);
    config_check_need(file, report, &spool);
    if (config->build.cache.enabled && !config_is_made_at_start(config->build.cache.directory)) {
        config_check_need(file, report, &cache);
    }
    if (config->build.server_count > 0) {
        config_check_token(file, report);
        config_check_authorities(file, report);
    }
}
