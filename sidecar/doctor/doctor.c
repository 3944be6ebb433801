/* SPDX-License-Identifier: MIT */
/*
 * The order of the checks, and with whose rights they run. Must never change anything: no file, no
 * build at Velox, nothing in the running service.
 */
#include "sidecar/doctor/doctor.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "sidecar/base/buf.h"
#include "sidecar/doctor/checks.h"
#include "sidecar/doctor/nginx_dump.h"
#include "sidecar/rights.h"

static int read_all(FILE *file, struct buf *text)
{
    int error = 0;
    size_t got;

    do {
        uint8_t *room;

        error = buf_reserve(text, 65536, &room);
        if (error != 0) {
            return error;
        }
        got = fread(room, 1, 65536, file);
        buf_commit(text, got);
    } while (got > 0);
    return ferror(file) != 0 ? -EIO : 0;
}

/* Reads the file as whoever started us: `nginx -T` prints secrets, so root may own it. */
static bool read_nginx(struct report *report, const char *path, struct buf *text)
{
    bool is_stdin = strcmp(path, "-") == 0;
    FILE *file = is_stdin ? stdin : fopen(path, "re");
    int error;

    if (file == NULL) {
        report_line(report, FINDING_FAIL, path, "cannot be read: %s; make it with: nginx -T > %s",
                    strerror(errno), path);
        return false;
    }
    error = read_all(file, text);
    if (!is_stdin) {
        (void)fclose(file);
    }
    if (error != 0) {
        report_line(report, FINDING_FAIL, path, "cannot be read: %s",
                    error == -ENOBUFS ? "too large" : strerror(-error));
    }
    return error == 0;
}

static bool change_user(struct report *report, const struct config *config)
{
    int error;

    if (geteuid() != 0) {
        if (config->has_user && config->user != geteuid()) {
            report_line(report, FINDING_WARN, "user",
                        "the checks run with your rights; run the doctor as root, and they run "
                        "with those of %s",
                        config->user_name);
        }
        return true;
    }
    error = rights_become(config);
    if (error != 0) {
        report_line(report, FINDING_FAIL, "user", "cannot become %s: %s", config->user_name,
                    strerror(-error));
        return false;
    }
    if (!config->has_user) {
        report_line(report, FINDING_WARN, "user",
                    "none is set, so the service works as root; set [sidecar] user, or User= in "
                    "its systemd unit");
    }
    return true;
}

static struct config *load(struct report *report, const char *path)
{
    struct config *config = NULL;
    unsigned mistakes = 0;
    unsigned warnings = 0;
    int error = config_load(path, stderr, &config, &mistakes, &warnings);

    fflush(stderr);
    if (error == -EINVAL) {
        report_line(report, FINDING_FAIL, path, "%u mistake%s, told above; mend %s and try again",
                    mistakes, mistakes == 1 ? "" : "s", mistakes == 1 ? "it" : "them");
    } else if (error != 0) {
        report_line(report, FINDING_FAIL, path, "cannot be read: %s", strerror(-error));
    } else if (warnings > 0) {
        report_line(report, FINDING_WARN, path, "valid, with %u warning%s, told above", warnings,
                    warnings == 1 ? "" : "s");
    } else {
        report_line(report, FINDING_OK, path, "valid");
    }
    return config;
}

static void run_checks(struct report *report, const struct config *config)
{
    check_kernel(report, config);
    check_descriptors(report, config);
    check_private_tmp(report, config);
    check_listeners(report, config);
    if (!change_user(report, config)) {
        return;
    }
    check_php_fpm(report, config);
    check_velox(report, config);
    check_roots(report, config);
    check_folders(report, config);
}

int doctor_run(const char *config_path, const char *nginx_path, FILE *out)
{
    struct report report = { .out = out };
    struct config *config = load(&report, config_path);
    struct buf text;

    if (config == NULL) {
        return 1;
    }
    buf_init(&text, NGINX_DUMP_MAX);
    if (nginx_path != NULL && read_nginx(&report, nginx_path, &text)) {
        check_nginx(&report, config, buf_span(&text));
    }
    buf_deinit(&text);
    run_checks(&report, config);
    config_free(config);
    return report.has_failed ? 1 : 0;
}
