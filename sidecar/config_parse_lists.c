/* SPDX-License-Identifier: MIT */
/* The kinds that are lists: an array of items that are made one by one. */

#include "sidecar/config_parse.h"

#include <errno.h>
#include <stdlib.h>

#include "sidecar/config_values.h"

static const char *config_hint_address(const char *text)
{
    size_t digits = strspn(text, "0123456789");

    if (text[0] == '/') {
        return ", a socket is written unix:/path";
    }
    if (text[0] == '*' || text[0] == ':') {
        return ", all addresses are 0.0.0.0 or [::]";
    }
    if (digits > 0 && text[digits] == '\0') {
        return ", a port needs its host: 127.0.0.1:9000";
    }
    if (strncmp(text, "unix:", 5) == 0) {
        return ", the path must begin with /";
    }
    return strstr(text, "://") != NULL ? ", it has no scheme"
           : strchr(text, ':') == NULL ? ", there is no port"
                                       : "";
}

static int config_make_address(struct config_value *value, const char *text, void *item)
{
    /* The C library would take * for this machine alone. */
    int error = text[0] == '*' ? -EINVAL : sock_address_parse(text, item);

    if (error == -EINVAL) {
        return config_refuse(
            value,
            "\"%s\" is not an address%s; allowed are unix:/path and host:port with "
            "a port from 1 to 65535, IPv6 as [::1]:9000",
            text, config_hint_address(text));
    }
    if (error == -ENAMETOOLONG) {
        return config_refuse(value,
                             "\"%s\" is too long; allowed are at most 107 bytes for the path of a "
                             "socket, 119 for host:port",
                             text);
    }
    if (error == -EHOSTUNREACH) {
        return config_refuse(value,
                             "\"%s\": no such host is known; allowed are addresses and names that "
                             "can be looked up now",
                             text);
    }
    return error;
}

static int config_make_network(struct config_value *value, const char *text, void *item)
{
    if (sock_network_parse(text, item) != 0) {
        return config_refuse(value,
                             "\"%s\" is not a network; allowed are addresses and blocks such as "
                             "10.0.0.0/8, 192.0.2.7, ::1, 2001:db8::/32",
                             text);
    }
    return 0;
}

static int config_make_glob(struct config_value *value, const char *text, void *item)
{
    char *copy;

    if (strpbrk(text, " \t=;") != NULL) {
        return config_refuse(value,
                             "\"%s\" is not a pattern; allowed are names without spaces, = and ;, "
                             "in which * stands for anything",
                             text);
    }
    copy = strdup(text);
    if (copy == NULL) {
        return -ENOMEM;
    }
    *(char **)item = copy;
    return 0;
}

static int config_make_root(struct config_value *value, const char *text, void *item)
{
    char *folder = NULL;
    int error = config_folder_make(span_of_string(text), &folder);

    if (error == -EINVAL) {
        return config_refuse(value,
                             "\"%s\" is not an absolute folder; allowed are paths from / on "
                             "without ..",
                             text);
    }
    if (error == 0) {
        *(char **)item = folder;
    }
    return error;
}

static int config_make_mapping(struct config_value *value, const char *text, void *item)
{
    const char *equals = strstr(text, "=/");
    struct path_mapping mapping = { NULL, NULL };
    int error = -EINVAL;

    if (equals != NULL) {
        error = config_folder_make(span_of(text, (size_t)(equals - text)), &mapping.from);
    }
    if (error == 0) {
        error = config_folder_make(span_of_string(equals + 1), &mapping.to);
    }
    if (error != 0) {
        free(mapping.from);
    }
    if (error == -EINVAL) {
        return config_refuse(value,
                             "\"%s\" does not map one path to another; allowed is FROM=TO with two "
                             "paths from / on without ..",
                             text);
    }
    if (error == 0) {
        *(struct path_mapping *)item = mapping;
    }
    return error;
}

/* host, host:port, [v6] or [v6]:port. */
static bool config_is_authority(struct span authority)
{
    struct span host = authority;
    struct span port = span_of("", 0);
    unsigned long number = 0;
    const uint8_t *end = host.len == 0 ? NULL
                                       : memchr(host.ptr, host.ptr[0] == '[' ? ']' : ':', host.len);

    if (host.len > 0 && host.ptr[0] == '[') {
        if (end == NULL || end - host.ptr < 3) {
            return false;
        }
        host = span_of(host.ptr + 1, (size_t)(end - host.ptr) - 1);
        port = span_of(end + 1, (size_t)(authority.ptr + authority.len - end) - 1);
    } else if (end != NULL) {
        host.len = (size_t)(end - host.ptr);
        port = span_of(end, authority.len - host.len);
    }
    for (size_t i = 0; i < host.len; i++) {
        if (strchr("/@\\ \t\"<>[]%^`{|}", host.ptr[i]) != NULL) {
            return false;
        }
    }
    if (port.len == 0) {
        return host.len > 0;
    }
    for (size_t i = 1; i < port.len && port.len <= 6; i++) {
        if (port.ptr[i] < '0' || port.ptr[i] > '9') {
            return false;
        }
        number = number * 10 + (unsigned long)(port.ptr[i] - '0');
    }
    return port.ptr[0] == ':' && port.len <= 6 && number >= 1 && number <= 65535 && host.len > 0;
}

