/*
 * The control socket: a strict HTTP/1.1 server on a Unix socket.
 *
 * Its peers are nginx, lemonade-cli and curl.  HTTP/1.0 and 1.1, heads up to
 * 16 KB and 64 fields, bodies by Content-Length up to 1 MB, keepalive,
 * pipelining, Expect.  Everything else is refused in JSON (400, 408, 413,
 * 431, 501, 505).  Reading stays on while a reply is pending, so a client
 * that leaves is noticed at once.
 */

#ifndef LEMONADE_HTTP_H
#define LEMONADE_HTTP_H

#include <stddef.h>
#include <sys/types.h>

#include <event2/event.h>
#include <jansson.h>


struct http_server;
struct http_conn;


/*
 * Called with one whole request.  The handler replies at once, or keeps c and
 * replies later; until then http_on_gone tells whether the client left.
 */
typedef void (*http_handler)(struct http_conn *c, void *arg);

/* Called once when the client left before the reply; c is gone after it. */
typedef void (*http_gone)(void *arg);


/*
 * Listens on a Unix socket at path (at most 107 bytes) with a backlog of
 * 4096.  The socket is made under another name with mode and group
 * ((gid_t) -1: as it falls) and renamed into place.  NULL with errno set.
 */
struct http_server *http_server_new(struct event_base *base, const char *path,
    mode_t mode, gid_t group, http_handler handler, void *arg);

/* Closes every connection (each pending http_on_gone fires) and the path. */
void http_server_free(struct http_server *s);

/* Connections open now. */
unsigned http_server_connections(const struct http_server *s);


/*
 * The request.  Strings live until the reply.
 */

const char *http_method(const struct http_conn *c);

/* Target up to '?', as sent; begins with exactly one '/'. */
const char *http_path(const struct http_conn *c);

/* Value of a query argument, percent-decoded, or NULL. */
const char *http_query(const struct http_conn *c, const char *name);

/* Value of a header field (name in any case), or NULL. */
const char *http_header(const struct http_conn *c, const char *name);

/* The body, NUL-terminated behind len bytes. */
const char *http_body(const struct http_conn *c, size_t *len);


/*
 * The reply.  After http_reply or http_error c is not touched again.
 */

/* Adds a field to the coming reply.  CR, LF and NUL are refused. */
void http_reply_header(struct http_conn *c, const char *name,
    const char *value);

/* Replies with a JSON body, which is consumed; NULL: no body. */
void http_reply(struct http_conn *c, int status, json_t *body);

/* Replies with a body of another type. */
void http_reply_text(struct http_conn *c, int status, const char *type,
    const char *text);

/*
 * Replies with the project's error body:
 *   {"error":{"message","type","param","code"},"status":"error",
 *    "message","detail"}
 * type follows from status; code is a short word ("model_not_found") and
 * param the offending field or NULL.  status 405 wants "Allow" set before.
 */
void http_error(struct http_conn *c, int status, const char *code,
    const char *param, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* Sets or clears (NULL) what happens when the client leaves. */
void http_on_gone(struct http_conn *c, http_gone gone, void *arg);


/* In-place percent-decoding; -1 on a bad escape or %00. */
int http_unescape(char *s);

/* Percent-encodes all but unreserved characters; malloc'ed. */
char *http_escape(const char *s);


#endif /* LEMONADE_HTTP_H */
