/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BUILD_ARTIFACT_H
#define SIDECAR_BUILD_ARTIFACT_H

/*
 * A built file as an open descriptor. Whoever holds a struct artifact with fd >= 0 owns the
 * descriptor; removal or renaming of the file after the opening does no harm.
 */

#include <limits.h>
#include <time.h>

#include "fcgi/span.h"
#include "sidecar/build/options.h"

#define ARTIFACT_TAG_SIZE 80

struct artifact {
    int fd; /* -1: none */
    uint64_t size_bytes;
    struct timespec modified;
    /* What was fetched from artifact_url. */
    bool is_fetched;              /* it has no name on this machine */
    bool is_stream;               /* fd is a pipe that is being filled: the file's bytes in order */
    bool lacks_time;              /* the source does not tell; modified is 0 */
    char etag[ARTIFACT_TAG_SIZE]; /* strong, with quotes: the source's, or the hash of what is in
                                     the cache; empty: none */
};

enum artifact_result {
    ARTIFACT_OPENED,
    ARTIFACT_BAD_PATH,     /* not absolute, empty, too long, with a NUL or with a ".." component */
    ARTIFACT_OUTSIDE_ROOT, /* in no root, or a link leads out of it */
    ARTIFACT_MISSING,      /* no such file */
    ARTIFACT_UNREADABLE,   /* no permission, no descriptors left, an I/O error */
    ARTIFACT_NOT_REGULAR,  /* a folder, FIFO, device or socket */
};

/*
 * Opens the file that Velox named, after path_map, below one of the roots: the kernel itself checks
 * that no component leads out of the root (openat2 with RESOLVE_BENEATH and RESOLVE_NO_MAGICLINKS);
 * where it lacks openat2, a walk that opens one component after the other with O_NOFOLLOW does.
 * Only ARTIFACT_OPENED writes *artifact, whose descriptor then belongs to the caller. *error is the
 * errno of a refusal that had one, else 0.
 */
enum artifact_result artifact_open(const struct artifact_options *options, struct span path,
                                   struct artifact *artifact, int *error);

/*
 * The text of a path that begins with a slash, without "//" and "/./"; a slash at its end asks for
 * a folder. False where it breaks the rules that ARTIFACT_BAD_PATH stands for.
 */
bool artifact_path_text(struct span path, char text[PATH_MAX]);

/* How the kernel is asked; tests choose, artifact_open takes openat2 where it is. */
enum artifact_walk { ARTIFACT_BY_KERNEL, ARTIFACT_BY_COMPONENT };
enum artifact_result artifact_open_by(enum artifact_walk walk,
                                      const struct artifact_options *options, struct span path,
                                      struct artifact *artifact, int *error);

/* Closes the descriptor, if there is one. */
void artifact_close(struct artifact *artifact);

/* What a result means, for the log: "outside of every root". Static. */
const char *artifact_result_text(enum artifact_result result);

#endif
