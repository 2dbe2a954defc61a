/*
 * What replies hold: JSON, and the project's one error body.
 */

#include "http.h"
#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


#define HTTP_MESSAGE_MAX  2048

/*
 * 15 digits are what a double holds for certain; jansson's 17 would print
 * 0.1 as 0.10000000000000001.
 */
#define HTTP_JSON  (JSON_COMPACT | JSON_REAL_PRECISION(15))

/* For want of memory; else every body is made by jansson. */
#define HTTP_NO_MEMORY                                                      \
    "{\"error\":{\"message\":\"Out of memory.\","                             \
    "\"type\":\"server_error\",\"param\":null,"                               \
    "\"code\":\"internal_error\"},\"status\":\"error\","                      \
    "\"message\":\"Out of memory.\",\"detail\":\"Out of memory.\"}"


static const struct {
    int          status;
    const char  *phrase;
} reasons[] = {
    { 200, "OK" },
    { 201, "Created" },
    { 202, "Accepted" },
    { 204, "No Content" },
    { 304, "Not Modified" },
    { 400, "Bad Request" },
    { 401, "Unauthorized" },
    { 403, "Forbidden" },
    { 404, "Not Found" },
    { 405, "Method Not Allowed" },
    { 408, "Request Timeout" },
    { 409, "Conflict" },
    { 413, "Content Too Large" },
    { 415, "Unsupported Media Type" },
    { 417, "Expectation Failed" },
    { 422, "Unprocessable Content" },
    { 429, "Too Many Requests" },
    { 431, "Request Header Fields Too Large" },
    { 500, "Internal Server Error" },
    { 501, "Not Implemented" },
    { 502, "Bad Gateway" },
    { 503, "Service Unavailable" },
    { 504, "Gateway Timeout" },
    { 505, "HTTP Version Not Supported" },
    { 507, "Insufficient Storage" },
};


/* Reason phrase of a status. */
const char *
http_reason(int status)
{
    unsigned  i;

    for (i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
        if (reasons[i].status == status) {
            return reasons[i].phrase;
        }
    }

    return "Unknown";
}


/* The error's type, as OpenAI's clients and llama-server name them. */
static const char *
error_type(int status, const char *code)
{
    switch (status) {

    case 401:
        return "authentication_error";

    case 404:
        if (code != NULL && strncmp(code, "model_", 6) == 0) {
            return "invalid_request_error";
        }

        return "not_found_error";

    case 501:
        return "not_implemented_error";

    case 503:
        return "overloaded_error";

    case 505:
        return "invalid_request_error";

    default:
        return (status >= 500) ? "server_error" : "invalid_request_error";
    }
}


/* Replies with a JSON body, which is consumed; NULL: no body. */
void
http_reply(struct http_conn *c, int status, json_t *body)
{
    char  *text;

    if (body == NULL) {
        http_reply_bytes(c, status, "application/json", "", 0);
        return;
    }

    text = json_dumps(body, HTTP_JSON);
    json_decref(body);

    if (text == NULL) {
        http_reply_text(c, 500, "application/json", HTTP_NO_MEMORY);
        return;
    }

    http_reply_text(c, status, "application/json", text);
    free(text);
}


/* Replies with a body of another type. */
void
http_reply_text(struct http_conn *c, int status, const char *type,
    const char *text)
{
    http_reply_bytes(c, status, type, text, strlen(text));
}


/* Replies with the project's error body. */
void
http_error(struct http_conn *c, int status, const char *code,
    const char *param, const char *format, ...)
{
    int          n;
    char         text[HTTP_MESSAGE_MAX], message[2 * HTTP_MESSAGE_MAX];
    json_t      *body;
    va_list      args;

    va_start(args, format);
    n = vsnprintf(text, sizeof(text), format, args);
    va_end(args);

    if (n < 0) {
        text[0] = '\0';
    }

    log_printable(message, sizeof(message), text, strlen(text));

    body = json_pack("{s:{s:s,s:s,s:s?,s:s?},s:s,s:s,s:s}",
                     "error", "message", message,
                     "type", error_type(status, code),
                     "param", param, "code", code,
                     "status", "error", "message", message,
                     "detail", message);

    if (body == NULL) {
        http_reply_text(c, 500, "application/json", HTTP_NO_MEMORY);
        return;
    }

    http_reply(c, status, body);
}
