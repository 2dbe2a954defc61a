/*
 * The models' states and who waits for them; see model.h.
 */

#define _GNU_SOURCE

#include "model.h"
#include "helper.h"
#include "loader.h"
#include "log.h"
#include "text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


#define MODEL_SILENT_MAX    3   /* doubts without an answer */


static TAILQ_HEAD(, model)  models = TAILQ_HEAD_INITIALIZER(models);


/* Calls a waiter back; w is freed. */
static void
wait_end(struct model_wait *w, struct model_waits *list, int status,
    const char *code, unsigned retry_after, const char *message)
{
    struct model_wait     copy = *w;
    struct model_result   result = {
        .status = status,
        .code = code,
        .message = message,
        .retry_after = retry_after,
    };

    TAILQ_REMOVE(list, w, link);
    free(w);

    copy.done(&result, copy.arg);
}


/* Ends all waits for ready. */
void
model_answer(struct model *m, int status, const char *code,
    unsigned retry_after, const char *message)
{
    struct model_wait  *w;

    while ((w = TAILQ_FIRST(&m->waits)) != NULL) {

        if (status == 200 && w->asks) {
            m->grants++;
            m->last_grant = clock_ms();
        }

        wait_end(w, &m->waits, status, code, retry_after, message);
    }

    loader_dequeue(m);
}


/* Ends the waits for ready that began so long ago. */
void
model_expire(struct model *m, uint64_t ms, unsigned retry_after,
    const char *message)
{
    uint64_t            now;
    struct model_wait  *w;

    now = clock_ms();

    /* they are in the order they came */

    while ((w = TAILQ_FIRST(&m->waits)) != NULL && now - w->since >= ms) {
        wait_end(w, &m->waits, 503, "no_capacity", retry_after, message);
    }

    if (TAILQ_EMPTY(&m->waits)) {
        loader_dequeue(m);
        loader_wake();
    }
}


/* Ends all waits for gone. */
static void
model_answer_unloads(struct model *m, int status, const char *code,
    const char *message)
{
    struct model_wait  *w;

    while ((w = TAILQ_FIRST(&m->unloads)) != NULL) {
        wait_end(w, &m->unloads, status, code, 0, message);
    }
}


/* A new waiter. */
static struct model_wait *
wait_new(struct model *m, model_done done, void *arg)
{
    struct model_wait  *w;

    w = text_alloc(sizeof(*w));
    w->model = m;
    w->done = done;
    w->arg = arg;
    w->since = clock_ms();

    return w;
}


/* The waiter left. */
void
model_wait_cancel(struct model_wait *w)
{
    struct model  *m = w->model;

    TAILQ_REMOVE(w->unload ? &m->unloads : &m->waits, w, link);
    free(w);

    loader_wake();
}


/* Answers at once. */
static void
model_refuse(model_done done, void *arg, int status, const char *code,
    unsigned retry_after, const char *message)
{
    struct model_result  result = {
        .status = status,
        .code = code,
        .message = message,
        .retry_after = retry_after,
    };

    done(&result, arg);
}


/* Finds a model by its canonical name. */
struct model *
model_find(const char *name)
{
    struct model  *m;

    TAILQ_FOREACH(m, &models, link) {
        if (strcmp(m->def->name, name) == 0) {
            return m;
        }
    }

    return NULL;
}


/* The first of all. */
struct model *
model_first(void)
{
    return TAILQ_FIRST(&models);
}


/* The type a model counts as. */
static enum model_type
model_type_of(const struct registry_model *def)
{
    if (registry_labelled(def, "embeddings")) {
        return MODEL_EMBEDDING;
    }

    return registry_labelled(def, "reranking") ? MODEL_RERANKING : MODEL_LLM;
}


/* Makes it what the registry says now; no server runs. */
static void
model_define(struct model *m, struct registry_model *def)
{
    if (m->failures != 0 && model_file_changed(m, def)) {
        m->failures = 0;
        m->retry_at = 0;
    }

    registry_free_model(m->def);
    m->def = def;
    m->type = model_type_of(def);
}


/* Takes the newest definition for those who wait, if it can be loaded. */
static void
model_renew(struct model *m)
{
    struct registry_model  *def;

    def = registry_find(helper.registry, m->def->name);

    if (def != NULL && def->downloaded
        && strcmp(def->name, m->def->name) == 0)
    {
        model_define(m, def);
        return;
    }

    registry_free_model(def);
}


/* The model of a definition, which becomes the model's unless it runs. */
static struct model *
model_get(struct registry_model *def)
{
    struct model  *m;

    m = model_find(def->name);

    if (m == NULL) {
        m = text_alloc(sizeof(*m));
        TAILQ_INIT(&m->waits);
        TAILQ_INIT(&m->unloads);
        TAILQ_INSERT_TAIL(&models, m, link);
        m->def = def;
        m->type = model_type_of(def);
        return m;
    }

    if (m->server != NULL) {
        registry_free_model(def);
        return m;
    }

    model_define(m, def);

    return m;
}


