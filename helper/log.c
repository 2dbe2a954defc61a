/*
 * The helper's log: one bounded line per event on stderr, and rings of the
 * last lines of each child.
 */

#define _GNU_SOURCE

#include "log.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>


/* A pipe that polls writable takes this much at once, so a write is whole. */
#define LOG_LINE_MAX   4096
#define LOG_TEXT_MAX   3500
#define LOG_RING_TEXT  1024
#define LOG_WAIT_MS    100


struct log_ring {
    unsigned      size;
    unsigned      next;
    char         *lines[];
};


static const char *const  level_names[] = {
    "critical", "error", "warning", "info", "debug", "trace",
};

static enum log_level  threshold = LOG_INFO;

/* Lines that stderr did not take. */
static unsigned long   lost;


/* Level of a name as the command line gives it, or -1. */
int
log_level_parse(const char *name)
{
    unsigned  i;

    for (i = 0; i < sizeof(level_names) / sizeof(level_names[0]); i++) {
        if (name != NULL && strcasecmp(name, level_names[i]) == 0) {
            return (int) i;
        }
    }

    return -1;
}


/* Sets the level above which lines are dropped. */
void
log_level_set(enum log_level level)
{
    threshold = level;
}


/* The level above which lines are dropped. */
enum log_level
log_level_get(void)
{
    return threshold;
}


/* Length of the printable UTF-8 character at s, or 0 if it is not one. */
static size_t
character_len(const unsigned char *s, size_t len)
{
    size_t    n, i;
    uint32_t  code;

    if (s[0] < 0x80) {
        return s[0] >= 0x20 && s[0] != 0x7f;
    }

    if (s[0] < 0xc2 || s[0] > 0xf4) {
        return 0;
    }

    n = (s[0] < 0xe0) ? 2 : (s[0] < 0xf0) ? 3 : 4;
    code = s[0] & (0x7f >> n);

    if (len < n) {
        return 0;
    }

    for (i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }

        code = code << 6 | (s[i] & 0x3f);
    }

    /* C1 controls steer terminals as C0 do; the rest is no character. */

    if (code < 0xa0
        || (n == 3 && code < 0x800)
        || (n == 4 && (code < 0x10000 || code > 0x10ffff))
        || (code >= 0xd800 && code <= 0xdfff)
        || code == 0x2028 || code == 0x2029)
    {
        return 0;
    }

    return n;
}


/*
 * Copies text in printable form; what does not fit is shown as "...".
 * Returns the length written; size must be at least 8.
 */
size_t
log_printable(char *to, size_t size, const char *text, size_t len)
{
    size_t                n, used;
    const unsigned char  *p;
    static const char     hex[] = "0123456789abcdef";

    p = (const unsigned char *) text;
    used = 0;

    while (len > 0) {
        n = character_len(p, len);

        if (used + (n > 0 ? n : 4) + 4 > size) {
            memcpy(to + used, "...", 3);
            used += 3;
            break;
        }

        if (n > 0) {
            memcpy(to + used, p, n);
            used += n;

        } else {
            n = 1;
            to[used++] = '\\';
            to[used++] = 'x';
            to[used++] = hex[*p >> 4];
            to[used++] = hex[*p & 15];
        }

        p += n;
        len -= n;
    }

    to[used] = '\0';

    return used;
}


/* Writes one whole line to stderr, or counts it as lost when that is full. */
static void
line_write(const char *line, size_t len)
{
    int            n;
    char           note[64];
    struct pollfd  pfd = { .fd = STDERR_FILENO, .events = POLLOUT };

    /* A reader that once let us wait in vain gets no second wait. */

    if (poll(&pfd, 1, lost > 0 ? 0 : LOG_WAIT_MS) != 1
        || (pfd.revents & POLLOUT) == 0)
    {
        lost++;
        return;
    }

    if (lost > 0) {
        n = snprintf(note, sizeof(note), "(%lu log lines were lost)\n", lost);
        lost = 0;

        if (n > 0 && write(STDERR_FILENO, note, (size_t) n) != n) {
            lost++;
        }

        if (poll(&pfd, 1, 0) != 1 || (pfd.revents & POLLOUT) == 0) {
            lost++;
            return;
        }
    }

    if (write(STDERR_FILENO, line, len) != (ssize_t) len) {
        lost++;
    }
}


/* Writes one line to stderr. */
void
log_write(enum log_level level, const char *tag, const char *format, ...)
{
    int              n, saved;
    char             text[LOG_TEXT_MAX], line[LOG_LINE_MAX];
    size_t           len, used;
    va_list          args;
    struct tm        tm;
    struct timespec  now;

    if (level > threshold || level < LOG_CRITICAL) {
        return;
    }

    saved = errno;

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);

    used = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &tm);
    n = snprintf(line + used, sizeof(line) - used, ".%03ldZ %s ",
                 now.tv_nsec / 1000000, level_names[level]);
    used += (size_t) n;

    used += log_printable(line + used, 200, tag, strlen(tag));
    line[used++] = ' ';

    errno = saved;      /* for %m */

    va_start(args, format);
    n = vsnprintf(text, sizeof(text), format, args);
    va_end(args);

    len = (n < 0) ? 0 : (size_t) n;

    if (len >= sizeof(text)) {
        len = sizeof(text) - 1;
        memcpy(text + len - 3, "...", 3);
    }

    used += log_printable(line + used, sizeof(line) - used - 1, text, len);
    line[used++] = '\n';

    line_write(line, used);

    errno = saved;
}


/* Makes a ring for so many lines, or NULL. */
struct log_ring *
log_ring_new(unsigned lines)
{
    struct log_ring  *ring;

    if (lines == 0) {
        lines = 1;
    }

    ring = calloc(1, sizeof(*ring) + lines * sizeof(ring->lines[0]));
    if (ring == NULL) {
        return NULL;
    }

    ring->size = lines;

    return ring;
}


/* Frees a ring and its lines; NULL is no error. */
void
log_ring_free(struct log_ring *ring)
{
    unsigned  i;

    if (ring == NULL) {
        return;
    }

    for (i = 0; i < ring->size; i++) {
        free(ring->lines[i]);
    }

    free(ring);
}


/* Keeps a printable copy of the line in place of the oldest. */
void
log_ring_add(struct log_ring *ring, const char *line, size_t len)
{
    char    text[LOG_RING_TEXT], *copy;
    size_t  used;

    if (ring == NULL) {
        return;
    }

    used = log_printable(text, sizeof(text), line, len);

    copy = malloc(used + 1);
    if (copy == NULL) {
        return;
    }

    memcpy(copy, text, used + 1);

    free(ring->lines[ring->next]);
    ring->lines[ring->next] = copy;
    ring->next = (ring->next + 1) % ring->size;
}


/* Line i counted from the newest (0), or NULL. */
const char *
log_ring_line(const struct log_ring *ring, unsigned i)
{
    if (ring == NULL || i >= ring->size) {
        return NULL;
    }

    return ring->lines[(ring->next + ring->size - 1 - i) % ring->size];
}
