/*
 * 8. Replies of our own, and the filters every response passes.
 *
 * Errors have one JSON body, also those that nginx makes itself (its HTML
 * pages are replaced on their way out).  Once headers are out - a heartbeat
 * sends them - any error becomes an event of the stream instead.
 */

#include "ngx_http_lemonade_module.h"


/* Largest error body of a backend that is turned into an event. */
#define NGX_HTTP_LEMONADE_COLLECT  16384


static ngx_int_t ngx_http_lemonade_header_filter(ngx_http_request_t *r);
static ngx_int_t ngx_http_lemonade_body_filter(ngx_http_request_t *r,
    ngx_chain_t *in);
static ngx_uint_t ngx_http_lemonade_is_page(ngx_http_request_t *r);
static ngx_int_t ngx_http_lemonade_page_to_json(ngx_http_request_t *r);
static ngx_int_t ngx_http_lemonade_swallow_header(ngx_http_request_t *r,
    ngx_http_lemonade_ctx_t *ctx);
static ngx_int_t ngx_http_lemonade_send_replaced(ngx_http_request_t *r,
    ngx_http_lemonade_ctx_t *ctx, ngx_chain_t *in);
static ngx_int_t ngx_http_lemonade_collect(ngx_http_request_t *r,
    ngx_http_lemonade_ctx_t *ctx, ngx_chain_t *in);
static ngx_int_t ngx_http_lemonade_error_body(ngx_pool_t *pool,
    ngx_str_t *body, ngx_uint_t status, ngx_str_t *code, ngx_str_t *param,
    ngx_str_t *message);
static ngx_int_t ngx_http_lemonade_event(ngx_pool_t *pool, ngx_str_t *event,
    ngx_str_t *json, ngx_uint_t between_events);
static char *ngx_http_lemonade_error_type(ngx_uint_t status,
    ngx_str_t *code);
static ngx_chain_t *ngx_http_lemonade_reply_chain(ngx_http_request_t *r,
    ngx_str_t *body);


static ngx_http_output_header_filter_pt  ngx_http_next_header_filter;
static ngx_http_output_body_filter_pt    ngx_http_next_body_filter;


/* What to say when nginx refuses a request or a backend fails. */
static const struct {
    ngx_uint_t   status;
    ngx_str_t    code;
    ngx_str_t    message;
} ngx_http_lemonade_pages[] = {
    { 400, ngx_string("bad_request"),
      ngx_string("The request is malformed") },
    { 401, ngx_string("invalid_api_key"),
      ngx_string("Invalid or missing API key. Send it as "
                 "\"Authorization: Bearer KEY\"") },
    { 403, ngx_string("forbidden"),
      ngx_string("Not allowed. The page's origin, or the host name of the "
                 "request, is not one that this server answers to") },
    { 404, ngx_string("not_found"),
      ngx_string("The requested endpoint does not exist") },
    { 405, ngx_string("method_not_allowed"),
      ngx_string("Method not allowed for this endpoint") },
    { 413, ngx_string("request_too_large"),
      ngx_string("The request body is larger than this server allows "
                 "(client_max_body_size)") },
    { 414, ngx_string("uri_too_long"),
      ngx_string("The request's URI is too long") },
    { 429, ngx_string("rate_limit_exceeded"),
      ngx_string("Too many requests. Try again later") },
    { 500, ngx_string("internal_error"),
      ngx_string("Internal server error, see the server's log") },
    { 501, ngx_string("not_implemented"),
      ngx_string("Not implemented") },
    { 502, ngx_string("backend_failed"),
      ngx_string("The backend server failed before it answered") },
    { 503, ngx_string("unavailable"),
      ngx_string("The service is not available. Try again later") },
    { 504, ngx_string("backend_timeout"),
      ngx_string("The backend server did not answer in time") },
    { 505, ngx_string("version_not_supported"),
      ngx_string("The server speaks HTTP/1.0, HTTP/1.1 and HTTP/2") },
    { 0, ngx_string("http_error"),
      ngx_string("The request was refused") },
};


