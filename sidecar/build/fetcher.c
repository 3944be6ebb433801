/* SPDX-License-Identifier: MIT */
/* The life of what fetches share. It must never go before the last fetch. */
#include "sidecar/build/fetcher.h"

#include <errno.h>
#include <stdlib.h>

#include "sidecar/base/percent.h"
#include "sidecar/build/fetch.h"
#include "sidecar/build/velox_files.h"

#define CA_FILE_MAX_BYTES (16u * 1024u * 1024u)
/* How many connections wait for the next fetch. */
#define KEPT_CONNECTIONS 2

int fetcher_make_url(const struct fetcher *fetcher, struct span path, struct buf *url)
{
    const char *template = fetcher->options->artifact.url;
    static const char mark[] = "{path}";
    const char *at;
    int error = 0;

    while (error == 0 && (at = strstr(template, mark)) != NULL) {
        error = buf_append(url, template, (size_t)(at - template));
        if (error == 0) {
            error = percent_append_path(url, path);
        }
        template = at + sizeof(mark) - 1;
    }
    if (error == 0) {
        error = buf_append_string(url, template);
    }
    return error != 0 ? error : buf_append(url, "", 1);
}

int fetcher_new(struct fetcher **fetcher, struct loop *loop, const struct build_options *options,
                struct log *log)
{
    struct fetcher *made;
    int error;

    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        return -ENOMEM;
    }
    made = calloc(1, sizeof(*made));
    if (made == NULL) {
        curl_global_cleanup();
        return -ENOMEM;
    }
    made->loop = loop;
    made->options = options;
    made->log = log;
    list_init(&made->fetches);
    buf_init(&made->ca, CA_FILE_MAX_BYTES);
    error = curl_loop_start(&made->curl_loop, loop, KEPT_CONNECTIONS, fetch_on_progress);
    if (error == 0 && options->ca_file[0] != '\0') {
        error = velox_read_file(log, "ca_file", options->ca_file, &made->ca);
    }
    if (error < 0) {
        fetcher_free(made);
        return error;
    }
    *fetcher = made;
    return 0;
}

void fetcher_stop(struct fetcher *fetcher)
{
    while (!list_is_empty(&fetcher->fetches)) {
        fetch_cancel(fetch_of_link(fetcher->fetches.next));
    }
}

void fetcher_free(struct fetcher *fetcher)
{
    if (fetcher == NULL) {
        return;
    }
    curl_loop_stop(&fetcher->curl_loop);
    buf_deinit(&fetcher->ca);
    free(fetcher);
    curl_global_cleanup();
}
