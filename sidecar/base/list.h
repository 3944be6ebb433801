/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_BASE_LIST_H
#define SIDECAR_BASE_LIST_H

/*
 * A circular doubly linked list whose links live in the objects. A link that is in no list points
 * to itself, so removing it twice does no harm. The list owns nothing.
 */

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *next;
    struct list *prev;
};

#define list_entry(link, type, member) ((type *)(void *)((char *)(link)-offsetof(type, member)))

/* body may remove the current link, and no other. */
#define list_for_each(link, after, head)                                                           \
    for ((link) = (head)->next, (after) = (link)->next; (link) != (head);                          \
         (link) = (after), (after) = (link)->next)

static inline void list_init(struct list *list)
{
    list->next = list;
    list->prev = list;
}

static inline bool list_is_empty(const struct list *list)
{
    return list->next == list;
}

static inline void list_append(struct list *list, struct list *link)
{
    link->prev = list->prev;
    link->next = list;
    list->prev->next = link;
    list->prev = link;
}

static inline void list_remove(struct list *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    list_init(link);
}

/* The first link, taken off, or NULL. */
static inline struct list *list_shift(struct list *list)
{
    struct list *first = list->next;

    if (first == list) {
        return NULL;
    }
    list_remove(first);
    return first;
}

#endif
