/* SPDX-License-Identifier: MIT */

/*
 * Heads of CGI responses. A line ends in LF, with or without a CR before it, as nginx reads it; a
 * CR alone ends nothing. Bytes come from PHP: anything may stand in them, and nothing here may be
 * changed on the way, only found or left out.
 */

#include "fcgi/cgi.h"

/* ---- the end of a head ---- */

enum scan_state {
    SCAN_LINE_START,    /* the line is empty so far */
    SCAN_LINE_START_CR, /* it is a CR so far */
    SCAN_LINE,
    SCAN_END,
};

void cgi_scan_init(struct cgi_scan *scan)
{
    scan->state = SCAN_LINE_START;
}

/* Looks at one byte at the start of a line. True at the LF of an empty line. */
static bool line_start_next(struct cgi_scan *scan, uint8_t byte)
{
    if (byte == '\n') {
        scan->state = SCAN_END;
        return true;
    }
    scan->state = byte == '\r' && scan->state == SCAN_LINE_START ? SCAN_LINE_START_CR : SCAN_LINE;
    return false;
}

bool cgi_scan_next(struct cgi_scan *scan, struct span piece, size_t *head_length)
{
    const uint8_t *at = piece.ptr;
    size_t left = piece.len;

    if (scan->state == SCAN_END) {
        *head_length = 0;
        return true;
    }
    while (left > 0) {
        if (scan->state == SCAN_LINE) {
            const uint8_t *lf = memchr(at, '\n', left);

            if (lf == NULL) {
                return false;
            }
            left -= (size_t)(lf - at) + 1;
            at = lf + 1;
            scan->state = SCAN_LINE_START;
            continue;
        }
        left--;
        if (line_start_next(scan, *at++)) {
            *head_length = piece.len - left;
            return true;
        }
    }
    return false;
}

/* ---- the headers in it ---- */

