/* SPDX-License-Identifier: MIT */
/* Whole configurations: defaults, values, mistakes with their lines, warnings, printing. */

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sidecar/config.h"
#include "sidecar/config_table.h"
#include "sidecar/config_values.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* A folder, a configuration file "f" in it, and what the last load said. */
struct place {
    char folder[32];
    char path[64];
    char *messages;
    struct config *config;
    unsigned mistakes;
    unsigned warnings;
};

static int set_up(void **state)
{
    struct place *place = calloc(1, sizeof(*place));

    *state = place;
    if (place == NULL) {
        return -1;
    }
    strcpy(place->folder, "/tmp/test_config.XXXXXX");
    if (mkdtemp(place->folder) == NULL) {
        return -1;
    }
    snprintf(place->path, sizeof(place->path), "%s/f", place->folder);
    return 0;
}

static void forget(struct place *place)
{
    config_free(place->config);
    place->config = NULL;
    free(place->messages);
    place->messages = NULL;
}

static int tear_down(void **state)
{
    struct place *place = *state;

    forget(place);
    unlink(place->path);
    rmdir(place->folder);
    free(place);
    return 0;
}

static void write_file(struct place *place, const char *bytes, size_t length)
{
    FILE *file = fopen(place->path, "we");

    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
}

static int load_path(struct place *place, const char *path)
{
    size_t length = 0;
    FILE *messages;
    int result;

    forget(place);
    messages = open_memstream(&place->messages, &length);
    assert_non_null(messages);
    result = config_load(path, messages, &place->config, &place->mistakes, &place->warnings);
    fclose(messages);
    assert_int_equal(result == 0, place->config != NULL);
    assert_int_equal(result == 0, place->mistakes == 0);
    return result;
}

static int load(struct place *place, const char *text)
{
    write_file(place, text, strlen(text));
    return load_path(place, place->path);
}

static void load_valid(struct place *place, const char *text)
{
    if (load(place, text) != 0) {
        fail_msg("%s%s", text, place->messages);
    }
}

static unsigned count_lines(const char *text)
{
    unsigned lines = 0;

    for (; *text != '\0'; text++) {
        lines += *text == '\n' ? 1 : 0;
    }
    return lines;
}

/* One of the message lines begins with the file and start, and has part in it. */
static void assert_message(const struct place *place, const char *start, const char *part)
{
    char begin[256];
    char line[1024];
    const char *left = place->messages;

    snprintf(begin, sizeof(begin), "%s:%s", place->path, start);
    while (*left != '\0') {
        size_t length = strcspn(left, "\n");

        snprintf(line, sizeof(line), "%.*s", (int)length, left);
        if (strncmp(line, begin, strlen(begin)) == 0 && strstr(line, part) != NULL) {
            return;
        }
        left += length + 1;
    }
    fail_msg("no \"%s\" with \"%s\" in:\n%s", begin, part, place->messages);
}

static void test_defaults(void **state)
{
    struct place *place = *state;
    const struct config *config;

    load_valid(place, "");
    config = place->config;
    assert_true(config->threads >= 1 && config->threads <= 256);
    assert_int_equal(config->log_level, LOG_INFO);
    assert_int_equal(config->log_format, LOG_TEXT);
    assert_string_equal(config->log_file, "stderr");
    assert_false(config->has_user);
    assert_false(config->has_group);
    assert_int_equal(config->user, geteuid());
    assert_int_equal(config->group, getegid());
    assert_string_equal(config->user_name, "");
    assert_string_equal(config->pid_file, "");
    assert_int_equal(config->shutdown_timeout_ms, 330000);
    assert_int_equal(config->sandbox, SANDBOX_AUTO);
    assert_int_equal(config->listen.fastcgi_count, 1);
    assert_string_equal(config->listen.fastcgi[0].text, "unix:/run/velox-sidecar/fastcgi.sock");
    assert_int_equal(config->listen.scgi_count, 0);
    assert_int_equal(config->listen.socket_owner, (uid_t)-1);
    assert_int_equal(config->listen.socket_group, (gid_t)-1);
    assert_int_equal(config->listen.socket_mode, 0660);
    assert_int_equal(config->listen.backlog, 4096);
}

static void test_relay_defaults(void **state)
{
    struct place *place = *state;
    const struct relay_options *relay;

    load_valid(place, "");
    relay = &place->config->relay;
    assert_int_equal(relay->allowed_client_count, 0);
    assert_int_equal(relay->front_max_connections, 0);
    assert_int_equal(relay->idle_timeout_ms, 600000);
    assert_int_equal(relay->header_timeout_ms, 10000);
    assert_int_equal(relay->stall_timeout_ms, 0);
    assert_int_equal(relay->max_params_size, 262144);
    assert_int_equal(relay->address_count, 1);
    assert_string_equal(relay->addresses[0].text, "unix:/run/php/php-fpm.sock");
    assert_int_equal(relay->connect_timeout_ms, 5000);
    assert_int_equal(relay->response_timeout_ms, 0);
    assert_int_equal(relay->worker_max_connections, 0);
    assert_int_equal(relay->queue_timeout_ms, 10000);
    assert_int_equal(relay->max_spooled_body, 1073741824);
    assert_string_equal(relay->spool_directory, "/var/tmp");
    assert_int_equal(relay->max_response_head, 65536);
    assert_int_equal(relay->finish_timeout_ms, 10000);
    assert_false(relay->intercept);
    assert_int_equal(relay->max_request_size, 1048576);
    assert_int_equal(relay->delivery, DELIVERY_STREAM);
    assert_string_equal(relay->accel_prefix, "/velox-artifacts/");
    assert_int_equal(relay->chunk_size, 1048576);
    assert_string_equal(relay->status_path, "");
    assert_string_equal(relay->ping_path, "");
    assert_string_equal(relay->ping_response, "pong");
}

