/*
 * POST /internal/ensure, POST /v1/load, POST /v1/unload
 *
 * Each may wait long.  While it does, the client's leaving ends the wait.
 */

#define _GNU_SOURCE

#include "api.h"
#include "helper.h"
#include "model.h"
#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>


/* A request that waits for one model. */
struct api_ask {
    struct http_conn        *conn;
    struct model_wait       *wait;
    char                    *name;      /* canonical */
    char                    *checkpoint;
    char                    *recipe;
};


/* A request that waits for models to be gone. */
struct api_going {
    struct http_conn   *conn;           /* NULL: the client left */
    unsigned            pending;
    char               *name;           /* NULL: all */
};


/* Frees a request that waits. */
static void
ask_free(struct api_ask *ask)
{
    free(ask->name);
    free(ask->checkpoint);
    free(ask->recipe);
    free(ask);
}


/* A request for a model. */
static struct api_ask *
ask_new(struct http_conn *c, const struct registry_model *m)
{
    struct api_ask  *ask;

    ask = text_alloc(sizeof(*ask));
    ask->conn = c;
    ask->name = text_dup(m->name);
    ask->checkpoint = text_dup(m->checkpoint);
    ask->recipe = text_dup(m->recipe);

    return ask;
}


/* The client left. */
static void
ask_on_gone(void *arg)
{
    struct api_ask  *ask = arg;

    if (ask->wait != NULL) {
        model_wait_cancel(ask->wait);
    }

    ask_free(ask);
}


/* An error for nginx: in headers, and in the body for people. */
static void
api_ensure_error(struct http_conn *c, int status, const char *code,
    unsigned retry_after, const char *message)
{
    char  number[16], *escaped;

    escaped = http_escape(message);

    http_reply_header(c, "X-Lemonade-Code", code);
    http_reply_header(c, "X-Lemonade-Message", escaped != NULL ? escaped
                                                               : "");
    free(escaped);

    if (retry_after != 0) {
        snprintf(number, sizeof(number), "%u", retry_after);
        http_reply_header(c, "Retry-After", number);
    }

    http_error(c, status, code, "model", "%s", message);
}


/* The model is ready, or will not be. */
static void
ensure_done(const struct model_result *result, void *arg)
{
    char            *escaped;
    struct api_ask  *ask = arg;

    if (result->status == 200) {
        escaped = http_escape(ask->name);
        http_reply_header(ask->conn, "X-Lemonade-Model",
                          escaped != NULL ? escaped : "");
        free(escaped);
        http_reply(ask->conn, 204, NULL);

    } else {
        api_ensure_error(ask->conn, result->status, result->code,
                         result->retry_after, result->message);
    }

    ask_free(ask);
}


/* "SLOT:GENERATION" of the route that failed. */
static void
api_suspect(const char *name, const char *failed)
{
    char           *end;
    unsigned long   slot, generation;

    slot = strtoul(failed, &end, 10);
    if (end == failed || *end != ':' || slot >= LM_ROUTES) {
        return;
    }

    failed = end + 1;
    generation = strtoul(failed, &end, 10);

    if (end != failed && *end == '\0' && generation <= UINT32_MAX) {
        model_suspect(name, (unsigned) slot, (unsigned) generation);
    }
}


/* POST /internal/ensure */
void
api_ensure(struct http_conn *c)
{
    char                    *name;
    const char              *header, *failed;
    struct api_ask          *ask;
    struct model_wait       *wait;
    struct api_refusal       refusal;
    struct registry_model   *m;

    header = http_header(c, "X-Lemonade-Model");

    if (header == NULL || *header == '\0') {
        api_ensure_error(c, 400, "invalid_request", 0,
                         "a model is required");
        return;
    }

    name = text_dup(header);

    if (http_unescape(name) == -1 || !text_printable(name, strlen(name))) {
        api_ensure_error(c, 400, "invalid_request", 0,
                         "a model's name must be UTF-8 without control "
                         "characters");
        free(name);
        return;
    }

    m = api_find(name, &refusal);
    free(name);

    if (m == NULL) {
        api_ensure_error(c, refusal.status, refusal.code, 0,
                         refusal.message);
        return;
    }

    failed = http_header(c, "X-Lemonade-Failed");
    if (failed != NULL) {
        api_suspect(m->name, failed);
    }

    ask = ask_new(c, m);
    http_on_gone(c, ask_on_gone, ask);

    wait = model_ensure(m, true, ensure_done, ask);
    if (wait != NULL) {
        ask->wait = wait;
    }
}


