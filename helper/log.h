/*
 * The helper's own log: one line per event on stderr, and a ring of the
 * last lines in memory for whoever asks what went wrong.
 */

#ifndef LEMONADE_LOG_H
#define LEMONADE_LOG_H

#include <stddef.h>


enum log_level {
    LOG_CRITICAL = 0,
    LOG_ERROR,
    LOG_WARNING,
    LOG_INFO,
    LOG_DEBUG,
    LOG_TRACE,
};


/* Level of a name as the command line gives it, or -1. */
int log_level_parse(const char *name);

/* Lines above this level are dropped.  Default: info. */
void log_level_set(enum log_level level);
enum log_level log_level_get(void);

/*
 * Writes "2026-11-21T10:11:12.123Z info TAG message\n" to stderr.  tag names
 * the part or the child ("http", "llamacpp Qwen3").  Control bytes in the
 * message are shown as \xNN, invalid UTF-8 too, so a child cannot forge
 * lines; long lines end in "...".  Never fails, keeps errno, and waits at
 * most 100 ms for a full stderr: then lines are dropped, and their number is
 * told when stderr takes lines again.
 */
void log_write(enum log_level level, const char *tag, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/*
 * Copies text (len bytes) to a buffer of at least 8 bytes in the form that
 * log_write shows: printable valid UTF-8, other bytes as \xNN, what does not
 * fit as "...".  Returns the length written, without the final NUL.
 */
size_t log_printable(char *to, size_t size, const char *text, size_t len);


/*
 * The last lines of one child.  Bounded by count and by bytes per line.
 */
struct log_ring;

struct log_ring *log_ring_new(unsigned lines);
void log_ring_free(struct log_ring *ring);

/*
 * Copies the line (len bytes, no newline) in the form log_write shows it, so
 * that it is always valid UTF-8; cut at 1 KB.  A NULL ring takes nothing.
 */
void log_ring_add(struct log_ring *ring, const char *line, size_t len);

/* Line i counted from the newest (0), or NULL. */
const char *log_ring_line(const struct log_ring *ring, unsigned i);


#endif /* LEMONADE_LOG_H */
