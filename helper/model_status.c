/*
 * What a model looks like from outside: state, use, names; see model.h.
 */

#define _GNU_SOURCE

#include "model.h"
#include "helper.h"
#include "text.h"


/* Requests in flight. */
unsigned
model_inflight(const struct model *m)
{
    return m->published ? lm_route_inflight(&helper.state, m->slot) : 0;
}


/* Was it used since the last look? */
void
model_refresh(struct model *m)
{
    struct lm_totals  totals;

    if (!m->published) {
        return;
    }

    lm_route_totals(&helper.state, m->slot, &totals);

    if (totals.leases != m->seen || model_inflight(m) > 0) {
        m->seen = totals.leases;
        m->last_use = clock_ms();
    }
}


/* Names a state. */
const char *
model_status(const struct model *m)
{
    switch (m->state) {

    case MODEL_LOADING:
        return "loading";

    case MODEL_READY:
        return model_inflight(m) > 0 ? "busy" : "ready";

    case MODEL_DRAINING:
        return "draining";

    case MODEL_STOPPING:
        return "stopping";

    default:
        if (m->queued) {
            return "queued";
        }

        return m->retry_at > clock_ms() ? "failed" : "on_disk";
    }
}


/* Names a type. */
const char *
model_type_name(enum model_type type)
{
    static const char  *names[] = { "llm", "embedding", "reranking" };

    return names[type];
}
