/*
 * GET /v1/health, GET /live
 */

#define _GNU_SOURCE

#include "api.h"
#include "helper.h"
#include "model.h"
#include "text.h"

#include <string.h>
#include <time.h>


/* Seconds since 1970 of a moment on the monotonic clock. */
static double
api_wall_time(uint64_t moment)
{
    struct timespec  ts;

    clock_gettime(CLOCK_REALTIME, &ts);

    return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9
           - (double) (clock_ms() - moment) / 1000;
}


/* One loaded model. */
static json_t *
api_health_model(struct model *m)
{
    char                           url[256];
    json_t                        *entry;
    unsigned                       inflight;
    struct lm_totals               totals;
    const struct backend_timing   *timing;

    memset(&totals, 0, sizeof(totals));
    inflight = 0;
    model_refresh(m);

    if (m->published) {
        lm_route_totals(&helper.state, m->slot, &totals);
        inflight = model_inflight(m);
    }

    timing = server_timing(m->server);

    entry = json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:s, s:s, s:b, s:b}",
        "model_name", m->def->name, "checkpoint", m->def->checkpoint,
        "recipe", m->def->recipe, "type", model_type_name(m->type),
        "device", "cpu", "pid", (int) server_pid(m->server),
        "backend_url", server_url(m->server, url, sizeof(url)),
        "status", model_status(m),
        "loaded", m->published ? 1 : 0, "is_busy", inflight > 0 ? 1 : 0);

    json_object_set_new(entry, "in_flight", json_integer(inflight));
    json_object_set_new(entry, "requests",
                        json_integer((json_int_t) totals.requests));
    json_object_set_new(entry, "failures",
                        json_integer((json_int_t) totals.failures));
    json_object_set_new(entry, "prompt_tokens",
                        json_integer((json_int_t) totals.prompt_tokens));
    json_object_set_new(entry, "completion_tokens",
                        json_integer((json_int_t) totals.completion_tokens));
    json_object_set_new(entry, "last_use", m->last_use
                        ? json_real(api_wall_time(m->last_use))
                        : json_null());
    json_object_set_new(entry, "time_to_first_token",
                        json_real(timing->time_to_first_token));
    json_object_set_new(entry, "tokens_per_second",
                        json_real(timing->tokens_per_second));

    return entry;
}


/* GET /v1/health */
void
api_health(struct http_conn *c)
{
    json_t        *list, *limits, *body;
    unsigned       type;
    struct model  *m, *recent;

    list = json_array();
    limits = json_object();
    recent = NULL;

    for (m = model_first(); m != NULL; m = TAILQ_NEXT(m, link)) {

        if (m->server == NULL) {
            continue;
        }

        json_array_append_new(list, api_health_model(m));

        /* a model counts as loaded only when it can answer */

        if (m->published
            && (recent == NULL || m->last_use > recent->last_use))
        {
            recent = m;
        }
    }

    for (type = 0; type < MODEL_TYPES; type++) {
        json_object_set_new(limits, model_type_name(type),
                            json_integer(helper.opt.max_loaded_models));
    }

    body = json_pack("{s:s, s:s, s:s?, s:s?, s:I, s:o, s:o}",
        "status", "ok", "version", LEMONADE_VERSION,
        "model_loaded", recent ? recent->def->name : NULL,
        "checkpoint_loaded", recent ? recent->def->checkpoint : NULL,
        "context_size", (json_int_t) helper.opt.ctx_size,
        "max_models", limits, "all_models_loaded", list);

    json_object_set_new(body, "log_streaming",
                        json_pack("{s:b, s:b}", "sse", 0, "websocket", 0));

    http_reply(c, 200, body);
}


/* GET /live */
void
api_live(struct http_conn *c)
{
    http_reply(c, 200, json_pack("{s:s}", "status", "ok"));
}
