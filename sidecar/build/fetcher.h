/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_FETCHER_H
#define SIDECAR_BUILD_FETCHER_H

/* What all fetches share: libcurl's transfers on the loop, the authorities, the options. */

#include "sidecar/base/buf.h"
#include "sidecar/base/log.h"
#include "sidecar/build/curl_loop.h"
#include "sidecar/build/options.h"

struct fetcher {
    struct loop *loop; /* borrowed, as are options and log */
    const struct build_options *options;
    struct log *log;
    struct curl_loop curl_loop;
    struct buf ca;
    struct list fetches; /* struct fetch, those without an owner too */
};

/* Borrows everything, which must outlive it. Reads ca_file now. 0, -ENOMEM, or -EINVAL where that
 * cannot be read, which is logged. */
int fetcher_new(struct fetcher **fetcher, struct loop *loop, const struct build_options *options,
                struct log *log);
/* Appends artifact_url with the path, encoded, in place of each {path}, and a NUL. 0 or -errno. */
int fetcher_make_url(const struct fetcher *fetcher, struct span path, struct buf *url);

/* Ends all fetches: the readers of their pipes see an end before the file's. */
void fetcher_stop(struct fetcher *fetcher);
/* After fetcher_stop. Does nothing with NULL. */
void fetcher_free(struct fetcher *fetcher);

#endif
