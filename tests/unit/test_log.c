/*
 * The log's lines and rings.
 *
 * link: helper/log.c
 */

#define _GNU_SOURCE

#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>


static int  failed;
static int  screen;


/* Says on the real stderr that something was not as it should be. */
static void
complain(const char *what, const char *seen)
{
    dprintf(screen, "%s: %s\n", what, seen);
    failed = 1;
}


#define T(s)  s, sizeof(s) - 1

static const struct {
    const char  *text;
    size_t       len;
    const char  *shown;
} texts[] = {
    { T(""), "" },
    { T("plain \"text\" \\"), "plain \"text\" \\" },
    { T("a\nb\r\tc"), "a\\x0ab\\x0d\\x09c" },
    { T("\x1b[31m"), "\\x1b[31m" },
    { T("a\0b\x7f"), "a\\x00b\\x7f" },
    { T("\xc3\xbc\xe2\x82\xac\xf0\x9f\x8d\x8b"),
      "\xc3\xbc\xe2\x82\xac\xf0\x9f\x8d\x8b" },
    { T("\xc2\x9b"), "\\xc2\\x9b" },                /* C1: CSI */
    { T("\xc0\xaf"), "\\xc0\\xaf" },                /* overlong */
    { T("\xe0\x80\xaf"), "\\xe0\\x80\\xaf" },
    { T("\xf0\x80\x80\xaf"), "\\xf0\\x80\\x80\\xaf" },
    { T("\xed\xa0\x80"), "\\xed\\xa0\\x80" },       /* surrogate */
    { T("\xf4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80" },
    { T("\xff\xfe"), "\\xff\\xfe" },
    { T("\xe2\x80\xa8"), "\\xe2\\x80\\xa8" },       /* line separator */
    { T("a\xe2\x82"), "a\\xe2\\x82" },              /* cut */
    { T("\x80"), "\\x80" },
};


/* Every kind of byte, and every size of buffer. */
static void
test_printable(void)
{
    char    shown[64], *copy, *tight;
    size_t  i, size, n;

    for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {

        /* In memory of just that size, for the sanitizers. */

        copy = malloc(texts[i].len + 1);
        memcpy(copy, texts[i].text, texts[i].len);

        n = log_printable(shown, sizeof(shown), copy, texts[i].len);

        if (n != strlen(texts[i].shown)
            || strcmp(shown, texts[i].shown) != 0)
        {
            complain("printable", shown);
        }

        for (size = 8; size < 40; size++) {
            tight = malloc(size);
            n = log_printable(tight, size, copy, texts[i].len);

            if (n >= size || strlen(tight) != n
                || (strcmp(tight, texts[i].shown) != 0
                    && strcmp(tight + n - 3, "...") != 0))
            {
                complain("printable, tight", tight);
            }

            free(tight);
        }

        free(copy);
    }
}


/* The order of a ring, and what it does with long lines. */
static void
test_ring(void)
{
    int               i;
    char              line[3000];
    const char       *kept;
    struct log_ring  *ring;

    ring = log_ring_new(3);

    if (log_ring_line(ring, 0) != NULL) {
        complain("ring", "a new one is not empty");
    }

    for (i = 0; i < 5; i++) {
        snprintf(line, sizeof(line), "line %d", i);
        log_ring_add(ring, line, strlen(line));
    }

    if (strcmp(log_ring_line(ring, 0), "line 4") != 0
        || strcmp(log_ring_line(ring, 2), "line 2") != 0
        || log_ring_line(ring, 3) != NULL)
    {
        complain("ring", "wrong order");
    }

    memset(line, 'x', sizeof(line));
    log_ring_add(ring, line, sizeof(line));
    kept = log_ring_line(ring, 0);

    if (strlen(kept) > 1024 || strcmp(kept + strlen(kept) - 4, "x...") != 0) {
        complain("ring", "a long line is not cut");
    }

    log_ring_add(NULL, "x", 1);
    log_ring_free(ring);
    log_ring_free(NULL);
}


/* Names of levels. */
static void
test_levels(void)
{
    if (log_level_parse("critical") != LOG_CRITICAL
        || log_level_parse("TRACE") != LOG_TRACE
        || log_level_parse("warn") != -1 || log_level_parse("") != -1
        || log_level_parse(NULL) != -1 || log_level_get() != LOG_INFO)
    {
        complain("levels", "wrong");
    }
}


/* Reads what was logged. */
static char *
logged(int fd)
{
    ssize_t      n;
    static char  text[100000];

    n = read(fd, text, sizeof(text) - 1);
    text[n > 0 ? n : 0] = '\0';

    return text;
}


/* Lines as they come out. */
static void
test_lines(int fd)
{
    char             *line, big[9000];
    struct tm         tm;

    log_write(LOG_DEBUG, "test", "not shown");

    errno = ENOENT;
    log_write(LOG_INFO, "a\nb", "x=%d %m", 7);

    if (errno != ENOENT) {
        complain("line", "errno is lost");
    }

    line = logged(fd);
    memset(&tm, 0, sizeof(tm));

    if (strptime(line, "%Y-%m-%dT%H:%M:%S", &tm) != line + 19
        || line[19] != '.'
        || strcmp(line + 23, "Z info a\\x0ab x=7 No such file or directory\n")
           != 0)
    {
        complain("line", line);
    }

    memset(big, '\n', sizeof(big));
    big[sizeof(big) - 1] = '\0';
    log_write(LOG_ERROR, "test", "%s", big);
    line = logged(fd);

    if (strlen(line) > 4096
        || strcmp(line + strlen(line) - 8, "\\x0a...\n") != 0)
    {
        complain("long line", line);
    }

    memset(big, 'x', sizeof(big) - 1);
    log_write(LOG_ERROR, "test", "%s", big);
    line = logged(fd);

    if (strcmp(line + strlen(line) - 5, "x...\n") != 0) {
        complain("long line of letters", line);
    }
}


/* A reader that does not read delays us once, and is told what it lost. */
static void
test_full(int fd)
{
    int              i;
    char             big[3000], *text;
    struct timespec  start, end;

    memset(big, 'x', sizeof(big));
    big[sizeof(big) - 1] = '\0';

    clock_gettime(CLOCK_MONOTONIC, &start);

    for (i = 0; i < 1000; i++) {
        log_write(LOG_ERROR, "test", "%s", big);
    }

    clock_gettime(CLOCK_MONOTONIC, &end);

    if (end.tv_sec - start.tv_sec > 1) {
        complain("full", "it waited");
    }

    while (strlen(logged(fd)) > 0) { /* void */ }

    log_write(LOG_ERROR, "test", "again");
    text = logged(fd);

    if (strncmp(text, "(9", 2) != 0
        || strstr(text, " log lines were lost)\n") == NULL
        || strstr(text, " error test again\n") == NULL)
    {
        complain("after full", text);
    }
}


/* Runs everything with a pipe for stderr. */
int
main(void)
{
    int  fds[2];

    alarm(60);

    screen = dup(STDERR_FILENO);

    if (pipe2(fds, O_CLOEXEC) == -1 || dup2(fds[1], STDERR_FILENO) == -1
        || fcntl(fds[0], F_SETFL, O_NONBLOCK) == -1)
    {
        return 1;
    }

    test_printable();
    test_ring();
    test_levels();
    test_lines(fds[0]);
    test_full(fds[0]);

    dup2(screen, STDERR_FILENO);

    return failed;
}
