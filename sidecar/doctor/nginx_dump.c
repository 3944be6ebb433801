/* SPDX-License-Identifier: MIT */
/*
 * Reads what `nginx -T` printed. The grammar is that of nginx's
 * src/core/ngx_conf_file.c:ngx_conf_read_token: words, quotes, backslashes, comments, blocks. Must
 * never judge: what nginx accepted is accepted here.
 */
#include "sidecar/doctor/nginx_dump.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>

#include "sidecar/base/memory.h"

#define HEADING "# configuration file "
#define PATH_SIZE 4096
#define WORDS_MAX 4096 /* of one directive; a list of names may be long */

struct nginx_file {
    char *path;
    struct span text; /* of nginx_dump.text */
    unsigned depth;   /* how many times it is being read at this moment */
};

struct nginx_dump {
    char *text;
    char *word; /* while parsing: the word being read; as long as the text */
    struct nginx_file *files;
    size_t file_count;
    struct nginx_directive *first;
};

/* Reading one file. */
struct nginx_cursor {
    struct nginx_dump *dump;
    struct nginx_file *file;
    struct span rest;
    unsigned line;
    unsigned depth;
};

enum nginx_token { TOKEN_WORD, TOKEN_SEMICOLON, TOKEN_OPEN, TOKEN_CLOSE, TOKEN_END, TOKEN_BROKEN };

static enum nginx_result read_block(struct nginx_cursor *cursor, bool is_file,
                                    struct nginx_directive ***tail);

/* ---- words ----------------------------------------------------------------------------------- */

static uint8_t cursor_take(struct nginx_cursor *cursor)
{
    uint8_t byte = cursor->rest.ptr[0];

    span_skip(&cursor->rest, 1);
    if (byte == '\n') {
        cursor->line++;
    }
    return byte;
}

