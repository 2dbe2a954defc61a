/*
 * Lists of strings; see words.h.
 */

#define _GNU_SOURCE

#include "words.h"
#include "text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


/* Adds a string that becomes the list's own. */
static void
words_take(struct words *w, char *s)
{
    char  **item;

    if (w->count + 2 > w->room) {
        w->room = w->room ? w->room * 2 : 32;
        item = text_alloc(w->room * sizeof(char *));

        if (w->count) {
            memcpy(item, w->item, w->count * sizeof(char *));
        }

        free(w->item);
        w->item = item;
    }

    w->item[w->count++] = s;
    w->item[w->count] = NULL;
}


/* Adds a copy. */
void
words_add(struct words *w, const char *s)
{
    words_take(w, text_dup(s));
}


/* Adds a formatted string. */
void
words_addf(struct words *w, const char *format, ...)
{
    char     *s;
    va_list   args;

    va_start(args, format);

    if (vasprintf(&s, format, args) == -1) {
        abort();
    }

    va_end(args);

    words_take(w, s);
}


/* Frees everything. */
void
words_free(struct words *w)
{
    size_t  i;

    for (i = 0; i < w->count; i++) {
        free(w->item[i]);
    }

    free(w->item);
    memset(w, 0, sizeof(*w));
}


/* Copies one word to out; returns what follows it, NULL: an open quote. */
static const char *
words_next(const char *p, char *out)
{
    char  quote;

    quote = 0;

    for ( /* void */ ; *p != '\0'; p++) {

        if (quote == 0 && (*p == ' ' || *p == '\t' || *p == '\n')) {
            break;
        }

        if (quote == 0 && (*p == '\'' || *p == '"')) {
            quote = *p;
            continue;
        }

        if (quote != 0 && *p == quote) {
            quote = 0;
            continue;
        }

        if (*p == '\\' && quote != '\'') {
            if (p[1] == '\0') {
                return NULL;
            }

            /* inside "..." only " and \ can be quoted */

            if (quote == 0 || p[1] == '"' || p[1] == '\\') {
                p++;
            }
        }

        *out++ = *p;
    }

    *out = '\0';

    return quote ? NULL : p;
}


/* Splits a line. */
bool
words_split(struct words *w, const char *line)
{
    char  *word;

    for ( ;; ) {
        line += strspn(line, " \t\n");

        if (*line == '\0') {
            return true;
        }

        word = text_alloc(strlen(line) + 1);

        line = words_next(line, word);
        if (line == NULL) {
            free(word);
            return false;
        }

        words_take(w, word);
    }
}
