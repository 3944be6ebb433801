/* SPDX-License-Identifier: MIT */
/*
 * Asking all relays for their exchanges. Must never make one thread wait for another, nor hold more
 * than a few rounds, whoever reads how slowly.
 */
#include "sidecar/relay/survey.h"

#include <errno.h>
#include <stdlib.h>

#include "sidecar/relay/exchange.h"

#define ANSWER_MS 1000
/* Rounds that a relay holds for slow readers; when there are more, a newcomer gets the latest. */
#define ROUNDS_MAX 8
#define METHOD_MAX 32

struct survey_row {
    const char *state;
    uint64_t age_ms;
    uint64_t bytes;
    size_t text; /* where its texts begin: request, then build */
    size_t request_length;
    size_t build_length;
};

struct survey_round {
    struct survey *survey;
    unsigned readers; /* and one more while it is under way */
    uint64_t number;
    size_t missing; /* answers that are still to come */
    size_t silent;
    struct list joined; /* readers that wait for it */
    size_t sheet_count;
    struct survey_sheet *sheets[];
};

static size_t share(size_t whole, size_t sharers, size_t min)
{
    size_t part = (whole + sharers - 1) / sharers;

    return part < min ? min : part;
}

static struct survey_sheet *sheet_new(const struct survey *survey)
{
    size_t relays = survey->board->survey_count;
    struct survey_sheet *sheet = calloc(1, sizeof(*sheet));

    if (sheet == NULL) {
        return NULL;
    }
    sheet->asker = survey->index;
    sheet->number = survey->number;
    buf_init(&sheet->rows,
             share(SURVEY_ROWS_MAX, relays, SURVEY_ROWS_MIN) * sizeof(struct survey_row));
    buf_init(&sheet->texts, share(SURVEY_TEXTS_MAX, relays, SURVEY_TEXTS_MIN));
    return sheet;
}

static void sheet_free(struct survey_sheet *sheet)
{
    buf_deinit(&sheet->rows);
    buf_deinit(&sheet->texts);
    free(sheet);
}

static int add_row(struct survey_sheet *sheet, const struct exchange_view *view)
{
    struct survey_row row = {
        .state = view->state,
        .age_ms = view->age_ms,
        .bytes = view->bytes,
        .text = buf_length(&sheet->texts),
    };
    int error = status_visible(view->method, METHOD_MAX, &sheet->texts);

    if (error == 0) {
        error = buf_append_string(&sheet->texts, view->uri.len > 0      ? " "
                                                 : view->method.len > 0 ? ""
                                                                        : "-");
    }
    if (error == 0) {
        error = status_visible(view->uri, SURVEY_URI_MAX, &sheet->texts);
    }
    row.request_length = buf_length(&sheet->texts) - row.text;
    if (error == 0) {
        error = view->build.len > 0
                    ? status_visible(view->build, BUILD_REQUEST_ID_MAX, &sheet->texts)
                    : buf_append_string(&sheet->texts, "-");
    }
    row.build_length = buf_length(&sheet->texts) - row.text - row.request_length;
    return error != 0 ? error : buf_append(&sheet->rows, &row, sizeof(row));
}

static void fill(struct survey_sheet *sheet, struct relay *relay)
{
    struct list *link;
    struct list *after;
    int error = 0;

    list_for_each (link, after, &relay->exchanges) {
        struct exchange_view view;

        if (!exchange_look(list_entry(link, struct exchange, link), &view)) {
            continue;
        }
        if (error == 0) {
            error = add_row(sheet, &view);
        }
        sheet->left_out += error != 0;
    }
}

static void round_free(struct survey_round *round)
{
    struct survey *survey = round->survey;

    for (size_t i = 0; i < round->sheet_count; i++) {
        sheet_free(round->sheets[i]);
    }
    if (survey->last == round) {
        survey->last = NULL;
    }
    survey->round_count--;
    free(round);
}

static void round_release(struct survey_round *round)
{
    round->readers--;
    if (round->readers == 0) {
        round_free(round);
    }
}

static void wake(struct survey *survey, struct list *readers)
{
    struct list *link;

    while ((link = list_shift(readers)) != NULL) {
        task_defer(list_entry(link, struct survey_reader, link)->task, survey->relay->loop);
    }
}

static void end_round(struct survey *survey)
{
    struct survey_round *round = survey->round;

    timer_stop(&survey->timer);
    round->silent += round->missing;
    round->missing = 0;
    survey->round = NULL;
    survey->last = round;
    wake(survey, &round->joined);
    if (!list_is_empty(&survey->waiting)) {
        task_defer(&survey->next, survey->relay->loop);
    }
    round_release(round);
}

static void on_timer(struct timer *timer)
{
    end_round(list_entry(timer, struct survey, timer));
}

/* The question is on its way, or answered at once where it is our own. */
static void ask(struct survey *survey, size_t index)
{
    struct survey_round *round = survey->round;
    struct survey *asked = atomic_load(&survey->board->surveys[index]);
    struct survey_sheet *sheet;

    if (asked == NULL) {
        return;
    }
    sheet = sheet_new(survey);
    if (sheet == NULL) {
        round->silent++;
    } else if (asked == survey) {
        fill(sheet, survey->relay);
        round->sheets[round->sheet_count++] = sheet;
    } else if (mailbox_post(&asked->mailbox, &sheet->mail) == 0) {
        round->missing++;
    } else {
        sheet_free(sheet); /* its relay has ended, and has no exchanges */
    }
}

static struct survey_round *round_new(struct survey *survey)
{
    struct survey_round *round = calloc(1, sizeof(*round) + survey->board->survey_count *
                                                                sizeof(struct survey_sheet *));

