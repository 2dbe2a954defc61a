/*
 * What the files of the module share.  The request meets them in the order
 * in which they are listed in ../config: access, gate, scan, ask, park,
 * balancer, tap, reply, variables.
 */

#ifndef NGX_HTTP_LEMONADE_MODULE_H
#define NGX_HTTP_LEMONADE_MODULE_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>

#include "ngx_http_lemonade_scan.h"
#include "state.h"


typedef struct {
    ngx_str_t                 state;            /* path of the state file */
    ngx_addr_t               *helper;           /* control socket */
} ngx_http_lemonade_main_conf_t;


typedef struct {
    ngx_flag_t                enable;           /* the gate */
    ngx_msec_t                load_timeout;
    ngx_msec_t                heartbeat;        /* 0: off */
    ngx_flag_t                json_errors;

    ngx_array_t              *origins;          /* of ngx_str_t; NULL: off */
    ngx_array_t              *keys;             /* SHA-256s; NULL: open */
} ngx_http_lemonade_loc_conf_t;


/* A worker's mapping of the state file; lives until its last request ends. */
typedef struct {
    struct lm_state           map;
    ngx_uint_t                requests;
} ngx_http_lemonade_state_t;


/* What the response on its way out is turned into. */
typedef enum {
    ngx_http_lemonade_pass = 0,         /* nothing: bytes as they are */
    ngx_http_lemonade_json_error,       /* nginx's own page: our JSON */
    ngx_http_lemonade_sse_error         /* any body: one event */
} ngx_http_lemonade_output_e;


typedef struct {
    ngx_http_request_t         *request;        /* always the main request */

    /* what the client asks for */
    lm_scan_t                  *scan;           /* while the body arrives */
    ngx_str_t                   model;
    ngx_str_t                   name;           /* canonical, for routes */

    /* the lease */
    ngx_http_lemonade_state_t  *state;
    struct lm_lease             lease;
    struct lm_replica           replica;
    struct lm_lease             failed;         /* route that failed us */

    /* ask and park */
    ngx_connection_t           *ask;            /* to the helper */
    ngx_str_t                   asking;         /* what is still to be sent */
    ngx_buf_t                  *answer;
    ngx_uint_t                  asks;           /* questions so far */
    ngx_uint_t                  ask_status;     /* 0: no answer from helper */
    ngx_str_t                   ask_code;
    ngx_str_t                   ask_message;
    ngx_str_t                   ask_retry_after;
    ngx_event_t                 timer;          /* heartbeat and deadline */
    ngx_event_t                 resume;         /* posted when ask ended */
    ngx_msec_t                  deadline;
    ngx_msec_t                  parked;         /* since when */
    ngx_msec_t                  wait;           /* parked in all */

    /* tap */
    ngx_msec_t                  ttft;
    ngx_msec_t                  first;          /* time of first token */
    ngx_msec_t                  last;           /* time of last bytes */
    ngx_int_t                   prompt_tokens;          /* -1: unknown */
    ngx_int_t                   completion_tokens;      /* -1: unknown */
    ngx_int_t                   tokens_per_second;      /* in 1/100 */
    off_t                       received;       /* bytes of the answer */
    ngx_buf_t                  *carry;          /* its last, not complete */
    u_char                      tail[2];        /* last two bytes sent */

    /* what replaces a response */
    ngx_str_t                   reply;
    ngx_buf_t                  *collected;      /* body to become an event */

    /* contexts of all modules when the early headers went out */
    void                      **filters;

    void                      (*upstream_finalize)(ngx_http_request_t *r,
                                                   ngx_int_t rc);

    ngx_http_lemonade_output_e  output;

    unsigned                    body_read:1;    /* the whole body */
    unsigned                    scanned:1;
    unsigned                    stream:1;       /* the client wants events */
    unsigned                    leased:1;
    unsigned                    must_ask:1;     /* its route failed us */
    unsigned                    answered:1;     /* ask has ended */
    unsigned                    heartbeats:1;   /* headers are out already */
    unsigned                    events:1;       /* the response is SSE */
    unsigned                    replied:1;      /* reply has been sent */
} ngx_http_lemonade_ctx_t;


extern ngx_module_t  ngx_http_lemonade_module;


/*
 * The request's context, also behind an internal redirect (which clears
 * module contexts); NULL if the gate has not seen the request.
 */
