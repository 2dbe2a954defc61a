/*
 * One model's life:
 *
 *   on disk -> queued -> loading -> ready <-> busy
 *      ^                    |         |
 *      |<--- failed <-------+     draining -> stopping
 *      +------------------------------------------+
 *
 * N requests for a model cause one load.  Those who wait are served in the
 * order they came, models in the order of their first waiter (loader.c).  A
 * busy model is never stopped: its route is drained and its server stopped
 * when the last request has left.
 */

#ifndef LEMONADE_MODEL_H
#define LEMONADE_MODEL_H

#include "registry.h"
#include "server.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <time.h>


enum model_state {
    MODEL_ON_DISK = 0,      /* and not on disk, queued, failed */
    MODEL_LOADING,
    MODEL_READY,
    MODEL_DRAINING,
    MODEL_STOPPING,
};


/* What is loaded is counted, and limited, per type. */
enum model_type {
    MODEL_LLM = 0,
    MODEL_EMBEDDING,
    MODEL_RERANKING,
    MODEL_TYPES,
};


/* How a wait ended.  status is that of HTTP, 200 when all is well. */
struct model_result {
    int          status;
    const char  *code;
    const char  *message;
    unsigned     retry_after;   /* seconds, 0: does not apply */
};

typedef void (*model_done)(const struct model_result *result, void *arg);


/* Somebody who waits for a model to be ready, or to be gone. */
struct model_wait {
    TAILQ_ENTRY(model_wait)   link;
    struct model             *model;
    model_done                done;
    void                     *arg;
    uint64_t                  since;
    bool                      asks;     /* comes from nginx: will lease */
    bool                      unload;
};

TAILQ_HEAD(model_waits, model_wait);


struct model {
    TAILQ_ENTRY(model)       link;
    TAILQ_ENTRY(model)       queue_link;
    struct registry_model   *def;
    enum model_type          type;
    enum model_state         state;
    bool                     queued;    /* in the loader's queue */
    bool                     unload;    /* to be stopped when idle */
    bool                     published; /* slot is its route */
    bool                     doubted;   /* its server is being asked */
    unsigned                 silent;    /* doubts in a row it left so */
    bool                     useful;    /* its last server did serve */
    bool                     crashed;   /* found dead before its exit came */
    struct server           *server;
    struct model_waits       waits;     /* for ready */
    struct model_waits       unloads;   /* for gone */

    unsigned                 slot;
    uint32_t                 generation;
    uint64_t                 grants;    /* waiters told that it is ready */
    uint64_t                 last_grant;
    uint64_t                 ready_at;
    uint64_t                 last_use;  /* clock_ms */
    uint64_t                 seen;      /* leases when last looked */

    unsigned                 failures;  /* in a row */
    uint64_t                 retry_at;  /* clock_ms, 0: no back-off */
    char                     reason[512];
    struct timespec          failed_mtime;  /* of the file that failed */
    off_t                    failed_size;
};


/*
 * Waits until the model is ready.  def becomes the model's.  asks: the
 * caller will lease the route right after.  When the answer is known at
 * once, done is called before this returns, and NULL comes back.
 */
struct model_wait *model_ensure(struct registry_model *def, bool asks,
    model_done done, void *arg);

/*
 * Waits until the model is gone, NULL as above; 404: it was not loaded.  A
 * load is given up, and who waits for it told so with 503.
 */
struct model_wait *model_unload(const char *name, model_done done,
    void *arg);

/* The waiter left; done is not called. */
void model_wait_cancel(struct model_wait *w);

/*
 * Somebody could not reach this route.  If its server is dead, the route is
 * taken out at once.  If it seems alive, nobody is sent there until it has
 * answered: a killed process closes its sockets a moment before it is dead.
 * One that leaves three doubts in a row without an answer is replaced.
 */
void model_suspect(const char *name, unsigned slot, unsigned generation);

/*
 * The registry's entry changed: what is loaded is drained and stopped, a
 * load is given up; who waits gets the new definition.
 */
void model_redefined(const struct registry_model *def);

/* A model that was asked for since the start, or NULL. */
struct model *model_find(const char *name);
struct model *model_first(void);

/* Requests in flight now. */
unsigned model_inflight(const struct model *m);

/* "on_disk", "queued", "loading", "ready", "busy", "draining", ... */
const char *model_status(const struct model *m);

/* "llm", "embedding", "reranking" */
const char *model_type_name(enum model_type type);

/* Looks whether it was used since the last look. */
void model_refresh(struct model *m);

/* Ends every wait with 503 and stops every server. */
void models_shutdown(void);

/* Kills every server. */
void models_kill(void);

/* Is any server left? */
bool models_running(void);

void models_free(void);


/*
 * For the loader.
 */

void model_start(struct model *m);
void model_drain(struct model *m);
void model_resume(struct model *m);
void model_stop(struct model *m);

/* Ends all waits for ready. */
void model_answer(struct model *m, int status, const char *code,
    unsigned retry_after, const char *message);

/* Ends with 503 the waits for ready that began ms ago or earlier. */
void model_expire(struct model *m, uint64_t ms, unsigned retry_after,
    const char *message);


/*
 * For model.c: failures.
 */

/* Has the file changed since it failed? */
bool model_file_changed(const struct model *m,
    const struct registry_model *def);

/* It was ready and died; three useless deaths in a row begin a back-off. */
void model_note_crash(struct model *m, const char *reason);

/* Seconds until it may be tried again, with the reason; 0: it may be now. */
unsigned model_refusal(const struct model *m, char *message, size_t size);

/* The load failed: ends all waits for ready, begins a back-off. */
void model_note_failure(struct model *m, const char *reason);


#endif /* LEMONADE_MODEL_H */
