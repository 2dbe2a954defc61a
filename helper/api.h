/*
 * The control socket's endpoints: a table in api.c, one file per group.
 */

#ifndef LEMONADE_API_H
#define LEMONADE_API_H

#include "http.h"
#include "registry.h"

#include <stdbool.h>


/* The http_handler of the control socket. */
void api_handle(struct http_conn *c, void *arg);


/* Endpoints; each replies, at once or later. */
void api_models(struct http_conn *c);
void api_model(struct http_conn *c);
void api_ensure(struct http_conn *c);
void api_load(struct http_conn *c);
void api_unload(struct http_conn *c);
void api_health(struct http_conn *c);
void api_live(struct http_conn *c);
void api_status(struct http_conn *c);
void api_shutdown(struct http_conn *c);
void api_pull(struct http_conn *c);


/*
 * What they share.  Those that return false or NULL have replied.
 */

/* The body as a JSON object; empty: an empty object, if that is allowed. */
json_t *api_body(struct http_conn *c, bool empty);

/* A member that is a string; *value NULL: it is not there. */
bool api_string(struct http_conn *c, json_t *body, const char *name,
    const char **value);

/* A member that is true or false; false when it is not there. */
bool api_boolean(struct http_conn *c, json_t *body, const char *name,
    bool *value);

/* "model_name", or "model" as some clients have it. */
bool api_model_name(struct http_conn *c, json_t *body, const char **value);

/*
 * The model of a name that can be loaded here; *refusal says why not (404),
 * and is not sent.
 */
struct api_refusal {
    int          status;
    const char  *code;
    char         message[1024];
};

struct registry_model *api_find(const char *name,
    struct api_refusal *refusal);


#endif /* LEMONADE_API_H */
