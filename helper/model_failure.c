/*
 * What a model's failures lead to; see model.h.
 */

#define _GNU_SOURCE

#include "model.h"
#include "log.h"
#include "text.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>


#define MODEL_QUICK_DEATH   10000   /* ms: a crash so soon may be a loop */
#define MODEL_BACKOFF_MAX   60000


/* Has the file changed since it failed to load? */
bool
model_file_changed(const struct model *m, const struct registry_model *def)
{
    struct stat  sb;

    return strcmp(m->def->checkpoint, def->checkpoint) != 0
           || def->file == NULL
           || stat(def->file, &sb) == -1
           || sb.st_size != m->failed_size
           || sb.st_mtim.tv_sec != m->failed_mtime.tv_sec
           || sb.st_mtim.tv_nsec != m->failed_mtime.tv_nsec;
}


/* Remembers which file it was that failed. */
static void
model_stamp(struct model *m)
{
    struct stat  sb;

    memset(&m->failed_mtime, 0, sizeof(m->failed_mtime));
    m->failed_size = 0;

    if (stat(m->def->file, &sb) == 0) {
        m->failed_mtime = sb.st_mtim;
        m->failed_size = sb.st_size;
    }
}


/* Sets when it may be tried again: 1, 2, 4 ... 60 s. */
static void
model_back_off(struct model *m, unsigned steps, const char *reason)
{
    uint64_t  ms;

    ms = steps > 6 ? MODEL_BACKOFF_MAX : 1000u << (steps - 1);

    if (ms > MODEL_BACKOFF_MAX) {
        ms = MODEL_BACKOFF_MAX;
    }

    m->retry_at = clock_ms() + ms;
    text_copy(m->reason, sizeof(m->reason), reason);
}


/* Says how long it may not be tried, and why. */
unsigned
model_refusal(const struct model *m, char *message, size_t size)
{
    uint64_t  now, seconds;

    now = clock_ms();

    if (m->retry_at <= now) {
        return 0;
    }

    seconds = (m->retry_at - now + 999) / 1000;
    snprintf(message, size, "model %s failed to load: %s; it can be tried "
             "again in %u s", m->def->name, m->reason, (unsigned) seconds);

    return (unsigned) seconds;
}


/* It was ready and died: was it of any use? */
void
model_note_crash(struct model *m, const char *reason)
{
    log_write(LOG_ERROR, "model", "%s died: %s", m->def->name, reason);

    if (clock_ms() - m->ready_at >= MODEL_QUICK_DEATH || m->useful) {
        m->failures = 0;
        return;
    }

    /* a request and its replay may kill two; a third death is a loop */

    m->failures++;
    model_stamp(m);

    if (m->failures > 2) {
        model_back_off(m, m->failures - 2, reason);
    }
}


/* The load failed. */
void
model_note_failure(struct model *m, const char *reason)
{
    char  message[1024];

    m->failures++;
    model_stamp(m);
    model_back_off(m, m->failures, reason);

    snprintf(message, sizeof(message), "model %s failed to load: %s",
             m->def->name, m->reason);
    log_write(LOG_ERROR, "model", "%s", message);

    model_answer(m, 500, "model_load_error", 0, message);
}
