/*
 * Which endpoint a request is for, and what all endpoints share.
 */

#define _GNU_SOURCE

#include "api.h"
#include "backend.h"
#include "helper.h"
#include "text.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>


static const struct {
    const char  *path;
    const char  *method;
    void       (*handler)(struct http_conn *c);
} api_routes[] = {
    { "/internal/ensure",   "POST", api_ensure },
    { "/internal/status",   "GET",  api_status },
    { "/internal/pull",     "POST", api_pull },
    { "/internal/shutdown", "POST", api_shutdown },
    { "/v1/models",         "GET",  api_models },
    { "/v1/load",           "POST", api_load },
    { "/v1/unload",         "POST", api_unload },
    { "/v1/health",         "GET",  api_health },
    { "/live",              "GET",  api_live },
};


/* What the specification has and we have not yet. */
static const char *const  api_later[] = {
    "/v1/pull", "/v1/delete", "/v1/stats", "/v1/system-info",
    "/v1/system-stats", "/v1/log-level", "/v1/params", "/v1/halt",
    "/v1/logs/stream", "/v1/logs/ws", "/v1/add-local-model", "/v1/rerank",
    "/v1/reranking", "/v1/reranker", "/v1/responses", "/v1/messages",
    "/v1/messages/count_tokens", "/v1/tokenize", "/v1/slots", "/v1/install",
    "/v1/uninstall", "/v1/downloads", "/v1/downloads/control",
    "/v1/pull/variants", "/v1/registry/search", "/v1/jobs", "/v1/classify",
    "/v1/audio/transcriptions", "/v1/audio/speech",
    "/v1/audio/generations", "/v1/images/generations", "/v1/images/edits",
    "/v1/images/variations", "/v1/images/upscale", "/v1/3d/generations",
    "/v1/migration/incompatible-models", "/v1/migration/cleanup",
    "/metrics", "/logs/stream", "/logs/ws", "/realtime", "/mcp",
    "/api/chat", "/api/generate", "/api/tags", "/api/show", "/api/pull",
    "/api/embed", "/api/embeddings", "/api/ps", "/api/version",
    "/api/delete",
};


/* Does the method fit?  HEAD is a GET whose body is not sent. */
static bool
api_method_fits(const char *method, const char *wanted)
{
    return strcmp(method, wanted) == 0
           || (strcmp(wanted, "GET") == 0 && strcmp(method, "HEAD") == 0);
}


/* Runs an endpoint, or says which methods it has. */
static void
api_run(struct http_conn *c, const char *method,
    void (*handler)(struct http_conn *c))
{
    if (api_method_fits(http_method(c), method)) {
        handler(c);
        return;
    }

    http_reply_header(c, "Allow", strcmp(method, "GET") == 0 ? "GET, HEAD"
                                                             : method);
    http_error(c, 405, "method_not_allowed", NULL,
               "use %s for this endpoint", method);
}


/* Finds the endpoint. */
void
api_handle(struct http_conn *c, void *arg)
{
    size_t       i;
    const char  *path = http_path(c);

    for (i = 0; i < sizeof(api_routes) / sizeof(api_routes[0]); i++) {
        if (strcmp(path, api_routes[i].path) == 0) {
            api_run(c, api_routes[i].method, api_routes[i].handler);
            return;
        }
    }

    /* names of models may have slashes: the rest of the path is one */

    if (strncmp(path, "/v1/models/", 11) == 0 && path[11] != '\0') {
        api_run(c, "GET", api_model);
        return;
    }

    for (i = 0; i < sizeof(api_later) / sizeof(api_later[0]); i++) {
        if (strcmp(path, api_later[i]) == 0) {
            http_error(c, 501, "not_implemented", NULL,
                       "this endpoint is not available in this version");
            return;
        }
    }

    http_error(c, 404, "not_found", NULL,
               "the requested endpoint does not exist");
}


