/*
 * The head of an HTTP request: a strict parser over bytes in memory.
 *
 * RFC 9110, RFC 9112; where they allow leniency, none is given: peers that
 * disagree about the end of a request are how requests are smuggled.
 */

#ifndef LEMONADE_HTTP_REQUEST_H
#define LEMONADE_HTTP_REQUEST_H

#include <stdbool.h>
#include <stddef.h>


#define HTTP_HEAD_MAX    (16 * 1024)
#define HTTP_BODY_MAX    (1024 * 1024)
#define HTTP_FIELDS_MAX  64
#define HTTP_ARGS_MAX    32


struct http_pair {
    const char         *name;
    const char         *value;
};


/* Strings point into head. */
struct http_request {
    const char         *method;
    const char         *path;           /* as sent, up to '?' */
    unsigned            minor;          /* 0 or 1 */
    bool                keepalive;
    bool                expects;        /* 100-continue */
    size_t              body_len;
    unsigned            fields_n;
    unsigned            args_n;
    struct http_pair    fields[HTTP_FIELDS_MAX];
    struct http_pair    args[HTTP_ARGS_MAX];    /* decoded */
    char                head[];
};


/*
 * Looks for the end of the head in data.  Returns the length of the head with
 * its empty line, 0 when more is needed, or -1 when the bytes cannot become a
 * head (NUL and other control bytes, CR or LF alone).  scanned remembers how
 * far earlier calls came; 0 at first.
 */
long http_head_end(const char *data, size_t len, size_t *scanned);

/*
 * Parses a whole head, for which http_head_end returned len.  Returns NULL
 * with the HTTP status to refuse it with (400, 413, 417, 431, 501, 505; 500
 * for want of memory) and a sentence for the client.  Freed with free().
 */
struct http_request *http_request_parse(const char *data, size_t len,
    int *status, const char **why);

/* Value of a field (name in any case), or NULL. */
const char *http_request_field(const struct http_request *r,
    const char *name);

/* Value of a query argument, or NULL. */
const char *http_request_arg(const struct http_request *r, const char *name);

/* True for a token as RFC 9110 section 5.6.2 has it. */
bool http_is_token(const char *s);


#endif /* LEMONADE_HTTP_REQUEST_H */
