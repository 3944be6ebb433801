/* SPDX-License-Identifier: MIT */
/* Reading what `nginx -T` prints: words, blocks, includes, and whatever may be wrong. */

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "sidecar/doctor/nginx_dump.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define HEAD "# configuration file /etc/nginx/nginx.conf:\n"

/* The tree in one line: "a b;c{d;}". */
static void print_tree(const struct nginx_directive *directive, char *text, size_t size)
{
    for (; directive != NULL; directive = directive->next) {
        for (size_t i = 0; i < directive->word_count; i++) {
            snprintf(text + strlen(text), size - strlen(text), "%s%s", i > 0 ? "|" : "",
                     directive->words[i]);
        }
        snprintf(text + strlen(text), size - strlen(text), "%s", directive->is_block ? "{" : ";");
        if (directive->is_block) {
            print_tree(directive->children, text, size);
            snprintf(text + strlen(text), size - strlen(text), "}");
        }
    }
}

static enum nginx_result parse(const char *text, char *tree, size_t size)
{
    struct nginx_dump *dump = NULL;
    enum nginx_result result = nginx_dump_parse(span_of_string(text), &dump);

    tree[0] = '\0';
    if (result == NGINX_PARSED) {
        print_tree(nginx_dump_first(dump), tree, size);
        nginx_dump_free(dump);
    }
    return result;
}

static void test_trees(void **state)
{
    static const struct {
        const char *text;
        enum nginx_result result;
        const char *tree;
    } cases[] = {
        { HEAD, NGINX_PARSED, "" },
        { HEAD "a;", NGINX_PARSED, "a;" },
        { "nginx: the configuration is ok\n" HEAD "a b;\n", NGINX_PARSED, "a|b;" },
        { HEAD "a  b\tc\n d ;e;", NGINX_PARSED, "a|b|c|d;e;" },
        { HEAD "http { server { listen 80; } }", NGINX_PARSED, "http{server{listen|80;}}" },
        { HEAD "http{server{listen 80;}}", NGINX_PARSED, "http{server{listen|80;}}" },
        { HEAD "# a {\na # b;\nc;", NGINX_PARSED, "a|c;" },
        { HEAD "a \"b c;{}\" 'd \" e';", NGINX_PARSED, "a|b c;{}|d \" e;" },
        { HEAD "a \"b\\\"c\";", NGINX_PARSED, "a|b\"c;" },
        { HEAD "a \"\";", NGINX_PARSED, "a|;" },
        { HEAD "set $a ${b}c;", NGINX_PARSED, "set|$a|${b}c;" },
        { HEAD "location ~ \\.php$ { a; }", NGINX_PARSED, "location|~|\\.php${a;}" },
        { HEAD "a#b;", NGINX_PARSED, "a#b;" },
        { HEAD "a {", NGINX_BROKEN, "" },
        { HEAD "a", NGINX_BROKEN, "" },
        { HEAD "}", NGINX_BROKEN, "" },
        { HEAD ";", NGINX_BROKEN, "" },
        { HEAD "{}", NGINX_BROKEN, "" },
        { HEAD "a \"b;", NGINX_BROKEN, "" },
        { HEAD "a { b }", NGINX_BROKEN, "" },
        { "a;", NGINX_NOT_A_DUMP, "" },
        { "", NGINX_NOT_A_DUMP, "" },
        { "# configuration file /etc/nginx/nginx.conf", NGINX_NOT_A_DUMP, "" },
        { " " HEAD, NGINX_NOT_A_DUMP, "" },
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        char tree[1024];
        enum nginx_result result = parse(cases[i].text, tree, sizeof(tree));

        if (result != cases[i].result || strcmp(tree, cases[i].tree) != 0) {
            fail_msg("\"%s\": result %d, tree \"%s\"", cases[i].text, (int)result, tree);
        }
    }
}