/* Parses the body. */
json_t *
api_body(struct http_conn *c, bool empty)
{
    size_t         len;
    json_t        *root;
    const char    *body;
    json_error_t   error;

    body = http_body(c, &len);

    if (len == 0 && empty) {
        return json_object();
    }

    if (len == 0) {
        http_error(c, 400, "invalid_request", NULL,
                   "a JSON body is required");
        return NULL;
    }

    root = json_loadb(body, len, JSON_REJECT_DUPLICATES, &error);

    if (root == NULL) {
        text_clean(error.text);
        http_error(c, 400, "invalid_json", NULL,
                   "the body is not JSON: line %d, column %d: %s",
                   error.line, error.column, error.text);
        return NULL;
    }

    if (!json_is_object(root)) {
        json_decref(root);
        http_error(c, 400, "invalid_json", NULL,
                   "the body must be a JSON object");
        return NULL;
    }

    return root;
}


/* A string. */
bool
api_string(struct http_conn *c, json_t *body, const char *name,
    const char **value)
{
    json_t  *member;

    *value = NULL;
    member = json_object_get(body, name);

    if (member == NULL || json_is_null(member)) {
        return true;
    }

    if (!json_is_string(member)) {
        http_error(c, 400, "invalid_request", name, "\"%s\" must be a string",
                   name);
        return false;
    }

    *value = json_string_value(member);

    return true;
}


/* A boolean. */
bool
api_boolean(struct http_conn *c, json_t *body, const char *name, bool *value)
{
    json_t  *member;

    *value = false;
    member = json_object_get(body, name);

    if (member == NULL || json_is_null(member)) {
        return true;
    }

    if (!json_is_boolean(member)) {
        http_error(c, 400, "invalid_request", name,
                   "\"%s\" must be true or false", name);
        return false;
    }

    *value = json_is_true(member);

    return true;
}


/* A model's name, under either of its keys. */
bool
api_model_name(struct http_conn *c, json_t *body, const char **value)
{
    const char  *name;

    if (!api_string(c, body, "model_name", value)) {
        return false;
    }

    if (*value == NULL) {
        if (!api_string(c, body, "model", value)) {
            return false;
        }

        name = "model";

    } else {
        name = "model_name";
    }

    if (*value != NULL
        && (**value == '\0' || !text_printable(*value, strlen(*value))))
    {
        http_error(c, 400, "invalid_request", name,
                   "\"%s\" must be a name without control characters", name);
        return false;
    }

    return true;
}


/* Finds a model that can be loaded. */
struct registry_model *
api_find(const char *name, struct api_refusal *refusal)
{
    struct registry_model  *m;

    m = registry_find(helper.registry, name);

    refusal->status = 404;
    refusal->code = "model_not_found";

    if (m == NULL) {
        snprintf(refusal->message, sizeof(refusal->message),
                 "model %.*s is not known; \"lemonade-cli list\" and GET "
                 "/v1/models show those that are", REGISTRY_NAME_MAX, name);

    } else if (backend_find(m->recipe) == NULL) {
        refusal->code = "model_not_supported";
        snprintf(refusal->message, sizeof(refusal->message),
                 "model %s needs recipe %.64s, which this server does not "
                 "have", m->name, m->recipe);

    } else if (m->file == NULL) {
        refusal->code = "model_not_supported";
        snprintf(refusal->message, sizeof(refusal->message),
                 "model %s is on the Hub, and this version cannot download "
                 "yet; register a file with \"lemonade-cli pull user.NAME "
                 "--checkpoint FILE --recipe llamacpp\"", m->name);

    } else if (m->unreadable == EMFILE || m->unreadable == ENFILE
               || m->unreadable == ENOMEM)
    {
        refusal->status = 503;
        refusal->code = "no_capacity";
        snprintf(refusal->message, sizeof(refusal->message),
                 "the file of model %s cannot be opened now: %s; try again, "
                 "and allow the server more open files (ulimit -n)",
                 m->name, strerror(m->unreadable));

    } else if (!m->downloaded) {
        snprintf(refusal->message, sizeof(refusal->message),
                 "the file of model %s cannot be read: %.600s; put it back "
                 "or register the model again with \"lemonade-cli pull\"",
                 m->name, m->file);

    } else {
        return m;
    }

    text_clean(refusal->message);
    registry_free_model(m);

    return NULL;
}
