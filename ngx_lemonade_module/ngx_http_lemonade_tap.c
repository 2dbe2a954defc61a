/*
 * 7. Reads along as the answer passes: the first token, the token counts and
 * timings that llama-server puts at its end, and whether the stream stands
 * between two events.  The bytes are never changed and, as long as events
 * arrive whole, never copied.
 */

#include "ngx_http_lemonade_module.h"


/* The numbers come at the end of an event or of a JSON answer. */
#define NGX_HTTP_LEMONADE_CARRY  2048


static void ngx_http_lemonade_tap_bytes(ngx_http_lemonade_ctx_t *ctx,
    u_char *p, u_char *last);
static ngx_uint_t ngx_http_lemonade_tap_has_token(u_char *p, u_char *last);
static void ngx_http_lemonade_tap_numbers(ngx_http_lemonade_ctx_t *ctx,
    u_char *p, u_char *last);
static ngx_uint_t ngx_http_lemonade_tap_named(u_char *p, u_char *brace,
    char *name);
static void ngx_http_lemonade_tap_number(u_char *p, u_char *last, char *name,
    ngx_int_t scale, ngx_int_t *value);
static void ngx_http_lemonade_tap_carry(ngx_http_lemonade_ctx_t *ctx,
    u_char *p, u_char *last);
static u_char *ngx_http_lemonade_tap_find(u_char *p, u_char *last,
    char *text);


void
ngx_http_lemonade_tap(ngx_http_lemonade_ctx_t *ctx, ngx_chain_t *in)
{
    ngx_buf_t  *b;

    for ( /* void */ ; in; in = in->next) {
        b = in->buf;

        if (ngx_buf_in_memory(b) && b->pos < b->last) {
            ngx_http_lemonade_tap_bytes(ctx, b->pos, b->last);
        }
    }
}


/* Looks at the next bytes of the answer. */
static void
ngx_http_lemonade_tap_bytes(ngx_http_lemonade_ctx_t *ctx, u_char *p,
    u_char *last)
{
    size_t       n;
    ngx_buf_t   *carry;
    ngx_time_t  *now;

    ctx->last = ngx_current_msec;
    ctx->received += last - p;

    if (ctx->first == 0
        && (!ctx->events || ngx_http_lemonade_tap_has_token(p, last)))
    {
        ctx->first = ngx_current_msec;

        now = ngx_timeofday();
        ctx->ttft = (ngx_msec_t) ((now->sec - ctx->request->start_sec) * 1000
                                  + (now->msec - ctx->request->start_msec));
    }

    carry = ctx->carry;

    if (carry && carry->last > carry->pos) {

        /* the numbers may begin in the bytes before */

        n = ngx_min((size_t) (last - p), (size_t) (carry->end - carry->last));
        carry->last = ngx_cpymem(carry->last, p, n);

        ngx_http_lemonade_tap_numbers(ctx, carry->pos, carry->last);
        carry->last = carry->pos;
    }

    ngx_http_lemonade_tap_numbers(ctx, p, last);

    ctx->tail[0] = (last - p > 1) ? last[-2] : ctx->tail[1];
    ctx->tail[1] = last[-1];

    if (ctx->events
        ? !ngx_http_lemonade_tap_between_events(ctx)
        : ctx->received != ctx->request->headers_out.content_length_n)
    {
        ngx_http_lemonade_tap_carry(ctx, p, last);
    }
}


ngx_uint_t
ngx_http_lemonade_tap_between_events(ngx_http_lemonade_ctx_t *ctx)
{
    return ctx->tail[1] == '\0'
           || (ctx->tail[0] == LF && ctx->tail[1] == LF);
}


/* Does an event carry generated text, and not only a role or a comment? */
static ngx_uint_t
ngx_http_lemonade_tap_has_token(u_char *p, u_char *last)
{
    return ngx_http_lemonade_tap_find(p, last, "\"content\":\"")
           || ngx_http_lemonade_tap_find(p, last, "\"text\":\"")
           || ngx_http_lemonade_tap_find(p, last, "\"reasoning_content\":\"")
           || ngx_http_lemonade_tap_find(p, last, "\"tool_calls\":");
}


/*
 * Reads the objects "usage" and "timings" if they are here.  In text that
 * the model wrote the quotes are escaped, so it cannot look like them.
 */