void
ngx_http_lemonade_reply_init(void)
{
    ngx_http_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_lemonade_header_filter;

    ngx_http_next_body_filter = ngx_http_top_body_filter;
    ngx_http_top_body_filter = ngx_http_lemonade_body_filter;
}


ngx_int_t
ngx_http_lemonade_reply(ngx_http_request_t *r, ngx_uint_t status,
    ngx_str_t *code, ngx_str_t *param, ngx_str_t *message)
{
    ngx_int_t                 rc;
    ngx_str_t                 body;
    ngx_chain_t              *out;
    ngx_http_lemonade_ctx_t  *ctx;

    ctx = ngx_http_lemonade_get_ctx(r);

    rc = ngx_http_lemonade_error_body(r->pool, &body, status, code, param,
                                      message);
    if (rc != NGX_OK) {
        goto failed;
    }

    if (ctx && ctx->heartbeats) {
        rc = ngx_http_lemonade_event(r->pool, &body, &body, 1);
        if (rc != NGX_OK) {
            goto failed;
        }

        r->header_sent = 1;

    } else {
        r->headers_out.status = status;
        r->headers_out.status_line.len = 0;
        r->headers_out.content_length_n = body.len;
        ngx_str_set(&r->headers_out.content_type, "application/json");
        r->headers_out.content_type_len = r->headers_out.content_type.len;
        r->headers_out.content_type_lowcase = NULL;

        rc = ngx_http_send_header(r);

        if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
            ngx_http_finalize_request(r, rc);
            return NGX_DONE;
        }
    }

    out = ngx_http_lemonade_reply_chain(r, &body);
    if (out == NULL) {
        goto failed;
    }

    ngx_http_finalize_request(r, ngx_http_output_filter(r, out));

    return NGX_DONE;

failed:

    ngx_http_finalize_request(r, NGX_ERROR);

    return NGX_DONE;
}


void
ngx_http_lemonade_reply_broken_stream(ngx_http_request_t *r,
    ngx_http_lemonade_ctx_t *ctx)
{
    ngx_str_t     code, message, body;
    ngx_chain_t  *out;

    ngx_str_set(&code, "backend_failed");
    ngx_str_set(&message, "The backend server failed in the middle of the "
                "answer. Send the request again");

    if (ngx_http_lemonade_error_body(r->pool, &body, NGX_HTTP_BAD_GATEWAY,
                                     &code, NULL, &message) != NGX_OK
        || ngx_http_lemonade_event(r->pool, &body, &body,
                               ngx_http_lemonade_tap_between_events(ctx))
           != NGX_OK)
    {
        return;
    }

    out = ngx_http_lemonade_reply_chain(r, &body);

    if (out) {
        (void) ngx_http_output_filter(r, out);
    }
}


ngx_int_t
ngx_http_lemonade_reply_early_headers(ngx_http_request_t *r,
    ngx_http_lemonade_ctx_t *ctx)
{
    ngx_int_t  rc;
    ngx_str_t  value;

    r->headers_out.status = NGX_HTTP_OK;
    ngx_str_set(&r->headers_out.content_type, "text/event-stream");
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;

    ngx_http_clear_content_length(r);
    ngx_http_clear_accept_ranges(r);

    /* If-None-Match and the like are not about a stream */
    r->disable_not_modified = 1;

    ngx_str_set(&value, "no-cache");

    if (ngx_http_lemonade_add_header(r, "Cache-Control", &value) == NULL) {
        return NGX_ERROR;
    }

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK) {
        return NGX_ERROR;
    }

    /* the backend's header comes later, and is swallowed by our filter */

    r->header_sent = 0;
    ctx->heartbeats = 1;

    /* the redirect of a retry would clear what chunked and gzip keep here */

    ctx->filters = ngx_palloc(r->pool, sizeof(void *) * ngx_http_max_module);
    if (ctx->filters == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(ctx->filters, r->ctx, sizeof(void *) * ngx_http_max_module);

    return NGX_OK;
}


