/*
 * Memory that is there: a program that lives for one command ends with one
 * line when there is none.
 */

#ifndef LEMONADE_CLI_MEMORY_H
#define LEMONADE_CLI_MEMORY_H

#include <stddef.h>


void *memory_zero(size_t size);
void *memory_resize(void *p, size_t size);
char *memory_copy(const char *s);

/* printf into memory of its own. */
char *memory_format(const char *format, ...)
    __attribute__((format(printf, 1, 2)));


#endif /* LEMONADE_CLI_MEMORY_H */
