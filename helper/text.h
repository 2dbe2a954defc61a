/*
 * Small things every file of the helper needs: memory that is there or the
 * process ends, the clock, strict numbers, text made fit to print.
 */

#ifndef LEMONADE_TEXT_H
#define LEMONADE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>


/* As calloc and strdup, but the helper ends when memory is out. */
void *text_alloc(size_t size);
char *text_dup(const char *s);

/* snprintf into a fresh string. */
char *text_format(const char *format, ...)
    __attribute__((format(printf, 1, 2)));

/* strlcpy: cuts, never between the bytes of one character. */
void text_copy(char *dst, size_t size, const char *src);

/* Is it UTF-8 without control characters? */
bool text_printable(const char *s, size_t len);

/* Replaces what is not printable by '?', in place. */
void text_clean(char *s);

/* A whole decimal number within limits; false leaves *value alone. */
bool text_number(const char *s, long min, long max, long *value);

/* Does a variable say yes?  Not when unset, empty, 0, false, no or off. */
bool text_yes(const char *value);

/* Milliseconds of the monotonic clock. */
uint64_t clock_ms(void);


#endif /* LEMONADE_TEXT_H */
