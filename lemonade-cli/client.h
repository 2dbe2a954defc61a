/*
 * JSON over HTTP over the helper's control socket (RUNDIR/helper.sock).
 */

#ifndef LEMONADE_CLIENT_H
#define LEMONADE_CLIENT_H

#include <signal.h>
#include <stdbool.h>

#include <jansson.h>


struct client;

enum client_result {
    CLIENT_OK,          /* a reply came, of whatever status */
    CLIENT_DOWN,        /* nobody listens on the socket */
    CLIENT_DENIED,      /* the socket belongs to somebody else */
    CLIENT_LOST,        /* connected, but no whole answer came */
    CLIENT_STOPPED,     /* the stop flag was raised meanwhile */
};

struct client_reply {
    long     status;
    json_t  *body;      /* owned; NULL when it was no JSON */
};


/*
 * Finds the run dir and its socket, which need not exist yet.  NULL after
 * one line on stderr.
 */
struct client *client_new(void);
void client_free(struct client *c);

/* One line on stderr when paths_run_dir() returned NULL. */
void client_explain_run_dir(void);

/* The run dir, and the socket in it; owned by c. */
const char *client_run_dir(const struct client *c);
const char *client_socket(const struct client *c);

/* Requests end with CLIENT_STOPPED while *flag is not zero. */
void client_stop_on(struct client *c, const volatile sig_atomic_t *flag);

/*
 * One request.  body is borrowed, NULL for none; seconds limits the whole
 * exchange (0: as long as it takes).  reply is filled for CLIENT_OK and
 * safe to free in any case.
 */
enum client_result client_send(struct client *c, const char *method,
    const char *path, const json_t *body, int seconds,
    struct client_reply *reply);
void client_reply_free(struct client_reply *reply);

/* One line on stderr for a result that is not CLIENT_OK. */
void client_explain(const struct client *c, enum client_result result);

/*
 * Whether result and reply mean success; if not, one line on stderr, with
 * the server's own words where it had some.
 */
bool client_succeeded(const struct client *c, enum client_result result,
    const struct client_reply *reply);

/* A string member of a JSON object, or NULL. */
const char *client_text(const json_t *object, const char *name);

/* Percent-encoded for a path or query; malloc'ed. */
char *client_escape(const char *text);


#endif /* LEMONADE_CLIENT_H */