static void test_build_defaults(void **state)
{
    struct place *place = *state;
    const struct build_options *build;

    load_valid(place, "");
    build = &place->config->build;
    assert_int_equal(build->server_count, 0);
    assert_int_equal(build->build_timeout_ms, 300000);
    assert_int_equal(build->request_timeout_ms, 180000);
    assert_int_equal(build->max_concurrent_builds, 0);
    assert_int_equal(build->max_queued_builds, 1000);
    assert_int_equal(build->on_client_abort, CLIENT_ABORT_CANCEL);
    assert_int_equal(build->failure_ttl_ms, 10000);
    assert_string_equal(build->token_file, "");
    assert_string_equal(build->ca_file, "");
    assert_int_equal(build->retry.max_attempts, 3);
    assert_int_equal(build->retry.initial_delay_ms, 1000);
    assert_int_equal(build->retry.max_delay_ms, 10000);
    assert_true(build->retry.multiplier == 2.0);
    assert_true(build->retry.jitter == 0.1);
    assert_int_equal(build->artifact.roots.count, 1);
    assert_string_equal(build->artifact.roots.items[0], "/tmp");
    assert_int_equal(build->artifact.mapping_count, 0);
    assert_string_equal(build->artifact.url, "");
    assert_int_equal(build->policy.allow_modules.count, 0);
    assert_int_equal(build->policy.deny_modules.count, 0);
    assert_int_equal(build->policy.allow_platforms.count, 0);
    assert_false(build->policy.allow_replaces);
    assert_int_equal(build->policy.max_plugins, 200);
    assert_false(build->cache.enabled);
    assert_string_equal(build->cache.directory, "/var/cache/velox-sidecar");
    assert_int_equal(build->cache.max_size, 0);
    assert_int_equal(build->cache.max_entries, 0);
    assert_int_equal(build->cache.max_age_days, 0);
    assert_int_equal(build->cache.max_age_mutable_ms, 600000);
    assert_int_equal(build->cache.eviction, EVICTION_LRU);
    assert_int_equal(build->cache.cleanup_interval_ms, 3600000);
    assert_int_equal(build->cache.access_update_interval_ms, 300000);
    assert_int_equal(build->cache.scrub_interval_ms, 86400000);
}

/* Every key at another value than its default. */
static const char everything[] =
    "[sidecar]\nthreads = 3\nlog_level = debug\nlog_format = json\nlog_file = /var/log/v.log\n"
    "user = root\ngroup = 0\npid_file = /run/v.pid\nshutdown_timeout = 400s\n"
    "status_path = /status\nping_path = /ping\nping_response =;pong\nsandbox = off\n"
    "[listen]\nfastcgi = 127.0.0.1:9001,\n  unix:/run/a.sock\nscgi = [::1]:9002\n"
    "socket_owner = root\nsocket_group = 7\nsocket_mode = 600\nbacklog = 5\n"
    "allowed_clients = 10.0.0.0/8, ::1\nmax_connections = 11\nidle_timeout = 1h\n"
    "header_timeout = 1m\nstall_timeout = 2m\nmax_params_size = 64K\n"
    "[php_fpm]\naddress = 127.0.0.1:9003, 127.0.0.1:9004\nconnect_timeout = 150ms\n"
    "response_timeout = 3m\nmax_connections = 12\nqueue_timeout = 4\nmax_spooled_body = 2G\n"
    "spool_directory = /tmp/\nmax_response_head = 8K\nfinish_timeout = 1s\n"
    "[velox]\nserver_url = http://a:1, http://b/, https://c/x,\n\n  unix:/run/v.sock\n"
    "build_path = /build\nbuild_timeout = 6m\nrequest_timeout = 7m\nmax_concurrent_builds = 13\n"
    "max_queued_builds = 14\nmax_request_size = 2M\non_client_abort = finish\nfailure_ttl = 0\n"
    "token_file = /etc/passwd\nca_file = /etc/group\n"
    "[policy]\nallow_modules = github.com/*, x\ndeny_modules = y\nallow_platforms = linux/*\n"
    "allow_replaces = yes\nmax_plugins = 15\n"
    "[retry]\nmax_attempts = 16\ninitial_delay = 2s\nmax_delay = 2s\nbackoff_multiplier = 1.5\n"
    "jitter = 0\n"
    "[artifact]\nroot = /tmp/, //usr/./share//\npath_map = /a=/b, /c/=/\n"
    "artifact_url = https://v/f{path}\ndelivery = stream\naccel_prefix = /x/\nchunk_size = 3M\n"
    "[cache]\nenabled = on\ndirectory = /var/cache/x/\nmax_size_gb = 2\nmax_entries = 17\n"
    "max_age_days = 18\nmax_age_mutable = 19m\neviction_policy = fifo\ncleanup_interval = 20m\n"
    "access_update_interval = 21m\nscrub_interval = 22h\n";

static void test_sidecar_values(void **state)
{
    struct place *place = *state;
    const struct config *config;

    load_valid(place, everything);
    config = place->config;
    assert_int_equal(config->threads, 3);
    assert_int_equal(config->log_level, LOG_DEBUG);
    assert_int_equal(config->log_format, LOG_JSON);
    assert_string_equal(config->log_file, "/var/log/v.log");
    assert_true(config->has_user);
    assert_int_equal(config->user, 0);
    assert_string_equal(config->user_name, "root");
    assert_true(config->has_group);
    assert_int_equal(config->group, 0);
    assert_string_equal(config->pid_file, "/run/v.pid");
    assert_int_equal(config->shutdown_timeout_ms, 400000);
    assert_int_equal(config->sandbox, SANDBOX_OFF);
    assert_int_equal(config->listen.fastcgi_count, 2);
    assert_string_equal(config->listen.fastcgi[0].text, "127.0.0.1:9001");
    assert_string_equal(config->listen.fastcgi[1].text, "unix:/run/a.sock");
    assert_int_equal(config->listen.scgi_count, 1);
    assert_int_equal(config->listen.socket_owner, 0);
    assert_int_equal(config->listen.socket_group, 7);
    assert_int_equal(config->listen.socket_mode, 0600);
    assert_int_equal(config->listen.backlog, 5);
}

