/*
 * 2. The gate: reads the body, finds the model in it, and lets the request
 * through to proxy_pass once it holds a lease on a server of that model.
 *
 * The handler is entered several times: first for a new request, then when
 * the body is there, when the helper has answered, and once more in
 * @lemonade_retry if the backend failed before it sent anything.
 */

#include "ngx_http_lemonade_module.h"


/* A granted model may be gone again before the request gets to it. */
#define NGX_HTTP_LEMONADE_ASKS_MAX   20


static ngx_int_t ngx_http_lemonade_gate_begin(ngx_http_request_t *r);
static void ngx_http_lemonade_gate_body(ngx_http_request_t *r);
static ngx_int_t ngx_http_lemonade_gate_body_filter(ngx_http_request_t *r,
    ngx_chain_t *in);
static ngx_int_t ngx_http_lemonade_gate_scan_kept(ngx_http_request_t *r,
    ngx_http_lemonade_ctx_t *ctx);
static ngx_int_t ngx_http_lemonade_gate_check(ngx_http_request_t *r,
    lm_scan_t *scan);
static ngx_int_t ngx_http_lemonade_gate_take(ngx_http_request_t *r,
    ngx_http_lemonade_ctx_t *ctx, lm_scan_t *scan);
static ngx_int_t ngx_http_lemonade_gate_invalid(ngx_http_request_t *r,
    lm_scan_t *scan, lm_scan_result_t result);
static ngx_int_t ngx_http_lemonade_gate_limits(ngx_http_request_t *r,
    lm_scan_t *scan);
static ngx_int_t ngx_http_lemonade_gate_route(ngx_http_request_t *r,
    ngx_http_lemonade_ctx_t *ctx);
static ngx_int_t ngx_http_lemonade_gate_refused(ngx_http_request_t *r,
    ngx_http_lemonade_ctx_t *ctx);
static ngx_int_t ngx_http_lemonade_gate_error(ngx_http_request_t *r,
    ngx_uint_t status, char *code, char *param, char *message);


static ngx_http_request_body_filter_pt  ngx_http_next_request_body_filter;


void
ngx_http_lemonade_gate_init(void)
{
    ngx_http_next_request_body_filter = ngx_http_top_request_body_filter;
    ngx_http_top_request_body_filter = ngx_http_lemonade_gate_body_filter;
}


/* Called in the precontent phase: after limits and access, before content. */
ngx_int_t
ngx_http_lemonade_gate_handler(ngx_http_request_t *r)
{
    ngx_int_t                      rc;
    ngx_http_lemonade_ctx_t       *ctx;
    ngx_http_lemonade_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_lemonade_module);

    if (!llcf->enable || r != r->main) {
        return NGX_DECLINED;
    }

    ctx = ngx_http_lemonade_get_ctx(r);

    if (ctx == NULL) {
        return ngx_http_lemonade_gate_begin(r);
    }

    if (!ctx->body_read) {

        /* reading it has failed, and error_page has led here */
        return NGX_HTTP_BAD_REQUEST;
    }

    if (!ctx->scanned) {
        rc = ngx_http_lemonade_gate_check(r, ctx->scan);

        if (rc == NGX_OK) {
            rc = ngx_http_lemonade_gate_take(r, ctx, ctx->scan);
        }

        if (rc != NGX_OK) {
            return rc;
        }

        ngx_free(ctx->scan);
        ctx->scan = NULL;
        ctx->scanned = 1;
    }

    return ngx_http_lemonade_gate_route(r, ctx);
}