    if (round == NULL) {
        return NULL;
    }
    round->survey = survey;
    round->number = ++survey->number;
    round->readers = 1;
    list_init(&round->joined);
    survey->round_count++;
    return round;
}

/* Whoever waits. */
static void join_all(struct survey_round *round)
{
    struct list *link;

    while ((link = list_shift(&round->survey->waiting)) != NULL) {
        struct survey_reader *reader = list_entry(link, struct survey_reader, link);

        reader->round = round;
        round->readers++;
        list_append(&round->joined, &reader->link);
    }
}

/* Without memory for a round those who wait are woken and see that there is none. */
static void begin_round(struct survey *survey)
{
    struct survey_round *round = round_new(survey);

    if (round == NULL) {
        wake(survey, &survey->waiting);
        return;
    }
    survey->round = round;
    join_all(round);
    for (size_t i = 0; i < survey->board->survey_count; i++) {
        ask(survey, i);
    }
    if (round->missing == 0 || timer_start(&survey->timer, ANSWER_MS) != 0) {
        end_round(survey);
    }
}

static void on_next(struct task *task)
{
    struct survey *survey = list_entry(task, struct survey, next);

    if (survey->round != NULL || list_is_empty(&survey->waiting)) {
        return;
    }
    if (survey->round_count >= ROUNDS_MAX && survey->last != NULL) {
        join_all(survey->last);
        wake(survey, &survey->last->joined);
    } else {
        begin_round(survey);
    }
}

void survey_join(struct survey *survey, struct survey_reader *reader, struct task *task)
{
    *reader = (struct survey_reader){ .task = task };
    list_init(&reader->link);
    list_append(&survey->waiting, &reader->link);
    if (survey->round == NULL) {
        task_defer(&survey->next, survey->relay->loop);
    }
}

void survey_leave(struct survey_reader *reader)
{
    if (reader->task == NULL) {
        return;
    }
    list_remove(&reader->link);
    if (reader->round != NULL) {
        round_release(reader->round);
    }
    *reader = (struct survey_reader){ .task = NULL };
}

static void on_answer(struct survey *survey, struct survey_sheet *sheet)
{
    struct survey_round *round = survey->round;

    if (round == NULL || round->number != sheet->number) {
        sheet_free(sheet); /* too late */
        return;
    }
    round->sheets[round->sheet_count++] = sheet;
    round->missing--;
    if (round->missing == 0) {
        end_round(survey);
    }
}

static void on_mail(struct mailbox *mailbox, struct mail *mail)
{
    struct survey *survey = list_entry(mailbox, struct survey, mailbox);
    struct survey_sheet *sheet = list_entry(mail, struct survey_sheet, mail);
    struct survey *asker;

    if (sheet->is_answer) {
        on_answer(survey, sheet);
        return;
    }
    fill(sheet, survey->relay);
    sheet->is_answer = true;
    asker = atomic_load(&survey->board->surveys[sheet->asker]);
    if (asker == NULL || mailbox_post(&asker->mailbox, &sheet->mail) != 0) {
        sheet_free(sheet);
    }
}

int survey_init(struct survey *survey, struct relay *relay, struct status_board *board,
                unsigned index)
{
    int error;

    *survey = (struct survey){ .relay = relay, .board = board, .index = index };
    list_init(&survey->waiting);
    task_init(&survey->next, on_next);
    timer_init(&survey->timer, relay->loop, on_timer);
    if (board == NULL) {
        return 0;
    }
    error = mailbox_init(&survey->mailbox, relay->loop, on_mail);
    if (error == 0) {
        atomic_store(&board->surveys[index], survey);
    }
    return error;
}

void survey_deinit(struct survey *survey)
{
    if (survey->board == NULL) {
        return;
    }
    atomic_store(&survey->board->surveys[survey->index], NULL);
    mailbox_close(&survey->mailbox);
    mailbox_deinit(&survey->mailbox);
    if (survey->round != NULL) {
        end_round(survey);
    }
    task_stop(&survey->next);
}

enum survey_state survey_state(const struct survey_reader *reader)
{
    if (reader->round != NULL) {
        return reader->round->survey->round == reader->round ? SURVEY_WAITING : SURVEY_READY;
    }
    return list_is_empty(&reader->link) ? SURVEY_FAILED : SURVEY_WAITING;
}

void survey_listing(const struct survey_reader *reader, struct status_listing *listing)
{
    const struct survey_round *round = reader->round;

    *listing = (struct status_listing){ .silent = round->silent };
    for (size_t i = 0; i < round->sheet_count; i++) {
        listing->shown += buf_length(&round->sheets[i]->rows) / sizeof(struct survey_row);
        listing->left_out += round->sheets[i]->left_out;
    }
}

bool survey_next(struct survey_reader *reader, struct status_row *row)
{
    const struct survey_round *round = reader->round;
    const struct survey_sheet *sheet;
    struct survey_row found;
    const uint8_t *texts;

    while (reader->sheet < round->sheet_count &&
           reader->row * sizeof(found) >= buf_length(&round->sheets[reader->sheet]->rows)) {
        reader->sheet++;
        reader->row = 0;
    }
    if (reader->sheet == round->sheet_count) {
        return false;
    }
    sheet = round->sheets[reader->sheet];
    memcpy(&found, buf_span(&sheet->rows).ptr + reader->row * sizeof(found), sizeof(found));
    reader->row++;
    texts = buf_span(&sheet->texts).ptr + found.text;
    *row = (struct status_row){
        .state = found.state,
        .age_ms = found.age_ms,
        .bytes = found.bytes,
        .request = span_of(texts, found.request_length),
        .build = span_of(texts + found.request_length, found.build_length),
    };
    return true;
}