static void test_relay_values(void **state)
{
    struct place *place = *state;
    const struct relay_options *relay;

    load_valid(place, everything);
    relay = &place->config->relay;
    assert_int_equal(relay->allowed_client_count, 2);
    assert_int_equal(relay->allowed_clients[0].prefix, 104);
    assert_int_equal(relay->front_max_connections, 11);
    assert_int_equal(relay->idle_timeout_ms, 3600000);
    assert_int_equal(relay->header_timeout_ms, 60000);
    assert_int_equal(relay->stall_timeout_ms, 120000);
    assert_int_equal(relay->max_params_size, 65536);
    assert_int_equal(relay->address_count, 2);
    assert_string_equal(relay->addresses[1].text, "127.0.0.1:9004");
    assert_int_equal(relay->connect_timeout_ms, 150);
    assert_int_equal(relay->response_timeout_ms, 180000);
    assert_int_equal(relay->worker_max_connections, 12);
    assert_int_equal(relay->queue_timeout_ms, 4000);
    assert_int_equal(relay->max_spooled_body, (uint64_t)2 << 30);
    assert_string_equal(relay->spool_directory, "/tmp");
    assert_int_equal(relay->max_response_head, 8192);
    assert_int_equal(relay->finish_timeout_ms, 1000);
    assert_true(relay->intercept);
    assert_int_equal(relay->max_request_size, 2097152);
    assert_int_equal(relay->delivery, DELIVERY_STREAM);
    assert_string_equal(relay->accel_prefix, "/x/");
    assert_int_equal(relay->chunk_size, 3145728);
    assert_string_equal(relay->status_path, "/status");
    assert_string_equal(relay->ping_path, "/ping");
    assert_string_equal(relay->ping_response, ";pong");
}

static void test_servers_and_retries(void **state)
{
    struct place *place = *state;
    const struct build_options *build;

    load_valid(place, everything);
    build = &place->config->build;
    assert_int_equal(build->server_count, 4);
    assert_string_equal(build->servers[0].url, "http://a:1/build");
    assert_string_equal(build->servers[0].unix_socket, "");
    assert_string_equal(build->servers[1].url, "http://b/build");
    assert_string_equal(build->servers[2].url, "https://c/x");
    assert_string_equal(build->servers[3].url, "http://localhost/build");
    assert_string_equal(build->servers[3].unix_socket, "/run/v.sock");
    assert_int_equal(build->build_timeout_ms, 360000);
    assert_int_equal(build->request_timeout_ms, 420000);
    assert_int_equal(build->max_concurrent_builds, 13);
    assert_int_equal(build->max_queued_builds, 14);
    assert_int_equal(build->on_client_abort, CLIENT_ABORT_FINISH);
    assert_int_equal(build->failure_ttl_ms, 0);
    assert_string_equal(build->token_file, "/etc/passwd");
    assert_string_equal(build->ca_file, "/etc/group");
    assert_int_equal(build->retry.max_attempts, 16);
    assert_int_equal(build->retry.initial_delay_ms, 2000);
    assert_int_equal(build->retry.max_delay_ms, 2000);
    assert_true(build->retry.multiplier == 1.5);
    assert_true(build->retry.jitter == 0);
}

static void test_artifact_policy_and_cache_values(void **state)
{
    struct place *place = *state;
    const struct build_options *build;

    load_valid(place, everything);
    build = &place->config->build;
    assert_int_equal(build->policy.allow_modules.count, 2);
    assert_string_equal(build->policy.allow_modules.items[0], "github.com/*");
    assert_int_equal(build->policy.deny_modules.count, 1);
    assert_string_equal(build->policy.allow_platforms.items[0], "linux/*");
    assert_true(build->policy.allow_replaces);
    assert_int_equal(build->policy.max_plugins, 15);
    assert_int_equal(build->artifact.roots.count, 2);
    assert_string_equal(build->artifact.roots.items[0], "/tmp");
    assert_string_equal(build->artifact.roots.items[1], "/usr/share");
    assert_int_equal(build->artifact.mapping_count, 2);
    assert_string_equal(build->artifact.mappings[0].from, "/a");
    assert_string_equal(build->artifact.mappings[0].to, "/b");
    assert_string_equal(build->artifact.mappings[1].from, "/c");
    assert_string_equal(build->artifact.mappings[1].to, "/");
    assert_string_equal(build->artifact.url, "https://v/f{path}");
    assert_true(build->cache.enabled);
    assert_string_equal(build->cache.directory, "/var/cache/x");
    assert_int_equal(build->cache.max_size, (uint64_t)2 << 30);
    assert_int_equal(build->cache.max_entries, 17);
    assert_int_equal(build->cache.max_age_days, 18);
    assert_int_equal(build->cache.max_age_mutable_ms, 1140000);
    assert_int_equal(build->cache.eviction, EVICTION_FIFO);
    assert_int_equal(build->cache.cleanup_interval_ms, 1200000);
    assert_int_equal(build->cache.access_update_interval_ms, 1260000);
    assert_int_equal(build->cache.scrub_interval_ms, 79200000);
}

