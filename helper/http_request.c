/*
 * The head of an HTTP request: a strict parser over bytes in memory.
 */

#include "http_request.h"
#include "http.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>


/* Looks for the end of the head. */
long
http_head_end(const char *data, size_t len, size_t *scanned)
{
    size_t         i;
    unsigned char  c;

    for (i = *scanned; i < len; i++) {
        c = (unsigned char) data[i];

        if (c == '\n') {
            if (i == 0 || data[i - 1] != '\r') {
                return -1;
            }

            if (i >= 3 && data[i - 2] == '\n') {
                return (long) i + 1;
            }

            if (i == 1) {
                return -1;          /* an empty line instead of a request */
            }

        } else if (i > 0 && data[i - 1] == '\r') {
            return -1;

        } else if ((c < 0x20 && c != '\t' && c != '\r') || c == 0x7f) {
            return -1;
        }
    }

    *scanned = len;

    return 0;
}


/* True for a character of a token. */
static bool
is_token_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
           || (c >= '0' && c <= '9')
           || (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}


/* True for a token as RFC 9110 section 5.6.2 has it. */
bool
http_is_token(const char *s)
{
    if (*s == '\0') {
        return false;
    }

    while (is_token_char(*s)) {
        s++;
    }

    return *s == '\0';
}


/* Value of a hexadecimal digit, or -1. */
static int
hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }

    c |= 0x20;

    return (c >= 'a' && c <= 'f') ? c - 'a' + 10 : -1;
}


/* In-place percent-decoding; -1 on a bad escape or %00. */
int
http_unescape(char *s)
{
    int    high, low;
    char  *to;

    for (to = s; *s != '\0'; s++) {

        if (*s != '%') {
            *to++ = *s;
            continue;
        }

        high = hex_digit(s[1]);
        low = (high == -1) ? -1 : hex_digit(s[2]);

        if (low == -1 || (high == 0 && low == 0)) {
            return -1;
        }

        *to++ = (char) (high << 4 | low);
        s += 2;
    }

    *to = '\0';

    return 0;
}


/* Percent-encodes all but unreserved characters; malloc'ed. */
char *
http_escape(const char *s)
{
    char               *escaped, *to;
    unsigned char       c;
    static const char   hex[] = "0123456789ABCDEF";

    escaped = malloc(strlen(s) * 3 + 1);
    if (escaped == NULL) {
        return NULL;
    }

    for (to = escaped; *s != '\0'; s++) {
        c = (unsigned char) *s;

        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
            || (c >= '0' && c <= '9') || strchr("-._~", c) != NULL)
        {
            *to++ = (char) c;
            continue;
        }

        *to++ = '%';
        *to++ = hex[c >> 4];
        *to++ = hex[c & 15];
    }

    *to = '\0';

    return escaped;
}


/* Splits and decodes the query; false when it is malformed. */
static bool
query_parse(struct http_request *r, char *query)
{
    char  *arg, *value, *p;

    while ((arg = strsep(&query, "&")) != NULL) {

        if (*arg == '\0') {
            continue;
        }

        if (r->args_n == HTTP_ARGS_MAX) {
            return false;
        }

        for (p = arg; *p != '\0'; p++) {
            if (*p == '+') {
                *p = ' ';
            }
        }

        value = strchr(arg, '=');

        if (value != NULL) {
            *value++ = '\0';

        } else {
            value = p;          /* the empty string */
        }

        if (http_unescape(arg) == -1 || http_unescape(value) == -1) {
            return false;
        }

        r->args[r->args_n].name = arg;
        r->args[r->args_n].value = value;
        r->args_n++;
    }

    return true;
}


/* Parses "METHOD SP TARGET SP HTTP/1.x"; 0 or a status. */
static int
request_line_parse(struct http_request *r, char *line, const char **why)
{
    char  *target, *version, *p;

    *why = "The request line is malformed.";

    target = strchr(line, ' ');
    version = (target == NULL) ? NULL : strchr(target + 1, ' ');

    if (version == NULL) {
        return 400;
    }

    *target++ = '\0';
    *version++ = '\0';

    if (!http_is_token(line)) {
        return 400;
    }

    if (strncmp(version, "HTTP/", 5) != 0
        || version[5] < '0' || version[5] > '9' || version[6] != '.'
        || version[7] < '0' || version[7] > '9' || version[8] != '\0')
    {
        return 400;
    }

    if (version[5] != '1' || version[7] > '1') {
        *why = "Only HTTP/1.0 and HTTP/1.1 are spoken here.";
        return 505;
    }

    *why = "The request target must be a path that begins with one \"/\", "
           "with other characters than visible ASCII percent-encoded.";

    if (target[0] != '/' || target[1] == '/') {
        return 400;
    }

    for (p = target; *p != '\0'; p++) {
        if (*p <= 0x20 || (unsigned char) *p >= 0x7f || *p == '#') {
            return 400;
        }
    }

    r->method = line;
    r->path = target;
    r->minor = (unsigned) (version[7] - '0');

    p = strchr(target, '?');

    if (p != NULL) {
        *p++ = '\0';

        if (!query_parse(r, p)) {
            *why = "The query has a bad percent-encoding or too many "
                   "arguments.";
            return 400;
        }
    }

    return 0;
}


