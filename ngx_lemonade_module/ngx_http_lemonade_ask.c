/*
 * 4. Asks the helper for a ready model: a background subrequest to an
 * internal location that is nothing but proxy_pass to the control socket.
 *
 * Background, because an ordinary subrequest would hold back everything the
 * main request writes, heartbeats too, until the model is loaded.
 */

#include "ngx_http_lemonade_module.h"


static ngx_int_t ngx_http_lemonade_ask_done(ngx_http_request_t *r, void *data,
    ngx_int_t rc);
static void ngx_http_lemonade_ask_read(ngx_http_request_t *r,
    ngx_http_lemonade_ctx_t *ctx);
static ngx_int_t ngx_http_lemonade_ask_text(ngx_http_request_t *r,
    ngx_str_t *escaped, ngx_str_t *text);


ngx_int_t
ngx_http_lemonade_ask(ngx_http_request_t *r, ngx_http_lemonade_ctx_t *ctx)
{
    ngx_http_request_t            *sr;
    ngx_http_post_subrequest_t    *ps;
    ngx_http_lemonade_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_lemonade_module);

    ctx->ask_status = 0;
    ngx_str_null(&ctx->ask_code);
    ngx_str_null(&ctx->ask_message);
    ngx_str_null(&ctx->ask_retry_after);

    ps = ngx_palloc(r->pool, sizeof(ngx_http_post_subrequest_t));
    if (ps == NULL) {
        return NGX_ERROR;
    }

    ps->handler = ngx_http_lemonade_ask_done;
    ps->data = ctx;

    if (ngx_http_subrequest(r, &llcf->ask, NULL, &sr, ps,
                            NGX_HTTP_SUBREQUEST_BACKGROUND)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    /*
     * a body of its own keeps upstream from sending, or closing, the one
     * that is waiting for the model
     */

    sr->request_body = ngx_pcalloc(r->pool, sizeof(ngx_http_request_body_t));
    if (sr->request_body == NULL) {
        return NGX_ERROR;
    }

    sr->header_only = 1;

    ctx->ask = sr;

    return NGX_OK;
}


/*
 * Called when the subrequest ends.  The main request is not resumed from
 * inside it but by an event of its own.
 */
static ngx_int_t
ngx_http_lemonade_ask_done(ngx_http_request_t *r, void *data, ngx_int_t rc)
{
    ngx_http_lemonade_ctx_t *ctx = data;

    if (ctx->ask != r) {
        return rc;
    }

    ctx->ask = NULL;
    ctx->answered = 1;

    if (rc == NGX_OK && r->upstream) {
        ngx_http_lemonade_ask_read(r, ctx);
    }

    if (!ctx->resume.posted) {
        ngx_post_event(&ctx->resume, &ngx_posted_events);
    }

    /* an error page of the subrequest is nobody's business */

    return rc > NGX_OK ? NGX_OK : rc;
}


/* Takes status and reason from the helper's answer. */
static void
ngx_http_lemonade_ask_read(ngx_http_request_t *r,
    ngx_http_lemonade_ctx_t *ctx)
{
    ngx_int_t         rc;
    ngx_str_t        *text;
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    for (part = &r->upstream->headers_in.headers.part;
         part;
         part = part->next)
    {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {

            if (ngx_strcasecmp(h[i].key.data, (u_char *) "X-Lemonade-Model")
                == 0)
            {
                text = &ctx->name;

            } else if (ngx_strcasecmp(h[i].key.data,
                                      (u_char *) "X-Lemonade-Code")
                       == 0)
            {
                text = &ctx->ask_code;

            } else if (ngx_strcasecmp(h[i].key.data,
                                      (u_char *) "X-Lemonade-Message")
                       == 0)
            {
                text = &ctx->ask_message;

            } else if (ngx_strcasecmp(h[i].key.data,
                                      (u_char *) "Retry-After")
                       == 0)
            {
                text = &ctx->ask_retry_after;

            } else {
                continue;
            }

            rc = ngx_http_lemonade_ask_text(ctx->request, &h[i].value, text);
            if (rc != NGX_OK) {
                return;
            }
        }
    }

    ctx->ask_status = r->upstream->headers_in.status_n;
}


/* Copies a percent-encoded header value into the main request. */
static ngx_int_t
ngx_http_lemonade_ask_text(ngx_http_request_t *r, ngx_str_t *escaped,
    ngx_str_t *text)
{
    u_char  *dst, *src;

    dst = ngx_pnalloc(r->pool, escaped->len);
    if (dst == NULL) {
        return NGX_ERROR;
    }

    text->data = dst;
    src = escaped->data;

    ngx_unescape_uri(&dst, &src, escaped->len, 0);

    text->len = dst - text->data;

    return NGX_OK;
}
