/*
 * GET /v1/models, GET /v1/models/{id}
 */

#define _GNU_SOURCE

#include "api.h"
#include "backend.h"
#include "helper.h"
#include "text.h"

#include <stdlib.h>
#include <string.h>


#define API_CREATED     1234567890  /* as Lemonade has it: nobody knows */


/* What a list is made of. */
struct api_list {
    json_t  *data;
    bool     all;
};


/* One model as clients see it. */
static json_t *
api_model_json(const struct registry_model *m)
{
    return json_pack("{s:s, s:s, s:i, s:s, s:s, s:s, s:O, s:f, s:b, s:b}",
                     "id", m->name, "object", "model",
                     "created", API_CREATED, "owned_by", "lemonade",
                     "checkpoint", m->checkpoint, "recipe", m->recipe,
                     "labels", m->labels,
                     "size", (double) (long long) (m->size * 1e6 + 0.5) / 1e6,
                     "downloaded", m->downloaded ? 1 : 0,
                     "suggested", m->suggested ? 1 : 0);
}


/* Adds a model that can run here; not on disk only if all are wanted. */
static void
api_models_add(const struct registry_model *m, void *arg)
{
    struct api_list  *list = arg;

    if (backend_find(m->recipe) != NULL && (m->downloaded || list->all)) {
        json_array_append_new(list->data, api_model_json(m));
    }
}


/* GET /v1/models[?show_all=true] */
void
api_models(struct http_conn *c)
{
    const char       *all;
    struct api_list   list;

    all = http_query(c, "show_all");

    list.all = all != NULL && (strcmp(all, "true") == 0
                               || strcmp(all, "1") == 0);
    list.data = json_array();

    registry_each(helper.registry, api_models_add, &list);

    http_reply(c, 200, json_pack("{s:s, s:o}", "object", "list",
                                 "data", list.data));
}


/* GET /v1/models/{id} */
void
api_model(struct http_conn *c)
{
    char                    *name;
    struct registry_model   *m;

    name = text_dup(http_path(c) + strlen("/v1/models/"));

    if (http_unescape(name) == -1 || !text_printable(name, strlen(name))) {
        http_error(c, 400, "invalid_request", "model",
                   "the model's name in the path is not well encoded");
        free(name);
        return;
    }

    m = registry_find(helper.registry, name);

    if (m != NULL && backend_find(m->recipe) != NULL) {
        http_reply(c, 200, api_model_json(m));

    } else {
        http_error(c, 404, "model_not_found", "model",
                   "model %.*s is not known; GET /v1/models shows those "
                   "that are", REGISTRY_NAME_MAX, name);
    }

    registry_free_model(m);
    free(name);
}