/* Refuses what needs no body, then starts to read it. */
static ngx_int_t
ngx_http_lemonade_gate_begin(ngx_http_request_t *r)
{
    ngx_int_t                 rc;
    ngx_str_t                *encoding, value;
    ngx_http_lemonade_ctx_t  *ctx;

    if (r->method != NGX_HTTP_POST) {
        ngx_str_set(&value, "POST");

        if (ngx_http_lemonade_add_header(r, "Allow", &value) == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        return ngx_http_lemonade_gate_error(r, NGX_HTTP_NOT_ALLOWED,
                                            "method_not_allowed", NULL,
                                            "Method not allowed. "
                                            "Use POST for this endpoint");
    }

    encoding = ngx_http_lemonade_request_header(r, "content-encoding");

    if (encoding
        && !(encoding->len == sizeof("identity") - 1
             && ngx_strncasecmp(encoding->data, (u_char *) "identity",
                                encoding->len) == 0))
    {
        return ngx_http_lemonade_gate_error(r,
                                            NGX_HTTP_UNSUPPORTED_MEDIA_TYPE,
                                            "unsupported_content_encoding",
                                            NULL,
                                            "A compressed request body is not "
                                            "supported. Send it without "
                                            "Content-Encoding");
    }

    ctx = ngx_http_lemonade_make_ctx(r);
    if (ctx == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ctx->scan = ngx_alloc(sizeof(lm_scan_t), r->connection->log);
    if (ctx->scan == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    lm_scan_init(ctx->scan);

    if (r->request_body && ngx_http_lemonade_gate_scan_kept(r, ctx) != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rc = ngx_http_read_client_request_body(r, ngx_http_lemonade_gate_body);
    if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {
        return rc;
    }

    ngx_http_finalize_request(r, NGX_DONE);

    return NGX_DONE;
}


/* Called once when the whole body is in memory or in its temporary file. */
static void
ngx_http_lemonade_gate_body(ngx_http_request_t *r)
{
    ngx_http_lemonade_ctx_t  *ctx;

    ctx = ngx_http_lemonade_get_ctx(r);

    ctx->body_read = 1;

    r->preserve_body = 1;

    r->write_event_handler = ngx_http_core_run_phases;
    ngx_http_core_run_phases(r);
}


/*
 * Called with each piece of a body, before it is kept in memory or goes to a
 * temporary file: a large body is scanned while it arrives, and never read
 * again.
 */
static ngx_int_t
ngx_http_lemonade_gate_body_filter(ngx_http_request_t *r, ngx_chain_t *in)
{
    ngx_chain_t              *cl;
    ngx_http_lemonade_ctx_t  *ctx;

    ctx = ngx_http_get_module_ctx(r, ngx_http_lemonade_module);

    if (ctx && ctx->scan) {
        for (cl = in; cl; cl = cl->next) {
            (void) lm_scan_feed(ctx->scan, cl->buf->pos,
                                cl->buf->last - cl->buf->pos);
        }
    }

    return ngx_http_next_request_body_filter(r, in);
}


/* Scans a body that another module has read before. */
static ngx_int_t
ngx_http_lemonade_gate_scan_kept(ngx_http_request_t *r,
    ngx_http_lemonade_ctx_t *ctx)
{
    off_t         offset;
    ssize_t       n;
    ngx_buf_t    *b;
    ngx_chain_t  *cl;
    u_char        piece[16384];

    for (cl = r->request_body->bufs; cl; cl = cl->next) {
        b = cl->buf;

        if (ngx_buf_in_memory(b)) {
            (void) lm_scan_feed(ctx->scan, b->pos, b->last - b->pos);
            continue;
        }

        for (offset = b->file_pos; offset < b->file_last; offset += n) {
            n = ngx_read_file(b->file, piece,
                              ngx_min((off_t) sizeof(piece),
                                      b->file_last - offset),
                              offset);
            if (n <= 0) {
                return NGX_ERROR;
            }

            (void) lm_scan_feed(ctx->scan, piece, n);
        }
    }

    return NGX_OK;
}


/* Is the body what it should be?  NGX_OK, or what the handler returns. */
static ngx_int_t
ngx_http_lemonade_gate_check(ngx_http_request_t *r, lm_scan_t *scan)
{
    lm_scan_result_t  result;

    result = lm_scan_finish(scan);

    if (result != LM_SCAN_OK) {
        return ngx_http_lemonade_gate_invalid(r, scan, result);
    }

    return ngx_http_lemonade_gate_limits(r, scan);
}


/* Keeps what the scan has found, which is checked already. */
static ngx_int_t
ngx_http_lemonade_gate_take(ngx_http_request_t *r,
    ngx_http_lemonade_ctx_t *ctx, lm_scan_t *scan)
{
    lm_scan_value_t  *model = &scan->member[LM_SCAN_MODEL];

    ctx->model.len = model->len;
    ctx->model.data = ngx_pnalloc(r->pool, model->len);
    if (ctx->model.data == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_memcpy(ctx->model.data, model->value, model->len);

    /* Ollama's way to write "this model" */

    ctx->name = ctx->model;

    if (ctx->name.len > sizeof(":latest") - 1
        && ngx_strncmp(ctx->name.data + ctx->name.len
                       - (sizeof(":latest") - 1), ":latest",
                       sizeof(":latest") - 1) == 0)
    {
        ctx->name.len -= sizeof(":latest") - 1;
    }

    ctx->stream = (scan->member[LM_SCAN_STREAM].type == LM_SCAN_TRUE);

    return NGX_OK;
}


/* Says what is wrong with a body that is not a JSON object. */
static ngx_int_t
ngx_http_lemonade_gate_invalid(ngx_http_request_t *r, lm_scan_t *scan,
    lm_scan_result_t result)
{
    char    *code;
    u_char   message[128], *p;

    code = "invalid_json";

    switch (result) {

    case LM_SCAN_EMPTY:
        code = "empty_body";
        p = ngx_sprintf(message, "Request body is required but was empty");
        break;

    case LM_SCAN_NOT_OBJECT:
        p = ngx_sprintf(message, "Request body must be a JSON object");
        break;

    case LM_SCAN_TRUNCATED:
        p = ngx_sprintf(message, "Invalid JSON in request body: "
                        "it ends after %uL bytes in the middle of a value",
                        scan->offset);
        break;

    case LM_SCAN_TOO_DEEP:
        p = ngx_sprintf(message, "Invalid JSON in request body: "
                        "nested deeper than %d levels", LM_SCAN_DEPTH);
        break;

    default: /* LM_SCAN_INVALID */
        p = ngx_sprintf(message, "Invalid JSON in request body: "
                        "syntax error at byte %uL", scan->offset);
        break;
    }

    *p = '\0';

    return ngx_http_lemonade_gate_error(r, NGX_HTTP_BAD_REQUEST, code, NULL,
                                        (char *) message);
}


/* Checks the members the gate needs. */
static ngx_int_t
ngx_http_lemonade_gate_limits(ngx_http_request_t *r, lm_scan_t *scan)
{
    lm_scan_value_t  *model, *old, *new;

    model = &scan->member[LM_SCAN_MODEL];

    if (model->type == LM_SCAN_ABSENT || model->type == LM_SCAN_NULL
        || (model->type == LM_SCAN_STRING && model->len == 0))
    {
        return ngx_http_lemonade_gate_error(r, NGX_HTTP_BAD_REQUEST,
                                            "model_required", "model",
                                            "No model specified in request. "
                                            "Set \"model\" to a name that "
                                            "GET /api/v1/models lists");
    }

    if (model->type != LM_SCAN_STRING) {
        return ngx_http_lemonade_gate_error(r, NGX_HTTP_BAD_REQUEST,
                                            "invalid_type", "model",
                                            "\"model\" must be a string");
    }

    if (model->too_long) {
        return ngx_http_lemonade_gate_error(r, NGX_HTTP_NOT_FOUND,
                                            "model_not_found", "model",
                                            "Model not found: the name is "
                                            "longer than any model's");
    }

    old = &scan->member[LM_SCAN_MAX_TOKENS];
    new = &scan->member[LM_SCAN_MAX_COMPLETION_TOKENS];

    if (old->type == LM_SCAN_NUMBER && new->type == LM_SCAN_NUMBER
        && (old->len != new->len
            || ngx_memcmp(old->value, new->value, old->len) != 0))
    {
        return ngx_http_lemonade_gate_error(r, NGX_HTTP_BAD_REQUEST,
                                            "invalid_value", "max_tokens",
                                            "max_tokens and "
                                            "max_completion_tokens differ. "
                                            "Send only one of them");
    }

    return NGX_OK;
}


/* Takes a lease, or asks the helper for the model and waits. */
static ngx_int_t
ngx_http_lemonade_gate_route(ngx_http_request_t *r,
    ngx_http_lemonade_ctx_t *ctx)
{
    if (ctx->leased) {

        /* redirected on its way to proxy_pass: the lease goes along */
        return NGX_DECLINED;
    }

    if (ctx->answered) {
        ctx->answered = 0;

        if (ctx->ask_status != NGX_HTTP_NO_CONTENT) {
            return ngx_http_lemonade_gate_refused(r, ctx);
        }

        /* the helper vouches for the route, whatever failed before */
        ctx->must_ask = 0;
    }

    if (ngx_http_lemonade_attach_state(r, ctx) != NGX_OK) {
        return ngx_http_lemonade_gate_error(r, NGX_HTTP_SERVICE_UNAVAILABLE,
                                            "helper_unavailable", NULL,
                                            "The model manager "
                                            "(lemonade-helper) is not "
                                            "running. Try again in a moment");
    }

    if (!ctx->must_ask
        && lm_lease_take(&ctx->state->map, (char *) ctx->name.data,
                         ctx->name.len, &ctx->lease, &ctx->replica))
    {
        ctx->leased = 1;
        return NGX_DECLINED;
    }

    if (ctx->asks++ == NGX_HTTP_LEMONADE_ASKS_MAX) {
        return ngx_http_lemonade_gate_error(r, NGX_HTTP_SERVICE_UNAVAILABLE,
                                            "model_contended", "model",
                                            "The model is loaded and unloaded "
                                            "too often. Try again later");
    }

    return ngx_http_lemonade_park(r, ctx);
}


/* Hands the helper's refusal to the client. */
static ngx_int_t
ngx_http_lemonade_gate_refused(ngx_http_request_t *r,
    ngx_http_lemonade_ctx_t *ctx)
{
    ngx_str_t  param;

    if (ctx->ask_status < NGX_HTTP_BAD_REQUEST || ctx->ask_message.len == 0) {
        return ngx_http_lemonade_gate_error(r, NGX_HTTP_SERVICE_UNAVAILABLE,
                                            "helper_unavailable", NULL,
                                            "The model manager "
                                            "(lemonade-helper) does not "
                                            "answer. Try again in a moment");
    }

    if (ctx->ask_retry_after.len
        && !ctx->heartbeats
        && ngx_http_lemonade_add_header(r, "Retry-After",
                                        &ctx->ask_retry_after) == NULL)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_str_set(&param, "model");

    return ngx_http_lemonade_reply(r, ctx->ask_status, &ctx->ask_code, &param,
                                   &ctx->ask_message);
}


/* Replies with an error written as C strings. */
static ngx_int_t
ngx_http_lemonade_gate_error(ngx_http_request_t *r, ngx_uint_t status,
    char *code, char *param, char *message)
{
    ngx_int_t  rc;
    ngx_str_t  c, p, m, soon;

    if (!r->request_body) {
        rc = ngx_http_discard_request_body(r);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    if (status == NGX_HTTP_SERVICE_UNAVAILABLE) {
        ngx_str_set(&soon, "2");

        if (ngx_http_lemonade_add_header(r, "Retry-After", &soon) == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    c.data = (u_char *) code;
    c.len = ngx_strlen(code);
    m.data = (u_char *) message;
    m.len = ngx_strlen(message);
    p.data = (u_char *) param;
    p.len = param ? ngx_strlen(param) : 0;

    return ngx_http_lemonade_reply(r, status, &c, param ? &p : NULL, &m);
}


void
ngx_http_lemonade_gate_release(ngx_http_lemonade_ctx_t *ctx,
    ngx_uint_t failed)
{
    if (!ctx->leased) {
        return;
    }

    ctx->leased = 0;

    lm_lease_release(&ctx->state->map, &ctx->lease, failed,
                     ngx_max(ctx->prompt_tokens, 0),
                     ngx_max(ctx->completion_tokens, 0));

    if (failed) {
        ctx->failed = ctx->lease;
        ctx->must_ask = 1;

        /* the retry has a wait of its own */
        ctx->deadline = 0;
    }
}
