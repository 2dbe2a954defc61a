/*
 * Lines split into words as a shell would.
 *
 * link: helper/words.c helper/text.c
 */

#define _GNU_SOURCE

#include "words.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>


#define WORDS_MAX  6


/* No words at all where item[0] is NULL; good is false for an open quote. */
static const struct {
    const char  *line;
    bool         good;
    const char  *item[WORDS_MAX];
} cases[] = {
    { "", true, { NULL } },
    { " \t\n ", true, { NULL } },
    { "one", true, { "one" } },
    { "  one\ttwo\n three ", true, { "one", "two", "three" } },
    { "''", true, { "" } },
    { "a '' \"\" b", true, { "a", "", "", "b" } },
    { "'a b' \"c d\"", true, { "a b", "c d" } },
    { "a'b c'd", true, { "ab cd" } },
    { "a\\ b \\'", true, { "a b", "'" } },
    { "'a\\b' 'a\"b'", true, { "a\\b", "a\"b" } },
    { "\"a\\\"b\" \"a\\\\b\" \"a\\nb\"", true, { "a\"b", "a\\b", "a\\nb" } },
    { "\"it's\"", true, { "it's" } },
    { "--grammar 'root ::= \"x\"'", true,
      { "--grammar", "root ::= \"x\"" } },
    { "$HOME `id` $(id) * ~", true, { "$HOME", "`id`", "$(id)", "*", "~" } },
    { "a;b|c&d>e #f", true, { "a;b|c&d>e", "#f" } },
    { "\xff\x01 \xe6\x97\xa5", true, { "\xff\x01", "\xe6\x97\xa5" } },
    { "a\r b", true, { "a\r", "b" } },
    { "'", false, { NULL } },
    { "\"", false, { NULL } },
    { "\\", false, { NULL } },
    { "a 'b", false, { "a" } },
    { "a \"b\\\"", false, { "a" } },
    { "a b\\", false, { "a" } },
};


static int  failed;


/* Says what was not as it should be. */
static void
complain(const char *line)
{
    fprintf(stderr, "wrong words: %s\n", line);
    failed = 1;
}


/* Every line of the table. */
static void
test_split(void)
{
    size_t         i, k;
    struct words   w;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        memset(&w, 0, sizeof(w));

        if (words_split(&w, cases[i].line) != cases[i].good) {
            complain(cases[i].line);
        }

        for (k = 0; cases[i].item[k] != NULL; k++) {
            if (k >= w.count || strcmp(w.item[k], cases[i].item[k]) != 0) {
                complain(cases[i].line);
                break;
            }
        }

        if (w.count != k || (w.count > 0 && w.item[w.count] != NULL)) {
            complain(cases[i].line);
        }

        words_free(&w);

        if (w.count != 0 || w.item != NULL) {
            complain("after words_free");
        }
    }
}


/* Lists grow, and end in NULL at every length. */
static void
test_growth(void)
{
    unsigned      i;
    char          text[16];
    struct words  w = { 0 };

    for (i = 0; i < 1000; i++) {
        words_addf(&w, "%u", i);

        if (w.item[w.count] != NULL || w.count != i + 1) {
            complain("a growing list");
        }
    }

    for (i = 0; i < 1000; i++) {
        snprintf(text, sizeof(text), "%u", i);

        if (strcmp(w.item[i], text) != 0) {
            complain(text);
        }
    }

    words_free(&w);
    words_add(&w, "again");

    if (w.count != 1 || strcmp(w.item[0], "again") != 0) {
        complain("again");
    }

    words_free(&w);
}


/* A line as long as an environment variable can be. */
static void
test_long(void)
{
    char          *line;
    size_t         len = 128 * 1024;
    struct words   w = { 0 };

    line = malloc(len + 1);
    memset(line, '\'', len);
    line[len] = '\0';

    if (!words_split(&w, line) || w.count != 1 || w.item[0][0] != '\0') {
        complain("many quotes");
    }

    words_free(&w);
    memset(line, 'x', len);

    if (!words_split(&w, line) || w.count != 1
        || strlen(w.item[0]) != len)
    {
        complain("a long word");
    }

    words_free(&w);
    free(line);
}


/* Runs everything. */
int
main(void)
{
    test_split();
    test_growth();
    test_long();

    return failed;
}
