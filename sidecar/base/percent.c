/* SPDX-License-Identifier: MIT */
/* It must never let a byte through that could end a header line or the path of a URL. */
#include "sidecar/base/percent.h"

static bool is_plain(uint8_t byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
           (byte >= '0' && byte <= '9') || byte == '-' || byte == '.' || byte == '_' ||
           byte == '~' || byte == '/';
}

int percent_append_path(struct buf *out, struct span path)
{
    int error = 0;

    while (error == 0 && path.len > 0) {
        size_t plain = 0;

        while (plain < path.len && is_plain(path.ptr[plain])) {
            plain++;
        }
        error = buf_append_span(out, span_take(&path, plain));
        if (error == 0 && path.len > 0) {
            error = buf_printf(out, "%%%02X", path.ptr[0]);
            span_skip(&path, 1);
        }
    }
    return error;
}
