/*
 * Cuts a stream of bytes into lines of bounded length.
 */

#include "lines.h"

#include <string.h>


/* Gives the collected line to the handler. */
static void
line_deliver(struct lines *l)
{
    size_t  len;

    len = l->len;
    l->len = 0;

    if (len > 0 && l->line[len - 1] == '\r') {
        len--;
    }

    l->handler(l->line, len, l->arg);
}


/* Collects a piece of a line; false when the line is full. */
static bool
line_collect(struct lines *l, const char *data, size_t len)
{
    size_t  room;

    room = sizeof(l->line) - l->len;

    if (len > room) {
        memcpy(l->line + l->len, data, room);
        l->len += room;
        return false;
    }

    memcpy(l->line + l->len, data, len);
    l->len += len;

    return true;
}


/* Takes bytes and calls the handler for each line in them. */
void
lines_add(struct lines *l, const char *data, size_t len)
{
    size_t       n;
    const char  *end;

    while (len > 0) {
        end = memchr(data, '\n', len);
        n = (end != NULL) ? (size_t) (end - data) : len;

        if (!l->dropping && !line_collect(l, data, n)) {
            line_deliver(l);
            l->dropping = true;
        }

        if (end == NULL) {
            return;
        }

        if (!l->dropping) {
            line_deliver(l);
        }

        l->dropping = false;
        data += n + 1;
        len -= n + 1;
    }
}


/* At the end of the stream: an unfinished line counts as one. */
void
lines_end(struct lines *l)
{
    if (l->len > 0) {
        line_deliver(l);
    }
}