/* Called for every response before its header is sent. */
static ngx_int_t
ngx_http_lemonade_header_filter(ngx_http_request_t *r)
{
    ngx_http_lemonade_ctx_t       *ctx;
    ngx_http_lemonade_loc_conf_t  *llcf;

    if (r != r->main) {
        return ngx_http_next_header_filter(r);
    }

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_lemonade_module);

    if (ngx_http_lemonade_cors_headers(r) != NGX_OK) {
        return NGX_ERROR;
    }

    if (llcf->json_errors && ngx_http_lemonade_is_page(r)
        && ngx_http_lemonade_page_to_json(r) != NGX_OK)
    {
        return NGX_ERROR;
    }

    ctx = ngx_http_lemonade_get_ctx(r);

    if (ctx == NULL) {
        return ngx_http_next_header_filter(r);
    }

    if (ctx->output == ngx_http_lemonade_pass && ctx->leased) {
        ctx->events = r->headers_out.content_type.len
                      >= sizeof("text/event-stream") - 1
                      && ngx_strncasecmp(r->headers_out.content_type.data,
                                         (u_char *) "text/event-stream",
                                         sizeof("text/event-stream") - 1)
                         == 0;
    }

    if (ctx->heartbeats) {
        return ngx_http_lemonade_swallow_header(r, ctx);
    }

    return ngx_http_next_header_filter(r);
}


/* Is this an error page that nginx has made? */
static ngx_uint_t
ngx_http_lemonade_is_page(ngx_http_request_t *r)
{
    ngx_str_t  *type = &r->headers_out.content_type;

    return r->err_status >= NGX_HTTP_BAD_REQUEST
           && (type->len == 0
               || (type->len == sizeof("text/html") - 1
                   && ngx_strncmp(type->data, "text/html", type->len) == 0));
}


/* Puts our error body in the place of a page that nginx has made. */
static ngx_int_t
ngx_http_lemonade_page_to_json(ngx_http_request_t *r)
{
    ngx_uint_t                i;
    ngx_str_t                 code, message;
    ngx_http_lemonade_ctx_t  *ctx;

    ctx = ngx_http_lemonade_make_ctx(r);
    if (ctx == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; ngx_http_lemonade_pages[i].status; i++) {
        if (ngx_http_lemonade_pages[i].status == r->headers_out.status) {
            break;
        }
    }

    code = ngx_http_lemonade_pages[i].code;
    message = ngx_http_lemonade_pages[i].message;

    if (ngx_http_lemonade_error_body(r->pool, &ctx->reply,
                                     r->headers_out.status, &code, NULL,
                                     &message) != NGX_OK)
    {
        return NGX_ERROR;
    }

    ctx->output = ngx_http_lemonade_json_error;

    ngx_str_set(&r->headers_out.content_type, "application/json");
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;
    r->headers_out.content_length_n = ctx->reply.len;

    if (r->headers_out.content_length) {
        r->headers_out.content_length->hash = 0;
        r->headers_out.content_length = NULL;
    }

    return NGX_OK;
}


/*
 * Headers are out: 200, text/event-stream.  A stream goes on as it is, all
 * else becomes an event.
 */
static ngx_int_t
ngx_http_lemonade_swallow_header(ngx_http_request_t *r,
    ngx_http_lemonade_ctx_t *ctx)
{
    r->header_sent = 1;

    if (ctx->output == ngx_http_lemonade_json_error) {
        ctx->output = ngx_http_lemonade_sse_error;

        return ngx_http_lemonade_event(r->pool, &ctx->reply, &ctx->reply, 1);
    }

    if (!ctx->events) {
        ctx->output = ngx_http_lemonade_sse_error;
    }

    return NGX_OK;
}