/* Parses "Name: value" into the next pair; 0 or a status. */
static int
field_parse(struct http_request *r, char *line, const char **why)
{
    char  *value, *end;

    if (r->fields_n == HTTP_FIELDS_MAX) {
        *why = "The request has too many header fields.";
        return 431;
    }

    *why = "A header field is malformed.";

    value = strchr(line, ':');
    if (value == NULL) {
        return 400;
    }

    *value++ = '\0';

    if (!http_is_token(line)) {
        return 400;
    }

    value += strspn(value, " \t");
    end = value + strlen(value);

    while (end > value && (end[-1] == ' ' || end[-1] == '\t')) {
        *--end = '\0';
    }

    r->fields[r->fields_n].name = line;
    r->fields[r->fields_n].value = value;
    r->fields_n++;

    return 0;
}


/* Parses a Content-Length; 0 or a status. */
static int
length_parse(struct http_request *r, const char *value, const char **why)
{
    size_t  len;

    *why = "The Content-Length is not a number.";

    if (*value == '\0') {
        return 400;
    }

    for (len = 0; *value != '\0'; value++) {
        if (*value < '0' || *value > '9') {
            return 400;
        }

        if (len <= HTTP_BODY_MAX) {
            len = len * 10 + (size_t) (*value - '0');
        }
    }

    if (len > HTTP_BODY_MAX) {
        *why = "The request body is larger than 1 MB.";
        return 413;
    }

    r->body_len = len;

    return 0;
}


/* True when a comma-separated list holds the word, in any case. */
static bool
list_has(const char *list, const char *word)
{
    size_t  len;

    while (*list != '\0') {
        list += strspn(list, ", \t");
        len = strcspn(list, ", \t");

        if (len == strlen(word) && strncasecmp(list, word, len) == 0) {
            return true;
        }

        list += len;
    }

    return false;
}


/* Draws the consequences of the fields; 0 or a status. */
static int
fields_check(struct http_request *r, const char **why)
{
    int                      status, refused;
    bool                     closes, keeps;
    unsigned                 i, hosts, lengths;
    const char              *reason;
    const struct http_pair  *f;

    hosts = 0;
    lengths = 0;
    closes = false;
    keeps = false;
    refused = 0;

    for (i = 0; i < r->fields_n; i++) {
        f = &r->fields[i];
        status = 0;
        reason = NULL;

        if (strcasecmp(f->name, "Host") == 0) {
            hosts++;

        } else if (strcasecmp(f->name, "Content-Length") == 0) {
            lengths++;
            status = length_parse(r, f->value, &reason);

        } else if (strcasecmp(f->name, "Transfer-Encoding") == 0) {
            status = 501;
            reason = "Transfer-Encoding is not supported here; send a "
                     "Content-Length.";

        } else if (strcasecmp(f->name, "Connection") == 0) {
            closes = closes || list_has(f->value, "close");
            keeps = keeps || list_has(f->value, "keep-alive");

        } else if (strcasecmp(f->name, "Expect") == 0) {
            if (strcasecmp(f->value, "100-continue") == 0) {
                r->expects = (r->minor == 1);

            } else {
                status = 417;
                reason = "The only expectation met here is 100-continue.";
            }
        }

        if (status != 0 && refused == 0) {
            refused = status;
            *why = reason;
        }
    }

    if (hosts > 1 || lengths > 1 || (hosts == 0 && r->minor == 1)) {
        *why = "The request needs exactly one Host and at most one "
               "Content-Length field.";
        return 400;
    }

    r->keepalive = !closes && (r->minor == 1 || keeps);

    return refused;
}


/* Cuts the head into lines and parses them; 0 or a status. */
static int
head_parse(struct http_request *r, char *line, const char **why)
{
    int    status;
    char  *end;

    end = strstr(line, "\r\n");
    *end = '\0';

    status = request_line_parse(r, line, why);

    while (status == 0) {
        line = end + 2;
        end = strstr(line, "\r\n");

        if (end == line) {
            return fields_check(r, why);
        }

        *end = '\0';
        status = field_parse(r, line, why);
    }

    return status;
}


/* Parses a whole head. */
struct http_request *
http_request_parse(const char *data, size_t len, int *status,
    const char **why)
{
    struct http_request  *r;

    r = malloc(sizeof(*r) + len + 1);

    if (r == NULL) {
        *status = 500;
        *why = "Out of memory.";
        return NULL;
    }

    memset(r, 0, offsetof(struct http_request, fields));
    memcpy(r->head, data, len);
    r->head[len] = '\0';

    *status = head_parse(r, r->head, why);

    if (*status != 0) {
        free(r);
        return NULL;
    }

    return r;
}


/* Value of a field (name in any case), or NULL. */
const char *
http_request_field(const struct http_request *r, const char *name)
{
    unsigned  i;

    for (i = 0; i < r->fields_n; i++) {
        if (strcasecmp(r->fields[i].name, name) == 0) {
            return r->fields[i].value;
        }
    }

    return NULL;
}


/* Value of a query argument, or NULL. */
const char *
http_request_arg(const struct http_request *r, const char *name)
{
    unsigned  i;

    for (i = 0; i < r->args_n; i++) {
        if (strcmp(r->args[i].name, name) == 0) {
            return r->args[i].value;
        }
    }

    return NULL;
}
