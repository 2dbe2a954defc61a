/*
 * 5. Asks the helper and waits for its answer: notices at once when the client leaves,
 * and sends heartbeats to a client that asked for a stream.
 *
 * The timer is an ordinary one on purpose: a worker that shuts down waits
 * for it, while cancelable timers would let it exit with requests parked.
 */

#include "ngx_http_lemonade_module.h"


static void ngx_http_lemonade_park_write(ngx_http_request_t *r);
static void ngx_http_lemonade_park_timer(ngx_event_t *ev);
static void ngx_http_lemonade_park_resume(ngx_event_t *ev);
static void ngx_http_lemonade_park_expired(ngx_http_request_t *r,
    ngx_http_lemonade_ctx_t *ctx);
static ngx_int_t ngx_http_lemonade_park_heartbeat(ngx_http_request_t *r,
    ngx_http_lemonade_ctx_t *ctx);
static void ngx_http_lemonade_park_set_timer(ngx_http_request_t *r,
    ngx_http_lemonade_ctx_t *ctx);


ngx_int_t
ngx_http_lemonade_park(ngx_http_request_t *r, ngx_http_lemonade_ctx_t *ctx)
{
    ngx_http_lemonade_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_lemonade_module);

    ctx->parked = ngx_current_msec;

    if (ctx->deadline == 0) {
        ctx->deadline = ngx_current_msec + llcf->load_timeout;
    }

    ctx->timer.handler = ngx_http_lemonade_park_timer;
    ctx->timer.data = ctx;
    ctx->timer.log = r->connection->log;

    ctx->resume.handler = ngx_http_lemonade_park_resume;
    ctx->resume.data = ctx;
    ctx->resume.log = r->connection->log;

    if (ngx_http_lemonade_ask(r, ctx) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_http_lemonade_park_set_timer(r, ctx);

    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_http_lemonade_park_write;

    if (r->connection->read->ready) {
        ngx_post_event(r->connection->read, &ngx_posted_events);
    }

    return NGX_AGAIN;
}


void
ngx_http_lemonade_park_cancel(ngx_http_lemonade_ctx_t *ctx)
{
    if (ctx->timer.timer_set) {
        ngx_del_timer(&ctx->timer);
    }

    if (ctx->resume.posted) {
        ngx_delete_posted_event(&ctx->resume);
    }

    ngx_http_lemonade_ask_cancel(ctx);
}


/* Sets the timer to the next heartbeat or to the end of our patience. */
static void
ngx_http_lemonade_park_set_timer(ngx_http_request_t *r,
    ngx_http_lemonade_ctx_t *ctx)
{
    ngx_msec_int_t                 ms;
    ngx_http_lemonade_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_lemonade_module);

    ms = (ngx_msec_int_t) (ctx->deadline - ngx_current_msec);

    if (ctx->stream && llcf->heartbeat) {
        ms = ngx_min(ms, (ngx_msec_int_t) llcf->heartbeat);
    }

    ngx_add_timer(&ctx->timer, (ngx_msec_t) ngx_max(ms, 0));
}


/* Called when the client can take more: flushes an unsent heartbeat. */
static void
ngx_http_lemonade_park_write(ngx_http_request_t *r)
{
    ngx_connection_t  *c = r->connection;

    if (c->buffered && ngx_http_output_filter(r, NULL) == NGX_ERROR) {
        ngx_http_finalize_request(r, NGX_ERROR);
        return;
    }

    if (ngx_handle_write_event(c->write, 0) != NGX_OK) {
        ngx_http_finalize_request(r, NGX_ERROR);
    }
}


/* Called when a heartbeat is due or the deadline has come. */
static void
ngx_http_lemonade_park_timer(ngx_event_t *ev)
{
    ngx_connection_t         *c;
    ngx_http_request_t       *r;
    ngx_http_lemonade_ctx_t  *ctx;

    ctx = ev->data;
    r = ctx->request;
    c = r->connection;

    ngx_http_set_log_request(c->log, r);

    if ((ngx_msec_int_t) (ctx->deadline - ngx_current_msec) <= 0) {
        ngx_http_lemonade_park_expired(r, ctx);

    } else if (ngx_http_lemonade_park_heartbeat(r, ctx) == NGX_ERROR) {
        ngx_http_finalize_request(r, NGX_ERROR);

    } else {
        ngx_http_lemonade_park_set_timer(r, ctx);
    }

    ngx_http_run_posted_requests(c);
}


/* Called when the helper has answered. */
static void
ngx_http_lemonade_park_resume(ngx_event_t *ev)
{
    ngx_connection_t         *c;
    ngx_http_request_t       *r;
    ngx_http_lemonade_ctx_t  *ctx;

    ctx = ev->data;
    r = ctx->request;
    c = r->connection;

    ngx_http_set_log_request(c->log, r);

    ngx_http_lemonade_park_cancel(ctx);

    ctx->wait += ngx_current_msec - ctx->parked;

    r->read_event_handler = ngx_http_block_reading;
    r->write_event_handler = ngx_http_core_run_phases;

    ngx_http_core_run_phases(r);

    ngx_http_run_posted_requests(c);
}


/* The model took too long. */
static void
ngx_http_lemonade_park_expired(ngx_http_request_t *r,
    ngx_http_lemonade_ctx_t *ctx)
{
    ngx_str_t  code, param, message, later;

    ngx_http_lemonade_park_cancel(ctx);

    ctx->wait += ngx_current_msec - ctx->parked;

    ngx_str_set(&code, "model_load_timeout");
    ngx_str_set(&param, "model");
    ngx_str_set(&message, "The model is not ready yet. Try again later");
    ngx_str_set(&later, "30");

    if (!ctx->heartbeats
        && ngx_http_lemonade_add_header(r, "Retry-After", &later) == NULL)
    {
        ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
        return;
    }

    (void) ngx_http_lemonade_reply(r, NGX_HTTP_SERVICE_UNAVAILABLE, &code,
                                   &param, &message);
}


/*
 * Sends a comment line, which every SSE parser skips.  The first one commits
 * the response to status 200.
 */
static ngx_int_t
ngx_http_lemonade_park_heartbeat(ngx_http_request_t *r,
    ngx_http_lemonade_ctx_t *ctx)
{
    ngx_buf_t    *b;
    ngx_chain_t   out;

    static u_char  comment[] = ": waiting for the model\n\n";

    if (r->connection->buffered) {
        /* the client does not read */
        return NGX_OK;
    }

    if (!ctx->heartbeats
        && ngx_http_lemonade_reply_early_headers(r, ctx) != NGX_OK)
    {
        return NGX_ERROR;
    }

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NGX_ERROR;
    }

    b->pos = comment;
    b->last = comment + sizeof(comment) - 1;
    b->memory = 1;
    b->flush = 1;

    out.buf = b;
    out.next = NULL;

    return ngx_http_output_filter(r, &out) == NGX_ERROR ? NGX_ERROR : NGX_OK;
}
