/* SPDX-License-Identifier: MIT */
/*
 * Paths that Velox names: what is let through is absolute and has neither an empty component nor
 * "." nor "..", and is the same when it is read once more; percent-encoded, it is plain text of the
 * same length once it is decoded.
 */
#include "sidecar/base/percent.h"
#include "sidecar/build/artifact.h"

#include "tests/unit/cuts.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void check_components(const char *text)
{
    CUTS_CHECK(text[0] == '/');
    while (*text != '\0') {
        size_t length = strcspn(++text, "/");

        CUTS_CHECK(length > 0 || *text == '\0');
        CUTS_CHECK(length != 1 || *text != '.');
        CUTS_CHECK(length != 2 || memcmp(text, "..", 2) != 0);
        text += length;
    }
}

static void check_encoded(struct span path)
{
    struct span encoded;
    struct buf out;
    size_t escapes = 0;

    buf_init(&out, 0);
    out.max = path.len * 3;
    CUTS_CHECK(percent_append_path(&out, path) == 0);
    encoded = buf_span(&out);
    for (size_t i = 0; i < encoded.len; i++) {
        CUTS_CHECK(encoded.ptr[i] > 0x20 && encoded.ptr[i] < 0x7f);
        CUTS_CHECK(strchr("?#\"<>\\^`{|}", encoded.ptr[i]) == NULL);
        escapes += encoded.ptr[i] == '%';
    }
    CUTS_CHECK(encoded.len == path.len + 2 * escapes);
    buf_deinit(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    char text[PATH_MAX], again[PATH_MAX];

    if (!artifact_path_text(span_of(bytes, size), text)) {
        return 0;
    }
    check_components(text);
    CUTS_CHECK(artifact_path_text(span_of_string(text), again) && strcmp(text, again) == 0);
    check_encoded(span_of_string(text));
    return 0;
}
