/*
 * Cuts a stream of bytes into lines of bounded length.
 */

#ifndef LEMONADE_LINES_H
#define LEMONADE_LINES_H

#include <stdbool.h>
#include <stddef.h>


#define LINES_MAX  8192


/*
 * One line, without its newline and a carriage return before it; not
 * NUL-terminated.
 */
typedef void (*lines_handler)(const char *line, size_t len, void *arg);


/* Zeroed but for handler and arg before the first use. */
struct lines {
    lines_handler   handler;
    void           *arg;
    bool            dropping;       /* the rest of a line that was too long */
    size_t          len;
    char            line[LINES_MAX];
};


/*
 * Takes bytes and calls the handler for each line in them.  Of a line longer
 * than LINES_MAX the handler gets the beginning, once.
 */
void lines_add(struct lines *l, const char *data, size_t len);

/* At the end of the stream: an unfinished line counts as one. */
void lines_end(struct lines *l);


#endif /* LEMONADE_LINES_H */
