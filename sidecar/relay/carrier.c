/* SPDX-License-Identifier: MIT */
/*
 * What downloads have in common. Must never lose count of what has been sent.
 */
#include "sidecar/relay/carrier.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sidecar/relay/deliver.h"

#define PAGE_BYTES 4096

static void on_pages_mail(struct mailbox *mailbox, struct mail *mail)
{
    struct carrier *carrier = list_entry(mailbox, struct carrier, pages);
    struct prefetch_job *job = list_entry(mail, struct prefetch_job, mail);
    struct delivery *delivery = job->asker;

    if (delivery == NULL) {
        prefetch_job_free(job); /* whose client has left meanwhile */
        return;
    }
    delivery->job_is_out = false;
    /* Without memory there it is done without them: slow for the others, but done. */
    if (job->error == 0 || job->error == -ENOMEM) {
        delivery->cached_end = job->end;
    } else {
        delivery->read_error = job->error;
    }
    carrier->on_pages(delivery);
}

int carrier_init(struct carrier *carrier, struct loop *loop, struct prefetch *prefetch,
                 void (*on_pages)(struct delivery *delivery))
{
    int error;

    *carrier = (struct carrier){
        .prefetch = prefetch,
        .is_cached = prefetch_is_cached,
        .on_pages = on_pages,
        .nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC),
    };
    error = mailbox_init(&carrier->pages, loop, on_pages_mail);
    if (error != 0 && carrier->nowhere >= 0) {
        close(carrier->nowhere);
    }
    return error;
}

void carrier_close(struct carrier *carrier)
{
    mailbox_close(&carrier->pages);
}

void carrier_deinit(struct carrier *carrier)
{
    mailbox_deinit(&carrier->pages);
    if (carrier->nowhere >= 0) {
        close(carrier->nowhere);
    }
}

void carrier_enter(struct carrier *carrier)
{
    carrier->deliveries++;
}

void carrier_leave(struct carrier *carrier, const struct delivery *delivery)
{
    if (carrier->pipe_of == delivery) {
        carrier_pipe_drop(carrier);
    }
    carrier->deliveries--;
    if (carrier->deliveries == 0) {
        carrier_pipe_close(carrier);
        carrier->is_hopeless = false;
        free(carrier->room);
        carrier->room = NULL;
    }
}

size_t carrier_record_length(const struct delivery *delivery, uint64_t offset)
{
    uint64_t left = delivery->end - offset;
    size_t length = delivery->record_size;
    size_t in_page = (size_t)(offset % PAGE_BYTES);

    /* A range may begin anywhere; the records behind its first one begin with a page. */
    if (in_page > 0 && length > PAGE_BYTES && length % PAGE_BYTES == 0) {
        length -= in_page;
    }
    return left < length ? (size_t)left : length;
}

int carrier_advance(struct delivery *delivery, struct front *front, size_t sent)
{
    while (sent > 0) {
        size_t part;

        if (front->owed_bytes == 0) {
            size_t header_size = front->is_scgi ? 0 : FCGI_HEADER_SIZE;
            size_t length = carrier_record_length(delivery, delivery->offset);
            uint8_t header[FCGI_HEADER_SIZE];

            front->owed_bytes = length;
            if (sent < header_size) {
                fcgi_header_write(header, FCGI_STDOUT, front->request_id, (uint16_t)length, 0);
                return buf_append(&front->out.kept, header + sent, header_size - sent);
            }
            sent -= header_size;
        }
        part = sent < front->owed_bytes ? sent : front->owed_bytes;
        front->owed_bytes -= part;
        delivery->offset += part;
        sent -= part;
    }
    return 0;
}

uint64_t carrier_file_rest(struct delivery *delivery)
{
    struct stat file;

    if (fstat(delivery->artifact.fd, &file) != 0) {
        delivery->error = errno;
        return 0;
    }
    return (uint64_t)file.st_size > delivery->offset ? (uint64_t)file.st_size - delivery->offset
                                                     : 0;
}
