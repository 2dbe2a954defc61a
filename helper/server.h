/*
 * One child of a backend that serves one model: prepared, started, asked
 * until it is ready, stopped.
 */

#ifndef LEMONADE_SERVER_H
#define LEMONADE_SERVER_H

#include "backend.h"
#include "registry.h"
#include "state.h"

#include <stdbool.h>
#include <sys/types.h>


struct server;

/* Called once when the server can generate. */
typedef void (*server_ready)(struct server *s, void *arg);

/*
 * Called once when it is gone, also when it never came; reason is a line
 * for people.  The server is freed after it.
 */
typedef void (*server_exit)(struct server *s, const char *reason, void *arg);


/*
 * Starts a server of the model, which must stay until on_exit.  Neither
 * function is called before this returns.
 */
struct server *server_start(const struct registry_model *model,
    server_ready on_ready, server_exit on_exit, void *arg);

/* Starts to stop it; on_exit tells the end. */
void server_stop(struct server *s);

/* The same without mercy. */
void server_kill(struct server *s);

/* Forgets one that does not even end so, when the helper itself does. */
void server_free(struct server *s);

/* After the last server: removes what is left of it. */
void server_fini(void);

/* Called once when a doubt is over; answered: or its time was. */
typedef void (*server_sure)(struct server *s, bool answered, void *arg);

/*
 * Somebody could not reach a ready server that seems alive: asks it again.
 * on_sure is called once, when it answers or after three seconds; never if
 * it dies, which on_exit tells.
 */
void server_doubt(struct server *s, server_sure on_sure);

/* Dead, though on_exit was not called yet? */
bool server_dead(const struct server *s);

/* 0 while there is no child. */
pid_t server_pid(const struct server *s);

/* Fills in what the state file says of it; opens its socket for nginx. */
void server_describe(const struct server *s, struct lm_replica *replica);

/* "unix:/path" or "http://127.0.0.1:PORT" into buf. */
const char *server_url(const struct server *s, char *buf, size_t size);

const struct backend_timing *server_timing(const struct server *s);


#endif /* LEMONADE_SERVER_H */