const char *config_url_behind_authority(const char *text, const char *ends)
{
    const char *authority;
    size_t length;

    if (strncmp(text, "http://", 7) == 0) {
        authority = text + 7;
    } else if (strncmp(text, "https://", 8) == 0) {
        authority = text + 8;
    } else {
        return NULL;
    }
    length = strcspn(authority, ends);
    return config_is_authority(span_of(authority, length)) ? authority + length : NULL;
}

static bool config_is_base_url(const char *text)
{
    return strpbrk(text, " \t\"<>?#\\") == NULL && config_url_behind_authority(text, "/") != NULL;
}

static const char *config_hint_server(const char *text)
{
    if (text[0] == '/') {
        return ", a socket is written unix:/path";
    }
    return strstr(text, "://") == NULL && strncmp(text, "unix:", 5) != 0
               ? ", http:// or https:// is missing"
               : "";
}

/* The URL without build_path, which config.c adds when every key has been read. */
static int config_make_server(struct config_value *value, const char *text, void *item)
{
    bool is_unix = strncmp(text, "unix:", 5) == 0;
    struct velox_server server = { NULL, NULL };
    struct sock_address address;

    if (is_unix ? sock_address_parse(text, &address) != 0 : !config_is_base_url(text)) {
        return config_refuse(value,
                             "\"%s\" is not the URL of a server%s; allowed are http://host:port, "
                             "https://host:port and unix:/path, without user, ? and #",
                             text, config_hint_server(text));
    }
    server.url = strdup(is_unix ? "http://localhost" : text);
    server.unix_socket = strdup(is_unix ? text + 5 : "");
    if (server.url == NULL || server.unix_socket == NULL) {
        free(server.url);
        free(server.unix_socket);
        return -ENOMEM;
    }
    *(struct velox_server *)item = server;
    return 0;
}

static void config_free_item_text(void *item)
{
    free(*(char **)item);
}

static void config_free_mapping(void *item)
{
    struct path_mapping *mapping = item;

    free(mapping->from);
    free(mapping->to);
}

static void config_free_server(void *item)
{
    struct velox_server *server = item;

    free(server->url);
    free(server->unix_socket);
}

static const struct config_list_row {
    size_t item_size;
    int (*make)(struct config_value *value, const char *text, void *item);
    void (*free_item)(void *item); /* NULL: nothing to free */
} config_list_rows[] = {
    [CONFIG_ADDRESSES] = { sizeof(struct sock_address), config_make_address, NULL },
    [CONFIG_NETWORKS] = { sizeof(struct sock_network), config_make_network, NULL },
    [CONFIG_SERVERS] = { sizeof(struct velox_server), config_make_server, config_free_server },
    [CONFIG_MAPPINGS] = { sizeof(struct path_mapping), config_make_mapping, config_free_mapping },
    [CONFIG_ROOTS] = { sizeof(char *), config_make_root, config_free_item_text },
    [CONFIG_GLOBS] = { sizeof(char *), config_make_glob, config_free_item_text },
};

static void config_items_free(const struct config_list_row *row, char *items, size_t count)
{
    for (size_t i = 0; i < count && row->free_item != NULL; i++) {
        row->free_item(items + i * row->item_size);
    }
    free(items);
}

/* Grows the array by one item and makes it. */
static int config_items_add(struct config_value *value, struct span text, char **items,
                            size_t *count)
{
    const struct config_list_row *row = &config_list_rows[value->key->kind];
    char *grown;
    char *copy;
    int error;

    if (text.len == 0) {
        return config_refuse(value, "nothing between two commas; allowed is a list a, b, c");
    }
    grown = realloc(*items, (*count + 1) * row->item_size);
    if (grown == NULL) {
        return -ENOMEM;
    }
    *items = grown;
    copy = strndup((const char *)text.ptr, text.len);
    if (copy == NULL) {
        return -ENOMEM;
    }
    error = row->make(value, copy, grown + *count * row->item_size);
    free(copy);
    *count += error == 0 ? 1 : 0;
    return error;
}

int config_parse_list(struct config_value *value)
{
    const char *left = value->text;
    struct span text;
    char *items = NULL;
    size_t count = 0;

    while (config_item_next(&left, &text, &value->line)) {
        int error = config_items_add(value, text, &items, &count);

        if (error != 0) {
            config_items_free(&config_list_rows[value->key->kind], items, count);
            return error;
        }
    }
    /* The field is a pointer to the items' type, whatever that is. */
    memcpy(config_field(value), &items, sizeof(items));
    memcpy((char *)value->file + value->key->count_offset, &count, sizeof(count));
    return 0;
}

void config_list_free(struct config_file *file, const struct config_key *key)
{
    char *field = (char *)file + key->offset;
    char *count_field = (char *)file + key->count_offset;
    char *items;
    size_t count;

    memcpy(&items, field, sizeof(items));
    memcpy(&count, count_field, sizeof(count));
    config_items_free(&config_list_rows[key->kind], items, count);
    items = NULL;
    count = 0;
    memcpy(field, &items, sizeof(items));
    memcpy(count_field, &count, sizeof(count));
}
