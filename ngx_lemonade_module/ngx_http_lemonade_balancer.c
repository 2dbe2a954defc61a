/*
 * 6. The upstream method: the address comes from the request's lease, and
 * the lease goes back when the backend's answer has ended.
 *
 * There is exactly one try.  A second one goes through the gate again
 * (error_page 502 504 = @lemonade_retry), which may have to wait.
 */

#include "ngx_http_lemonade_module.h"


static ngx_int_t ngx_http_lemonade_init_upstream(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf);
static ngx_int_t ngx_http_lemonade_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *uscf);
static ngx_int_t ngx_http_lemonade_get_peer(ngx_peer_connection_t *pc,
    void *data);
static void ngx_http_lemonade_free_peer(ngx_peer_connection_t *pc,
    void *data, ngx_uint_t state);
static void ngx_http_lemonade_finalize_upstream(ngx_http_request_t *r,
    ngx_int_t rc);


/* Directive "lemonade" in upstream. */
char *
ngx_http_lemonade_upstream(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_upstream_server_t    *server;
    ngx_http_upstream_srv_conf_t  *uscf;

    uscf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_upstream_module);

    if (uscf->peer.init_upstream) {
        return "must be the only method";
    }

    uscf->peer.init_upstream = ngx_http_lemonade_init_upstream;
    uscf->flags = NGX_HTTP_UPSTREAM_CREATE;

    /* the parser refuses an upstream without servers */

    server = ngx_array_push(uscf->servers);
    if (server == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(server, sizeof(ngx_http_upstream_server_t));
    ngx_str_set(&server->name, "lemonade");

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_lemonade_init_upstream(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *uscf)
{
    uscf->peer.init = ngx_http_lemonade_init_peer;

    return NGX_OK;
}


/* Called before the request is sent to the backend. */
static ngx_int_t
ngx_http_lemonade_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *uscf)
{
    ngx_http_upstream_t      *u = r->upstream;
    ngx_http_lemonade_ctx_t  *ctx;

    ctx = ngx_http_lemonade_get_ctx(r);

    if (ctx == NULL || !ctx->leased || r != r->main) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "proxy_pass to a lemonade upstream in a location "
                      "without \"lemonade on\", or in a subrequest");
        return NGX_ERROR;
    }

    u->peer.data = ctx;
    u->peer.get = ngx_http_lemonade_get_peer;
    u->peer.free = ngx_http_lemonade_free_peer;
    u->peer.tries = 1;

    /* the only place that learns how the answer ended */

    ctx->upstream_finalize = u->finalize_request;
    u->finalize_request = ngx_http_lemonade_finalize_upstream;

    return NGX_OK;
}


static ngx_int_t
ngx_http_lemonade_get_peer(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_lemonade_ctx_t *ctx = data;

    u_char     *p;
    ngx_str_t  *name;

    /* nginx keeps the pointer in $upstream_addr: a new one for each try */

    name = ngx_palloc(ctx->request->pool,
                      sizeof(ngx_str_t) + NGX_SOCKADDR_STRLEN);
    if (name == NULL) {
        return NGX_ERROR;
    }

    name->data = (u_char *) (name + 1);

    pc->sockaddr = (struct sockaddr *) &ctx->replica.address;
    pc->socklen = ctx->replica.address_len;
    pc->name = name;
    pc->cached = 0;
    pc->connection = NULL;

    if (pc->sockaddr->sa_family == AF_UNIX) {

        /* the usual case, without the format machinery */

        p = ngx_cpymem(name->data, "unix:", 5);
        p = ngx_cpystrn(p, (u_char *) ctx->replica.address.sun_path,
                        NGX_SOCKADDR_STRLEN - 5);
        name->len = p - name->data;

    } else {
        name->len = ngx_sock_ntop(pc->sockaddr, pc->socklen, name->data,
                                  NGX_SOCKADDR_STRLEN, 1);
    }

    return NGX_OK;
}


static void
ngx_http_lemonade_free_peer(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state)
{
    if (pc->tries) {
        pc->tries--;
    }
}


/*
 * Called when the exchange with the backend is over: rc is 0, NGX_ERROR if
 * the client failed, else the status that nginx would answer with.
 */
static void
ngx_http_lemonade_finalize_upstream(ngx_http_request_t *r, ngx_int_t rc)
{
    ngx_uint_t                failed;
    ngx_http_lemonade_ctx_t  *ctx;

    ctx = ngx_http_lemonade_get_ctx(r);

    failed = (rc == NGX_HTTP_BAD_GATEWAY || rc == NGX_HTTP_GATEWAY_TIME_OUT);

    if (failed && r->upstream->header_sent && ctx->events) {
        ngx_http_lemonade_reply_broken_stream(r, ctx);
    }

    ngx_http_lemonade_gate_release(ctx, failed);

    ctx->upstream_finalize(r, rc);
}
