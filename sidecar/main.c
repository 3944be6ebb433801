/* SPDX-License-Identifier: MIT */
/*
 * The command line. Options and exit codes only: what runs is the parent's, what is configured the
 * configuration's.
 */

#include <cjson/cJSON.h>
#include <curl/curl.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <getopt.h>
#include <openssl/crypto.h>
#ifdef HAVE_SECCOMP
#include <seccomp.h>
#endif
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>
#include <zlib.h>

#include "sidecar/config.h"
#include "sidecar/doctor/doctor.h"
#include "sidecar/log_sink.h"
#include "sidecar/parent.h"
#include "sidecar/upgrade.h"

#ifndef PACKAGE_VERSION
#define PACKAGE_VERSION "unknown"
#endif
#ifndef DEFAULT_CONFIG
#define DEFAULT_CONFIG "/etc/velox-sidecar/velox-sidecar.ini"
#endif

static const char main_usage[] =
    "usage: velox-sidecar [-c FILE] [-t | -T] [-v] [-h]\n"
    "       velox-sidecar doctor [-c FILE] [--nginx FILE]\n"
    "\n"
    "  -c FILE  configuration (default: " DEFAULT_CONFIG ")\n"
    "  -t       check the configuration and exit: 0 if it is valid, 78 if not\n"
    "  -T       the same, and print the effective configuration\n"
    "  -v       print the version and those of the libraries\n"
    "  -h       print this\n"
    "\n"
    "doctor looks at what is around the service and prints what to do, a line each:\n"
    "  --nginx FILE  what `nginx -T` printed (- for standard input): checks the locations that\n"
    "                pass to us\n"
    "\n"
    "Runs in the foreground. Stop: TERM. Reload: HUP. Upgrade: USR2. Reopen the log: USR1.\n";

struct main_options {
    const char *config_path;
    bool check;
    bool print;
    bool version;
    bool help;
};

static int main_print_usage(void)
{
    fputs(main_usage, stderr);
    return EX_USAGE;
}

static void main_print_version(void)
{
    printf("velox-sidecar %s\n", PACKAGE_VERSION);
    printf("libevent %s\n", event_get_version());
    printf("libcurl %s\n", curl_version_info(CURLVERSION_NOW)->version);
    printf("cJSON %s\n", cJSON_Version());
    printf("%s\n", OpenSSL_version(OPENSSL_VERSION));
    printf("zlib %s\n", zlibVersion());
#ifdef HAVE_SECCOMP
    printf("libseccomp %u.%u.%u\n", seccomp_version()->major, seccomp_version()->minor,
           seccomp_version()->micro);
#else
    puts("libseccomp: none");
#endif
}

/* False where an option is unknown or something is left over; getopt has told which option. */
static bool main_read_options(int argc, char **argv, struct main_options *options)
{
    int option;

    while ((option = getopt(argc, argv, "+c:tTvh")) != -1) {
        switch (option) {
        case 'c':
            options->config_path = optarg;
            break;
        case 't':
            options->check = true;
            break;
        case 'T':
            options->check = true;
            options->print = true;
            break;
        case 'v':
            options->version = true;
            break;
        case 'h':
            options->help = true;
            break;
        default:
            return false;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "velox-sidecar: unexpected argument: %s\n", argv[optind]);
        return false;
    }
    return true;
}

static const char *main_plural(unsigned count)
{
    return count == 1 ? "" : "s";
}

/* The line that closes a check. */
static void main_print_verdict(const char *path, int error, unsigned mistakes, unsigned warnings)
{
    fprintf(stderr, "velox-sidecar: %s: ", path);
    if (error == 0) {
        fputs("configuration is valid", stderr);
    } else if (mistakes > 0) {
        fprintf(stderr, "%u mistake%s", mistakes, main_plural(mistakes));
    } else {
        fputs(strerror(-error), stderr);
    }
    if (warnings > 0) {
        fprintf(stderr, error == 0 ? " (%u warning%s)" : ", %u warning%s", warnings,
                main_plural(warnings));
    }
    fputc('\n', stderr);
}

