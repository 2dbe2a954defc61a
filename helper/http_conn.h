/*
 * Inside the HTTP server: one connection, and what it needs of the server.
 * Everybody else includes http.h.
 */

#ifndef LEMONADE_HTTP_CONN_H
#define LEMONADE_HTTP_CONN_H

#include "http.h"
#include "http_request.h"
#include "listen.h"

#include <stdbool.h>
#include <sys/queue.h>

#include <event2/bufferevent.h>
#include <event2/listener.h>


enum http_state {
    HTTP_HEAD = 0,
    HTTP_BODY,
    HTTP_PENDING,
    HTTP_WRITING,
    HTTP_LINGER,
};


struct http_conn {
    LIST_ENTRY(http_conn)     link;
    struct http_server       *server;
    struct bufferevent       *bev;      /* NULL: the client is gone */
    struct event             *timer;
    enum http_state           state;
    bool                      started;  /* some of the head is here */
    bool                      closing;  /* after this reply */
    bool                      lingering;
    size_t                    scanned;
    struct http_request      *request;
    char                     *body;
    size_t                    body_got;
    struct evbuffer          *extra;    /* fields of the coming reply */
    http_gone                 gone;
    void                     *gone_arg;
};


struct http_server {
    struct event_base        *base;
    struct evconnlistener    *listener;
    struct event             *accept_timer;
    http_handler              handler;
    void                     *arg;
    unsigned                  count;
    unsigned                  limit;
    unsigned                  request_ms;
    unsigned                  idle_ms;
    struct listen_path        path;
    LIST_HEAD(, http_conn)    conns;
};


/* Accepts connections or not, as there is room for them. */
void http_server_listen(struct http_server *s);

/* Makes the connection of a socket and owns that, also when it fails: -1. */
int http_conn_open(struct http_server *s, int fd);

/*
 * Drops a connection.  Whoever owes it a reply is told; if that is not
 * wanted, what is left of it waits for the reply.
 */
void http_conn_drop(struct http_conn *c);

/* Sends what the socket takes at once of a reply that was made. */
void http_conn_flush(struct http_conn *c);


#endif /* LEMONADE_HTTP_CONN_H */
