/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_CONFIG_H
#define SIDECAR_CONFIG_H

/*
 * The configuration file: read, checked completely, and turned into the option structs that the
 * parts of the program borrow. One table in config_table.c describes every key.
 */

#include <stdio.h>
#include <sys/types.h>

#include "sidecar/base/log.h"
#include "sidecar/build/options.h"
#include "sidecar/relay/options.h"

struct listen_options {
    struct sock_address *fastcgi;
    size_t fastcgi_count;
    struct sock_address *scgi;
    size_t scgi_count;
    uid_t socket_owner; /* (uid_t)-1: not set */
    gid_t socket_group; /* (gid_t)-1: not set */
    unsigned socket_mode;
    int backlog;
};

enum sandbox_mode { SANDBOX_AUTO, SANDBOX_ON, SANDBOX_OFF };

struct config {
    unsigned threads; /* never 0: "auto" is the number of CPUs this process may run on */
    enum log_level log_level;
    enum log_format log_format;
    char *log_file; /* "stderr", "syslog" or a path */
    bool has_user;
    uid_t user; /* the user's, or our own where none is set */
    bool has_group;
    gid_t group;     /* group, else the user's, else our own */
    char *user_name; /* for initgroups; empty where none is set */
    char *pid_file;
    uint64_t shutdown_timeout_ms;
    enum sandbox_mode sandbox;
    struct listen_options listen;
    struct relay_options relay;
    struct build_options build;
};

/*
 * Reads and checks path. Every mistake and warning becomes a line on messages, mistakes as
 *     FILE:LINE: [section] key: what is wrong and what is allowed
 * and warnings the same with "warning: " in front of the text; LINE is left out where the file does
 * not have the key. *mistakes and *warnings are how many there were. Gives *config, which the
 * caller frees with config_free, only if there is no mistake. 0, -EINVAL (mistakes), or -ENOMEM.
 */
int config_load(const char *path, FILE *messages, struct config **config, unsigned *mistakes,
                unsigned *warnings);
void config_free(struct config *config);

/* Prints the effective configuration as ini: every key with its value in force. 0 or -EIO. */
int config_print(const struct config *config, FILE *out);

#endif