/* Takes the route out, and remembers whether it ever served anybody. */
static void
model_retire(struct model *m)
{
    struct lm_totals  totals;

    if (m->published) {
        lm_route_totals(&helper.state, m->slot, &totals);
        m->useful = totals.requests > totals.failures;

        m->published = false;
        lm_route_retire(&helper.state, m->slot);
    }
}


/* Takes the route out if the server is dead, though nobody was told yet. */
static void
model_check(struct model *m)
{
    if (m->published && server_dead(m->server)) {
        m->crashed = true;
        m->doubted = false;
        m->state = MODEL_STOPPING;
        model_retire(m);
    }
}


/* Takes a server out that answers nothing any more. */
static void
model_give_up(struct model *m)
{
    log_write(LOG_ERROR, "model", "%s does not answer, replacing its server",
              m->def->name);

    m->crashed = true;
    m->state = MODEL_STOPPING;
    model_retire(m);
    server_stop(m->server);
}


/* It is there after all, or says nothing. */
static void
model_on_sure(struct server *s, bool answered, void *arg)
{
    struct model  *m = arg;

    m->doubted = false;
    m->silent = answered ? 0 : m->silent + 1;

    if (m->state != MODEL_READY) {
        return;
    }

    if (m->silent >= MODEL_SILENT_MAX) {
        model_give_up(m);
        return;
    }

    model_resume(m);
    loader_wake();
}


/* Somebody could not reach it. */
void
model_suspect(const char *name, unsigned slot, unsigned generation)
{
    struct model  *m;

    m = model_find(name);

    if (m == NULL || !m->published || m->slot != slot
        || m->generation != generation)
    {
        return;
    }

    model_check(m);

    if (m->state == MODEL_READY && !m->doubted) {
        m->doubted = true;
        lm_route_drain(&helper.state, m->slot);
        server_doubt(m->server, model_on_sure);
    }
}


/* Waits until the model is ready. */
struct model_wait *
model_ensure(struct registry_model *def, bool asks, model_done done,
    void *arg)
{
    char                message[1024];
    unsigned            seconds;
    struct model       *m;
    struct model_wait  *w;

    if (helper.stopping) {
        registry_free_model(def);
        model_refuse(done, arg, 503, "shutting_down", 1,
                     "the server is shutting down");
        return NULL;
    }

    m = model_get(def);
    model_check(m);

    if (m->state == MODEL_READY && !m->doubted) {
        if (asks) {
            m->grants++;
            m->last_grant = clock_ms();
        }

        model_refuse(done, arg, 200, NULL, 0, "already");
        return NULL;
    }

    seconds = m->server == NULL
              ? model_refusal(m, message, sizeof(message)) : 0;

    if (seconds > 0) {
        model_refuse(done, arg, 503, "model_load_error", seconds, message);
        return NULL;
    }

    w = wait_new(m, done, arg);
    w->asks = asks;
    TAILQ_INSERT_TAIL(&m->waits, w, link);

    if (m->state != MODEL_LOADING && !m->doubted) {
        loader_enqueue(m);
    }

    loader_wake();

    return w;
}


/* Gives a load up; that is not a failure. */
static void
model_abandon(struct model *m)
{
    log_write(LOG_INFO, "model", "the load of %s is given up",
              m->def->name);

    m->state = MODEL_STOPPING;
    server_stop(m->server);
}


/* Waits until the model is gone. */
struct model_wait *
model_unload(const char *name, model_done done, void *arg)
{
    struct model       *m;
    struct model_wait  *w;

    m = model_find(name);

    if (m == NULL || m->server == NULL) {
        model_refuse(done, arg, 404, "model_not_loaded", 0, "not loaded");
        return NULL;
    }

    w = wait_new(m, done, arg);
    w->unload = true;
    TAILQ_INSERT_TAIL(&m->unloads, w, link);
    m->unload = true;

    if (m->state == MODEL_LOADING) {
        model_abandon(m);
        model_answer(m, 503, "model_unloaded", 1,
                     "the model was unloaded while it was loading");
    }

    loader_wake();

    return w;
}


/* Would both be served in the same way? */
static bool
model_same(const struct registry_model *a, const struct registry_model *b)
{
    if ((a->mmproj == NULL) != (b->mmproj == NULL)
        || (a->mmproj != NULL && strcmp(a->mmproj, b->mmproj) != 0))
    {
        return false;
    }

    return strcmp(a->checkpoint, b->checkpoint) == 0
           && strcmp(a->recipe, b->recipe) == 0
           && json_equal(a->labels, b->labels);
}


