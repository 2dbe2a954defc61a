/*
 * Which model is loaded next; see loader.h.
 *
 * Models queue in the order of their first waiter.  One is loading at a
 * time.  Where a type has no room, the least recently used model of it is
 * drained, an idle one before a busy one.  A model that was just granted to
 * somebody stays until that one had the chance to use it; else two models
 * that share one place could chase each other and nobody be served.
 */

#define _GNU_SOURCE

#include "loader.h"
#include "helper.h"
#include "log.h"
#include "text.h"

#include <stdlib.h>
#include <string.h>


#define LOADER_FAST_MS      5       /* while something drains: at first, */
#define LOADER_POLL_MS      20      /* and when that takes longer than */
#define LOADER_FAST_FOR     1000
#define LOADER_TICK_MS      1000
#define LOADER_LINGER_MS    50      /* a busy model stays open for more */
#define LOADER_CHANCE_MS    1000    /* to use what was granted */
#define LOADER_RETRY_AFTER  10      /* seconds, when there was no room */
#define LOADER_ANY          MODEL_TYPES


static TAILQ_HEAD(, model)  queue = TAILQ_HEAD_INITIALIZER(queue);

static struct event  *wake;
static struct event  *poll_timer;
static struct event  *tick;
static uint64_t       draining_since;   /* 0: nothing drains */


/* Decides again, from the loop. */
void
loader_wake(void)
{
    if (wake != NULL) {
        event_active(wake, EV_TIMEOUT, 0);
    }
}


/* Puts a model at the end of the queue. */
void
loader_enqueue(struct model *m)
{
    if (!m->queued) {
        m->queued = true;
        TAILQ_INSERT_TAIL(&queue, m, queue_link);
    }
}


/* Takes a model out of it. */
void
loader_dequeue(struct model *m)
{
    if (m->queued) {
        m->queued = false;
        TAILQ_REMOVE(&queue, m, queue_link);
    }
}


/* Has everybody it was granted to had the chance to use it? */
static bool
loader_may_leave(struct model *m)
{
    struct lm_totals  totals;

    if (m->grants == 0 || clock_ms() - m->last_grant >= LOADER_CHANCE_MS) {
        return true;
    }

    lm_route_totals(&helper.state, m->slot, &totals);

    return totals.leases >= m->grants;
}


/*
 * The model of a type, or of LOADER_ANY, that shall leave, or NULL: none may,
 * for the moment.
 */
static struct model *
loader_victim(enum model_type type)
{
    bool           busy, best_busy;
    struct model  *m, *best;

    best = NULL;
    best_busy = false;

    for (m = model_first(); m != NULL; m = TAILQ_NEXT(m, link)) {

        if (m->state != MODEL_READY || m->doubted
            || (type != LOADER_ANY && m->type != type)
            || !loader_may_leave(m))
        {
            continue;
        }

        model_refresh(m);
        busy = model_inflight(m) > 0;

        if (best == NULL || (best_busy && !busy)
            || (best_busy == busy && m->last_use < best->last_use))
        {
            best = m;
            best_busy = busy;
        }
    }

    return best;
}


/*
 * May the victim be closed to newcomers for the sake of somebody who waits
 * since then?  One that nobody uses, at once.  A busy one stays open for a
 * moment: it cannot leave now anyway, and of requests for two models that
 * arrive together those for the one that is here need not wait two loads.
 */
static bool
loader_time_is_up(const struct model *victim, uint64_t since)
{
    return model_inflight(victim) == 0
           || clock_ms() - since >= LOADER_LINGER_MS;
}


/*
 * Are there fewer than limit of a type?  Lets one go where there are not.
 * since: when the first of those came who need the room.
 */
static bool
loader_room(enum model_type type, long limit, uint64_t since)
{
    long           loaded, leaving;
    struct model  *m;

    loaded = 0;
    leaving = 0;

    for (m = model_first(); m != NULL; m = TAILQ_NEXT(m, link)) {

        if (m->server == NULL || (type != LOADER_ANY && m->type != type)) {
            continue;
        }

        loaded++;

        if (m->state == MODEL_DRAINING || m->state == MODEL_STOPPING) {
            leaving++;
        }
    }

    if (loaded < limit) {
        return true;
    }

    if (loaded - leaving >= limit) {
        m = loader_victim(type);

        if (m != NULL && loader_time_is_up(m, since)) {
            log_write(LOG_DEBUG, "loader", "%s has to leave",
                      m->def->name);
            model_drain(m);
        }
    }

    return false;
}


