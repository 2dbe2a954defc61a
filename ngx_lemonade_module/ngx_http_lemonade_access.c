/*
 * 1. Who may ask: API keys, and web pages of other origins (CORS).
 */

#include "ngx_http_lemonade_module.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>


#define NGX_HTTP_LEMONADE_DIGEST_LEN   32
#define NGX_HTTP_LEMONADE_KEYS_MAX     65536

#define NGX_HTTP_LEMONADE_METHODS      "GET, HEAD, POST, DELETE, OPTIONS"


static ngx_uint_t ngx_http_lemonade_own_page(ngx_http_request_t *r,
    u_char *host, size_t len);
static ngx_int_t ngx_http_lemonade_preflight(ngx_http_request_t *r);
static ngx_uint_t ngx_http_lemonade_origin_allowed(ngx_http_request_t *r,
    ngx_array_t *origins, ngx_str_t *origin);
static ngx_uint_t ngx_http_lemonade_loopback_host(u_char *host, size_t len);
static ngx_uint_t ngx_http_lemonade_key_valid(ngx_http_request_t *r,
    ngx_array_t *keys);
static ngx_int_t ngx_http_lemonade_add_keys(ngx_conf_t *cf, ngx_array_t *keys,
    u_char *p, u_char *last);


/*
 * Called in the preaccess phase: who the visited page is has nothing to do
 * with who the client is ("satisfy any" must not overrule it).
 */
ngx_int_t
ngx_http_lemonade_origin_handler(ngx_http_request_t *r)
{
    ngx_str_t                     *origin;
    ngx_http_lemonade_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_lemonade_module);

    if (llcf->origins == NULL || r != r->main) {
        return NGX_DECLINED;
    }

    origin = ngx_http_lemonade_request_header(r, "origin");

    if (origin
        && !ngx_http_lemonade_origin_allowed(r, llcf->origins, origin))
    {
        return NGX_HTTP_FORBIDDEN;
    }

    if (r->method == NGX_HTTP_OPTIONS) {
        return ngx_http_lemonade_preflight(r);
    }

    return NGX_DECLINED;
}


/* Called in the access phase, before the body is read. */
ngx_int_t
ngx_http_lemonade_access_handler(ngx_http_request_t *r)
{
    ngx_str_t                      challenge;
    ngx_http_lemonade_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_lemonade_module);

    if (llcf->keys == NULL) {
        return NGX_DECLINED;
    }

    if (ngx_http_lemonade_key_valid(r, llcf->keys)) {
        return NGX_OK;
    }

    ngx_str_set(&challenge, "Bearer");

    r->headers_out.www_authenticate =
               ngx_http_lemonade_add_header(r, "WWW-Authenticate", &challenge);

    if (r->headers_out.www_authenticate == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return NGX_HTTP_UNAUTHORIZED;
}


