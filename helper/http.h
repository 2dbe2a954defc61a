/*
 * The control socket: a strict HTTP/1.1 server on a Unix socket.
 *
 * Its peers are nginx, lemonade-cli and curl.  HTTP/1.0 and 1.1, heads up to
 * 16 KB and 64 fields, bodies by Content-Length up to 1 MB, keepalive,
 * pipelining, Expect.  Everything else is refused in JSON (400, 408, 413,
 * 417, 431, 501, 505) and the connection closed.  Reading stays on while a
 * reply is pending, so a client that leaves is noticed at once; only one that
 * has sent more than 64 KB ahead is noticed after the reply.
 *
 * A request has 10 seconds to arrive as a whole, a connection may idle for
 * 75 (longer than nginx keeps its own), and 8192 may be open; more wait in
 * the backlog.
 */

#ifndef LEMONADE_HTTP_H
#define LEMONADE_HTTP_H

#include <stddef.h>
#include <sys/types.h>

#include <event2/event.h>
#include <jansson.h>


#define HTTP_CONNECTIONS  8192
#define HTTP_REQUEST_MS   10000
#define HTTP_IDLE_MS      75000


struct http_server;
struct http_conn;


/*
 * Called with one whole request.  The handler replies at once, or keeps c and
 * replies later; until then http_on_gone tells whether the client left.
 */
typedef void (*http_handler)(struct http_conn *c, void *arg);

/*
 * Called once when the client left before the reply, or the server ends; c is
 * gone after it and may be used neither here nor later.
 */
typedef void (*http_gone)(void *arg);


/*
 * Listens on a Unix socket at path (at most 107 bytes) with a backlog of
 * 4096.  The socket is made under another name with mode and group
 * ((gid_t) -1: as it falls) and renamed into place.  From here on SIGPIPE is
 * ignored in this process.  NULL with errno set.
 */
struct http_server *http_server_new(struct event_base *base, const char *path,
    mode_t mode, gid_t group, http_handler handler, void *arg);

/*
 * Closes every connection (each pending http_on_gone fires) and removes the
 * path if it is still ours.  Replies made before are sent as far as the
 * sockets take them at once.  The event base must be freed afterwards.
 */
void http_server_free(struct http_server *s);

/* Other limits than the usual: connections, and times in milliseconds. */
void http_server_limit(struct http_server *s, unsigned connections,
    unsigned request_ms, unsigned idle_ms);

/*
 * Serves a connected non-blocking socket as if it had been accepted, and
 * owns it.  -1 when there is no memory; the socket is closed then.
 */
int http_server_attach(struct http_server *s, int fd);

/* Connections open now. */
unsigned http_server_connections(const struct http_server *s);


/*
 * The request.  Strings live until the reply.
 */

const char *http_method(const struct http_conn *c);

/* Target up to '?', as sent; begins with exactly one '/'. */
const char *http_path(const struct http_conn *c);

/* Value of a query argument, percent-decoded ('+' is a space), or NULL. */
const char *http_query(const struct http_conn *c, const char *name);

/* Value of a header field (name in any case), or NULL. */
const char *http_header(const struct http_conn *c, const char *name);

/* The body, NUL-terminated behind len bytes; never NULL.  len may be NULL. */
const char *http_body(const struct http_conn *c, size_t *len);


/*
 * The reply.  After http_reply or http_error c is not touched again.  A
 * pending c for which no http_on_gone is set stays valid until its reply,
 * also when the client or the server is gone; the reply then goes nowhere.
 */

/*
 * Adds a field to the coming reply.  One with a control byte (CR, LF) in it,
 * or that makes the fields larger than 4 KB, is refused and logged.
 */
void http_reply_header(struct http_conn *c, const char *name,
    const char *value);

/* Replies with a JSON body, which is consumed; NULL: no body. */
void http_reply(struct http_conn *c, int status, json_t *body);

/* Replies with a body of another type: a string, or len bytes. */
void http_reply_text(struct http_conn *c, int status, const char *type,
    const char *text);
void http_reply_bytes(struct http_conn *c, int status, const char *type,
    const char *body, size_t len);

/*
 * Replies with the project's error body:
 *   {"error":{"message","type","param","code"},"status":"error",
 *    "message","detail"}
 * type follows from status and code: 401 authentication_error, 404
 * not_found_error, 501 not_implemented_error, 503 overloaded_error, other 5xx
 * server_error, all others and the codes "model_..." with 404
 * invalid_request_error.  code is a short word ("model_not_found") and param
 * the offending field; either may be NULL.  Bytes in the message that are not
 * printable UTF-8 are shown as \xNN.  status 405 wants "Allow" set before.
 */
void http_error(struct http_conn *c, int status, const char *code,
    const char *param, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* Reason phrase of a status. */
const char *http_reason(int status);

/* Sets or clears (NULL) what happens when the client leaves. */
void http_on_gone(struct http_conn *c, http_gone gone, void *arg);


/* In-place percent-decoding; -1 on a bad escape or %00. */
int http_unescape(char *s);

/* Percent-encodes all but unreserved characters; malloc'ed. */
char *http_escape(const char *s);


#endif /* LEMONADE_HTTP_H */
