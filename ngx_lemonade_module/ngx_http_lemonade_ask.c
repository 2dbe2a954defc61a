/*
 * 4. Asks the helper for a ready model: one "POST /internal/ensure" on its
 * control socket, answered when the model is ready or will not be.
 *
 * Not a subrequest: that would cost each parked request 4.5 KB more than
 * this, and what is asked and answered here is a handful of header lines.
 * Closing the connection takes the question back.
 */

#include "ngx_http_lemonade_module.h"


/* A whole answer; its body is for people and is not read. */
#define NGX_HTTP_LEMONADE_ANSWER_SIZE  4096


static ngx_int_t ngx_http_lemonade_ask_request(ngx_http_request_t *r,
    ngx_http_lemonade_ctx_t *ctx);
static void ngx_http_lemonade_ask_write(ngx_event_t *wev);
static void ngx_http_lemonade_ask_read(ngx_event_t *rev);
static void ngx_http_lemonade_ask_done(ngx_http_lemonade_ctx_t *ctx);
static ngx_int_t ngx_http_lemonade_ask_parse(ngx_http_lemonade_ctx_t *ctx,
    u_char *p, u_char *last);
static ngx_int_t ngx_http_lemonade_ask_field(ngx_http_lemonade_ctx_t *ctx,
    u_char *p, u_char *last);