/* Answers OPTIONS; a preflight carries no key, so this comes before it. */
static ngx_int_t
ngx_http_lemonade_preflight(ngx_http_request_t *r)
{
    ngx_int_t  rc;
    ngx_str_t  value;

    ngx_str_set(&value, NGX_HTTP_LEMONADE_METHODS);

    if (ngx_http_lemonade_add_header(r, "Allow", &value) == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    r->headers_out.status = NGX_HTTP_NO_CONTENT;
    r->header_only = 1;

    ngx_http_finalize_request(r, ngx_http_send_header(r));

    return NGX_DONE;
}


/* Is this the origin of a page that may read our answers? */
static ngx_uint_t
ngx_http_lemonade_origin_allowed(ngx_http_request_t *r, ngx_array_t *origins,
    ngx_str_t *origin)
{
    u_char      *host, *end, *last;
    ngx_str_t   *allowed;
    ngx_uint_t   i;

    last = origin->data + origin->len;

    host = ngx_strlcasestrn(origin->data, last, (u_char *) "://", 3 - 1);
    host = host ? host + 3 : last;

    if (ngx_http_lemonade_own_page(r, host, last - host)) {
        return 1;
    }

    allowed = origins->elts;

    for (i = 0; i < origins->nelts; i++) {
        if (allowed[i].len == 1 && allowed[i].data[0] == '*') {
            return 1;
        }

        if (allowed[i].len == origin->len
            && ngx_strncasecmp(allowed[i].data, origin->data, origin->len)
               == 0)
        {
            return 1;
        }

        if (ngx_strcmp(allowed[i].data, "loopback") == 0) {
            end = host;

            if (end < last && *end == '[') {
                end = ngx_strlchr(end, last, ']');
                end = end ? end + 1 : last;

            } else {
                while (end < last && *end != ':') {
                    end++;
                }
            }

            if (ngx_http_lemonade_loopback_host(host, end - host)) {
                return 1;
            }
        }
    }

    return 0;
}


/*
 * Is it a page of this very server?  A name that somebody else can point at
 * us (DNS rebinding) does not count: only addresses, names without a domain,
 * .local and .localhost names, and the first one of server_name do.
 */
static ngx_uint_t
ngx_http_lemonade_own_page(ngx_http_request_t *r, u_char *host, size_t len)
{
    ngx_str_t                  name;
    ngx_http_core_srv_conf_t  *cscf;

    if (len == 0 || r->headers_in.host == NULL
        || r->headers_in.host->value.len != len
        || ngx_strncasecmp(r->headers_in.host->value.data, host, len) != 0)
    {
        return 0;
    }

    /* without port, in lower case; nginx has checked it */

    name = r->headers_in.server;

    if (name.len == 0) {
        return 0;
    }

    if (name.data[0] == '['
        || ngx_inet_addr(name.data, name.len) != INADDR_NONE
        || ngx_strlchr(name.data, name.data + name.len, '.') == NULL
        || (name.len > 6
            && ngx_strncmp(name.data + name.len - 6, ".local", 6) == 0)
        || (name.len > 10
            && ngx_strncmp(name.data + name.len - 10, ".localhost", 10) == 0))
    {
        return 1;
    }

    /* of the names in server_name nginx keeps only the first */

    cscf = ngx_http_get_module_srv_conf(r, ngx_http_core_module);

    return cscf->server_name.len == name.len
           && ngx_strncasecmp(cscf->server_name.data, name.data, name.len)
              == 0;
}


/* localhost, 127.0.0.0/8 written as four numbers, or [::1]. */
static ngx_uint_t
ngx_http_lemonade_loopback_host(u_char *host, size_t len)
{
    in_addr_t  address;

    if (len == sizeof("localhost") - 1
        && ngx_strncasecmp(host, (u_char *) "localhost", len) == 0)
    {
        return 1;
    }

    if (len == sizeof("[::1]") - 1 && ngx_strncmp(host, "[::1]", len) == 0) {
        return 1;
    }

    address = ngx_inet_addr(host, len);

    return address != INADDR_NONE && (ntohl(address) >> 24) == 127;
}


ngx_int_t
ngx_http_lemonade_cors_headers(ngx_http_request_t *r)
{
    ngx_str_t                     *origin, *wanted, value;
    ngx_http_lemonade_loc_conf_t  *llcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_lemonade_module);

    if (llcf->origins == NULL) {
        return NGX_OK;
    }

    origin = ngx_http_lemonade_request_header(r, "origin");

    if (origin == NULL) {
        return NGX_OK;
    }

    ngx_str_set(&value, "Origin");

    if (ngx_http_lemonade_add_header(r, "Vary", &value) == NULL) {
        return NGX_ERROR;
    }

    if (!ngx_http_lemonade_origin_allowed(r, llcf->origins, origin)) {
        return NGX_OK;
    }

    if (ngx_http_lemonade_add_header(r, "Access-Control-Allow-Origin", origin)
        == NULL)
    {
        return NGX_ERROR;
    }

    if (r->method != NGX_HTTP_OPTIONS) {
        return NGX_OK;
    }

    ngx_str_set(&value, NGX_HTTP_LEMONADE_METHODS);

    if (ngx_http_lemonade_add_header(r, "Access-Control-Allow-Methods", &value)
        == NULL)
    {
        return NGX_ERROR;
    }

    wanted = ngx_http_lemonade_request_header(r,
                                             "access-control-request-headers");
    if (wanted
        && ngx_http_lemonade_add_header(r, "Access-Control-Allow-Headers",
                                        wanted) == NULL)
    {
        return NGX_ERROR;
    }

    if (ngx_http_lemonade_request_header(r,
                                 "access-control-request-private-network"))
    {
        ngx_str_set(&value, "true");

        if (ngx_http_lemonade_add_header(r,
                          "Access-Control-Allow-Private-Network", &value)
            == NULL)
        {
            return NGX_ERROR;
        }
    }

    ngx_str_set(&value, "600");

    if (ngx_http_lemonade_add_header(r, "Access-Control-Max-Age", &value)
        == NULL)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


/*
 * Does the request carry one of the keys, as "Authorization: Bearer KEY" or
 * as "X-Api-Key: KEY"?  Digests are compared, all of them, in constant time.
 */
static ngx_uint_t
ngx_http_lemonade_key_valid(ngx_http_request_t *r, ngx_array_t *keys)
{
    u_char       digest[EVP_MAX_MD_SIZE], *known;
    ngx_str_t    key, *value;
    ngx_uint_t   i, valid;

    if (r->headers_in.authorization) {
        key = r->headers_in.authorization->value;

        if (key.len <= sizeof("Bearer ") - 1
            || ngx_strncasecmp(key.data, (u_char *) "Bearer ",
                               sizeof("Bearer ") - 1) != 0)
        {
            return 0;
        }

        key.data += sizeof("Bearer ") - 1;
        key.len -= sizeof("Bearer ") - 1;

        while (key.len && key.data[0] == ' ') {
            key.data++;
            key.len--;
        }

    } else {
        value = ngx_http_lemonade_request_header(r, "x-api-key");

        if (value == NULL) {
            return 0;
        }

        key = *value;
    }

    if (EVP_Digest(key.data, key.len, digest, NULL, EVP_sha256(), NULL) != 1) {
        return 0;
    }

    known = keys->elts;
    valid = 0;

    for (i = 0; i < keys->nelts; i++) {
        valid |= CRYPTO_memcmp(known + i * NGX_HTTP_LEMONADE_DIGEST_LEN,
                               digest, NGX_HTTP_LEMONADE_DIGEST_LEN) == 0;
    }

    return valid;
}


/* lemonade_api_key_file PATH | off: one key per line, '#' begins a comment */
char *
ngx_http_lemonade_api_key_file(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_lemonade_loc_conf_t *llcf = conf;

    char        *rv;
    u_char      *buf;
    ssize_t      n;
    ngx_fd_t     fd;
    ngx_str_t   *value, path;

    if (llcf->keys != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "off") == 0) {
        llcf->keys = NULL;
        return NGX_CONF_OK;
    }

    path = value[1];

    if (ngx_conf_full_name(cf->cycle, &path, 1) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    llcf->keys = ngx_array_create(cf->pool, 4, NGX_HTTP_LEMONADE_DIGEST_LEN);
    buf = ngx_pnalloc(cf->pool, NGX_HTTP_LEMONADE_KEYS_MAX);
    if (llcf->keys == NULL || buf == NULL) {
        return NGX_CONF_ERROR;
    }

    fd = ngx_open_file(path.data, NGX_FILE_RDONLY, NGX_FILE_OPEN, 0);
    if (fd == NGX_INVALID_FILE) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           ngx_open_file_n " \"%V\" failed", &path);
        return NGX_CONF_ERROR;
    }

    n = ngx_read_fd(fd, buf, NGX_HTTP_LEMONADE_KEYS_MAX);

    if (n == -1 || n == NGX_HTTP_LEMONADE_KEYS_MAX) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, n == -1 ? ngx_errno : 0,
                           "\"%V\" cannot be read or is larger than %d bytes",
                           &path, NGX_HTTP_LEMONADE_KEYS_MAX);
        rv = NGX_CONF_ERROR;

    } else if (ngx_http_lemonade_add_keys(cf, llcf->keys, buf, buf + n)
               != NGX_OK)
    {
        rv = NGX_CONF_ERROR;

    } else if (llcf->keys->nelts == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "no key in \"%V\"", &path);
        rv = NGX_CONF_ERROR;

    } else {
        rv = NGX_CONF_OK;
    }

    ngx_explicit_memzero(buf, NGX_HTTP_LEMONADE_KEYS_MAX);
    (void) ngx_close_file(fd);

    return rv;
}


