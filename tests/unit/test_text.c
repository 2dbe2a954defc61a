/*
 * Text made fit to print, strict numbers, cut copies.
 *
 * link: helper/text.c
 */

#define _GNU_SOURCE

#include "text.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


static int  failed;


/* Says what was not as it should be. */
static void __attribute__((format(printf, 1, 2)))
complain(const char *format, ...)
{
    va_list  args;

    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);

    fputc('\n', stderr);
    failed = 1;
}


/* Text that is clean stays; what is not becomes the second column. */
static const struct {
    const char  *text;
    const char  *clean;     /* NULL: it is clean */
} texts[] = {
    { "", NULL },
    { "plain ~", NULL },
    { "Gr\xc3\xbc\xc3\x9f""e \xe6\x97\xa5 \xf0\x9f\x8d\x8b", NULL },
    { "\xc2\xa0", NULL },                               /* after C1 */
    { "\xf4\x8f\xbf\xbf", NULL },                       /* U+10FFFF */
    { "a\tb", "a b" },
    { "a\nb\rc", "a?b?c" },
    { "\x1b[31m", "?[31m" },
    { "\x7f", "?" },
    { "\xc2\x9b", "??" },                               /* C1: CSI */
    { "\xff\xfe", "??" },
    { "\x80", "?" },
    { "\xc3", "?" },                                    /* cut */
    { "\xe6\x97", "??" },
    { "\xf0\x9f\x8d", "???" },
    { "\xc3(", "?(" },
    { "\xe6\x97(", "?\?(" },
    { "\xc0\x80", "??" },                               /* overlong */
    { "\xc1\xbf", "??" },
    { "\xe0\x80\xaf", "???" },
    { "\xf0\x80\x80\xaf", "????" },
    { "\xed\xa0\x80", "???" },                          /* surrogate */
    { "\xf4\x90\x80\x80", "????" },                     /* above U+10FFFF */
    { "\xf8\x88\x80\x80\x80", "?????" },
};


/* Every text. */
static void
test_clean(void)
{
    char         buf[64];
    bool         printable;
    size_t       i;
    const char  *wanted;

    for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        printable = text_printable(texts[i].text, strlen(texts[i].text));

        if (printable != (texts[i].clean == NULL)) {
            complain("text %zu: printable %d", i, printable);
        }

        wanted = texts[i].clean ? texts[i].clean : texts[i].text;
        snprintf(buf, sizeof(buf), "%s", texts[i].text);
        text_clean(buf);

        if (strcmp(buf, wanted) != 0
            || !text_printable(buf, strlen(buf)))
        {
            complain("text %zu: %s, not %s", i, buf, wanted);
        }
    }

    if (text_printable("a\0b", 3)) {
        complain("a NUL is printable");
    }
}


/* Text that does not fit is cut between characters. */
static void
test_copy(void)
{
    char         *buf;
    size_t        i;
    static const struct {
        const char  *text;
        size_t       size;
        const char  *wanted;
    } cases[] = {
        { "abc", 4, "abc" },
        { "abc", 3, "ab" },
        { "abc", 1, "" },
        { "", 1, "" },
        { "a\xc3\xbc", 4, "a\xc3\xbc" },
        { "a\xc3\xbc", 3, "a" },
        { "\xf0\x9f\x8d\x8b", 4, "" },
        { "\xf0\x9f\x8d\x8b", 5, "\xf0\x9f\x8d\x8b" },
        { "\x80\x80\x80", 2, "" },
    };

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {

        /* exactly so long, so that a sanitizer sees one byte too many */

        buf = malloc(cases[i].size);
        text_copy(buf, cases[i].size, cases[i].text);

        if (strcmp(buf, cases[i].wanted) != 0) {
            complain("copy %zu: %s", i, buf);
        }

        free(buf);
    }
}


/* Numbers, and what only looks like one. */
static void
test_number(void)
{
    bool    good;
    long    value;
    size_t  i;
    static const struct {
        const char  *text;
        bool         good;
        long         value;
    } cases[] = {
        { "0", true, 0 },
        { "-1", true, -1 },
        { "007", true, 7 },
        { "1000", true, 1000 },
        { "1001", false, 0 },
        { "-2", false, 0 },
        { NULL, false, 0 },
        { "", false, 0 },
        { "-", false, 0 },
        { "--1", false, 0 },
        { "+1", false, 0 },
        { " 1", false, 0 },
        { "1 ", false, 0 },
        { "1\n", false, 0 },
        { "1.0", false, 0 },
        { "1e3", false, 0 },
        { "0x10", false, 0 },
        { "ten", false, 0 },
        { "99999999999999999999999", false, 0 },
        { "-99999999999999999999999", false, 0 },
    };

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        value = 4711;
        good = text_number(cases[i].text, -1, 1000, &value);

        if (good != cases[i].good
            || value != (good ? cases[i].value : 4711))
        {
            complain("number %s: %d, %ld",
                     cases[i].text ? cases[i].text : "NULL", good, value);
        }
    }

    if (text_number("9223372036854775808", LONG_MIN, LONG_MAX, &value)
        || !text_number("9223372036854775807", LONG_MIN, LONG_MAX, &value)
        || value != LONG_MAX)
    {
        complain("the largest number");
    }
}


/* What a variable says. */
static void
test_yes(void)
{
    size_t                    i;
    static const char *const  no[] = { "", "0", "false", "No", "OFF" };
    static const char *const  yes[] = { "1", "true", "yes", "00", " " };

    for (i = 0; i < 5; i++) {
        if (text_yes(no[i]) || !text_yes(yes[i])) {
            complain("\"%s\" or \"%s\"", no[i], yes[i]);
        }
    }

    if (text_yes(NULL)) {
        complain("an unset variable");
    }
}


/* Memory and clock. */
static void
test_small(void)
{
    char      *s, *zero;
    uint64_t   then;

    s = text_format("%s %d", "n", 7);
    zero = text_alloc(3);

    if (strcmp(s, "n 7") != 0 || zero[0] != 0 || zero[2] != 0) {
        complain("memory: %s", s);
    }

    free(s);
    free(zero);
    then = clock_ms();

    if (then == 0 || clock_ms() < then) {
        complain("the clock goes backwards");
    }
}


/* Runs everything. */
int
main(void)
{
    test_clean();
    test_copy();
    test_number();
    test_yes();
    test_small();

    return failed;
}