static void test_includes(void **state)
{
    static const struct {
        const char *include; /* in the main file */
        enum nginx_result result;
        const char *tree;
    } cases[] = {
        { "sites/a", NGINX_PARSED, "a;" },      { "/etc/nginx/sites/a", NGINX_PARSED, "a;" },
        { "sites/*", NGINX_PARSED, "a;b{c;}" }, { "sites/[x", NGINX_PARSED, "" },
        { "sites/none", NGINX_PARSED, "" },     { "sites*", NGINX_PARSED, "" },
        { "nginx.conf", NGINX_BROKEN, "" },     { "*/../nginx.conf", NGINX_PARSED, "" },
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        char text[1024];
        char tree[1024];
        enum nginx_result result;

        snprintf(text, sizeof(text),
                 HEAD "include %s;\n"
                      "# configuration file /etc/nginx/sites/a:\na;\n"
                      "# configuration file /etc/nginx/sites/b:\nb { include c; }\n"
                      "# configuration file /etc/nginx/c:\nc;\n",
                 cases[i].include);
        result = parse(text, tree, sizeof(tree));
        if (result != cases[i].result || strcmp(tree, cases[i].tree) != 0) {
            fail_msg("include %s: result %d, tree \"%s\"", cases[i].include, (int)result, tree);
        }
    }
}

static void test_lines_are_those_of_the_file(void **state)
{
    struct nginx_dump *dump;
    const struct nginx_directive *directive;

    (void)state;
    assert_int_equal(nginx_dump_parse(span_of_string("some text\n" HEAD "\n# comment\na\n  b;\n"
                                                     "c 'd\ne';\nf;\n"),
                                      &dump),
                     NGINX_PARSED);
    directive = nginx_dump_first(dump);
    assert_int_equal(directive->line, 3);
    assert_string_equal(directive->file, "/etc/nginx/nginx.conf");
    assert_int_equal(directive->next->line, 5);
    assert_int_equal(directive->next->next->line, 7);
    nginx_dump_free(dump);
}

static void test_depth_is_bounded(void **state)
{
    char text[1024] = HEAD;
    char tree[1024];

    (void)state;
    for (unsigned i = 0; i < NGINX_DEPTH_MAX + 1; i++) {
        strcat(text, "a{");
    }
    assert_int_equal(parse(text, tree, sizeof(tree)), NGINX_BROKEN);
}

/* Whatever is cut off, it ends with a verdict. */
static void test_every_prefix_ends(void **state)
{
    static const char text[] = HEAD "http { include sites/*; server { listen '80' \"x\\\"\"; } }\n"
                                    "# configuration file /etc/nginx/sites/a:\nroot /x; # c\n";

    (void)state;
    for (size_t length = 0; length < sizeof(text); length++) {
        struct nginx_dump *dump = NULL;

        if (nginx_dump_parse(span_of(text, length), &dump) == NGINX_PARSED) {
            nginx_dump_free(dump);
        }
    }
}

static void test_times(void **state)
{
    static const struct {
        const char *text;
        bool is_time;
        uint64_t ms;
    } cases[] = {
        { "60", true, 60000 },
        { "330s", true, 330000 },
        { "5m", true, 300000 },
        { "1h30m", true, 5400000 },
        { "1h 30m", true, 5400000 },
        { "500ms", true, 500 },
        { "1d", true, 86400000 },
        { "1M", true, 2592000000 },
        { "0", true, 0 },
        { "1y", true, 31536000000 },
        { "", false, 0 },
        { "s", false, 0 },
        { "1x", false, 0 },
        { "$var", false, 0 },
        { "9999999999999", false, 0 },
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        uint64_t ms = 0;
        bool is_time = nginx_time_parse(cases[i].text, &ms);

        if (is_time != cases[i].is_time || ms != cases[i].ms) {
            fail_msg("\"%s\": %d, %llu ms", cases[i].text, is_time, (unsigned long long)ms);
        }
    }
}

static void test_sizes(void **state)
{
    static const struct {
        const char *text;
        bool is_size;
        uint64_t size;
    } cases[] = {
        { "0", true, 0 },       { "512", true, 512 },    { "64k", true, 65536 },
        { "64K", true, 65536 }, { "1m", true, 1048576 }, { "2G", true, 2147483648 },
        { "", false, 0 },       { "k", false, 0 },       { "1kk", false, 0 },
        { "1 k", false, 0 },    { "-1", false, 0 },
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        uint64_t size = 0;
        bool is_size = nginx_size_parse(cases[i].text, &size);

        if (is_size != cases[i].is_size || size != cases[i].size) {
            fail_msg("\"%s\": %d, %llu", cases[i].text, is_size, (unsigned long long)size);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trees),
        cmocka_unit_test(test_includes),
        cmocka_unit_test(test_lines_are_those_of_the_file),
        cmocka_unit_test(test_depth_is_bounded),
        cmocka_unit_test(test_every_prefix_ends),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_sizes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