/* The model is loaded, or will not be. */
static void
load_done(const struct model_result *result, void *arg)
{
    char             number[16], message[REGISTRY_NAME_MAX + 64];
    struct api_ask  *ask = arg;

    if (result->status != 200) {
        if (result->retry_after != 0) {
            snprintf(number, sizeof(number), "%u", result->retry_after);
            http_reply_header(ask->conn, "Retry-After", number);
        }

        http_error(ask->conn, result->status, result->code, "model_name",
                   "%s", result->message);
        ask_free(ask);
        return;
    }

    snprintf(message, sizeof(message), "%s: %s",
             strcmp(result->message, "already") == 0
             ? "Model already loaded" : "Loaded model", ask->name);

    http_reply(ask->conn, 200,
               json_pack("{s:s, s:s, s:s, s:s, s:s}", "status", "success",
                         "message", message, "model_name", ask->name,
                         "checkpoint", ask->checkpoint,
                         "recipe", ask->recipe));
    ask_free(ask);
}


/* The fields of a load beside the name have the right types? */
static bool
api_load_fields(struct http_conn *c, json_t *body)
{
    bool         flag;
    const char  *text;

    return api_string(c, body, "checkpoint", &text)
           && api_string(c, body, "recipe", &text)
           && api_string(c, body, "mmproj", &text)
           && api_boolean(c, body, "reasoning", &flag)
           && api_boolean(c, body, "vision", &flag);
}


/* POST /v1/load {"model_name"} */
void
api_load(struct http_conn *c)
{
    json_t                  *body;
    const char              *name;
    struct api_ask          *ask;
    struct model_wait       *wait;
    struct api_refusal       refusal;
    struct registry_model   *m;

    body = api_body(c, false);
    if (body == NULL) {
        return;
    }

    if (!api_model_name(c, body, &name) || !api_load_fields(c, body)) {
        json_decref(body);
        return;
    }

    if (name == NULL) {
        http_error(c, 400, "invalid_request", "model_name",
                   "\"model_name\" is required");
        json_decref(body);
        return;
    }

    m = api_find(name, &refusal);
    json_decref(body);

    if (m == NULL) {
        http_error(c, refusal.status, refusal.code, "model_name", "%s",
                   refusal.message);
        return;
    }

    ask = ask_new(c, m);
    http_on_gone(c, ask_on_gone, ask);

    wait = model_ensure(m, false, load_done, ask);
    if (wait != NULL) {
        ask->wait = wait;
    }
}


/* The client of an unload left; the unload goes on. */
static void
going_on_gone(void *arg)
{
    struct api_going  *going = arg;

    going->conn = NULL;
}


/* The last model is gone: reply. */
static void
going_end(struct api_going *going)
{
    json_t  *body;

    if (going->conn != NULL) {
        if (going->name != NULL) {
            body = json_pack("{s:s, s:s, s:s}", "status", "success",
                             "message", "Model unloaded successfully",
                             "model_name", going->name);

        } else {
            body = json_pack("{s:s, s:s}", "status", "success", "message",
                             "All models unloaded successfully");
        }

        http_reply(going->conn, 200, body);
    }

    free(going->name);
    free(going);
}


/* One model is gone. */
static void
unload_done(const struct model_result *result, void *arg)
{
    struct api_going  *going = arg;

    if (--going->pending == 0) {
        going_end(going);
    }
}


/* Unloads one model. */
static void
api_unload_one(struct http_conn *c, const char *given)
{
    char                    *name;
    struct model            *m;
    struct api_going        *going;
    struct registry_model   *def;

    def = registry_find(helper.registry, given);
    name = text_dup(def != NULL ? def->name : given);
    m = model_find(name);

    if (m == NULL || m->server == NULL) {
        if (def == NULL && m == NULL) {
            http_error(c, 404, "model_not_found", "model_name",
                       "model %.*s is not known", REGISTRY_NAME_MAX, given);

        } else {
            http_error(c, 404, "model_not_loaded", "model_name",
                       "Model not loaded: %s", name);
        }

        registry_free_model(def);
        free(name);
        return;
    }

    registry_free_model(def);

    going = text_alloc(sizeof(*going));
    going->conn = c;
    going->name = name;
    going->pending = 1;
    http_on_gone(c, going_on_gone, going);

    model_unload(name, unload_done, going);
}


/* Unloads all models. */
static void
api_unload_all(struct http_conn *c)
{
    struct model      *m;
    struct api_going  *going;

    going = text_alloc(sizeof(*going));
    going->conn = c;
    going->pending = 1;
    http_on_gone(c, going_on_gone, going);

    for (m = model_first(); m != NULL; m = TAILQ_NEXT(m, link)) {
        if (m->server != NULL) {
            going->pending++;
            model_unload(m->def->name, unload_done, going);
        }
    }

    unload_done(NULL, going);
}


/* POST /v1/unload [{"model_name"}] */
void
api_unload(struct http_conn *c)
{
    json_t      *body;
    const char  *name;

    body = api_body(c, true);
    if (body == NULL) {
        return;
    }

    if (api_model_name(c, body, &name)) {
        if (name != NULL) {
            api_unload_one(c, name);

        } else {
            api_unload_all(c);
        }
    }

    json_decref(body);
}