static void
ngx_http_lemonade_tap_numbers(ngx_http_lemonade_ctx_t *ctx, u_char *p,
    u_char *last)
{
    u_char     *brace, *usage, *timings;
    ngx_int_t   n, cached;

    usage = NULL;
    timings = NULL;

    /* braces are few, and the C library finds them 32 bytes at a time */

    for (brace = p;
         (brace = memchr(brace, '{', last - brace)) != NULL;
         brace++)
    {
        if (ngx_http_lemonade_tap_named(p, brace, "\"usage\":")) {
            usage = brace;

        } else if (ngx_http_lemonade_tap_named(p, brace, "\"timings\":")) {
            timings = brace;
        }
    }

    if (usage) {
        ngx_http_lemonade_tap_number(usage, last, "\"prompt_tokens\":", 1,
                                     &ctx->prompt_tokens);
        ngx_http_lemonade_tap_number(usage, last, "\"completion_tokens\":",
                                     1, &ctx->completion_tokens);
    }

    if (timings) {

        /* the last of them, as a rule */

        ngx_http_lemonade_tap_number(ngx_max(timings, last - 64), last,
                                     "\"predicted_per_second\":", 100,
                                     &ctx->tokens_per_second);

        if (ctx->tokens_per_second == 0) {
            ngx_http_lemonade_tap_number(timings, last,
                                         "\"predicted_per_second\":", 100,
                                         &ctx->tokens_per_second);
        }

    } else if (usage) {

        /* FastFlowLM has the speed in usage */

        ngx_http_lemonade_tap_number(usage, last, "\"decoding_speed_tps\":",
                                     100, &ctx->tokens_per_second);
    }

    if (timings && usage == NULL) {

        /* prompt_n does not count what was in the cache, usage does */

        n = -1;
        cached = 0;

        ngx_http_lemonade_tap_number(timings, last, "\"prompt_n\":", 1, &n);
        ngx_http_lemonade_tap_number(timings, last, "\"cache_n\":", 1,
                                     &cached);
        if (n >= 0) {
            ctx->prompt_tokens = n + cached;
        }

        ngx_http_lemonade_tap_number(timings, last, "\"predicted_n\":", 1,
                                     &ctx->completion_tokens);
    }
}


/* Does the name stand right before the brace? */
static ngx_uint_t
ngx_http_lemonade_tap_named(u_char *p, u_char *brace, char *name)
{
    size_t  len = ngx_strlen(name);

    return brace - p >= (ssize_t) len
           && ngx_memcmp(brace - len, name, len) == 0;
}


/*
 * Reads the number behind a name, times scale (1, 10, 100 ...).  *value is
 * left alone when there is none, or one that makes no sense.
 */
static void
ngx_http_lemonade_tap_number(u_char *p, u_char *last, char *name,
    ngx_int_t scale, ngx_int_t *value)
{
    ngx_int_t  n, limit;

    p = ngx_http_lemonade_tap_find(p, last, name);

    if (p == NULL) {
        return;
    }

    p += ngx_strlen(name);

    if (p == last || *p < '0' || *p > '9') {
        return;
    }

    limit = NGX_MAX_INT_T_VALUE / 10000;

    for (n = 0; p < last && *p >= '0' && *p <= '9'; p++) {
        if (n > limit) {
            return;
        }

        n = n * 10 + (*p - '0');
    }

    n *= scale;

    if (p < last && *p == '.') {
        for (p++, scale /= 10;
             scale && p < last && *p >= '0' && *p <= '9';
             p++, scale /= 10)
        {
            n += (*p - '0') * scale;
        }
    }

    *value = n;
}


/* Keeps the end of an answer that is not complete yet. */
static void
ngx_http_lemonade_tap_carry(ngx_http_lemonade_ctx_t *ctx, u_char *p,
    u_char *last)
{
    if (ctx->carry == NULL) {
        ctx->carry = ngx_create_temp_buf(ctx->request->pool,
                                         2 * NGX_HTTP_LEMONADE_CARRY);
        if (ctx->carry == NULL) {
            /* the figures of this request are lost, nothing else */
            return;
        }
    }

    p = ngx_max(p, last - NGX_HTTP_LEMONADE_CARRY);

    ctx->carry->last = ngx_cpymem(ctx->carry->pos, p, last - p);
}


/*
 * Finds text, which begins with a quote, in a run of bytes.  memmem() would
 * prepare a table first, which costs more than looking at the few quotes.
 */
static u_char *
ngx_http_lemonade_tap_find(u_char *p, u_char *last, char *text)
{
    size_t  len = ngx_strlen(text);

    while ((p = memchr(p, '"', last - p)) != NULL) {
        if ((size_t) (last - p) < len) {
            return NULL;
        }

        if (ngx_memcmp(p, text, len) == 0) {
            return p;
        }

        p++;
    }

    return NULL;
}
