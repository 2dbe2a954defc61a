/*
 * GET /internal/status, POST /internal/shutdown, POST /internal/pull
 *
 * For lemonade-cli and for other helpers; not reachable over TCP.
 */

#define _GNU_SOURCE

#include "api.h"
#include "helper.h"
#include "log.h"
#include "model.h"
#include "text.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>


#define PULL_RETRY_MS   20
#define PULL_TRIES      250


/* A registration that waits for another writer. */
struct api_pull_ask {
    struct http_conn   *conn;
    struct event       *timer;
    unsigned            tries;
};


/* GET /internal/status */
void
api_status(struct http_conn *c)
{
    json_t  *body;

    body = json_pack("{s:s, s:i, s:s, s:s, s:s}", "status", "ok",
                     "pid", (int) getpid(), "host", helper.opt.host,
                     "version", LEMONADE_VERSION,
                     "mode", options_mode_name(helper.opt.mode));

    json_object_set_new(body, "port", helper.opt.mode == MODE_SERVE
                        ? json_integer(helper.opt.port) : json_null());
    json_object_set_new(body, "ready", json_boolean(helper.ready));

    http_reply(c, 200, body);
}


/* POST /internal/shutdown */
void
api_shutdown(struct http_conn *c)
{
    http_reply(c, 200, json_pack("{s:s}", "status", "shutting down"));
    helper_shutdown(0, "asked to shut down");
}


/* Replies that a model is there. */
static void
pull_success(struct http_conn *c, const char *name)
{
    char  *message;

    message = text_format("Installed model: %s", name);
    http_reply(c, 200, json_pack("{s:s, s:s, s:s}", "status", "success",
                                 "message", message, "model_name", name));
    free(message);
}


/* A pull of a name alone: fine if it is there already. */
static void
pull_known(struct http_conn *c, const char *name)
{
    struct api_refusal       refusal;
    struct registry_model   *m;

    m = registry_find(helper.registry, name);

    if (m == NULL && strncmp(name, "user.", 5) == 0) {
        http_error(c, 400, "invalid_request", "checkpoint",
                   "a new model needs \"checkpoint\" and \"recipe\"");
        return;
    }

    registry_free_model(m);

    m = api_find(name, &refusal);

    if (m == NULL) {
        http_error(c, refusal.status, refusal.code, "model_name", "%s",
                   refusal.message);
        return;
    }

    pull_success(c, m->name);
    registry_free_model(m);
}


/* Reads the fields of a new entry. */
static bool
pull_fields(struct http_conn *c, json_t *body, struct registry_entry *entry)
{
    memset(entry, 0, sizeof(*entry));

    if (!api_model_name(c, body, &entry->name)
        || !api_string(c, body, "checkpoint", &entry->checkpoint)
        || !api_string(c, body, "recipe", &entry->recipe)
        || !api_string(c, body, "mmproj", &entry->mmproj)
        || !api_boolean(c, body, "reasoning", &entry->reasoning)
        || !api_boolean(c, body, "vision", &entry->vision)
        || !api_boolean(c, body, "embedding", &entry->embedding)
        || !api_boolean(c, body, "reranking", &entry->reranking))
    {
        return false;
    }

    if (entry->name == NULL) {
        http_error(c, 400, "invalid_request", "model_name",
                   "\"model_name\" is required");
        return false;
    }

    if (entry->mmproj != NULL && *entry->mmproj == '\0') {
        entry->mmproj = NULL;
    }

    return true;
}


/* Replies with what became of a registration; false: try again. */
static bool
pull_store(struct http_conn *c, const struct registry_entry *entry)
{
    int                      rc;
    struct registry_error    error;
    struct registry_model   *m;

    rc = registry_put(helper.registry, entry, &error);

    if (rc == 1) {
        return false;
    }

    if (rc == -1) {
        http_error(c, error.status, error.code, error.param, "%s",
                   error.message);
        return true;
    }

    m = registry_find(helper.registry, entry->name);

    if (m != NULL) {
        log_write(LOG_INFO, "registry", "%s is %s", m->name, m->checkpoint);
        model_redefined(m);
        registry_free_model(m);
    }

    pull_success(c, entry->name);

    return true;
}


/* Handles a pull; false: another process is writing, try again. */
static bool
pull_try(struct http_conn *c)
{
    bool                    done;
    json_t                 *body;
    struct registry_entry   entry;

    body = api_body(c, false);
    if (body == NULL) {
        return true;
    }

    done = true;

    if (!pull_fields(c, body, &entry)) {
        /* replied */

    } else if (entry.checkpoint == NULL) {
        pull_known(c, entry.name);

    } else if (entry.recipe == NULL) {
        http_error(c, 400, "invalid_request", "recipe",
                   "\"recipe\" is required with \"checkpoint\"; use "
                   "\"llamacpp\"");

    } else {
        done = pull_store(c, &entry);
    }

    json_decref(body);

    return done;
}


/* Frees a pull that waited. */
static void
pull_free(void *arg)
{
    struct api_pull_ask  *ask = arg;

    event_free(ask->timer);
    free(ask);
}


/* Tries again. */
static void
pull_on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct timeval         tv = { .tv_usec = PULL_RETRY_MS * 1000 };
    struct http_conn      *c;
    struct api_pull_ask   *ask = arg;

    c = ask->conn;

    if (ask->tries++ == PULL_TRIES) {
        http_error(c, 503, "registry_busy", NULL,
                   "user_models.json is locked by another process");
        pull_free(ask);
        return;
    }

    if (pull_try(c)) {
        pull_free(ask);

    } else {
        evtimer_add(ask->timer, &tv);
    }
}


/* POST /internal/pull */
void
api_pull(struct http_conn *c)
{
    struct timeval         tv = { .tv_usec = PULL_RETRY_MS * 1000 };
    struct api_pull_ask   *ask;

    if (pull_try(c)) {
        return;
    }

    ask = text_alloc(sizeof(*ask));
    ask->conn = c;
    ask->timer = evtimer_new(helper.base, pull_on_timer, ask);
    evtimer_add(ask->timer, &tv);
    http_on_gone(c, pull_free, ask);
}
