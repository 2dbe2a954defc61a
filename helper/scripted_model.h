/*
 * scripted-model: the answer as a script, and the file made of it.
 */

#ifndef LEMONADE_SCRIPTED_MODEL_H
#define LEMONADE_SCRIPTED_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>


#define PIECES_MAX      16384
#define WIDTH_STEP      64          /* widths are a multiple of it */


/* What the command line asks for. */
struct options {
    const char  *answer;
    char        *file_answer;
    char        *template;
    const char  *path;
    uint32_t     context;
    uint32_t     layers;
    uint32_t     ff;
    uint32_t     embedding;
    bool         loop;
    bool         crash;
    bool         truncate;
};

/* One step of the answer, len bytes of its text. */
struct piece {
    const char  *text;
    size_t       len;
};

/* The pieces follow each other and make up the whole answer. */
struct script {
    struct piece  piece[PIECES_MAX];
    uint32_t      count;
};


/*
 * Writes the model beside its path and puts it there in one step; ends the
 * program on an error.
 */
void scripted_write(const struct options *opt, const struct script *script);

/* Prints one line, removes what is half written and ends the program. */
void scripted_die(const char *format, ...)
    __attribute__((noreturn, format(printf, 1, 2)));

/* realloc, or the end of the program. */
void *scripted_resize(void *p, size_t size);

/* Rounds up to a multiple of step, a power of two. */
static inline uint64_t
scripted_round_up(uint64_t n, uint64_t step)
{
    return (n + step - 1) & ~(step - 1);
}


#endif /* LEMONADE_SCRIPTED_MODEL_H */
