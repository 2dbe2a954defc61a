/*
 * One connection of the control socket.
 *
 * It goes HEAD -> BODY -> PENDING -> WRITING -> HEAD.  A request is taken up
 * only when the reply before it has left, so pipelined requests need no
 * recursion, and a client that does not read cannot pile up replies.  A
 * request that is refused half read goes WRITING -> LINGER: what is on its
 * way is thrown away for a while, so that the client can read why.
 */

#define _GNU_SOURCE

#include "http_conn.h"
#include "log.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/buffer.h>


#define HTTP_LINGER_MS    2000
#define HTTP_INPUT_MAX    (64 * 1024)
#define HTTP_EXTRA_MAX    4096


/* (Re)starts the timer of a connection. */
static void
timer_set(struct http_conn *c, unsigned ms)
{
    struct timeval  tv;

    tv.tv_sec = ms / 1000;
    tv.tv_usec = (suseconds_t) (ms % 1000) * 1000;

    event_add(c->timer, &tv);
}


/* Forgets the request. */
static void
request_free(struct http_conn *c)
{
    free(c->request);
    c->request = NULL;

    free(c->body);
    c->body = NULL;
    c->body_got = 0;

    if (c->extra != NULL) {
        evbuffer_free(c->extra);
        c->extra = NULL;
    }
}


/*
 * Drops a connection.  Whoever owes it a reply is told; if that is not
 * wanted, what is left of it waits for the reply.
 */
void
http_conn_drop(struct http_conn *c)
{
    bool                 pending;
    http_gone            gone;
    struct http_server  *s;

    s = c->server;

    LIST_REMOVE(c, link);
    event_free(c->timer);
    bufferevent_free(c->bev);
    c->bev = NULL;

    s->count--;
    http_server_listen(s);

    pending = (c->state == HTTP_PENDING);
    gone = c->gone;

    if (pending && gone == NULL) {
        return;
    }

    if (pending) {
        c->state = HTTP_WRITING;        /* no reply from in there */
        gone(c->gone_arg);
    }

    request_free(c);
    free(c);
}


/* Refuses what the client is sending, and closes. */
static void
conn_refuse(struct http_conn *c, int status, const char *why)
{
    const char  *code;

    switch (status) {
    case 408: code = "request_timeout"; break;
    case 413: code = "request_too_large"; break;
    case 417: code = "expectation_failed"; break;
    case 431: code = "header_too_large"; break;
    case 500: code = "internal_error"; break;
    case 501: code = "not_implemented"; break;
    case 505: code = "version_not_supported"; break;
    default:  code = "bad_request"; break;
    }

    c->closing = true;
    c->lingering = true;

    http_error(c, status, code, NULL, "%s", why);
}


/* Gives a whole request to the handler, which may reply at once. */
static void
conn_dispatch(struct http_conn *c)
{
    c->state = HTTP_PENDING;
    event_del(c->timer);

    c->server->handler(c, c->server->arg);
}