/* The mistake in each text is one, in the line and with the words that are given. */
static const struct {
    const char *text;
    const char *start;
    const char *part;
} mistakes[] = {
    { "[bogus]\n", "1: [bogus]: ", "unknown section; allowed are sidecar, listen, php_fpm" },
    { "[bogus]\na = 1\nb = 2\n", "1: [bogus]: ", "unknown section" },
    { "[]\n", "1: []: ", "unknown section" },
    { "[Listen]\n", "1: [Listen]: ", "unknown section" },
    { "\n[retry]\nbogus = 1\n", "3: [retry] bogus: ", "unknown key; allowed are max_attempts, " },
    { "[velox]\nserver_url http://127.0.0.1:9000\n", "2: [velox] server_url http: ",
      "unknown key, perhaps the = behind server_url is missing; allowed are" },
    { "[retry]\nMax_attempts = 1\n", "2: [retry] Max_attempts: ", "unknown key" },
    { "[sidecar]\nmax_attempts = 1\n", "2: [sidecar] max_attempts: ", "unknown key" },
    { "threads = 1\n", "1: threads: ", "before the first section" },
    { "[retry]\nmax_attempts = 1\n\nmax_attempts = 1\n",
      "4: [retry] max_attempts: ", "given twice, first in line 2" },
    { "[retry]\njitter = 1\n[listen]\n[retry]\njitter = 1\n",
      "5: [retry] jitter: ", "given twice" },
    { "[velox]\nserver_ulr = http://a\n", "2: [velox] server_ulr: ",
      "unknown key, perhaps server_url is meant; allowed are server_url" },
    { "[velox]\nbuild-timeout = 5m\n", "2: [velox] build-timeout: ", "perhaps build_timeout" },
    { "[velox]\nBUILD_TIMEOUT = 5m\n", "2: [velox] BUILD_TIMEOUT: ", "perhaps build_timeout" },
    { "[sidecar]\nbuild_timeout = 5m\n",
      "2: [sidecar] build_timeout: ", "unknown key here, it belongs to [velox]" },
    { "[sidecar]\nbuild_timout = 5m\n",
      "2: [sidecar] build_timout: ", "perhaps build_timeout in [velox] is meant" },
    { "[php_fpm]\nmax_conections = 5\n",
      "2: [php_fpm] max_conections: ", "perhaps max_connections is meant" },
    { "[veloks]\na = 1\n", "1: [veloks]: ", "unknown section, perhaps [velox] is meant; allowed" },
    { "[php-fpm]\na = 1\n", "1: [php-fpm]: ", "perhaps [php_fpm] is meant" },
    { "[ Retry ]\na = 1\n", "1: [ Retry ]: ", "perhaps [retry] is meant" },
    { "[retry]\n[listen\nbacklog = 1\n", "2: ", "a section without ]" },
    { "[cache]\nenabled = \"yes\"\n", "2: [cache] enabled: ", "values have no quotes" },
    { "[velox]\nserver_url = 'http://a'\n", "2: [velox] server_url: ", "values have no quotes" },
    { "[retry]\nmax_attempts = 3 # three\n",
      "2: [retry] max_attempts: ", "only ; after a space begins a comment" },
    { "[retry]\nmax_attempts = 3 // three\n", "2: [retry] max_attempts: ", "begins a comment" },
    { "[retry]\nmax_attempts = 3; three\n",
      "2: [retry] max_attempts: ", "a comment needs a space before its ;" },
    { "[velox]\nbuild_timeout = 5 m\n", "2: [velox] build_timeout: ", "without a space before" },
    { "// velox\n", "1: ", "a comment begins with ; or #" },
    { "velox {\n", "1: ", "no blocks in braces" },
    { "[listen]\nfastcgi = /run/x.sock\n",
      "2: [listen] fastcgi: ", "a socket is written unix:/path" },
    { "[listen]\nfastcgi = 127.0.0.1\n", "2: [listen] fastcgi: ", "there is no port" },
    { "[listen]\nfastcgi = *:9000\n", "2: [listen] fastcgi: ", "all addresses are 0.0.0.0" },
    { "[listen]\nfastcgi = 9000\n", "2: [listen] fastcgi: ", "127.0.0.1:9000" },
    { "[listen]\nfastcgi = tcp://a:1\n", "2: [listen] fastcgi: ", "it has no scheme" },
    { "[php_fpm]\naddress = unix:run/x\n", "2: [php_fpm] address: ", "must begin with /" },
    { "[velox]\nserver_url = 127.0.0.1:9000\n",
      "2: [velox] server_url: ", "http:// or https:// is missing" },
    { "[velox]\nserver_url = /run/v.sock\n", "2: [velox] server_url: ", "unix:/path" },
    { "[listen]\nfastcgi = unix:/a\n[php_fpm]\naddress = unix:/a\n",
      "4: [php_fpm] address: ", "our own listener in [listen] fastcgi" },
    { "[listen]\nscgi = 0.0.0.0:9000\n[php_fpm]\naddress = 127.0.0.1:9000\n",
      "4: [php_fpm] address: ", "our own listener in [listen] scgi" },
    { "[retry]\nword\n", "2: [retry]: ", "neither a section nor a key" },
    { "[retry\n", "1: ", "a section without ]" },
    { "[sidecar]\nthreads = 0\n", "2: [sidecar] threads: ", "allowed are auto and 1 to 256" },
    { "[sidecar]\nthreads = 257\n", "2: [sidecar] threads: ", "\"257\" is out of range" },
    { "[sidecar]\nthreads =\n", "2: [sidecar] threads: ", "not a number" },
    { "[sidecar]\nthreads = 2\n 3\n", "3: [sidecar] threads: ", "only lists may" },
    { "[sidecar]\nthreads = 2\n\n ; no\n  log_level = info\n",
      "5: [sidecar] threads: ", "begin a key at the start of its line" },
    { "[sidecar]\nlog_level = loud\n",
      "2: [sidecar] log_level: ", "allowed are debug, info, warn, error" },
    { "[sidecar]\nlog_format = xml\n", "2: [sidecar] log_format: ", "allowed are text, json" },
    { "[sidecar]\nlog_file = v.log\n", "2: [sidecar] log_file: ", "stderr, syslog and a path" },
    { "[sidecar]\nuser = no-such-user\n", "2: [sidecar] user: ", "no user \"no-such-user\"" },
    { "[sidecar]\ngroup = no-such-group\n", "2: [sidecar] group: ", "no group" },
    { "[sidecar]\npid_file = v.pid\n", "2: [sidecar] pid_file: ", "not absolute" },
    { "[sidecar]\nshutdown_timeout = 1x\n",
      "2: [sidecar] shutdown_timeout: ", "not a duration; allowed are 0 to 365d" },
    { "[sidecar]\nshutdown_timeout = 366d\n", "2: [sidecar] shutdown_timeout: ", "out of range" },
    { "[sidecar]\nshutdown_timeout = 31536000001ms\n",
      "2: [sidecar] shutdown_timeout: ", "out of range" },
    { "[sidecar]\nstatus_path = status\n", "2: [sidecar] status_path: ", "does not begin with /" },
    { "[sidecar]\nping_path = ping\n", "2: [sidecar] ping_path: ", "does not begin with /" },
    { "[sidecar]\nstatus_path = /s\nping_path = /s\n",
      "3: [sidecar] ping_path: ", "two different paths" },
    { "[sidecar]\nsandbox = yes\n", "2: [sidecar] sandbox: ", "allowed are auto, on, off" },
    { "[listen]\nfastcgi = 9000\n",
      "2: [listen] fastcgi: ", "allowed are unix:/path and host:port" },
    { "[listen]\nfastcgi = unix:a, unix:/b\n", "2: [listen] fastcgi: ", "\"unix:a\"" },
    { "[listen]\nfastcgi = unix:/a,\n\n ; x\n unix:b\n", "5: [listen] fastcgi: ", "\"unix:b\"" },
    { "[listen]\nfastcgi = unix:/a,,unix:/b\n", "2: [listen] fastcgi: ", "between two commas" },
    { "[listen]\nfastcgi =\n", "2: [listen] fastcgi: ", "nothing to listen on" },
    { "[listen]\nfastcgi = unix:/a, unix:/a\n", "2: [listen] fastcgi: ", "given twice" },
    { "[listen]\nfastcgi = unix:/a\nscgi = unix:/a\n", "3: [listen] scgi: ", "given twice" },
    { "[listen]\nfastcgi = no..such..host:1\n", "2: [listen] fastcgi: ", "no such host" },
    { "[listen]\nsocket_owner = no-such-user\n", "2: [listen] socket_owner: ", "no user" },
    { "[listen]\nsocket_group = no-such-group\n", "2: [listen] socket_group: ", "no group" },
    { "[listen]\nsocket_mode = 0888\n", "2: [listen] socket_mode: ", "not octal" },
    { "[listen]\nsocket_mode = 1777\n", "2: [listen] socket_mode: ", "from 0 to 0777" },
    { "[listen]\nbacklog = 0\n", "2: [listen] backlog: ", "out of range" },
    { "[listen]\nbacklog = -1\n", "2: [listen] backlog: ", "not a number" },
    { "[listen]\nallowed_clients = 10.0.0.0/33\n",
      "2: [listen] allowed_clients: ", "not a network" },
    { "[listen]\nmax_params_size = 2T\n", "2: [listen] max_params_size: ", "allowed are 0 to 1T" },
    { "[listen]\nmax_params_size = 1q\n", "2: [listen] max_params_size: ", "not a size" },
    { "[php_fpm]\naddress =\n", "2: [php_fpm] address: ", "at least one address" },
    { "[php_fpm]\nspool_directory = tmp\n", "2: [php_fpm] spool_directory: ", "not an absolute" },
    { "[php_fpm]\nspool_directory =\n", "2: [php_fpm] spool_directory: ", "not an absolute" },
    { "[velox]\nserver_url = ftp://x\n",
      "2: [velox] server_url: ", "http://host:port, https://host:port and unix:/path" },
    { "[velox]\nserver_url = x:80\n", "2: [velox] server_url: ", "not the URL" },
    { "[velox]\nserver_url = http://\n", "2: [velox] server_url: ", "not the URL" },
    { "[velox]\nserver_url = http:///x\n", "2: [velox] server_url: ", "not the URL" },
    { "[velox]\nserver_url = http://a:0\n", "2: [velox] server_url: ", "not the URL" },
    { "[velox]\nserver_url = http://a:99999\n", "2: [velox] server_url: ", "not the URL" },
    { "[velox]\nserver_url = http://a:\n", "2: [velox] server_url: ", "not the URL" },
    { "[velox]\nserver_url = http://u:p@a\n", "2: [velox] server_url: ", "not the URL" },
    { "[velox]\nserver_url = http://a/?q\n", "2: [velox] server_url: ", "not the URL" },
    { "[velox]\nserver_url = http://[::1\n", "2: [velox] server_url: ", "not the URL" },
    { "[velox]\nserver_url = http://[::1]x\n", "2: [velox] server_url: ", "not the URL" },
    { "[velox]\nserver_url = http://a\n  http://b c\n", "3: [velox] server_url: ", "not the URL" },
    { "[velox]\nserver_url = unix:x\n", "2: [velox] server_url: ", "not the URL" },
    { "[velox]\nbuild_path = x\n", "2: [velox] build_path: ", "not the path of a URL" },
    { "[velox]\nbuild_path =\n", "2: [velox] build_path: ", "not the path of a URL" },
    { "[velox]\non_client_abort = stop\n", "2: [velox] on_client_abort: ", "cancel, finish" },
    { "[velox]\ntoken_file = token\n", "2: [velox] token_file: ", "not absolute" },
    { "[velox]\nca_file = ca.pem\n", "2: [velox] ca_file: ", "not absolute" },
    { "[velox]\nmax_queued_builds = many\n", "2: [velox] max_queued_builds: ", "not a number" },
    { "[policy]\nallow_replaces = maybe\n", "2: [policy] allow_replaces: ", "yes and no" },
    { "[policy]\nallow_modules = a b\n", "2: [policy] allow_modules: ", "not a pattern" },
    { "[retry]\nmax_attempts = 0\n", "2: [retry] max_attempts: ", "allowed are 1 to 100" },
    { "[retry]\nmax_attempts = 101\n", "2: [retry] max_attempts: ", "allowed are 1 to 100" },
    { "[retry]\nbackoff_multiplier = 0.9\n", "2: [retry] backoff_multiplier: ", "1 to 100" },
    { "[retry]\nbackoff_multiplier = 100.1\n", "2: [retry] backoff_multiplier: ", "1 to 100" },
    { "[retry]\njitter = 1.1\n", "2: [retry] jitter: ", "allowed are 0 to 1" },
    { "[retry]\njitter = -0.1\n", "2: [retry] jitter: ", "not a number" },
    { "[retry]\nmax_delay = 500ms\n", "2: [retry] max_delay: ", "is under initial_delay (1s)" },
    { "[retry]\ninitial_delay = 11s\n", "2: [retry] initial_delay: ", "max_delay (10s) is under" },
    { "[artifact]\nroot = builds\n", "2: [artifact] root: ", "not an absolute folder" },
    { "[artifact]\nroot = /tmp/../etc\n", "2: [artifact] root: ", "without .." },
    { "[artifact]\nroot =\n", "2: [artifact] root: ", "at least one folder" },
    { "[artifact]\npath_map = /a\n", "2: [artifact] path_map: ", "allowed is FROM=TO" },
    { "[artifact]\npath_map = a=/b\n", "2: [artifact] path_map: ", "allowed is FROM=TO" },
    { "[artifact]\npath_map = /a=b\n", "2: [artifact] path_map: ", "allowed is FROM=TO" },
    { "[artifact]\npath_map = /a=/b, /a/=/c\n", "2: [artifact] path_map: ", "mapped twice" },
    { "[artifact]\nartifact_url = http://x/\n", "2: [artifact] artifact_url: ", "with {path}" },
    { "[artifact]\nartifact_url = x{path}\n", "2: [artifact] artifact_url: ", "with {path}" },
    { "[artifact]\nartifact_url = http://{path}\n", "2: [artifact] artifact_url: ", "with {path}" },
    { "[artifact]\nartifact_url = http://x:1{y}/{path}\n",
      "2: [artifact] artifact_url: ", "with {path}" },
    { "[artifact]\nartifact_url = http://u:p@x/{path}\n",
      "2: [artifact] artifact_url: ", "with {path}" },
    { "[artifact]\nartifact_url = ftp://x/{path}\n",
      "2: [artifact] artifact_url: ", "with {path}" },
    { "[artifact]\ndelivery = sendfile\n", "2: [artifact] delivery: ", "stream, x-accel-redirect" },
    { "[artifact]\ndelivery = x-accel-redirect\nroot = /tmp, /usr\n",
      "2: [artifact] delivery: ", "several roots" },
    { "[cache]\nenabled = 1\n[artifact]\ndelivery = x-accel-redirect\n",
      "4: [artifact] delivery: ", "with the cache on" },
    { "[artifact]\naccel_prefix = /x\n", "2: [artifact] accel_prefix: ", "begins and ends with /" },
    { "[cache]\nmax_size_gb = 1025\n", "2: [cache] max_size_gb: ", "allowed are 0 to 1024" },
    { "[cache]\nmax_size = 1G\nmax_size_gb = 1\n", "3: [cache] max_size_gb: ", "given twice" },
    { "[cache]\neviction_policy = random\n", "2: [cache] eviction_policy: ", "lru, lfu, fifo" },
    { "[cache]\ndirectory = cache\n", "2: [cache] directory: ", "not an absolute folder" },
};