ngx_int_t
ngx_http_lemonade_ask(ngx_http_request_t *r, ngx_http_lemonade_ctx_t *ctx)
{
    ngx_int_t                       rc;
    ngx_connection_t               *c;
    ngx_peer_connection_t           peer;
    ngx_http_lemonade_main_conf_t  *lmcf;

    lmcf = ngx_http_get_module_main_conf(r, ngx_http_lemonade_module);

    ctx->ask_status = 0;
    ngx_str_null(&ctx->ask_code);
    ngx_str_null(&ctx->ask_message);
    ngx_str_null(&ctx->ask_retry_after);

    if (ctx->answer) {
        ctx->answer->last = ctx->answer->pos;
    }

    if (ngx_http_lemonade_ask_request(r, ctx) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_memzero(&peer, sizeof(ngx_peer_connection_t));

    peer.sockaddr = lmcf->helper->sockaddr;
    peer.socklen = lmcf->helper->socklen;
    peer.name = &lmcf->helper->name;
    peer.get = ngx_event_get_peer;
    peer.log = r->connection->log;
    peer.log_error = NGX_ERROR_ERR;

    rc = ngx_event_connect_peer(&peer);

    if (rc != NGX_OK && rc != NGX_AGAIN) {

        /* nobody listens, too many ask at once, or no connection is left */

        ngx_http_lemonade_ask_done(ctx);

        return NGX_OK;
    }

    c = peer.connection;

    c->data = ctx;
    c->log = r->connection->log;
    c->read->log = c->log;
    c->write->log = c->log;
    c->read->handler = ngx_http_lemonade_ask_read;
    c->write->handler = ngx_http_lemonade_ask_write;

    ctx->ask = c;

    if (rc == NGX_OK) {
        ngx_http_lemonade_ask_write(c->write);
    }

    return NGX_OK;
}


void
ngx_http_lemonade_ask_cancel(ngx_http_lemonade_ctx_t *ctx)
{
    if (ctx->ask) {
        ngx_close_connection(ctx->ask);
        ctx->ask = NULL;
    }
}


/* Writes the question into ctx->asking. */
static ngx_int_t
ngx_http_lemonade_ask_request(ngx_http_request_t *r,
    ngx_http_lemonade_ctx_t *ctx)
{
    size_t      size;
    u_char     *p;
    uintptr_t   escape;

    escape = 2 * ngx_escape_uri(NULL, ctx->model.data, ctx->model.len,
                                NGX_ESCAPE_URI_COMPONENT);

    size = sizeof("POST /internal/ensure HTTP/1.0" CRLF
                  "X-Lemonade-Model: " CRLF
                  "X-Lemonade-Failed: :" CRLF CRLF)
           + ctx->model.len + escape + 2 * NGX_INT32_LEN;

    p = ngx_pnalloc(r->pool, size);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ctx->asking.data = p;

    p = ngx_sprintf(p, "POST /internal/ensure HTTP/1.0" CRLF
                    "X-Lemonade-Model: ");
    p = (u_char *) ngx_escape_uri(p, ctx->model.data, ctx->model.len,
                                  NGX_ESCAPE_URI_COMPONENT);

    if (ctx->must_ask) {
        p = ngx_sprintf(p, CRLF "X-Lemonade-Failed: %uD:%uD",
                        ctx->failed.slot, ctx->failed.generation);
    }

    p = ngx_sprintf(p, CRLF CRLF);

    ctx->asking.len = p - ctx->asking.data;

    return NGX_OK;
}


/* Called when the socket takes bytes: sends what is left of the question. */
static void
ngx_http_lemonade_ask_write(ngx_event_t *wev)
{
    ssize_t                   n;
    ngx_connection_t         *c;
    ngx_http_lemonade_ctx_t  *ctx;

    c = wev->data;
    ctx = c->data;

    while (ctx->asking.len) {
        n = c->send(c, ctx->asking.data, ctx->asking.len);

        if (n == NGX_AGAIN) {
            break;
        }

        if (n == NGX_ERROR) {
            ngx_http_lemonade_ask_done(ctx);
            return;
        }

        ctx->asking.data += n;
        ctx->asking.len -= n;
    }

    if (ngx_handle_write_event(wev, 0) != NGX_OK) {
        ngx_http_lemonade_ask_done(ctx);
    }
}


/* Called when the helper has answered or is gone. */
static void
ngx_http_lemonade_ask_read(ngx_event_t *rev)
{
    ssize_t                   n;
    ngx_int_t                 rc;
    ngx_buf_t                *b;
    ngx_connection_t         *c;
    ngx_http_lemonade_ctx_t  *ctx;

    c = rev->data;
    ctx = c->data;

    if (ctx->answer == NULL) {
        ctx->answer = ngx_create_temp_buf(ctx->request->pool,
                                          NGX_HTTP_LEMONADE_ANSWER_SIZE);
        if (ctx->answer == NULL) {
            ngx_http_lemonade_ask_done(ctx);
            return;
        }
    }

    b = ctx->answer;

    do {
        n = c->recv(c, b->last, b->end - b->last);

        if (n == NGX_AGAIN) {
            if (ngx_handle_read_event(rev, 0) != NGX_OK) {
                ngx_http_lemonade_ask_done(ctx);
            }
            return;
        }

        if (n > 0) {
            b->last += n;
        }

        rc = ngx_http_lemonade_ask_parse(ctx, b->pos, b->last);

    } while (rc == NGX_AGAIN && n > 0 && b->last < b->end);

    ngx_http_lemonade_ask_done(ctx);
}


/*
 * Ends the question.  The request is not resumed from inside an event of the
 * helper's connection but by an event of its own.
 */
static void
ngx_http_lemonade_ask_done(ngx_http_lemonade_ctx_t *ctx)
{
    ngx_http_lemonade_ask_cancel(ctx);

    ctx->answered = 1;

    if (!ctx->resume.posted) {
        ngx_post_event(&ctx->resume, &ngx_posted_events);
    }
}


/* Reads status and fields.  NGX_AGAIN: not all is here; NGX_ERROR: junk. */
static ngx_int_t
ngx_http_lemonade_ask_parse(ngx_http_lemonade_ctx_t *ctx, u_char *p,
    u_char *last)
{
    u_char     *end;
    ngx_int_t   status;

    end = ngx_strlcasestrn(p, last, (u_char *) CRLF CRLF, 4 - 1);

    if (end == NULL) {
        return NGX_AGAIN;
    }

    last = end + 2;

    if (last - p < 14 || ngx_strncmp(p, "HTTP/1.", 7) != 0 || p[8] != ' ') {
        return NGX_ERROR;
    }

    status = ngx_atoi(p + 9, 3);

    for ( ;; ) {
        p = ngx_strlchr(p, last, LF) + 1;

        if (p == last) {
            break;
        }

        if (ngx_http_lemonade_ask_field(ctx, p,
                                        ngx_strlchr(p, last, LF) - 1)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    ctx->ask_status = (status == NGX_ERROR || status > 599) ? 0 : status;

    return NGX_OK;
}


/*
 * Keeps a field of the answer that is for us.  Names and sentences are
 * percent-encoded; what goes into a header or is a word is taken as it is.
 */
static ngx_int_t
ngx_http_lemonade_ask_field(ngx_http_lemonade_ctx_t *ctx, u_char *p,
    u_char *last)
{
    size_t       i;
    u_char      *dst;
    ngx_str_t   *text;

    const struct {
        ngx_str_t    name;
        ngx_str_t   *text;
        ngx_uint_t   encoded;
    } fields[] = {
        { ngx_string("X-Lemonade-Model: "), &ctx->name, 1 },
        { ngx_string("X-Lemonade-Code: "), &ctx->ask_code, 0 },
        { ngx_string("X-Lemonade-Message: "), &ctx->ask_message, 1 },
        { ngx_string("Retry-After: "), &ctx->ask_retry_after, 0 },
    };

    for (i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        if ((size_t) (last - p) <= fields[i].name.len
            || ngx_strncasecmp(p, fields[i].name.data, fields[i].name.len)
               != 0)
        {
            continue;
        }

        p += fields[i].name.len;
        text = fields[i].text;

        text->data = ngx_pnalloc(ctx->request->pool, last - p);
        if (text->data == NULL) {
            return NGX_ERROR;
        }

        dst = text->data;

        if (fields[i].encoded) {
            ngx_unescape_uri(&dst, &p, last - p, 0);

        } else {
            dst = ngx_cpymem(dst, p, last - p);
        }

        text->len = dst - text->data;

        break;
    }

    return NGX_OK;
}
