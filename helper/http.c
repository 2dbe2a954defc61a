/*
 * The control socket's HTTP server: who may connect.  What happens on a
 * connection is in http_conn.c.
 */

#define _GNU_SOURCE

#include "http_conn.h"
#include "log.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>


#define HTTP_BACKLOG      4096


/* Accepts connections or not, as there is room for them. */
void
http_server_listen(struct http_server *s)
{
    if (s->listener == NULL) {
        return;
    }

    if (s->count < s->limit) {
        evconnlistener_enable(s->listener);

    } else {
        evconnlistener_disable(s->listener);
    }
}


/* Serves a connected socket. */
int
http_server_attach(struct http_server *s, int fd)
{
    return http_conn_open(s, fd);
}


/* libevent calls this for each new client. */
static void
server_on_accept(struct evconnlistener *listener, evutil_socket_t fd,
    struct sockaddr *address, int len, void *arg)
{
    http_server_attach(arg, fd);
}


/* libevent calls this when accept failed: EMFILE would fail for ever. */
static void
server_on_accept_error(struct evconnlistener *listener, void *arg)
{
    int                   err;
    struct http_server   *s;
    const struct timeval  pause = { .tv_sec = 1 };

    err = errno;
    s = arg;

    log_write(LOG_ERROR, "http", "cannot accept connections, trying again "
              "in a second: %s", strerror(err));

    evconnlistener_disable(listener);
    event_add(s->accept_timer, &pause);
}


/* The loop calls this some time after accept failed. */
static void
server_on_accept_timer(evutil_socket_t fd, short what, void *arg)
{
    http_server_listen(arg);
}


/* Listens on a Unix socket. */
struct http_server *
http_server_new(struct event_base *base, const char *path, mode_t mode,
    gid_t group, http_handler handler, void *arg)
{
    int                  fd, saved;
    struct http_server  *s;

    signal(SIGPIPE, SIG_IGN);

    s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return NULL;
    }

    LIST_INIT(&s->conns);
    s->base = base;
    s->handler = handler;
    s->arg = arg;
    http_server_limit(s, HTTP_CONNECTIONS, HTTP_REQUEST_MS, HTTP_IDLE_MS);

    fd = listen_unix(&s->path, path, mode, group, HTTP_BACKLOG);

    if (fd == -1) {
        saved = errno;
        free(s);
        errno = saved;
        return NULL;
    }

    s->accept_timer = evtimer_new(base, server_on_accept_timer, s);
    s->listener = evconnlistener_new(base, server_on_accept, s,
                                     LEV_OPT_CLOSE_ON_FREE
                                     | LEV_OPT_CLOSE_ON_EXEC, 0, fd);

    if (s->listener == NULL) {
        close(fd);
    }

    if (s->listener == NULL || s->accept_timer == NULL) {
        http_server_free(s);
        errno = ENOMEM;
        return NULL;
    }

    evconnlistener_set_error_cb(s->listener, server_on_accept_error);

    return s;
}


/* Closes everything. */
void
http_server_free(struct http_server *s)
{
    struct http_conn  *c;

    if (s->listener != NULL) {
        evconnlistener_free(s->listener);
        s->listener = NULL;
    }

    if (s->accept_timer != NULL) {
        event_free(s->accept_timer);
    }

    listen_unlink(&s->path);

    LIST_FOREACH(c, &s->conns, link) {
        if (c->state == HTTP_WRITING) {
            http_conn_flush(c);
        }
    }

    while ((c = LIST_FIRST(&s->conns)) != NULL) {
        http_conn_drop(c);
    }

    free(s);
}


/* Sets other limits than the usual. */
void
http_server_limit(struct http_server *s, unsigned connections,
    unsigned request_ms, unsigned idle_ms)
{
    s->limit = connections;
    s->request_ms = request_ms;
    s->idle_ms = idle_ms;

    http_server_listen(s);
}


/* Connections open now. */
unsigned
http_server_connections(const struct http_server *s)
{
    return s->count;
}
