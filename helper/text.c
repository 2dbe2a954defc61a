/*
 * Memory, clock, numbers and text; see text.h.
 */

#define _GNU_SOURCE

#include "text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>


/* Ends the process: without memory nothing sensible can be done. */
static void
text_no_memory(void)
{
    fputs("lemonade-helper: out of memory\n", stderr);
    abort();
}


/* Zeroed memory. */
void *
text_alloc(size_t size)
{
    void  *p;

    p = calloc(1, size);
    if (p == NULL) {
        text_no_memory();
    }

    return p;
}


/* A copy of a string. */
char *
text_dup(const char *s)
{
    char  *p;

    p = strdup(s);
    if (p == NULL) {
        text_no_memory();
    }

    return p;
}


/* A formatted string. */
char *
text_format(const char *format, ...)
{
    char     *p;
    va_list   args;

    va_start(args, format);

    if (vasprintf(&p, format, args) == -1) {
        text_no_memory();
    }

    va_end(args);

    return p;
}


/*
 * Bytes of the UTF-8 character at s, or 0.  Overlong forms, surrogates and
 * what lies above U+10FFFF are no characters.
 */
static size_t
text_character(const unsigned char *s, size_t len)
{
    size_t    n, i;
    uint32_t  code, least;

    if (s[0] < 0x80) {
        return 1;
    }

    if ((s[0] & 0xe0) == 0xc0) {
        n = 2;
        code = s[0] & 0x1f;
        least = 0x80;

    } else if ((s[0] & 0xf0) == 0xe0) {
        n = 3;
        code = s[0] & 0x0f;
        least = 0x800;

    } else if ((s[0] & 0xf8) == 0xf0) {
        n = 4;
        code = s[0] & 0x07;
        least = 0x10000;

    } else {
        return 0;
    }

    if (n > len) {
        return 0;
    }

    for (i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }

        code = code << 6 | (s[i] & 0x3f);
    }

    if (code < least || code > 0x10ffff
        || (code >= 0xd800 && code <= 0xdfff))
    {
        return 0;
    }

    return n;
}


/* Bytes of the printable character at s, or 0. */
static size_t
text_print_length(const char *s, size_t len)
{
    size_t                n;
    const unsigned char  *u = (const unsigned char *) s;

    n = text_character(u, len);

    if (n == 1 && (u[0] < 0x20 || u[0] == 0x7f)) {
        return 0;
    }

    /* C1 controls */

    if (n == 2 && u[0] == 0xc2 && u[1] < 0xa0) {
        return 0;
    }

    return n;
}


/* Copies as much as fits, in whole characters. */
void
text_copy(char *dst, size_t size, const char *src)
{
    size_t  len;

    len = strlen(src);

    if (len >= size) {
        len = size - 1;

        while (len > 0 && ((unsigned char) src[len] & 0xc0) == 0x80) {
            len--;
        }
    }

    memcpy(dst, src, len);
    dst[len] = '\0';
}


/* Looks at every character. */
bool
text_printable(const char *s, size_t len)
{
    size_t  i, n;

    for (i = 0; i < len; i += n) {
        n = text_print_length(s + i, len - i);

        if (n == 0) {
            return false;
        }
    }

    return true;
}


/* Makes a foreign line fit for a log, a header or a JSON string. */
void
text_clean(char *s)
{
    size_t  i, n, len;

    len = strlen(s);

    for (i = 0; i < len; i += n) {
        n = text_print_length(s + i, len - i);

        if (n == 0) {
            s[i] = s[i] == '\t' ? ' ' : '?';
            n = 1;
        }
    }
}


/* Parses a number; blanks, a plus sign and trailing text are refused. */
bool
text_number(const char *s, long min, long max, long *value)
{
    long   n;
    char  *end;

    if (s == NULL || (*s != '-' && (*s < '0' || *s > '9'))) {
        return false;
    }

    errno = 0;
    n = strtol(s, &end, 10);

    if (errno != 0 || end == s || *end != '\0' || n < min || n > max) {
        return false;
    }

    *value = n;
    return true;
}


/* Does a variable say yes? */
bool
text_yes(const char *value)
{
    size_t              i;
    static const char  *no[] = { "", "0", "false", "no", "off" };

    if (value == NULL) {
        return false;
    }

    for (i = 0; i < sizeof(no) / sizeof(no[0]); i++) {
        if (strcasecmp(value, no[i]) == 0) {
            return false;
        }
    }

    return true;
}


/* The monotonic clock. */
uint64_t
clock_ms(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * 1000 + (uint64_t) ts.tv_nsec / 1000000;
}
