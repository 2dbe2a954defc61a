/*
 * A growing list of strings that ends in NULL: argument vectors and
 * environments of children.
 */

#ifndef LEMONADE_WORDS_H
#define LEMONADE_WORDS_H

#include <stdbool.h>
#include <stddef.h>


/* All zero is an empty list. */
struct words {
    char   **item;      /* NULL-terminated once something was added */
    size_t   count;
    size_t   room;
};


/* Adds a copy of the string. */
void words_add(struct words *w, const char *s);

/* Adds a formatted string. */
void words_addf(struct words *w, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Frees the strings; the list is empty then. */
void words_free(struct words *w);

/*
 * Adds the words of a line as a shell would split it: blanks separate,
 * '...', "..." and \ quote; nothing is expanded.  False: a quote is open.
 */
bool words_split(struct words *w, const char *line);


#endif /* LEMONADE_WORDS_H */
