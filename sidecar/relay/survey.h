/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_RELAY_SURVEY_H
#define SIDECAR_RELAY_SURVEY_H

/*
 * What a full status page shows of the exchanges of all relay threads. A relay that is asked for
 * one sends every other relay a message, and each sends it back with a row for each of its
 * exchanges: no lock, no pointer into another thread's objects. One that does not answer within a
 * second is left out.
 *
 * A round of questions serves all who had asked when it began; who asks meanwhile gets the next
 * one. So a relay is never asked twice at once by the same relay, however many clients there are.
 */

#include "sidecar/io/mailbox.h"
#include "sidecar/relay/status_page.h"

struct relay;

/*
 * What a page shows at most: so many rows and bytes of their texts, of which each thread has an
 * equal share but never less than its own minimum; and so much of a URI. The oldest connections of
 * each thread come first.
 */
#define SURVEY_ROWS_MAX 4096
#define SURVEY_ROWS_MIN 256
#define SURVEY_TEXTS_MAX ((size_t)SURVEY_ROWS_MAX * 320)
#define SURVEY_TEXTS_MIN ((size_t)SURVEY_ROWS_MIN * 320)
#define SURVEY_URI_MAX 256

/* The rows of one relay; also the question, while it has none. */
struct survey_sheet {
    struct mail mail; /* first */
    unsigned asker;   /* the index of its relay */
    uint64_t number;  /* of the asker's round */
    bool is_answer;
    uint64_t left_out;
    struct buf rows; /* of struct survey_row */
    struct buf texts;
};

struct survey_round;

/* One who waits for a round or reads from it. */
struct survey_reader {
    struct list link;           /* while waiting */
    struct task *task;          /* deferred when the rows are there */
    struct survey_round *round; /* NULL: its round has not begun */
    size_t sheet;               /* the next row */
    size_t row;
};

/* A relay's part, as asker and as asked. */
struct survey {
    struct relay *relay;
    struct status_board *board; /* NULL: there is no status page */
    unsigned index;
    struct mailbox mailbox;
    struct timer timer;
    struct task next; /* begins the next round */
    uint64_t number;
    struct survey_round *round; /* under way; NULL: none */
    struct survey_round *last;  /* the latest that has ended, while somebody reads it */
    unsigned round_count;       /* that exist */
    struct list waiting;        /* for the next round */
};

/* 0 or -errno. */
int survey_init(struct survey *survey, struct relay *relay, struct status_board *board,
                unsigned index);
/* No other relay's thread may be running any more, and nobody read. */
void survey_deinit(struct survey *survey);

/* Joins the next round; task, borrowed, is deferred when its rows are there or cannot be had. */
void survey_join(struct survey *survey, struct survey_reader *reader, struct task *task);
/* Gives up waiting or reading. A zeroed reader has left. */
void survey_leave(struct survey_reader *reader);

enum survey_state {
    SURVEY_WAITING,
    SURVEY_READY,
    SURVEY_FAILED, /* out of memory */
};

enum survey_state survey_state(const struct survey_reader *reader);
/* Of a reader that is ready. */
void survey_listing(const struct survey_reader *reader, struct status_listing *listing);
/* The next row; its texts are borrowed until the reader leaves. False: that was the last one. */
bool survey_next(struct survey_reader *reader, struct status_row *row);

#endif