/* Called for every piece of every response. */
static ngx_int_t
ngx_http_lemonade_body_filter(ngx_http_request_t *r, ngx_chain_t *in)
{
    ngx_http_lemonade_ctx_t  *ctx;

    if (r != r->main) {
        return ngx_http_next_body_filter(r, in);
    }

    ctx = ngx_http_get_module_ctx(r, ngx_http_lemonade_module);

    if (ctx == NULL || in == NULL) {
        return ngx_http_next_body_filter(r, in);
    }

    switch (ctx->output) {

    case ngx_http_lemonade_pass:
        if (ctx->leased) {
            ngx_http_lemonade_tap(ctx, in);
        }
        return ngx_http_next_body_filter(r, in);

    case ngx_http_lemonade_sse_error:
        if (ctx->reply.len == 0) {
            return ngx_http_lemonade_collect(r, ctx, in);
        }

        /* fall through */

    default: /* ngx_http_lemonade_json_error */
        return ngx_http_lemonade_send_replaced(r, ctx, in);
    }
}


/* Sends ctx->reply instead of a body. */
static ngx_int_t
ngx_http_lemonade_send_replaced(ngx_http_request_t *r,
    ngx_http_lemonade_ctx_t *ctx, ngx_chain_t *in)
{
    ngx_chain_t  *out;

    for ( /* void */ ; in; in = in->next) {
        in->buf->pos = in->buf->last;
        in->buf->file_pos = in->buf->file_last;
    }

    if (ctx->replied) {
        return ngx_http_next_body_filter(r, NULL);
    }

    ctx->replied = 1;

    out = ngx_http_lemonade_reply_chain(r, &ctx->reply);
    if (out == NULL) {
        return NGX_ERROR;
    }

    return ngx_http_next_body_filter(r, out);
}