static void test_mistakes(void **state)
{
    struct place *place = *state;

    for (size_t i = 0; i < COUNT(mistakes); i++) {
        if (load(place, mistakes[i].text) != -EINVAL || place->mistakes != 1) {
            fail_msg("%s%u mistakes:\n%s", mistakes[i].text, place->mistakes, place->messages);
        }
        assert_message(place, mistakes[i].start, mistakes[i].part);
        assert_int_equal(count_lines(place->messages), place->mistakes + place->warnings);
    }
}

static void test_every_mistake_is_told(void **state)
{
    struct place *place = *state;

    assert_int_equal(load(place, "[sidecar]\nthreads = x\nbogus = 1\n[no]\n[retry]\njitter = 2\n"),
                     -EINVAL);
    assert_int_equal(place->mistakes, 4);
    assert_message(place, "2: [sidecar] threads: ", "");
    assert_message(place, "3: [sidecar] bogus: ", "");
    assert_message(place, "4: [no]: ", "");
    assert_message(place, "6: [retry] jitter: ", "");
}

static void test_files_that_cannot_be_read(void **state)
{
    struct place *place = *state;

    assert_int_equal(load_path(place, "/no/such/file.ini"), -EINVAL);
    assert_int_equal(place->mistakes, 1);
    assert_string_equal(place->messages,
                        "/no/such/file.ini: cannot be read: No such file or directory\n");
    assert_int_equal(load_path(place, place->folder), -EINVAL);
    assert_non_null(strstr(place->messages, "Is a directory"));
}