/* Takes the head once it is whole. */
static void
conn_read_head(struct http_conn *c)
{
    int               status;
    long              end;
    size_t            len;
    const char       *data, *why;
    struct evbuffer  *input;

    input = bufferevent_get_input(c->bev);

    len = evbuffer_get_length(input);
    if (len == 0) {
        return;
    }

    if (!c->started) {
        c->started = true;
        timer_set(c, c->server->request_ms);
    }

    if (len > HTTP_HEAD_MAX) {
        len = HTTP_HEAD_MAX;
    }

    data = (const char *) evbuffer_pullup(input, (ev_ssize_t) len);

    end = (data == NULL) ? -1 : http_head_end(data, len, &c->scanned);

    if (end == 0) {
        if (len == HTTP_HEAD_MAX) {
            conn_refuse(c, 431, "The request's head is larger than 16 KB.");
        }

        return;
    }

    if (end == -1) {
        conn_refuse(c, 400, "The request's head holds a control character, "
                    "or a line that does not end in CR LF.");
        return;
    }

    c->request = http_request_parse(data, (size_t) end, &status, &why);

    if (c->request == NULL) {
        conn_refuse(c, status, why);
        return;
    }

    evbuffer_drain(input, (size_t) end);
    c->closing = !c->request->keepalive;

    c->body = malloc(c->request->body_len + 1);

    if (c->body == NULL) {
        conn_refuse(c, 500, "Out of memory.");
        return;
    }

    if (c->request->expects && c->request->body_len > 0
        && evbuffer_get_length(input) == 0)
    {
        bufferevent_write(c->bev, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    }

    c->state = HTTP_BODY;
}


/* Takes what is there of the body; calls the handler when it is whole. */
static void
conn_read_body(struct http_conn *c)
{
    size_t  n;

    n = bufferevent_read(c->bev, c->body + c->body_got,
                         c->request->body_len - c->body_got);
    c->body_got += n;

    if (c->body_got == c->request->body_len) {
        c->body[c->body_got] = '\0';
        conn_dispatch(c);
    }
}


/* Does what the state allows with the input; c may be gone afterwards. */
static void
conn_process(struct http_conn *c)
{
    struct evbuffer  *input;

    switch (c->state) {

    case HTTP_HEAD:
        conn_read_head(c);

        if (c->state != HTTP_BODY) {
            return;
        }

        /* fall through */

    case HTTP_BODY:
        conn_read_body(c);
        return;

    case HTTP_LINGER:
        input = bufferevent_get_input(c->bev);
        evbuffer_drain(input, evbuffer_get_length(input));
        return;

    default:
        return;
    }
}


/* libevent calls this when there is input. */
static void
conn_on_read(struct bufferevent *bev, void *arg)
{
    conn_process(arg);
}


/* libevent calls this when all output has left. */
static void
conn_on_written(struct bufferevent *bev, void *arg)
{
    struct http_conn  *c;

    c = arg;

    if (c->state != HTTP_WRITING) {
        return;                         /* that was "100 Continue" */
    }

    if (!c->closing) {
        c->state = HTTP_HEAD;
        c->started = false;
        c->scanned = 0;
        timer_set(c, c->server->idle_ms);
        conn_process(c);
        return;
    }

    if (!c->lingering) {
        http_conn_drop(c);
        return;
    }

    shutdown(bufferevent_getfd(bev), SHUT_WR);
    c->state = HTTP_LINGER;
    timer_set(c, HTTP_LINGER_MS);
    conn_process(c);
}


/* libevent calls this when the client has closed, or on an error. */
static void
conn_on_event(struct bufferevent *bev, short what, void *arg)
{
    struct http_conn  *c;

    c = arg;

    if ((what & BEV_EVENT_EOF) && c->state == HTTP_WRITING) {

        /* It may have closed only its own direction: let the reply out. */

        c->closing = true;
        c->lingering = false;
        return;
    }

    http_conn_drop(c);
}


/* The loop calls this when the client has taken too long. */
static void
conn_on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct http_conn  *c;

    c = arg;

    if (c->started && (c->state == HTTP_HEAD || c->state == HTTP_BODY)) {
        conn_refuse(c, 408, "The request did not arrive in time.");
        return;
    }

    http_conn_drop(c);
}


/* Makes the connection of a socket. */
int
http_conn_open(struct http_server *s, int fd)
{
    struct http_conn  *c;

    c = calloc(1, sizeof(*c));

    if (c != NULL) {
        c->server = s;
        c->timer = evtimer_new(s->base, conn_on_timer, c);
        c->bev = bufferevent_socket_new(s->base, fd, BEV_OPT_CLOSE_ON_FREE);
    }

    if (c == NULL || c->timer == NULL || c->bev == NULL) {

        if (c != NULL && c->timer != NULL) {
            event_free(c->timer);
        }

        if (c != NULL && c->bev != NULL) {
            bufferevent_free(c->bev);

        } else {
            close(fd);
        }

        free(c);
        return -1;
    }

    LIST_INSERT_HEAD(&s->conns, c, link);

    if (++s->count >= s->limit) {
        log_write(LOG_WARNING, "http", "%u connections are open, others "
                  "have to wait", s->count);
        http_server_listen(s);
    }

    bufferevent_setcb(c->bev, conn_on_read, conn_on_written, conn_on_event,
                      c);
    bufferevent_setwatermark(c->bev, EV_READ, 0, HTTP_INPUT_MAX);
    bufferevent_enable(c->bev, EV_READ | EV_WRITE);
    timer_set(c, s->idle_ms);

    return 0;
}


