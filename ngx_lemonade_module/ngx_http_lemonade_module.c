/*
 * Directives, configuration and the request's context.  Nothing here runs
 * per request but the look-up of that context and of the state file.
 */

#include "ngx_http_lemonade_module.h"


static void ngx_http_lemonade_cleanup(void *data);
static ngx_http_lemonade_state_t *ngx_http_lemonade_open_state(
    ngx_http_request_t *r);
static void ngx_http_lemonade_state_free(ngx_http_lemonade_state_t *state);
static void ngx_http_lemonade_state_unref(ngx_http_lemonade_state_t *state);

static ngx_int_t ngx_http_lemonade_init(ngx_conf_t *cf);
static void *ngx_http_lemonade_create_main_conf(ngx_conf_t *cf);
static void *ngx_http_lemonade_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_lemonade_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);
static char *ngx_http_lemonade_state(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_lemonade_helper(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_lemonade_heartbeat(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);


static ngx_command_t  ngx_http_lemonade_commands[] = {

    { ngx_string("lemonade_state"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_http_lemonade_state,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("lemonade"),
      NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_lemonade_loc_conf_t, enable),
      NULL },

    { ngx_string("lemonade"),
      NGX_HTTP_UPS_CONF|NGX_CONF_NOARGS,
      ngx_http_lemonade_upstream,
      0,
      0,
      NULL },

    { ngx_string("lemonade_helper"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_http_lemonade_helper,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("lemonade_load_timeout"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_lemonade_loc_conf_t, load_timeout),
      NULL },

    { ngx_string("lemonade_heartbeat"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_lemonade_heartbeat,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("lemonade_json_errors"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_lemonade_loc_conf_t, json_errors),
      NULL },

    { ngx_string("lemonade_api_key_file"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_lemonade_api_key_file,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("lemonade_cors"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_lemonade_cors,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_lemonade_module_ctx = {
    ngx_http_lemonade_add_variables,       /* preconfiguration */
    ngx_http_lemonade_init,                /* postconfiguration */

    ngx_http_lemonade_create_main_conf,    /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_lemonade_create_loc_conf,     /* create location configuration */
    ngx_http_lemonade_merge_loc_conf       /* merge location configuration */
};


ngx_module_t  ngx_http_lemonade_module = {
    NGX_MODULE_V1,
    &ngx_http_lemonade_module_ctx,         /* module context */
    ngx_http_lemonade_commands,            /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    NULL,                                  /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


/* This worker's mapping of the newest state file. */
static ngx_http_lemonade_state_t  *ngx_http_lemonade_current;


ngx_http_lemonade_ctx_t *
ngx_http_lemonade_get_ctx(ngx_http_request_t *r)
{
    ngx_uint_t                i;
    ngx_pool_cleanup_t       *cln;
    ngx_http_lemonade_ctx_t  *ctx;

    r = r->main;

    ctx = ngx_http_get_module_ctx(r, ngx_http_lemonade_module);

    if (ctx || !(r->internal || r->filter_finalize)) {
        return ctx;
    }

    /* an internal redirect has cleared the contexts */

    for (cln = r->pool->cleanup; cln; cln = cln->next) {
        if (cln->handler == ngx_http_lemonade_cleanup) {
            ctx = cln->data;
            ngx_http_set_ctx(r, ctx, ngx_http_lemonade_module);
            break;
        }
    }

    if (ctx == NULL || ctx->filters == NULL) {
        return ctx;
    }

    /* the response has begun: its filters go on where they were */

    for (i = 0; i < ngx_http_max_module; i++) {
        if (r->ctx[i] == NULL) {
            r->ctx[i] = ctx->filters[i];
        }
    }

    return ctx;
}


ngx_http_lemonade_ctx_t *
ngx_http_lemonade_make_ctx(ngx_http_request_t *r)
{
    ngx_pool_cleanup_t       *cln;
    ngx_http_lemonade_ctx_t  *ctx;

    ctx = ngx_http_lemonade_get_ctx(r);

    if (ctx) {
        return ctx;
    }

    r = r->main;

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_http_lemonade_ctx_t));
    if (cln == NULL) {
        return NULL;
    }

    ctx = cln->data;
    ngx_memzero(ctx, sizeof(ngx_http_lemonade_ctx_t));

    ctx->request = r;
    ctx->prompt_tokens = -1;
    ctx->completion_tokens = -1;

    cln->handler = ngx_http_lemonade_cleanup;

    ngx_http_set_ctx(r, ctx, ngx_http_lemonade_module);

    return ctx;
}


/* Called when the request's pool goes, however the request ended. */
static void
ngx_http_lemonade_cleanup(void *data)
{
    ngx_http_lemonade_ctx_t  *ctx = data;

    ngx_http_lemonade_park_cancel(ctx);
    ngx_http_lemonade_gate_release(ctx, 0);

    if (ctx->scan) {
        ngx_free(ctx->scan);
    }

    if (ctx->state) {
        ngx_http_lemonade_state_unref(ctx->state);
    }
}


/* Maps the state file anew.  NULL when there is no helper. */
static ngx_http_lemonade_state_t *
ngx_http_lemonade_open_state(ngx_http_request_t *r)
{
    ngx_http_lemonade_state_t      *state;
    ngx_http_lemonade_main_conf_t  *lmcf;

    lmcf = ngx_http_get_module_main_conf(r, ngx_http_lemonade_module);

    state = ngx_calloc(sizeof(ngx_http_lemonade_state_t),
                       r->connection->log);
    if (state == NULL) {
        return NULL;
    }

    if (lm_state_open(&state->map, (char *) lmcf->state.data) == -1) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, ngx_errno,
                      "lemonade: could not map \"%V\", "
                      "is lemonade-helper running?", &lmcf->state);
        ngx_free(state);
        return NULL;
    }

    if (lm_state_retired(&state->map)) {
        lm_state_close(&state->map);
        ngx_free(state);
        return NULL;
    }

    return state;
}


ngx_int_t
ngx_http_lemonade_attach_state(ngx_http_request_t *r,
    ngx_http_lemonade_ctx_t *ctx)
{
    ngx_http_lemonade_state_t  *state;

    state = ngx_http_lemonade_current;

    if (state == NULL || lm_state_retired(&state->map)) {
        ngx_http_lemonade_current = ngx_http_lemonade_open_state(r);

        if (state && state->requests == 0) {
            ngx_http_lemonade_state_free(state);
        }

        state = ngx_http_lemonade_current;

        if (state == NULL) {
            return NGX_DECLINED;
        }
    }

    if (ctx->state == state) {
        return NGX_OK;
    }

    if (ctx->state) {
        ngx_http_lemonade_state_unref(ctx->state);
    }

    ctx->state = state;
    state->requests++;

    return NGX_OK;
}


/* Unmaps. */
static void
ngx_http_lemonade_state_free(ngx_http_lemonade_state_t *state)
{
    lm_state_close(&state->map);
    ngx_free(state);
}


/* A request has ended: an outdated mapping goes with its last one. */
static void
ngx_http_lemonade_state_unref(ngx_http_lemonade_state_t *state)
{
    state->requests--;

    if (state->requests == 0 && state != ngx_http_lemonade_current) {
        ngx_http_lemonade_state_free(state);
    }
}


ngx_table_elt_t *
ngx_http_lemonade_add_header(ngx_http_request_t *r, char *name,
    ngx_str_t *value)
{
    ngx_table_elt_t  *h;

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NULL;
    }

    ngx_memzero(h, sizeof(ngx_table_elt_t));

    h->hash = 1;
    h->key.data = (u_char *) name;
    h->key.len = ngx_strlen(name);
    h->value = *value;

    return h;
}


ngx_str_t *
ngx_http_lemonade_request_header(ngx_http_request_t *r, char *name)
{
    size_t            len;
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    len = ngx_strlen(name);

    for (part = &r->headers_in.headers.part; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {
            if (h[i].key.len == len
                && ngx_strncasecmp(h[i].key.data, (u_char *) name, len) == 0)
            {
                return &h[i].value;
            }
        }
    }

    return NULL;
}


static ngx_int_t
ngx_http_lemonade_init(ngx_conf_t *cf)
{
    ngx_http_handler_pt        *h;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_PREACCESS_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_lemonade_origin_handler;

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_ACCESS_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_lemonade_access_handler;

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_PRECONTENT_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_lemonade_gate_handler;

    ngx_http_lemonade_gate_init();
    ngx_http_lemonade_reply_init();

    return NGX_OK;
}


static void *
ngx_http_lemonade_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_lemonade_main_conf_t  *lmcf;

    lmcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_lemonade_main_conf_t));
    if (lmcf == NULL) {
        return NULL;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     lmcf->state = { 0, NULL };
     *     lmcf->helper = NULL;
     */

    return lmcf;
}


static void *
ngx_http_lemonade_create_loc_conf(ngx_conf_t *cf)
{
    ngx_http_lemonade_loc_conf_t  *conf;

    conf = ngx_pcalloc(cf->pool, sizeof(ngx_http_lemonade_loc_conf_t));
    if (conf == NULL) {
        return NULL;
    }

    conf->enable = NGX_CONF_UNSET;
    conf->load_timeout = NGX_CONF_UNSET_MSEC;
    conf->heartbeat = NGX_CONF_UNSET_MSEC;
    conf->json_errors = NGX_CONF_UNSET;
    conf->origins = NGX_CONF_UNSET_PTR;
    conf->keys = NGX_CONF_UNSET_PTR;

    return conf;
}


static char *
ngx_http_lemonade_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_lemonade_loc_conf_t *prev = parent;
    ngx_http_lemonade_loc_conf_t *conf = child;

    ngx_http_lemonade_main_conf_t  *lmcf;

    ngx_conf_merge_value(conf->enable, prev->enable, 0);
    ngx_conf_merge_msec_value(conf->load_timeout, prev->load_timeout, 600000);
    ngx_conf_merge_msec_value(conf->heartbeat, prev->heartbeat, 15000);
    ngx_conf_merge_value(conf->json_errors, prev->json_errors, 0);
    ngx_conf_merge_ptr_value(conf->origins, prev->origins, NULL);
    ngx_conf_merge_ptr_value(conf->keys, prev->keys, NULL);

    lmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_lemonade_module);

    if (conf->enable && (lmcf->state.len == 0 || lmcf->helper == NULL)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"lemonade on\" needs \"lemonade_state\" and "
                           "\"lemonade_helper\" in the http block");
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


/* lemonade_state PATH */
static char *
ngx_http_lemonade_state(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_lemonade_main_conf_t *lmcf = conf;

    ngx_str_t  *value;

    if (lmcf->state.len) {
        return "is duplicate";
    }

    value = cf->args->elts;
    lmcf->state = value[1];

    if (ngx_conf_full_name(cf->cycle, &lmcf->state, 0) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


/* lemonade_helper unix:PATH */
static char *
ngx_http_lemonade_helper(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_lemonade_main_conf_t *lmcf = conf;

    ngx_url_t   url;
    ngx_str_t  *value;

    if (lmcf->helper) {
        return "is duplicate";
    }

    value = cf->args->elts;

    ngx_memzero(&url, sizeof(ngx_url_t));
    url.url = value[1];

    if (ngx_strncmp(url.url.data, "unix:", 5) != 0
        || ngx_parse_url(cf->pool, &url) != NGX_OK)
    {
        return "wants \"unix:PATH\" of the helper's control socket";
    }

    lmcf->helper = url.addrs;

    return NGX_CONF_OK;
}


/* lemonade_heartbeat TIME | off */
static char *
ngx_http_lemonade_heartbeat(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_lemonade_loc_conf_t *llcf = conf;

    ngx_int_t   ms;
    ngx_str_t  *value;

    if (llcf->heartbeat != NGX_CONF_UNSET_MSEC) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "off") == 0) {
        llcf->heartbeat = 0;
        return NGX_CONF_OK;
    }

    ms = ngx_parse_time(&value[1], 0);
    if (ms == NGX_ERROR || ms == 0) {
        return "wants a time or \"off\"";
    }

    llcf->heartbeat = (ngx_msec_t) ms;

    return NGX_CONF_OK;
}