static bool is_space(uint8_t byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

static void skip_space(struct nginx_cursor *cursor)
{
    bool in_comment = false;

    while (cursor->rest.len > 0) {
        uint8_t byte = cursor->rest.ptr[0];

        if (!in_comment && byte == '#') {
            in_comment = true;
        } else if (byte == '\n') {
            in_comment = false;
        } else if (!in_comment && !is_space(byte)) {
            return;
        }
        (void)cursor_take(cursor);
    }
}

/* Whether an unquoted word ends before the byte. A brace behind a dollar belongs to a variable. */
static bool ends_word(uint8_t byte, uint8_t before)
{
    return is_space(byte) || byte == ';' || (byte == '{' && before != '$');
}

/* Copies a word, without its quotes, to dump->word. */
static enum nginx_token take_word(struct nginx_cursor *cursor)
{
    char *word = cursor->dump->word;
    uint8_t quote = cursor->rest.ptr[0];
    uint8_t before = 0;
    size_t length = 0;

    if (quote != '"' && quote != '\'') {
        quote = 0;
    } else {
        (void)cursor_take(cursor);
    }
    while (cursor->rest.len > 0) {
        uint8_t byte = cursor->rest.ptr[0];

        if (quote == 0 ? ends_word(byte, before) : byte == quote) {
            break;
        }
        (void)cursor_take(cursor);
        if (byte == '\\' && cursor->rest.len > 0) {
            byte = cursor_take(cursor);
            if (byte != '"' && byte != '\'' && byte != '\\') {
                word[length++] = '\\'; /* as in regular expressions */
            }
        }
        word[length++] = (char)byte;
        before = byte;
    }
    word[length] = '\0';
    if (quote != 0 && cursor->rest.len > 0) {
        (void)cursor_take(cursor);
        return TOKEN_WORD;
    }
    return quote != 0 ? TOKEN_BROKEN : TOKEN_WORD;
}

static enum nginx_token next_token(struct nginx_cursor *cursor)
{
    skip_space(cursor);
    if (cursor->rest.len == 0) {
        return TOKEN_END;
    }
    switch (cursor->rest.ptr[0]) {
    case ';':
        (void)cursor_take(cursor);
        return TOKEN_SEMICOLON;
    case '{':
        (void)cursor_take(cursor);
        return TOKEN_OPEN;
    case '}':
        (void)cursor_take(cursor);
        return TOKEN_CLOSE;
    default:
        return take_word(cursor);
    }
}

/* ---- directives ------------------------------------------------------------------------------ */

static void directives_free(struct nginx_directive *directive)
{
    while (directive != NULL) {
        struct nginx_directive *next = directive->next;

        directives_free(directive->children); /* no deeper than NGINX_DEPTH_MAX */
        for (size_t i = 0; i < directive->word_count; i++) {
            free(directive->words[i]);
        }
        free(directive->words);
        free(directive);
        directive = next;
    }
}

static bool add_word(struct nginx_directive *directive, const char *word)
{
    char **words = realloc(directive->words, (directive->word_count + 1) * sizeof(*words));

    if (words == NULL) {
        return false;
    }
    directive->words = words;
    words[directive->word_count] = strdup(word);
    if (words[directive->word_count] == NULL) {
        return false;
    }
    directive->word_count++;
    return true;
}

/* Reads words up to the token that ends them. */
static enum nginx_result read_words(struct nginx_cursor *cursor, struct nginx_directive *directive,
                                    enum nginx_token *end)
{
    bool is_first = true;

    while ((*end = next_token(cursor)) == TOKEN_WORD) {
        if (is_first) {
            directive->line = cursor->line; /* blank lines and comments came before it */
            is_first = false;
        }
        if (directive->word_count == WORDS_MAX) {
            return NGINX_BROKEN;
        }
        if (!add_word(directive, cursor->dump->word)) {
            return NGINX_NO_MEMORY;
        }
    }
    return NGINX_PARSED;
}

/* ---- includes -------------------------------------------------------------------------------- */

/* Names are relative to the folder of the main file (ngx_conf_include: ngx_conf_full_name). */
static bool full_pattern(const struct nginx_dump *dump, const char *name, char pattern[PATH_SIZE])
{
    const char *slash = strrchr(dump->files[0].path, '/');
    int length;

    if (name[0] == '/' || slash == NULL) {
        length = snprintf(pattern, PATH_SIZE, "%s", name);
    } else {
        length = snprintf(pattern, PATH_SIZE, "%.*s/%s", (int)(slash - dump->files[0].path),
                          dump->files[0].path, name);
    }
    return length < PATH_SIZE;
}

static enum nginx_result read_file(struct nginx_cursor *from, struct nginx_file *file,
                                   struct nginx_directive ***tail)
{
    struct nginx_cursor cursor = {
        .dump = from->dump, .file = file, .rest = file->text, .line = 1, .depth = from->depth + 1
    };
    enum nginx_result result;

    if (cursor.depth > NGINX_DEPTH_MAX || file->depth > 0) {
        return NGINX_BROKEN;
    }
    file->depth++;
    result = read_block(&cursor, true, tail);
    file->depth--;
    return result;
}

static enum nginx_result include(struct nginx_cursor *cursor, const char *name,
                                 struct nginx_directive ***tail)
{
    struct nginx_dump *dump = cursor->dump;
    char pattern[PATH_SIZE];
    enum nginx_result result = NGINX_PARSED;

    if (!full_pattern(dump, name, pattern)) {
        return NGINX_PARSED;
    }
    for (size_t i = 0; i < dump->file_count && result == NGINX_PARSED; i++) {
        /* A name that is no pattern may hold the characters of one. */
        if (strcmp(pattern, dump->files[i].path) == 0 ||
            fnmatch(pattern, dump->files[i].path, FNM_PATHNAME | FNM_PERIOD) == 0) {
            result = read_file(cursor, &dump->files[i], tail);
        }
    }
    return result;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

/* A directive whose words are read is complete, or begins a block. Takes the directive. */
static enum nginx_result finish(struct nginx_cursor *cursor, struct nginx_directive *directive,
                                enum nginx_token end, struct nginx_directive ***tail)
{
    struct nginx_directive **children = &directive->children;
    enum nginx_result result = NGINX_PARSED;

    if (end == TOKEN_SEMICOLON && directive->word_count == 2 &&
        strcmp(directive->words[0], "include") == 0) {
        result = include(cursor, directive->words[1], tail);
        directives_free(directive);
        return result;
    }
    **tail = directive;
    *tail = &directive->next;
    if (end == TOKEN_OPEN) {
        directive->is_block = true;
        cursor->depth++;
        result = cursor->depth > NGINX_DEPTH_MAX ? NGINX_BROKEN
                                                 : read_block(cursor, false, &children);
        cursor->depth--;
    }
    return result;
}

/* Reads directives up to the end of the block or file, and hangs them on the tail. */
static enum nginx_result read_block(struct nginx_cursor *cursor, bool is_file,
                                    struct nginx_directive ***tail)
{
    enum nginx_result result = NGINX_PARSED;

    while (result == NGINX_PARSED) {
        struct nginx_directive *directive = memory_zeroed(sizeof(*directive));
        enum nginx_token end = TOKEN_BROKEN;

        if (directive == NULL) {
            return NGINX_NO_MEMORY;
        }
        directive->file = cursor->file->path;
        result = read_words(cursor, directive, &end);
        if (result == NGINX_PARSED && directive->word_count > 0 &&
            (end == TOKEN_SEMICOLON || end == TOKEN_OPEN)) {
            result = finish(cursor, directive, end, tail);
            continue;
        }
        if (result == NGINX_PARSED &&
            (directive->word_count > 0 || end != (is_file ? TOKEN_END : TOKEN_CLOSE))) {
            result = NGINX_BROKEN;
        }
        directives_free(directive);
        return result;
    }
    return result;
}

/* ---- the dump -------------------------------------------------------------------------------- */

/* Where the next file's heading begins, at a line's begin, or NULL. */
static const char *find_heading(const char *text)
{
    const char *found = text;

    while ((found = strstr(found, HEADING)) != NULL) {
        const char *line_end = strchr(found, '\n');

        if ((found == text || found[-1] == '\n') && line_end != NULL && line_end[-1] == ':') {
            return found;
        }
        found++;
    }
    return NULL;
}

static bool add_file(struct nginx_dump *dump, const char *path, size_t path_length,
                     struct span text)
{
    struct nginx_file *files = realloc(dump->files, (dump->file_count + 1) * sizeof(*files));

    if (files == NULL) {
        return false;
    }
    dump->files = files;
    files[dump->file_count] = (struct nginx_file){ .path = strndup(path, path_length),
                                                   .text = text };
    if (files[dump->file_count].path == NULL) {
        return false;
    }
    dump->file_count++;
    return true;
}

static enum nginx_result split_files(struct nginx_dump *dump)
{
    const char *heading = find_heading(dump->text);

    if (heading == NULL) {
        return NGINX_NOT_A_DUMP;
    }
    while (heading != NULL) {
        const char *path = heading + strlen(HEADING);
        const char *line_end = strchr(path, '\n');
        const char *next = find_heading(line_end);
        const char *end = next != NULL ? next : line_end + strlen(line_end);

        if (!add_file(dump, path, (size_t)(line_end - 1 - path),
                      span_of(line_end + 1, (size_t)(end - line_end - 1)))) {
            return NGINX_NO_MEMORY;
        }
        heading = next;
    }
    return NGINX_PARSED;
}

enum nginx_result nginx_dump_parse(struct span text, struct nginx_dump **dump)
{
    struct nginx_dump *parsed = memory_zeroed(sizeof(*parsed));
    struct nginx_cursor start = { .dump = parsed };
    struct nginx_directive **tail;
    enum nginx_result result;

    if (parsed == NULL) {
        return NGINX_NO_MEMORY;
    }
    tail = &parsed->first;
    parsed->text = strndup((const char *)text.ptr, text.len);
    parsed->word = malloc(text.len + 1);
    result = parsed->text == NULL || parsed->word == NULL ? NGINX_NO_MEMORY : split_files(parsed);
    if (result == NGINX_PARSED) {
        result = read_file(&start, &parsed->files[0], &tail);
    }
    if (result != NGINX_PARSED) {
        nginx_dump_free(parsed);
        return result;
    }
    *dump = parsed;
    return NGINX_PARSED;
}

void nginx_dump_free(struct nginx_dump *dump)
{
    if (dump == NULL) {
        return;
    }
    directives_free(dump->first);
    for (size_t i = 0; i < dump->file_count; i++) {
        free(dump->files[i].path);
    }
    free(dump->files);
    free(dump->text);
    free(dump->word);
    free(dump);
}

const struct nginx_directive *nginx_dump_first(const struct nginx_dump *dump)
{
    return dump->first;
}

/* ---- values ---------------------------------------------------------------------------------- */

/* A number's digits at *text, which moves behind them. False where there are none, or too many. */
static bool take_number(const char **text, uint64_t *number)
{
    const char *digit = *text;

    *number = 0;
    while (*digit >= '0' && *digit <= '9' && digit - *text < 12) {
        *number = *number * 10 + (uint64_t)(*digit++ - '0');
    }
    if (digit == *text || (*digit >= '0' && *digit <= '9')) {
        return false;
    }
    *text = digit;
    return true;
}

/* The unit at *text in milliseconds, 0 for none that nginx knows; a missing one is a second. */
static uint64_t take_unit_ms(const char **text)
{
    static const struct {
        char name;
        uint64_t ms;
    } units[] = { { 's', 1000 },      { 'm', 60000 },      { 'h', 3600000 },    { 'd', 86400000 },
                  { 'w', 604800000 }, { 'M', 2592000000 }, { 'y', 31536000000 } };

    if (**text == '\0' || **text == ' ') {
        return 1000;
    }
    if ((*text)[0] == 'm' && (*text)[1] == 's') {
        *text += 2;
        return 1;
    }
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (**text == units[i].name) {
            *text += 1;
            return units[i].ms;
        }
    }
    return 0;
}

bool nginx_time_parse(const char *text, uint64_t *time_ms)
{
    uint64_t total = 0;

    do {
        uint64_t number;
        uint64_t unit_ms;

        if (!take_number(&text, &number)) {
            return false;
        }
        unit_ms = take_unit_ms(&text);
        if (unit_ms == 0 || number > UINT64_MAX / 16 / unit_ms) {
            return false;
        }
        total += number * unit_ms;
        while (*text == ' ') {
            text++;
        }
    } while (*text != '\0' && total < UINT64_MAX / 16);
    *time_ms = total;
    return *text == '\0';
}

bool nginx_size_parse(const char *text, uint64_t *size)
{
    uint64_t number;
    unsigned shift = 0;

    if (!take_number(&text, &number)) {
        return false;
    }
    switch (*text) {
    case 'k':
    case 'K':
        shift = 10;
        break;
    case 'm':
    case 'M':
        shift = 20;
        break;
    case 'g':
    case 'G':
        shift = 30;
        break;
    default:
        break;
    }
    if (text[shift == 0 ? 0 : 1] != '\0' || number > UINT64_MAX >> shift) {
        return false;
    }
    *size = number << shift;
    return true;
}
