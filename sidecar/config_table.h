/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_CONFIG_TABLE_H
#define SIDECAR_CONFIG_TABLE_H

/* Every key of the configuration, one row each. Private to sidecar/config*.c, main.c and tests. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How a text becomes a value, and what type its field has. */
enum config_kind {
    /* One value. */
    CONFIG_DURATION,    /* uint64_t, milliseconds */
    CONFIG_SIZE,        /* uint64_t, bytes */
    CONFIG_NUMBER,      /* uint64_t */
    CONFIG_COUNT,       /* unsigned or int */
    CONFIG_DECIMAL,     /* double */
    CONFIG_BOOLEAN,     /* bool */
    CONFIG_CHOICE,      /* an enum that counts from 0 as choices does */
    CONFIG_THREADS,     /* unsigned */
    CONFIG_MODE,        /* unsigned, octal */
    CONFIG_GIGABYTES,   /* uint64_t, bytes */
    CONFIG_TEXT,        /* char *, anything */
    CONFIG_PATH,        /* char *, absolute or empty */
    CONFIG_FOLDER,      /* char *, absolute */
    CONFIG_LOG_FILE,    /* char * */
    CONFIG_SCRIPT,      /* char *, begins with a slash, or empty */
    CONFIG_LOCATION,    /* char *, begins and ends with a slash */
    CONFIG_URL_PATH,    /* char *, begins with a slash */
    CONFIG_TEMPLATE,    /* char *, URL with {path}, or empty */
    CONFIG_USER,        /* user, has_user, user_name, user_group */
    CONFIG_GROUP,       /* group, has_group */
    CONFIG_OWNER,       /* uid_t */
    CONFIG_OWNER_GROUP, /* gid_t */
    /* Lists: a pointer to the items, and a size_t at count_offset. */
    CONFIG_ADDRESSES, /* struct sock_address */
    CONFIG_NETWORKS,  /* struct sock_network */
    CONFIG_SERVERS,   /* struct velox_server */
    CONFIG_MAPPINGS,  /* struct path_mapping */
    CONFIG_ROOTS,     /* char *, a folder */
    CONFIG_GLOBS,     /* char * */
};

struct config_key {
    const char *section;
    const char *name;
    enum config_kind kind;
    size_t offset;        /* of the field in struct config_file */
    size_t count_offset;  /* of lists */
    const char *standard; /* the default, as text */
    uint64_t min;         /* numbers */
    uint64_t max;
    const char *const *choices; /* names, ended by NULL */
};

/* The rows, sections together, in the order of the manual. */
size_t config_key_count(void);
const struct config_key *config_key_at(size_t index);

/* The row of a key, or NULL. */
const struct config_key *config_key_find(const char *section, const char *name);
size_t config_key_index(const struct config_key *key);
bool config_has_section(const char *section);

#endif