/* Sends what a socket takes at once of a reply that was made. */
void
http_conn_flush(struct http_conn *c)
{
    struct evbuffer  *output;

    output = bufferevent_get_output(c->bev);

    evbuffer_unfreeze(output, 1);
    evbuffer_write(output, bufferevent_getfd(c->bev));
}


/* Method of the request. */
const char *
http_method(const struct http_conn *c)
{
    return c->request->method;
}


/* Target of the request up to '?'. */
const char *
http_path(const struct http_conn *c)
{
    return c->request->path;
}


/* Value of a query argument, or NULL. */
const char *
http_query(const struct http_conn *c, const char *name)
{
    return http_request_arg(c->request, name);
}


/* Value of a header field, or NULL. */
const char *
http_header(const struct http_conn *c, const char *name)
{
    return http_request_field(c->request, name);
}


/* The body. */
const char *
http_body(const struct http_conn *c, size_t *len)
{
    if (len != NULL) {
        *len = c->body_got;
    }

    return c->body;
}


/* Sets or clears what happens when the client leaves. */
void
http_on_gone(struct http_conn *c, http_gone gone, void *arg)
{
    c->gone = gone;
    c->gone_arg = arg;
}


/* Adds a field to the coming reply. */
void
http_reply_header(struct http_conn *c, const char *name, const char *value)
{
    const char  *p;

    for (p = value; *p != '\0'; p++) {
        if (((unsigned char) *p < 0x20 && *p != '\t') || *p == 0x7f) {
            break;
        }
    }

    if (c->extra == NULL) {
        c->extra = evbuffer_new();
    }

    if (*p != '\0' || !http_is_token(name) || c->extra == NULL
        || evbuffer_get_length(c->extra) + strlen(name) + strlen(value) + 4
           > HTTP_EXTRA_MAX)
    {
        log_write(LOG_ERROR, "http", "left out a reply's field %s: %s", name,
                  value);
        return;
    }

    evbuffer_add_printf(c->extra, "%s: %s\r\n", name, value);
}


/* Writes the head of a reply; -1 for want of memory. */
static int
conn_write_head(struct http_conn *c, int status, const char *type, size_t len)
{
    int               rc;
    struct evbuffer  *out;

    out = bufferevent_get_output(c->bev);

    rc = evbuffer_add_printf(out, "HTTP/1.1 %d %s\r\n", status,
                             http_reason(status));

    if (rc != -1 && status != 204 && status != 304) {
        rc = evbuffer_add_printf(out, "Content-Length: %zu\r\n", len);

        if (rc != -1 && len > 0) {
            rc = evbuffer_add_printf(out, "Content-Type: %s\r\n", type);
        }
    }

    if (rc != -1 && c->extra != NULL) {
        rc = evbuffer_add_buffer(out, c->extra);
    }

    if (rc != -1) {
        rc = evbuffer_add_printf(out, "Connection: %s\r\n\r\n",
                                 c->closing ? "close" : "keep-alive");
    }

    return rc;
}


/* Replies with bytes. */
void
http_reply_bytes(struct http_conn *c, int status, const char *type,
    const char *body, size_t len)
{
    int  rc;

    if (c->state >= HTTP_WRITING) {
        log_write(LOG_ERROR, "http", "a request was answered twice");
        return;
    }

    if (c->bev == NULL) {
        request_free(c);
        free(c);
        return;
    }

    rc = conn_write_head(c, status, type, len);

    if (rc != -1 && len > 0 && status != 204 && status != 304
        && (c->request == NULL || strcmp(http_method(c), "HEAD") != 0))
    {
        rc = evbuffer_add(bufferevent_get_output(c->bev), body, len);
    }

    request_free(c);
    c->gone = NULL;
    c->state = HTTP_WRITING;

    /* Half a reply for want of memory ends the connection, from the loop. */

    timer_set(c, rc == -1 ? 0 : c->server->idle_ms);
}