/* May this model be started?  Notes the types that somebody waits for. */
static bool
loader_admit(const struct model *m, bool *crowded)
{
    long      limit = helper.opt.max_loaded_models;
    uint64_t  since = TAILQ_FIRST(&m->waits)->since;
    unsigned  type;

    if (limit != -1 && !loader_room(m->type, limit, since)) {
        crowded[m->type] = true;
        return false;
    }

    if (!loader_room(LOADER_ANY, LM_ROUTES, since)) {
        for (type = 0; type < MODEL_TYPES; type++) {
            crowded[type] = true;
        }

        return false;
    }

    return true;
}


/* Looks at one model in the queue. */
static void
loader_consider(struct model *m, bool *crowded, bool *loading)
{
    if (m->state == MODEL_READY && !m->doubted) {
        model_answer(m, 200, NULL, 0, "already");
        return;
    }

    if (m->state == MODEL_DRAINING) {

        /* it leaves for one that came earlier, or because it was told to */

        if (!m->unload && !crowded[m->type]) {
            model_resume(m);
        }

        return;
    }

    if (m->state != MODEL_ON_DISK || crowded[m->type]) {
        return;
    }

    if (TAILQ_EMPTY(&m->waits)) {
        loader_dequeue(m);
        return;
    }

    if (loader_admit(m, crowded) && !*loading) {
        *loading = true;
        model_start(m);
    }
}


/* Stops what is drained, lets go on what need not leave any more. */
static bool
loader_settle(const bool *crowded)
{
    bool           draining;
    struct model  *m;

    draining = false;

    for (m = model_first(); m != NULL; m = TAILQ_NEXT(m, link)) {

        if (m->unload && m->state == MODEL_READY && !m->doubted) {
            if (loader_may_leave(m)) {
                model_drain(m);

            } else {
                draining = true;
            }
        }

        if (m->state != MODEL_DRAINING) {
            continue;
        }

        if (!m->unload && !crowded[m->type]) {
            model_resume(m);

        } else if (model_inflight(m) == 0) {
            model_stop(m);

        } else {
            draining = true;
        }
    }

    return draining;
}


/* Looks again soon: most of what drains is only just being answered. */
static void
loader_poll(void)
{
    uint64_t        now;
    struct timeval  tv = { .tv_sec = 0, .tv_usec = LOADER_POLL_MS * 1000 };

    now = clock_ms();

    if (draining_since == 0) {
        draining_since = now;
    }

    if (now - draining_since < LOADER_FAST_FOR) {
        tv.tv_usec = LOADER_FAST_MS * 1000;
    }

    evtimer_add(poll_timer, &tv);
}


/* Decides. */
static void
loader_step(evutil_socket_t fd, short what, void *arg)
{
    bool           crowded[MODEL_TYPES], loading, poll_again;
    unsigned       type;
    struct model  *m, *next;

    if (helper.stopping) {
        return;
    }

    memset(crowded, 0, sizeof(crowded));
    loading = false;

    for (m = model_first(); m != NULL; m = TAILQ_NEXT(m, link)) {
        if (m->state == MODEL_LOADING) {
            loading = true;
        }
    }

    for (m = TAILQ_FIRST(&queue); m != NULL; m = next) {
        next = TAILQ_NEXT(m, queue_link);
        loader_consider(m, crowded, &loading);
    }

    poll_again = loader_settle(crowded);

    for (type = 0; type < MODEL_TYPES; type++) {
        poll_again |= crowded[type];
    }

    if (poll_again) {
        loader_poll();

    } else {
        draining_since = 0;
    }
}


/* Ends waits that lasted too long.  Those of a model that loads do not. */
static void
loader_expire(struct model *m)
{
    if (m->state != MODEL_LOADING && !TAILQ_EMPTY(&m->waits)) {
        model_expire(m, (uint64_t) helper.opt.load_timeout * 1000,
                     LOADER_RETRY_AFTER, "no room for this model: the ones "
                     "that are loaded are busy");
    }
}


/* Once a second: the dead, the late, and who was used. */
static void
loader_on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct model  *m;

    lm_state_reap(&helper.state);

    for (m = model_first(); m != NULL; m = TAILQ_NEXT(m, link)) {
        model_refresh(m);
        loader_expire(m);
    }
}


/* Begins. */
void
loader_init(void)
{
    struct timeval  tv = {
        .tv_sec = LOADER_TICK_MS / 1000,
        .tv_usec = (LOADER_TICK_MS % 1000) * 1000,
    };

    wake = event_new(helper.base, -1, 0, loader_step, NULL);
    poll_timer = evtimer_new(helper.base, loader_step, NULL);
    tick = event_new(helper.base, -1, EV_PERSIST, loader_on_tick, NULL);
    event_add(tick, &tv);
}


/* Ends. */
void
loader_free(void)
{
    event_free(wake);
    event_free(poll_timer);
    event_free(tick);
    wake = NULL;
}