ngx_http_lemonade_ctx_t *ngx_http_lemonade_get_ctx(ngx_http_request_t *r);

/* The same, made if there is none yet.  NULL: out of memory. */
ngx_http_lemonade_ctx_t *ngx_http_lemonade_make_ctx(ngx_http_request_t *r);

/* Adds a field to the response; value is not copied.  NULL: no memory. */
ngx_table_elt_t *ngx_http_lemonade_add_header(ngx_http_request_t *r, char *name,
    ngx_str_t *value);

/* A field of the request that nginx does not parse, or NULL. */
ngx_str_t *ngx_http_lemonade_request_header(ngx_http_request_t *r,
    char *name);

/*
 * Gives the request the newest mapping of the state file; it must not hold a
 * lease.  NGX_DECLINED when there is no helper.
 */
ngx_int_t ngx_http_lemonade_attach_state(ngx_http_request_t *r,
    ngx_http_lemonade_ctx_t *ctx);


/* access: whose pages may ask.  Preaccess-phase handler. */
ngx_int_t ngx_http_lemonade_origin_handler(ngx_http_request_t *r);

/* Whose key is needed.  Access-phase handler. */
ngx_int_t ngx_http_lemonade_access_handler(ngx_http_request_t *r);

/* Adds the CORS fields to a response.  From the header filter. */
ngx_int_t ngx_http_lemonade_cors_headers(ngx_http_request_t *r);

/* Directives "lemonade_api_key_file" and "lemonade_cors". */
char *ngx_http_lemonade_api_key_file(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_lemonade_cors(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);


/* gate: precontent-phase handler. */
ngx_int_t ngx_http_lemonade_gate_handler(ngx_http_request_t *r);

/* Installs the filter that scans bodies as they arrive. */
void ngx_http_lemonade_gate_init(void);

/* Gives the lease back, if there is one, with what the tap has learnt. */
void ngx_http_lemonade_gate_release(ngx_http_lemonade_ctx_t *ctx,
    ngx_uint_t failed);


/*
 * ask: sends "ensure" to the helper.  NGX_OK: ctx->resume is, or will be,
 * posted; NGX_ERROR.
 */
ngx_int_t ngx_http_lemonade_ask(ngx_http_request_t *r,
    ngx_http_lemonade_ctx_t *ctx);

/* Takes the question back, if there is one. */
void ngx_http_lemonade_ask_cancel(ngx_http_lemonade_ctx_t *ctx);


/* park: asks, and waits.  Returns what the phase handler returns. */
ngx_int_t ngx_http_lemonade_park(ngx_http_request_t *r,
    ngx_http_lemonade_ctx_t *ctx);

/* Stops timer, posted event and question.  From the request's cleanup. */
void ngx_http_lemonade_park_cancel(ngx_http_lemonade_ctx_t *ctx);


/* balancer: directive "lemonade" in upstream. */
char *ngx_http_lemonade_upstream(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);


/* tap: reads the bytes that pass.  From the body filter. */
void ngx_http_lemonade_tap(ngx_http_lemonade_ctx_t *ctx, ngx_chain_t *in);

/* Does the response stand between two events? */
ngx_uint_t ngx_http_lemonade_tap_between_events(ngx_http_lemonade_ctx_t *ctx);


/*
 * reply: answers with the project's error body, or with an SSE event when
 * headers are out, and finalizes the request.  message is plain text, code
 * and param may be NULL.  Always returns NGX_DONE: r is not touched again.
 */
ngx_int_t ngx_http_lemonade_reply(ngx_http_request_t *r, ngx_uint_t status,
    ngx_str_t *code, ngx_str_t *param, ngx_str_t *message);

/* Ends a broken stream with an error event.  r may be finalized after it. */
void ngx_http_lemonade_reply_broken_stream(ngx_http_request_t *r,
    ngx_http_lemonade_ctx_t *ctx);

/* Sends the SSE headers ahead of the backend's.  NGX_OK or NGX_ERROR. */
ngx_int_t ngx_http_lemonade_reply_early_headers(ngx_http_request_t *r,
    ngx_http_lemonade_ctx_t *ctx);

/* Installs the filters. */
void ngx_http_lemonade_reply_init(void);


/* variables: registers $lemonade_*. */
ngx_int_t ngx_http_lemonade_add_variables(ngx_conf_t *cf);


#endif /* NGX_HTTP_LEMONADE_MODULE_H */
