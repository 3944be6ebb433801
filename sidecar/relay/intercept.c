/* SPDX-License-Identifier: MIT */
/*
 * The rules by which a response is taken for a build request. Must never let the header itself
 * through, whatever its value.
 */
#include "sidecar/relay/intercept.h"

/* What an application sends to say no, next to the empty value. */
static bool is_refusal(struct span value)
{
    return value.len == 0 || span_is(value, "0") || span_is_nocase(value, "false") ||
           span_is_nocase(value, "no") || span_is_nocase(value, "off");
}

struct findings {
    bool present;
    bool wanted;
    bool has_location;
    bool has_status;
    unsigned status; /* 0 where its number cannot be read */
};

static void look_at(const struct cgi_header *header, struct findings *found)
{
    if (span_is_nocase(header->name, INTERCEPT_HEADER)) {
        found->present = true;
        found->wanted |= header->valid && !is_refusal(header->value);
    } else if (span_is_nocase(header->name, "Status")) {
        found->has_status = true;
        found->status = cgi_status(header->value);
    } else if (span_is_nocase(header->name, "Location")) {
        found->has_location = true;
    }
}

static struct findings look_through(struct span head)
{
    struct findings found = { .status = 0 };
    struct cgi_header header;

    while (cgi_next_header(&head, &header)) {
        look_at(&header, &found);
    }
    if (!found.has_status) {
        found.status = found.has_location ? 302 : 200;
    }
    return found;
}

enum intercept_verdict intercept_judge(struct span head, bool may_build, bool is_enabled)
{
    struct findings found = look_through(head);

    if (!found.present) {
        return INTERCEPT_PASS;
    }
    if (!found.wanted || !may_build || found.status < 200 || found.status > 299) {
        return INTERCEPT_STRIP;
    }
    return is_enabled ? INTERCEPT_BUILD : INTERCEPT_UNSERVED;
}

int intercept_strip(struct span head, struct buf *out)
{
    struct cgi_strip strip;
    struct span keep;

    cgi_strip_init(&strip, INTERCEPT_HEADER);
    while (cgi_strip_next(&strip, &head, &keep) == CGI_STRIP_KEEP) {
        int error = buf_append_span(out, keep);

        if (error != 0) {
            return error;
        }
    }
    return buf_append_span(out, cgi_strip_flush(&strip));
}