static void test_hostile_files(void **state)
{
    struct place *place = *state;
    size_t length = (size_t)5 << 20;
    char *bytes = malloc(length);

    assert_non_null(bytes);
    memset(bytes, 'x', length);
    write_file(place, bytes, length);
    assert_int_equal(load_path(place, place->path), -EINVAL);
    assert_non_null(strstr(place->messages, "at most 4M"));
    memcpy(bytes, "[retry]\n", 8);
    write_file(place, bytes, 1 << 20);
    assert_int_equal(load_path(place, place->path), -EINVAL);
    assert_int_equal(place->mistakes, 1);
    assert_message(place, "2: [retry]: ", "go on in an indented line");
    free(bytes);
    write_file(place, "[retry]\njitter = \0001\n", 19);
    assert_int_equal(load_path(place, place->path), -EINVAL);
    assert_message(place, "2: [retry]: ", "control character");
    load_valid(place, "\xef\xbb\xbf[retry]\r\njitter = 1\r\nmax_attempts = 7");
    assert_int_equal(place->config->build.retry.max_attempts, 7);
    assert_true(place->config->build.retry.jitter == 1);
}

static void test_a_value_that_is_too_long_for_a_message(void **state)
{
    struct place *place = *state;
    char text[256] = "[listen]\nfastcgi = ";

    memset(text + 19, 'a', 170);
    assert_int_equal(load(place, text), -EINVAL);
    assert_message(place, "2: [listen] fastcgi: ", "too long");
}