/* Gathers a backend's plain error body, which becomes one event. */
static ngx_int_t
ngx_http_lemonade_collect(ngx_http_request_t *r, ngx_http_lemonade_ctx_t *ctx,
    ngx_chain_t *in)
{
    size_t        n;
    ngx_buf_t    *b;
    ngx_str_t     body, code, message;
    ngx_uint_t    last;
    ngx_chain_t  *cl;

    if (ctx->collected == NULL) {
        ctx->collected = ngx_create_temp_buf(r->pool,
                                             NGX_HTTP_LEMONADE_COLLECT);
        if (ctx->collected == NULL) {
            return NGX_ERROR;
        }
    }

    b = ctx->collected;
    last = 0;

    for (cl = in; cl; cl = cl->next) {
        if (ngx_buf_in_memory(cl->buf)) {
            n = ngx_min(cl->buf->last - cl->buf->pos, b->end - b->last);
            b->last = ngx_cpymem(b->last, cl->buf->pos, n);
        }

        last |= cl->buf->last_buf;
        cl->buf->pos = cl->buf->last;
    }

    if (!last) {
        return NGX_OK;
    }

    body.data = b->pos;
    body.len = b->last - b->pos;

    if (body.len == 0 || body.data[0] != '{' || b->last == b->end) {

        /* not an error body of a backend, or not all of it */

        ngx_str_set(&code, "backend_failed");
        ngx_str_set(&message, "The backend server answered with something "
                    "that is not a stream");

        if (ngx_http_lemonade_error_body(r->pool, &body, NGX_HTTP_BAD_GATEWAY,
                                         &code, NULL, &message) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    if (ngx_http_lemonade_event(r->pool, &ctx->reply, &body, 1) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_lemonade_send_replaced(r, ctx, NULL);
}


/* A chain of one last buffer over the body. */
static ngx_chain_t *
ngx_http_lemonade_reply_chain(ngx_http_request_t *r, ngx_str_t *body)
{
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    b = ngx_calloc_buf(r->pool);
    cl = ngx_alloc_chain_link(r->pool);

    if (b == NULL || cl == NULL) {
        return NULL;
    }

    b->pos = body->data;
    b->last = body->data + body->len;
    b->memory = 1;
    b->last_buf = 1;
    b->last_in_chain = 1;

    cl->buf = b;
    cl->next = NULL;

    return cl;
}


/*
 * Writes the error body: OpenAI's clients read "error", the specification
 * names "status" and "message", the older web UI reads "detail".
 */
static ngx_int_t
ngx_http_lemonade_error_body(ngx_pool_t *pool, ngx_str_t *body,
    ngx_uint_t status, ngx_str_t *code, ngx_str_t *param, ngx_str_t *message)
{
    u_char     *p;
    size_t      size;
    ngx_str_t   text, name, none;

    text.len = message->len + ngx_escape_json(NULL, message->data,
                                              message->len);
    text.data = ngx_pnalloc(pool, text.len);
    if (text.data == NULL) {
        return NGX_ERROR;
    }

    (void) ngx_escape_json(text.data, message->data, message->len);

    ngx_str_set(&none, "null");
    name = none;

    if (param) {
        name.len = param->len + 2;
        name.data = ngx_pnalloc(pool, name.len);
        if (name.data == NULL) {
            return NGX_ERROR;
        }

        ngx_sprintf(name.data, "\"%V\"", param);
    }

    size = sizeof("{\"error\":{\"message\":\"\",\"type\":\"\",\"param\":,"
                  "\"code\":\"\"},\"status\":\"error\",\"message\":\"\","
                  "\"detail\":\"\"}" CRLF)
           + 3 * text.len + name.len + code->len + sizeof("authentication_error")
           + sizeof("invalid_request_error");

    p = ngx_pnalloc(pool, size);
    if (p == NULL) {
        return NGX_ERROR;
    }

    body->data = p;
    body->len = ngx_sprintf(p, "{\"error\":{\"message\":\"%V\","
                            "\"type\":\"%s\",\"param\":%V,\"code\":\"%V\"},"
                            "\"status\":\"error\",\"message\":\"%V\","
                            "\"detail\":\"%V\"}\n",
                            &text, ngx_http_lemonade_error_type(status, code),
                            &name, code, &text, &text)
                - p;

    return NGX_OK;
}


/* OpenAI's name for the kind of error. */
static char *
ngx_http_lemonade_error_type(ngx_uint_t status, ngx_str_t *code)
{
    switch (status) {

    case NGX_HTTP_UNAUTHORIZED:
        return "authentication_error";

    case NGX_HTTP_FORBIDDEN:
        return "permission_error";

    case NGX_HTTP_NOT_FOUND:
        return (code->len > sizeof("model_") - 1
                && ngx_strncmp(code->data, "model_", sizeof("model_") - 1)
                   == 0)
               ? "invalid_request_error" : "not_found_error";

    case NGX_HTTP_TOO_MANY_REQUESTS:
        return "rate_limit_error";

    case NGX_HTTP_NOT_IMPLEMENTED:
        return "not_implemented_error";

    case NGX_HTTP_SERVICE_UNAVAILABLE:
        return "overloaded_error";

    case NGX_HTTP_VERSION_NOT_SUPPORTED:
        return "invalid_request_error";

    default:
        return status >= NGX_HTTP_INTERNAL_SERVER_ERROR
               ? "server_error" : "invalid_request_error";
    }
}


/*
 * Makes one SSE event of a JSON text; event and json may be the same.  Line
 * breaks, which JSON allows only between tokens, become spaces.
 */
static ngx_int_t
ngx_http_lemonade_event(ngx_pool_t *pool, ngx_str_t *event, ngx_str_t *json,
    ngx_uint_t between_events)
{
    u_char  *p, *src, *last;

    p = ngx_pnalloc(pool, json->len + sizeof("\n\ndata: \n\n") - 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    src = json->data;
    last = src + json->len;

    event->data = p;

    if (!between_events) {
        p = ngx_cpymem(p, "\n\n", 2);
    }

    p = ngx_cpymem(p, "data: ", 6);

    while (last > src && (last[-1] == LF || last[-1] == CR)) {
        last--;
    }

    for ( /* void */ ; src < last; src++) {
        *p++ = (*src == LF || *src == CR) ? ' ' : *src;
    }

    p = ngx_cpymem(p, "\n\n", 2);

    event->len = p - event->data;

    return NGX_OK;
}