/* Adds the digest of each line. */
static ngx_int_t
ngx_http_lemonade_add_keys(ngx_conf_t *cf, ngx_array_t *keys, u_char *p,
    u_char *last)
{
    u_char  *end, *next, *digest;

    for ( /* void */ ; p < last; p = next) {
        end = ngx_strlchr(p, last, LF);
        end = end ? end : last;
        next = end + 1;

        while (p < end && (*p == ' ' || *p == '\t')) {
            p++;
        }

        while (end > p && (end[-1] == ' ' || end[-1] == '\t'
                           || end[-1] == CR))
        {
            end--;
        }

        if (p == end || *p == '#') {
            continue;
        }

        digest = ngx_array_push(keys);
        if (digest == NULL
            || EVP_Digest(p, end - p, digest, NULL, EVP_sha256(), NULL) != 1)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* lemonade_cors off | loopback | * | ORIGIN ... */
char *
ngx_http_lemonade_cors(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_lemonade_loc_conf_t *llcf = conf;

    ngx_str_t   *value, *origin;
    ngx_uint_t   i;

    if (llcf->origins != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (cf->args->nelts == 2 && ngx_strcmp(value[1].data, "off") == 0) {
        llcf->origins = NULL;
        return NGX_CONF_OK;
    }

    llcf->origins = ngx_array_create(cf->pool, cf->args->nelts,
                                     sizeof(ngx_str_t));
    if (llcf->origins == NULL) {
        return NGX_CONF_ERROR;
    }

    for (i = 1; i < cf->args->nelts; i++) {
        if (ngx_strcmp(value[i].data, "loopback") != 0
            && ngx_strcmp(value[i].data, "*") != 0
            && ngx_strstr(value[i].data, "://") == NULL)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"%V\" is not an origin such as "
                               "\"https://host:port\"", &value[i]);
            return NGX_CONF_ERROR;
        }

        origin = ngx_array_push(llcf->origins);
        if (origin == NULL) {
            return NGX_CONF_ERROR;
        }

        *origin = value[i];
    }

    return NGX_CONF_OK;
}