/* The warning in each text; others may be there too. */
static const struct {
    const char *text;
    const char *start;
    const char *part;
} warnings[] = {
    { "[velox]\nserver_url =\n", "2: [velox] server_url: warning: ", "only relayed" },
    { "[velox]\nrequest_timeout = 10s\n",
      "2: [velox] request_timeout: warning: ", "cancelled and begun again" },
    { "[velox]\nbuild_timeout = 10m\n",
      "2: [velox] build_timeout: warning: ", "cancelled and begun again" },
    { "[sidecar]\nshutdown_timeout = 10s\n",
      "2: [sidecar] shutdown_timeout: warning: ", "cuts builds" },
    { "[listen]\nsocket_mode = 0666\n", "2: [listen] socket_mode: warning: ", "every user" },
    { "[artifact]\nroot = /no/such/folder\n", "2: [artifact] root: warning: ", "cannot be found" },
    { "[sidecar]\nlog_file = /no/such/log\n",
      "2: [sidecar] log_file: warning: ", "the folder /no/such cannot be found" },
    { "[sidecar]\npid_file = /dev/null/pid\n", "2: [sidecar] pid_file: warning: ", "/dev/null" },
    { "[listen]\nfastcgi = unix:/no/such/socket\n",
      "2: [listen] fastcgi: warning: ", "the folder /no/such cannot be found" },
    { "[listen]\nscgi = unix:/no/such/socket\n",
      "2: [listen] scgi: warning: ", "the folder /no/such cannot be found" },
    { "[artifact]\nroot = /etc/passwd\n", "2: [artifact] root: warning: ", "not a folder" },
    { "[artifact]\nroot = /\n", "2: [artifact] root: warning: ", "any file of this machine" },
    { "[cache]\nenabled = on\ndirectory = /tmp/c\n",
      "3: [cache] directory: warning: ", "lies in the artifact root /tmp" },
    { "[listen]\nfastcgi = 0.0.0.0:9000\n",
      "2: [listen] fastcgi: warning: ", "only clients on this machine" },
    { "[listen]\nfastcgi = 0.0.0.0:9000\nallowed_clients = 0.0.0.0/0\n",
      "3: [listen] allowed_clients: warning: ", "every address" },
    { "[velox]\nserver_url = http://a\ntoken_file = /no/such\n",
      "3: [velox] token_file: warning: ", "cannot be found" },
    { "[velox]\nserver_url = https://a\nca_file = /etc/passwd\n",
      "3: [velox] ca_file: warning: ", "no certificate in it" },
    { "[policy]\nallow_platforms = linux/*, darwin\n",
      "2: [policy] allow_platforms: warning: ", "write os/arch, such as darwin/*" },
    { "[artifact]\nroot = /tmp /var\n", "2: [artifact] root: warning: ", "separated by commas" },
    { "[cache]\nenabled = on\ndirectory = /tmp\n[artifact]\nroot = /tmp/built\n",
      "3: [cache] directory: warning: ", "the artifact root /tmp/built lies in /tmp" },
    { "[cache]\nenabled = on\ndirectory = /no/such\n",
      "3: [cache] directory: warning: ", "make the folder" },
    { "[php_fpm]\nspool_directory = /no/such\n",
      "2: [php_fpm] spool_directory: warning: ", "cannot be found" },
    { "[velox]\nserver_url = https://a\nca_file = /no/such\n",
      "3: [velox] ca_file: warning: ", "name a file that is there" },
    { "[velox]\nserver_url = http://a\nca_file = /etc/passwd\n",
      "3: [velox] ca_file: warning: ", "has no effect: no server_url begins with https" },
    { "[velox]\nserver_url = http://a\ntoken_file = /etc/passwd\n",
      "3: [velox] token_file: warning: ", "chmod o-r /etc/passwd" },
    { "[velox]\nserver_url = unix:/v, http://velox.example:9000\ntoken_file = /etc/passwd\n",
      "2: [velox] server_url: warning: ", "in clear text" },
    { "[velox]\nmax_queued_builds = 5\n",
      "2: [velox] max_queued_builds: warning: ", "has no effect" },
    { "[php_fpm]\nqueue_timeout = 5s\n", "2: [php_fpm] queue_timeout: warning: ", "max_conn" },
    { "[listen]\nallowed_clients = 10.0.0.1\n",
      "2: [listen] allowed_clients: warning: ", "there is no TCP listener" },
    { "[listen]\nfastcgi = 127.0.0.1:9000\nsocket_mode = 0600\n",
      "3: [listen] socket_mode: warning: ", "there is no unix socket" },
    { "[listen]\nidle_timeout = 60s\n", "2: [listen] idle_timeout: warning: ", "not over the 60s" },
    { "[artifact]\naccel_prefix = /a/\n", "2: [artifact] accel_prefix: warning: ", "stream" },
    { "[retry]\nmax_delay = 5m\n", "2: [retry] max_delay: warning: ", "not under build_timeout" },
    { "[sidecar]\nuser = root\n", "2: [sidecar] user: warning: ", "runs as root" },
};