/* Whether the version that runs may give way to this one, which could not give it back. */
static int main_check_upgrade(const struct config *config, int handed_fd)
{
    struct log_sink sink;
    int error;

    if (upgrade_check(handed_fd) != 0) {
        fputs("velox-sidecar " PACKAGE_VERSION " cannot take over from the version that runs: "
              "restart it\n",
              stderr);
        return EX_CONFIG;
    }
    error = log_sink_open(&sink, config->log_file, config->has_user ? config->user : (uid_t)-1,
                          config->has_user ? config->group : (gid_t)-1);
    if (error != 0) {
        fprintf(stderr, "velox-sidecar: cannot open the log file %s: %s\n", config->log_file,
                strerror(-error));
        return EX_OSERR;
    }
    log_sink_close(&sink);
    return 0;
}

static int main_check(const struct config *config, bool print)
{
    int handed_fd = upgrade_handed_fd();
    int error = handed_fd < 0 ? 0 : main_check_upgrade(config, handed_fd);

    if (error != 0) {
        return error;
    }
    if (print && config_print(config, stdout) != 0) {
        perror("velox-sidecar: standard output");
        return EX_IOERR;
    }
    return 0;
}

/* Takes config. */
static int main_start(const char *path, struct config *config, char **argv)
{
    return parent_run(path, config, argv);
}

/* Options are read: checks, or starts what shall run. */
static int main_run(const struct main_options *options, char **argv)
{
    struct config *config = NULL;
    unsigned mistakes = 0;
    unsigned warnings = 0;
    int result;
    int error = config_load(options->config_path, stderr, &config, &mistakes, &warnings);

    if (options->check || error != 0) {
        main_print_verdict(options->config_path, error, mistakes, warnings);
    }
    if (error != 0) {
        return error == -EINVAL ? EX_CONFIG : EX_OSERR;
    }
    if (options->check) {
        result = main_check(config, options->print);
        config_free(config);
        return result;
    }
    return main_start(options->config_path, config, argv);
}

/* `velox-sidecar doctor [-c FILE] [--nginx FILE]`. */
static int main_doctor(int argc, char **argv)
{
    static const struct option options[] = { { "nginx", required_argument, NULL, 'n' },
                                             { "help", no_argument, NULL, 'h' },
                                             { NULL, 0, NULL, 0 } };
    const char *config_path = DEFAULT_CONFIG;
    const char *nginx_path = NULL;
    int option;

    while ((option = getopt_long(argc, argv, "+c:h", options, NULL)) != -1) {
        switch (option) {
        case 'c':
            config_path = optarg;
            break;
        case 'n':
            nginx_path = optarg;
            break;
        case 'h':
            fputs(main_usage, stdout);
            return 0;
        default:
            return main_print_usage();
        }
    }
    if (optind < argc) {
        fprintf(stderr, "velox-sidecar: unexpected argument: %s\n", argv[optind]);
        return main_print_usage();
    }
    return doctor_run(config_path, nginx_path, stdout);
}

/* Where the caller has closed one of the three, a socket of ours would get its number, and what is
 * meant for standard error. */
static void main_open_standard_files(void)
{
    int fd;

    do {
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0) {
        close(fd);
    }
}

int main(int argc, char **argv)
{
    struct main_options options = { .config_path = DEFAULT_CONFIG };

    main_open_standard_files();
    if (argc > 1 && strcmp(argv[1], "doctor") == 0) {
        argv[1] = argv[0]; /* for getopt's messages */
        return main_doctor(argc - 1, argv + 1);
    }
    if (!main_read_options(argc, argv, &options)) {
        return main_print_usage();
    }
    if (options.help) {
        fputs(main_usage, stdout);
        return 0;
    }
    if (options.version) {
        main_print_version();
        return 0;
    }
    return main_run(&options, argv);
}
