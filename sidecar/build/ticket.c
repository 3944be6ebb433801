/* SPDX-License-Identifier: MIT */
/*
 * Tickets and their results. A ticket must be answered once or freed, never both.
 */
#include "sidecar/build/ticket.h"

#include <stdlib.h>

static struct build_result *result_new(uint64_t ticket)
{
    struct build_result *result = calloc(1, sizeof(*result));

    if (result != NULL) {
        list_init(&result->mail.link);
        result->ticket = ticket;
        result->artifact.fd = -1;
        buf_init(&result->message, BUILD_MESSAGE_MAX);
    }
    return result;
}

void build_result_free(struct build_result *result)
{
    if (result == NULL) {
        return;
    }
    artifact_close(&result->artifact);
    buf_deinit(&result->message);
    free(result);
}

struct ticket *ticket_new(uint64_t number, struct mailbox *reply_to)
{
    struct ticket *ticket = calloc(1, sizeof(*ticket));

    if (ticket == NULL) {
        return NULL;
    }
    ticket->result = result_new(number);
    if (ticket->result == NULL) {
        free(ticket);
        return NULL;
    }
    list_init(&ticket->link);
    list_init(&ticket->table_link);
    ticket->number = number;
    ticket->reply_to = reply_to;
    return ticket;
}

void ticket_free(struct ticket *ticket)
{
    list_remove(&ticket->link);
    list_remove(&ticket->table_link);
    build_result_free(ticket->result);
    free(ticket);
}

void ticket_answer(struct ticket *ticket)
{
    struct build_result *result = ticket->result;

    ticket->result = NULL;
    if (mailbox_post(ticket->reply_to, &result->mail) < 0) {
        build_result_free(result); /* the relay has stopped */
    }
    ticket_free(ticket);
}

void ticket_fail(struct ticket *ticket, enum failure failure, struct span message,
                 unsigned retry_after_s)
{
    ticket->result->failure = failure;
    ticket->result->retry_after_s = retry_after_s;
    (void)buf_append_span(&ticket->result->message, message); /* better none than no answer */
    ticket_answer(ticket);
}