/* The registry says something else now. */
void
model_redefined(const struct registry_model *def)
{
    struct model  *m;

    m = model_find(def->name);

    if (m == NULL || model_same(m->def, def)) {
        return;
    }

    if (m->server == NULL) {
        model_renew(m);

    } else if (m->state == MODEL_LOADING) {
        model_abandon(m);

    } else {
        m->unload = true;
    }

    loader_wake();
}


/* Loads it again for those who wait, unless it failed too often for that. */
static void
model_load_again(struct model *m)
{
    char      message[1024];
    unsigned  seconds;

    if (TAILQ_EMPTY(&m->waits)) {
        return;
    }

    model_renew(m);
    seconds = model_refusal(m, message, sizeof(message));

    if (seconds > 0) {
        model_answer(m, 503, "model_load_error", seconds, message);
        return;
    }

    loader_enqueue(m);
}


/* The server is gone. */
static void
model_on_exit(struct server *s, const char *reason, void *arg)
{
    bool               crashed;
    struct model      *m = arg;
    enum model_state   state;

    model_retire(m);

    state = m->state;
    crashed = m->crashed || state == MODEL_READY || state == MODEL_DRAINING;

    m->server = NULL;
    m->state = MODEL_ON_DISK;
    m->doubted = false;
    m->crashed = false;
    m->unload = false;

    if (helper.stopping) {
        /* nobody waits any more */

    } else if (crashed) {
        model_note_crash(m, reason);

    } else if (state == MODEL_LOADING) {
        model_note_failure(m, reason);

    } else {
        log_write(LOG_INFO, "model", "%s unloaded", m->def->name);
    }

    model_answer_unloads(m, 200, NULL, "unloaded");
    model_load_again(m);
    loader_wake();
}


/* The server can generate: publish its route. */
static void
model_on_ready(struct server *s, void *arg)
{
    int                 slot;
    struct model       *m = arg;
    struct lm_replica   replica;

    server_describe(s, &replica);
    slot = lm_route_publish(&helper.state, m->def->name, &replica, 1);

    if (slot == -1) {
        log_write(LOG_ERROR, "model", "%s: no route: %s", m->def->name,
                  strerror(errno));
        m->state = MODEL_STOPPING;
        server_stop(s);
        model_answer(m, 503, "no_capacity", 10,
                     "too many models are loaded; unload one");
        return;
    }

    m->slot = (unsigned) slot;
    m->generation = atomic_load(&helper.state.file->route[slot].generation);
    m->published = true;
    m->state = MODEL_READY;
    m->grants = 0;
    m->seen = 0;
    m->useful = false;
    m->doubted = false;
    m->silent = 0;
    m->retry_at = 0;
    m->ready_at = m->last_use = clock_ms();

    log_write(LOG_INFO, "model", "%s ready, %s", m->def->name,
              replica.label);

    model_answer(m, 200, NULL, 0, "loaded");
    loader_wake();
}


/* Starts the server. */
void
model_start(struct model *m)
{
    loader_dequeue(m);

    log_write(LOG_INFO, "model", "loading %s", m->def->name);

    m->state = MODEL_LOADING;
    m->server = server_start(m->def, model_on_ready, model_on_exit, m);
}


/* Lets nobody in any more. */
void
model_drain(struct model *m)
{
    m->state = MODEL_DRAINING;
    lm_route_drain(&helper.state, m->slot);
}


/* Lets people in again; those who came meanwhile first. */
void
model_resume(struct model *m)
{
    lm_route_resume(&helper.state, m->slot);
    m->state = MODEL_READY;
    model_answer(m, 200, NULL, 0, "already");
}


/* Stops a server that nobody uses. */
void
model_stop(struct model *m)
{
    model_retire(m);
    m->doubted = false;
    m->state = MODEL_STOPPING;
    server_stop(m->server);
}


/* Ends every wait, stops every server. */
void
models_shutdown(void)
{
    struct model  *m;

    TAILQ_FOREACH(m, &models, link) {
        model_answer(m, 503, "shutting_down", 1,
                     "the server is shutting down");

        if (m->server != NULL) {
            model_stop(m);
        }
    }
}


/* Kills every server. */
void
models_kill(void)
{
    struct model  *m;

    TAILQ_FOREACH(m, &models, link) {
        if (m->server != NULL) {
            server_kill(m->server);
        }
    }
}


/* Is any server left? */
bool
models_running(void)
{
    struct model  *m;

    TAILQ_FOREACH(m, &models, link) {
        if (m->server != NULL) {
            return true;
        }
    }

    return false;
}


/* Frees all; a server that is left is one that does not end. */
void
models_free(void)
{
    struct model  *m;

    while ((m = TAILQ_FIRST(&models)) != NULL) {
        model_answer_unloads(m, 503, "shutting_down", "shutting down");
        TAILQ_REMOVE(&models, m, link);

        if (m->server != NULL) {
            server_free(m->server);
        }

        registry_free_model(m->def);
        free(m);
    }
}
