/*
 * Which server runs, told by the helper itself and never by a file alone.
 */

#ifndef LEMONADE_SERVER_H
#define LEMONADE_SERVER_H

#include <stdbool.h>
#include <sys/types.h>

#include "client.h"


struct server {
    bool   alive;           /* a helper answers, of whatever mode */
    bool   on_demand;       /* for a chore only: it is no server */
    bool   serves;          /* requests over TCP reach it */
    pid_t  pid;
    int    port;            /* 0: a system nginx decides */
    char   host[256];
    char   version[64];
    char   mode[32];        /* "serve", "no-nginx", "on-demand" */
};


/*
 * Asks on the control socket.  CLIENT_OK also when nothing runs (then
 * nothing is alive); another result is worth an error.
 */
enum client_result server_find(struct client *c, struct server *s);

/*
 * The same for a command that needs a server: false, after one line on
 * stderr, when none serves.
 */
bool server_require(struct client *c, struct server *s);

/*
 * Posts body (consumed) to a running server, however long it takes, and
 * prints the message it answers, else done.  Returns the exit code.
 */
int server_order(const char *path, json_t *body, const char *done);

/* How stopping ended. */
enum server_stopped {
    SERVER_STOPPED,
    SERVER_STOP_TIMEOUT,    /* it was asked, but still runs */
    SERVER_STOP_FAILED,     /* it could not be asked; a line was written */
};

/* Asks a live helper to end and waits until its process is gone. */
enum server_stopped server_stop(struct client *c, const struct server *s);


#endif /* LEMONADE_SERVER_H */
