/* SPDX-License-Identifier: MIT */
/*
 * Guesses. A wrong one costs an administrator more than none, so names must be nearly the same, and
 * a hint only ever follows a plain statement of what is wrong.
 */

#include "sidecar/config_hints.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "sidecar/config_table.h"

#define NAME_MAX_LENGTH 47
#define NOTHING_NEAR 99

/* Case and the choice between _ and - do not count as differences. */
static char plain(char byte)
{
    return byte == '-' || byte == ' ' ? '_' : (char)tolower((unsigned char)byte);
}

static unsigned least(unsigned a, unsigned b, unsigned c)
{
    unsigned less = a < b ? a : b;

    return less < c ? less : c;
}

/* How many letters must be added, taken away, changed or swapped with the next (optimal string
 * alignment). */
static unsigned distance(const char *a, const char *b)
{
    unsigned rows[3][NAME_MAX_LENGTH + 1];
    size_t length = strlen(b);

    if (strlen(a) > NAME_MAX_LENGTH || length > NAME_MAX_LENGTH) {
        return NOTHING_NEAR;
    }
    for (unsigned j = 0; j <= length; j++) {
        rows[0][j] = j;
    }
    for (unsigned i = 1; a[i - 1] != '\0'; i++) {
        unsigned *row = rows[i % 3];
        const unsigned *above = rows[(i + 2) % 3];
        const unsigned *second = rows[(i + 1) % 3];

        row[0] = i;
        for (unsigned j = 1; j <= length; j++) {
            bool same = plain(a[i - 1]) == plain(b[j - 1]);

            row[j] = least(above[j] + 1, row[j - 1] + 1, above[j - 1] + !same);
            if (i > 1 && j > 1 && plain(a[i - 1]) == plain(b[j - 2]) &&
                plain(a[i - 2]) == plain(b[j - 1]) && second[j - 2] + 1 < row[j]) {
                row[j] = second[j - 2] + 1;
            }
        }
    }
    return rows[strlen(a) % 3][length];
}

/* One slip in a short name, two or three in a long one. */
static bool is_near(unsigned differences, const char *name)
{
    return differences <= (strlen(name) < 5 ? 1 : strlen(name) < 12 ? 2 : 3);
}

/* "server_url http" of the line "server_url http://...": the ini reader takes a colon for = too. */
static bool lacks_equals(const char *section, const char *name)
{
    size_t length = strcspn(name, " \t");

    for (size_t i = 0; name[length] != '\0' && i < config_key_count(); i++) {
        const struct config_key *key = config_key_at(i);

        if (strcmp(key->section, section) == 0 && strlen(key->name) == length &&
            strncmp(key->name, name, length) == 0) {
            return true;
        }
    }
    return false;
}

void config_hint_key(const char *section, const char *name, char *hint, size_t size)
{
    const struct config_key *best = NULL;
    unsigned best_distance = NOTHING_NEAR;

    hint[0] = '\0';
    if (lacks_equals(section, name)) {
        snprintf(hint, size, ", perhaps the = behind %.*s is missing", (int)strcspn(name, " \t"),
                 name);
        return;
    }
    for (size_t i = 0; i < config_key_count(); i++) {
        const struct config_key *key = config_key_at(i);
        /* Half a slip for the wrong section. */
        unsigned now = 2 * distance(name, key->name) + (strcmp(key->section, section) != 0);

        if (is_near(now / 2, key->name) && now < best_distance) {
            best = key;
            best_distance = now;
        }
    }
    if (best == NULL) {
        return;
    }
    if (strcmp(best->section, section) == 0) {
        snprintf(hint, size, ", perhaps %s is meant", best->name);
    } else if (best_distance == 1) {
        snprintf(hint, size, " here, it belongs to [%s]", best->section);
    } else {
        snprintf(hint, size, ", perhaps %s in [%s] is meant", best->name, best->section);
    }
}

void config_hint_section(const char *section, char *hint, size_t size)
{
    hint[0] = '\0';
    section += strspn(section, " ");
    for (size_t i = 0; i < config_key_count(); i++) {
        const char *name = config_key_at(i)->section;
        char trimmed[NAME_MAX_LENGTH + 1];

        snprintf(trimmed, sizeof(trimmed), "%s", section);
        for (size_t end = strlen(trimmed); end > 0 && trimmed[end - 1] == ' '; end--) {
            trimmed[end - 1] = '\0';
        }
        if (is_near(distance(trimmed, name), name)) {
            snprintf(hint, size, ", perhaps [%s] is meant", name);
            return;
        }
    }
}

const char *config_hint_value(const char *text)
{
    size_t length = strlen(text);
    size_t digits = strspn(text, "0123456789");

    if (length >= 2 && (text[0] == '"' || text[0] == '\'') && text[length - 1] == text[0]) {
        return "; values have no quotes";
    }
    if (strstr(text, " #") != NULL || strstr(text, " //") != NULL || strstr(text, " /*") != NULL ||
        strstr(text, "\t#") != NULL) {
        return "; behind a value only ; after a space begins a comment";
    }
    if (strchr(text, ';') != NULL) {
        return "; a comment needs a space before its ;";
    }
    if (digits > 0 && text[digits] == ' ') {
        return "; without a space before the unit";
    }
    return "";
}

const char *config_hint_line(const char *text, size_t length)
{
    bool is_slash = length >= 2 && text[0] == '/' && (text[1] == '/' || text[1] == '*');

    if (is_slash || (length >= 2 && text[0] == '-' && text[1] == '-') ||
        (length >= 4 && strncasecmp(text, "rem ", 4) == 0)) {
        return "; a comment begins with ; or #";
    }
    if (length >= 1 && (text[length - 1] == '{' || text[0] == '}')) {
        return "; there are no blocks in braces";
    }
    return "";
}