static void test_warnings(void **state)
{
    struct place *place = *state;

    for (size_t i = 0; i < COUNT(warnings); i++) {
        load_valid(place, warnings[i].text);
        assert_true(place->warnings > 0);
        assert_message(place, warnings[i].start, warnings[i].part);
        assert_int_equal(count_lines(place->messages), place->warnings);
    }
}

static void test_no_needless_warnings(void **state)
{
    struct place *place = *state;

    load_valid(place, "[velox]\nserver_url = http://127.0.0.1:8080\n[listen]\n"
                      "fastcgi = 127.0.0.1:9000\n[sidecar]\nstatus_path =\n[cache]\nenabled = off\n"
                      "max_size = 0K\nscrub_interval = 24h\n");
    if (place->warnings > (geteuid() == 0 ? 1 : 0)) {
        fail_msg("%s", place->messages);
    }
}

/* Reading what was printed and printing it again must give the same text. */
static void print_and_read_again(struct place *place)
{
    char *first = NULL;
    char *second = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&first, &length);

    assert_non_null(out);
    assert_int_equal(config_print(place->config, out), 0);
    fclose(out);
    load_valid(place, first);
    out = open_memstream(&second, &length);
    assert_non_null(out);
    assert_int_equal(config_print(place->config, out), 0);
    fclose(out);
    assert_string_equal(first, second);
    for (size_t i = 0; i < config_key_count(); i++) {
        char start[64];

        snprintf(start, sizeof(start), "\n%s =", config_key_at(i)->name);
        assert_int_equal(strstr(first, start) != NULL, config_key_at(i)->kind != CONFIG_GIGABYTES);
    }
    free(first);
    free(second);
}

static void test_printing_round_trip(void **state)
{
    struct place *place = *state;

    load_valid(place, "");
    print_and_read_again(place);
    assert_int_equal(place->config->relay.idle_timeout_ms, 600000);
    load_valid(place, everything);
    print_and_read_again(place);
    assert_int_equal(place->config->threads, 3);
    assert_string_equal(place->config->relay.ping_response, ";pong");
    assert_int_equal(place->config->build.server_count, 4);
    assert_string_equal(place->config->build.servers[3].url, "http://localhost/build");
    assert_int_equal(place->config->build.cache.max_size, (uint64_t)2 << 30);
}

static void test_printing_long_lists(void **state)
{
    struct place *place = *state;
    char text[1024] = "[policy]\nallow_modules =\n ";
    const struct string_list *modules;

    /* One item that fills its line, one that leaves no room for a comma, short ones. */
    memset(text + 26, 'a', 197);
    strcpy(text + 223, "\n ");
    memset(text + 225, 'b', 196);
    strcpy(text + 421, ",\n c, d\n");
    load_valid(place, text);
    print_and_read_again(place);
    modules = &place->config->build.policy.allow_modules;
    assert_int_equal(modules->count, 4);
    assert_int_equal(strlen(modules->items[0]), 197);
    assert_int_equal(strlen(modules->items[1]), 196);
    assert_string_equal(modules->items[3], "d");
}

/* config/velox-sidecar.ini: every key, with its default and a comment, and valid as it is. */
static void test_the_shipped_file(void **state)
{
    struct place *place = *state;
    const char *folder = getenv("srcdir");
    char path[512];
    char line[512];
    char previous[512] = "";
    char section[64] = "";
    size_t seen = 0;
    FILE *file;

    snprintf(path, sizeof(path), "%s/config/velox-sidecar.ini", folder == NULL ? "." : folder);
    assert_int_equal(load_path(place, path), 0);
    file = fopen(path, "re");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file) != NULL) {
        char name[64] = "";

        line[strcspn(line, "\n")] = '\0';
        if (sscanf(line, "[%63[a-z_]]", section) != 1 && sscanf(line, ";%63[a-z_] =", name) == 1) {
            const struct config_key *key = config_key_find(section, name);
            char expected[128];

            if (key == NULL) {
                fail_msg("[%s] %s is no key", section, name);
            } else {
                snprintf(expected, sizeof(expected), ";%s =%s%s", name,
                         key->standard[0] == '\0' ? "" : " ", key->standard);
                assert_string_equal(line, expected);
                assert_memory_equal(previous, "; ", 2);
                seen++;
            }
        }
        strcpy(previous, line);
    }
    fclose(file);
    /* All but the plugin's name for max_size. */
    assert_int_equal(seen, config_key_count() - 1);
}

static void test_groups_follow_the_user(void **state)
{
    struct place *place = *state;
    struct group *group;

    load_valid(place, "[sidecar]\nuser = 0\n");
    assert_string_equal(place->config->user_name, "root");
    assert_int_equal(place->config->group, 0);
    assert_false(place->config->has_group);
    group = getgrgid(1);
    if (group != NULL) {
        char text[128];

        snprintf(text, sizeof(text), "[sidecar]\nuser = root\ngroup = %s\n", group->gr_name);
        load_valid(place, text);
        assert_true(place->config->has_group);
        assert_int_equal(place->config->group, 1);
    }
}

#define config_test(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        config_test(test_defaults),
        config_test(test_relay_defaults),
        config_test(test_build_defaults),
        config_test(test_sidecar_values),
        config_test(test_relay_values),
        config_test(test_servers_and_retries),
        config_test(test_artifact_policy_and_cache_values),
        config_test(test_mistakes),
        config_test(test_every_mistake_is_told),
        config_test(test_files_that_cannot_be_read),
        config_test(test_hostile_files),
        config_test(test_a_value_that_is_too_long_for_a_message),
        config_test(test_warnings),
        config_test(test_no_needless_warnings),
        config_test(test_printing_round_trip),
        config_test(test_printing_long_lists),
        config_test(test_the_shipped_file),
        config_test(test_groups_follow_the_user),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