/* A character of a token, RFC 9110 section 5.6.2. */
static bool is_token_char(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != 0 && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool is_token(struct span span)
{
    for (size_t i = 0; i < span.len; i++) {
        if (!is_token_char(span.ptr[i])) {
            return false;
        }
    }
    return span.len > 0;
}

static bool is_field_value(struct span span)
{
    return span.len == 0 ||
           (memchr(span.ptr, '\0', span.len) == NULL && memchr(span.ptr, '\r', span.len) == NULL);
}

/* What is left of a line without its line end. */
static struct span without_line_end(struct span line)
{
    if (line.len > 0 && line.ptr[line.len - 1] == '\n') {
        line.len--;
        if (line.len > 0 && line.ptr[line.len - 1] == '\r') {
            line.len--;
        }
    }
    return line;
}

static bool begins_folded(struct span rest)
{
    return rest.len > 0 && (rest.ptr[0] == ' ' || rest.ptr[0] == '\t');
}

bool cgi_next_header(struct span *head, struct cgi_header *header)
{
    if (head->len == 0) {
        return false;
    }
    const uint8_t *lf = memchr(head->ptr, '\n', head->len);
    struct span rest = *head;
    struct span line = span_take(&rest, lf == NULL ? rest.len : (size_t)(lf - rest.ptr) + 1);
    struct span text = without_line_end(line);

    if (text.len == 0) {
        return false;
    }
    *head = rest;
    *header = (struct cgi_header){ .name = span_of(line.ptr, 0),
                                   .value = span_of(line.ptr, 0),
                                   .line = line };
    const uint8_t *colon = memchr(text.ptr, ':', text.len);
    struct span name = span_of(text.ptr, colon == NULL ? 0 : (size_t)(colon - text.ptr));

    if (is_token(name)) {
        span_skip(&text, name.len + 1);
        header->name = name;
        header->value = span_trim(text);
        header->valid = is_field_value(text) && !begins_folded(rest);
    }
    return true;
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

unsigned cgi_status(struct span value)
{
    unsigned status = 0;

    if (value.len < 3 || (value.len > 3 && is_digit(value.ptr[3]))) {
        return 0;
    }
    for (size_t i = 0; i < 3; i++) {
        if (!is_digit(value.ptr[i])) {
            return 0;
        }
        status = status * 10 + (value.ptr[i] - '0');
    }
    return status >= 100 ? status : 0;
}

/* ---- leaving one header out ---- */

enum strip_state {
    STRIP_LINE_START,    /* nothing of the line has come, or held bytes of the name */
    STRIP_LINE_START_CR, /* the line is a CR so far, which is given out */
    STRIP_KEEP_LINE,
    STRIP_DROP_LINE,
    STRIP_AFTER_DROP, /* at the start of a line that may belong to the dropped one */
    STRIP_HEAD_END,
};

void cgi_strip_init(struct cgi_strip *strip, const char *name)
{
    *strip = (struct cgi_strip){ .name = name,
                                 .name_length = (uint8_t)strnlen(name, CGI_STRIP_NAME_MAX),
                                 .state = STRIP_LINE_START };
}

/* How many bytes of text go on the name and its colon, of which matched bytes have come. */
static size_t name_match(const struct cgi_strip *strip, size_t matched, struct span text)
{
    size_t length = 0;

    while (length < text.len && matched + length < strip->name_length &&
           strncasecmp((const char *)text.ptr + length, strip->name + matched + length, 1) == 0) {
        length++;
    }
    if (length < text.len && matched + length == strip->name_length && text.ptr[length] == ':') {
        length++;
    }
    return length;
}

static void drop_next(struct cgi_strip *strip, struct span *input)
{
    if (strip->state == STRIP_AFTER_DROP) {
        strip->state = begins_folded(*input) ? STRIP_DROP_LINE : STRIP_LINE_START;
        return;
    }
    const uint8_t *lf = memchr(input->ptr, '\n', input->len);

    if (lf == NULL) {
        span_skip(input, input->len);
        return;
    }
    span_skip(input, (size_t)(lf - input->ptr) + 1);
    strip->state = STRIP_AFTER_DROP;
}

/* Goes on with a name whose first bytes are held. Gives them out when it is another name. */
static struct span held_next(struct cgi_strip *strip, struct span *input)
{
    size_t length = name_match(strip, strip->held, *input);
    struct span held = span_of(strip->held_bytes, strip->held);

    if (strip->held + length > strip->name_length) {
        strip->held = 0;
        strip->state = STRIP_DROP_LINE;
        return span_of(input->ptr, 0);
    }
    if (length < input->len) {
        strip->held = 0;
        strip->state = STRIP_KEEP_LINE;
        return held;
    }
    memcpy(strip->held_bytes + strip->held, input->ptr, length);
    strip->held = (uint8_t)(strip->held + length);
    span_skip(input, length);
    return span_of(input->ptr, 0);
}

/* Looks at the start of a line. Gives how many bytes of it stay, for sure. */
static size_t strip_line_start(struct cgi_strip *strip, struct span text)
{
    if (text.ptr[0] == '\n') {
        strip->state = STRIP_HEAD_END;
        return 1;
    }
    if (text.ptr[0] == '\r') {
        strip->state = STRIP_LINE_START_CR;
        return 1;
    }
    size_t length = name_match(strip, 0, text);

    if (length > strip->name_length) {
        strip->state = STRIP_DROP_LINE;
        return 0;
    }
    if (length == text.len) {
        memcpy(strip->held_bytes, text.ptr, length);
        strip->held = (uint8_t)length;
        return 0;
    }
    strip->state = STRIP_KEEP_LINE;
    return length;
}

/* Gives how many bytes at the front of text stay. */
static size_t keep_step(struct cgi_strip *strip, struct span text)
{
    if (strip->state == STRIP_LINE_START) {
        return strip_line_start(strip, text);
    }
    if (strip->state == STRIP_LINE_START_CR) {
        strip->state = text.ptr[0] == '\n' ? STRIP_HEAD_END : STRIP_KEEP_LINE;
        return strip->state == STRIP_HEAD_END;
    }
    const uint8_t *lf = memchr(text.ptr, '\n', text.len);

    if (lf == NULL) {
        return text.len;
    }
    strip->state = STRIP_LINE_START;
    return (size_t)(lf - text.ptr) + 1;
}

/* Takes the longest run of bytes that stay off the input, which is not empty. */
static struct span keep_next(struct cgi_strip *strip, struct span *input)
{
    struct span text = *input;

    while (text.len > 0 && strip->held == 0 && strip->state != STRIP_DROP_LINE &&
           strip->state != STRIP_HEAD_END) {
        span_skip(&text, keep_step(strip, text));
    }
    struct span kept = span_take(input, input->len - text.len);

    span_skip(input, strip->held);
    return kept;
}

enum cgi_strip_event cgi_strip_next(struct cgi_strip *strip, struct span *input, struct span *keep)
{
    while (input->len > 0 && strip->state != STRIP_HEAD_END) {
        if (strip->state == STRIP_DROP_LINE || strip->state == STRIP_AFTER_DROP) {
            drop_next(strip, input);
            continue;
        }
        struct span kept = strip->held > 0 ? held_next(strip, input) : keep_next(strip, input);

        if (kept.len > 0) {
            *keep = kept;
            return CGI_STRIP_KEEP;
        }
    }
    return strip->state == STRIP_HEAD_END ? CGI_STRIP_END : CGI_STRIP_NEED_DATA;
}

struct span cgi_strip_flush(struct cgi_strip *strip)
{
    struct span held = span_of(strip->held_bytes, strip->held);

    strip->held = 0;
    strip->state = STRIP_KEEP_LINE;
    return held;
}
