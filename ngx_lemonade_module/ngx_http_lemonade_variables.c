/*
 * $lemonade_* for the access log, and the backend's key for proxy_set_header.
 */

#include "ngx_http_lemonade_module.h"


static ngx_int_t ngx_http_lemonade_str_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_lemonade_seconds_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_lemonade_tokens_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_lemonade_speed_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_lemonade_replica_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);


static ngx_http_variable_t  ngx_http_lemonade_vars[] = {

    /* the model's name as the helper knows it */
    { ngx_string("lemonade_model"), NULL, ngx_http_lemonade_str_variable,
      offsetof(ngx_http_lemonade_ctx_t, name),
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

    /* the server that answered: recipe and pid */
    { ngx_string("lemonade_backend"), NULL,
      ngx_http_lemonade_replica_variable,
      offsetof(struct lm_replica, label),
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

    /* seconds parked until the model was ready */
    { ngx_string("lemonade_wait"), NULL, ngx_http_lemonade_seconds_variable,
      offsetof(ngx_http_lemonade_ctx_t, wait),
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

    /* seconds from the request's first byte to the first token */
    { ngx_string("lemonade_ttft"), NULL, ngx_http_lemonade_seconds_variable,
      offsetof(ngx_http_lemonade_ctx_t, ttft),
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("lemonade_prompt_tokens"), NULL,
      ngx_http_lemonade_tokens_variable,
      offsetof(ngx_http_lemonade_ctx_t, prompt_tokens),
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("lemonade_completion_tokens"), NULL,
      ngx_http_lemonade_tokens_variable,
      offsetof(ngx_http_lemonade_ctx_t, completion_tokens),
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("lemonade_tokens_per_second"), NULL,
      ngx_http_lemonade_speed_variable, 0,
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

    /* the bearer key of the leased backend; not for logs */
    { ngx_string("lemonade_backend_key"), NULL,
      ngx_http_lemonade_replica_variable,
      offsetof(struct lm_replica, key),
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


ngx_int_t
ngx_http_lemonade_add_variables(ngx_conf_t *cf)
{
    ngx_http_variable_t  *var, *v;

    for (v = ngx_http_lemonade_vars; v->name.len; v++) {
        var = ngx_http_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;
    }

    return NGX_OK;
}


/* Makes the value len bytes at data. */
static ngx_int_t
ngx_http_lemonade_set_value(ngx_http_variable_value_t *v, u_char *data,
    size_t len)
{
    v->data = data;
    v->len = len;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return NGX_OK;
}


/* Makes the value n / 10^digits, with so many digits behind the point. */
static ngx_int_t
ngx_http_lemonade_set_decimal(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, ngx_uint_t n, ngx_uint_t digits)
{
    u_char      *p, *last;
    ngx_uint_t   i;

    p = ngx_pnalloc(r->pool, NGX_INT64_LEN + 2);
    if (p == NULL) {
        return NGX_ERROR;
    }

    last = p + NGX_INT64_LEN + 2;
    p = last;

    for (i = 0; i <= digits || n; i++) {
        if (digits && i == digits) {
            *--p = '.';
        }

        *--p = (u_char) ('0' + n % 10);
        n /= 10;
    }

    return ngx_http_lemonade_set_value(v, p, last - p);
}


/* An ngx_str_t of the context. */
static ngx_int_t
ngx_http_lemonade_str_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_str_t                *s;
    ngx_http_lemonade_ctx_t  *ctx;

    ctx = ngx_http_lemonade_get_ctx(r);
    s = ctx ? (ngx_str_t *) ((char *) ctx + data) : NULL;

    if (s == NULL || s->len == 0) {
        v->not_found = 1;
        return NGX_OK;
    }

    return ngx_http_lemonade_set_value(v, s->data, s->len);
}


/* An ngx_msec_t of the context, in seconds. */
static ngx_int_t
ngx_http_lemonade_seconds_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_http_lemonade_ctx_t  *ctx;

    ctx = ngx_http_lemonade_get_ctx(r);

    if (ctx == NULL || !ctx->scanned
        || (data == offsetof(ngx_http_lemonade_ctx_t, ttft)
            && ctx->first == 0))
    {
        v->not_found = 1;
        return NGX_OK;
    }

    return ngx_http_lemonade_set_decimal(r, v,
                                 *(ngx_msec_t *) ((char *) ctx + data), 3);
}


/* A count of the context, -1 when it is not known. */
static ngx_int_t
ngx_http_lemonade_tokens_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_int_t                 n;
    ngx_http_lemonade_ctx_t  *ctx;

    ctx = ngx_http_lemonade_get_ctx(r);
    n = ctx ? *(ngx_int_t *) ((char *) ctx + data) : -1;

    if (n < 0) {
        v->not_found = 1;
        return NGX_OK;
    }

    return ngx_http_lemonade_set_decimal(r, v, n, 0);
}


/* The backend's own figure, else tokens by the time between first and last. */
static ngx_int_t
ngx_http_lemonade_speed_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_uint_t                n;
    ngx_http_lemonade_ctx_t  *ctx;

    ctx = ngx_http_lemonade_get_ctx(r);
    n = 0;

    if (ctx && ctx->tokens_per_second) {
        n = ctx->tokens_per_second;

    } else if (ctx && ctx->completion_tokens > 1 && ctx->last > ctx->first) {
        n = (ngx_uint_t) (ctx->completion_tokens - 1) * 100 * 1000
            / (ctx->last - ctx->first);
    }

    if (n == 0) {
        v->not_found = 1;
        return NGX_OK;
    }

    return ngx_http_lemonade_set_decimal(r, v, n, 2);
}


/* A C string of the leased replica; it stays readable after the lease. */
static ngx_int_t
ngx_http_lemonade_replica_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    char                     *s;
    ngx_http_lemonade_ctx_t  *ctx;

    ctx = ngx_http_lemonade_get_ctx(r);

    if (ctx == NULL || ctx->replica.address_len == 0) {
        v->not_found = 1;
        return NGX_OK;
    }

    s = (char *) &ctx->replica + data;

    return ngx_http_lemonade_set_value(v, (u_char *) s, ngx_strlen(s));
}
