/*
 * Allocation that does not return without memory.
 */

#define _GNU_SOURCE

#include "memory.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"


/* Ends the program. */
static void __attribute__((noreturn))
fail(void)
{
    fputs("lemonade-cli: out of memory\n", stderr);
    exit(CLI_FAILED);
}


/* Zeroed memory. */
void *
memory_zero(size_t size)
{
    void  *p;

    p = calloc(1, size);

    if (p == NULL) {
        fail();
    }

    return p;
}


/* The same memory with another size. */
void *
memory_resize(void *p, size_t size)
{
    p = realloc(p, size);

    if (p == NULL) {
        fail();
    }

    return p;
}


/* A copy of a string. */
char *
memory_copy(const char *s)
{
    char  *copy;

    copy = strdup(s);

    if (copy == NULL) {
        fail();
    }

    return copy;
}


/* A string from a format. */
char *
memory_format(const char *format, ...)
{
    char     *s;
    int       len;
    va_list   args;

    va_start(args, format);
    len = vasprintf(&s, format, args);
    va_end(args);

    if (len < 0) {
        fail();
    }

    return s;
}
