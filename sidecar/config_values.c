/* SPDX-License-Identifier: MIT */
/*
 * Numbers, durations, sizes, lists. Strict: what is not wholly understood is refused, so that a
 * slip of the pen never becomes a limit that nobody wanted.
 */

#include "sidecar/config_values.h"

#include <errno.h>
#include <stdlib.h>

/* Takes digits off the front; -EINVAL if there are none. */
static int config_take_digits(const char **text, uint64_t *number)
{
    uint64_t value = 0;
    bool overflow = false;

    if (**text < '0' || **text > '9') {
        return -EINVAL;
    }
    for (; **text >= '0' && **text <= '9'; (*text)++) {
        overflow = overflow || __builtin_mul_overflow(value, 10, &value) ||
                   __builtin_add_overflow(value, (uint64_t)(**text - '0'), &value);
    }
    *number = value;
    return overflow ? -ERANGE : 0;
}

int config_number_parse(const char *text, uint64_t *number)
{
    uint64_t value;
    int error = config_take_digits(&text, &value);

    if (error == -EINVAL || *text != '\0') {
        return -EINVAL;
    }
    if (error == 0) {
        *number = value;
    }
    return error;
}

static const struct config_time_unit {
    const char *name;
    uint64_t ms;
} config_time_units[] = {
    { "d", 86400000 }, { "h", 3600000 }, { "m", 60000 }, { "s", 1000 }, { "ms", 1 },
};
#define CONFIG_TIME_UNITS (sizeof(config_time_units) / sizeof(config_time_units[0]))

/* Takes a unit off the front that is smaller than those before *unit. */
static int config_take_time_unit(const char **text, size_t *unit)
{
    size_t length = strspn(*text, "dhms");

    for (size_t i = *unit; i < CONFIG_TIME_UNITS; i++) {
        if (strlen(config_time_units[i].name) == length &&
            strncmp(*text, config_time_units[i].name, length) == 0) {
            *text += length;
            *unit = i;
            return 0;
        }
    }
    return -EINVAL;
}

int config_duration_parse(const char *text, uint64_t *duration_ms)
{
    uint64_t total = 0;
    size_t unit = 0;
    bool overflow = false;

    do {
        uint64_t number = 0;
        bool is_first = total == 0 && unit == 0;
        int error = config_take_digits(&text, &number);

        if (error == -EINVAL) {
            return -EINVAL;
        }
        if (*text == '\0' && is_first) {
            unit = CONFIG_TIME_UNITS - 2;
        } else if (config_take_time_unit(&text, &unit) != 0) {
            return -EINVAL;
        }
        overflow = overflow || error != 0 ||
                   __builtin_mul_overflow(number, config_time_units[unit].ms, &number) ||
                   __builtin_add_overflow(total, number, &total);
        unit++;
    } while (*text != '\0');
    if (overflow) {
        return -ERANGE;
    }
    *duration_ms = total;
    return 0;
}

int config_size_parse(const char *text, uint64_t *size_bytes)
{
    static const char units[] = "KMGT";
    uint64_t value;
    uint64_t factor = 1;
    int error = config_take_digits(&text, &value);

    if (error == -EINVAL) {
        return -EINVAL;
    }
    if (*text != '\0') {
        const char *unit = strchr(units, *text & ~0x20);

        if (unit == NULL || *unit == '\0' || text[1] != '\0') {
            return -EINVAL;
        }
        factor = (uint64_t)1 << 10 * (unit - units + 1);
    }
    if (error != 0 || __builtin_mul_overflow(value, factor, &value)) {
        return -ERANGE;
    }
    *size_bytes = value;
    return 0;
}

int config_boolean_parse(const char *text, bool *boolean)
{
    static const char *const words[] = { "no", "yes", "false", "true", "off", "on", "0", "1" };

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcasecmp(text, words[i]) == 0) {
            *boolean = i % 2 == 1;
            return 0;
        }
    }
    return -EINVAL;
}

int config_decimal_parse(const char *text, double *decimal)
{
    size_t whole = strspn(text, "0123456789");
    const char *rest = text + whole;

    if (whole == 0) {
        return -EINVAL;
    }
    if (*rest == '.') {
        size_t digits = strspn(rest + 1, "0123456789");

        rest += 1 + digits;
        if (digits == 0) {
            return -EINVAL;
        }
    }
    if (*rest != '\0') {
        return -EINVAL;
    }
    /* The program never calls setlocale, so the point is a point. */
    *decimal = strtod(text, NULL);
    return 0;
}

int config_octal_parse(const char *text, unsigned *number)
{
    size_t digits = strspn(text, "01234567");

    if (digits == 0 || text[digits] != '\0') {
        return -EINVAL;
    }
    if (digits > 8) {
        return -ERANGE;
    }
    *number = (unsigned)strtoul(text, NULL, 8);
    return 0;
}

bool config_item_next(const char **list, struct span *item, unsigned *line)
{
    bool after_comma = false;

    for (;;) {
        size_t length = strcspn(*list, ",\n");
        struct span text = span_trim(span_of(*list, length));
        char end = (*list)[length];

        if (text.len > 0 || (after_comma && end == ',')) {
            /* What ends the item is left for the next call, which sees by it where it is. */
            *list += length;
            *item = text;
            return true;
        }
        if (end == '\0') {
            return false;
        }
        after_comma = end == ',';
        *line += end == '\n' ? 1 : 0;
        *list += length + 1;
    }
}
