/*
 * The control socket's client, on libcurl.
 */

#include "client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include <curl/curl.h>

#include "memory.h"
#include "output.h"
#include "paths.h"


#define CONNECT_SECONDS  2
#define ANSWER_MAX       (64 * 1024 * 1024)

struct client {
    CURL                         *curl;
    char                         *run_dir;
    char                         *socket;
    const volatile sig_atomic_t  *stop;
    char                          said[CURL_ERROR_SIZE];    /* by libcurl */
    char                          problem[CURL_ERROR_SIZE]; /* the last one */
};

struct answer {
    char    *data;
    size_t   len;
    size_t   room;
};


static void set_up(struct client *c, const char *method, const char *url,
    const char *body, int seconds, struct curl_slist *fields,
    struct answer *answer);
static size_t take_answer(char *data, size_t size, size_t count, void *arg);
static int look_at_stop(void *arg, curl_off_t dl_total, curl_off_t dl_now,
    curl_off_t ul_total, curl_off_t ul_now);
static enum client_result judge(struct client *c, CURLcode code);


/* Finds the socket and prepares libcurl. */
struct client *
client_new(void)
{
    struct client  *c;

    c = memory_zero(sizeof(*c));
    c->run_dir = paths_run_dir(false);

    if (c->run_dir == NULL) {
        client_explain_run_dir();
        free(c);
        return NULL;
    }

    c->socket = paths_join(c->run_dir, "helper.sock");

    if (c->socket == NULL
        || strlen(c->socket) >= sizeof(((struct sockaddr_un *) 0)->sun_path))
    {
        output_error("the run dir's path is too long for a socket; set "
            "LEMONADE_RUN_DIR to a shorter one than %s", c->run_dir);
        client_free(c);
        return NULL;
    }

    if (curl_global_init(CURL_GLOBAL_NOTHING) == CURLE_OK) {
        c->curl = curl_easy_init();
    }

    if (c->curl == NULL) {
        output_error("libcurl cannot be used; reinstall libcurl4");
        client_free(c);
        return NULL;
    }

    return c;
}


/* Says why there is no run dir, by errno. */
void
client_explain_run_dir(void)
{
    output_error("no usable run dir: %s; set LEMONADE_RUN_DIR to a folder "
        "of your own", errno == EPERM ? "it belongs to another user, or is "
        "a symbolic link" : strerror(errno));
}


/* Frees everything. */
void
client_free(struct client *c)
{
    if (c == NULL) {
        return;
    }

    curl_easy_cleanup(c->curl);
    curl_global_cleanup();
    free(c->socket);
    free(c->run_dir);
    free(c);
}


/* The run dir. */
const char *
client_run_dir(const struct client *c)
{
    return c->run_dir;
}


/* The control socket. */
const char *
client_socket(const struct client *c)
{
    return c->socket;
}


/* Lets a signal handler end a long request. */
void
client_stop_on(struct client *c, const volatile sig_atomic_t *flag)
{
    c->stop = flag;
}


/* Sends one request and waits for its answer; see client.h. */
enum client_result
client_send(struct client *c, const char *method, const char *path,
    const json_t *body, int seconds, struct client_reply *reply)
{
    char               *url, *text;
    CURLcode            code;
    struct answer       answer;
    struct curl_slist  *fields, *more;

    memset(reply, 0, sizeof(*reply));
    memset(&answer, 0, sizeof(answer));

    url = memory_format("http://localhost%s", path);
    text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
    fields = curl_slist_append(NULL, "Content-Type: application/json");
    more = fields != NULL ? curl_slist_append(fields, "Expect:") : NULL;

    if (more == NULL || (body != NULL && text == NULL)) {
        output_error("the request could not be made: out of memory, or "
            "text that is not UTF-8");
        code = CURLE_OUT_OF_MEMORY;

    } else {
        set_up(c, method, url, text, seconds, fields, &answer);
        code = curl_easy_perform(c->curl);
    }

    if (code == CURLE_OK) {
        curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &reply->status);
        reply->body = json_loadb(answer.data != NULL ? answer.data : "",
                          answer.len, 0, NULL);
    }

    curl_slist_free_all(fields);
    free(answer.data);
    free(text);
    free(url);

    return judge(c, code);
}


/* Sets the options of one request. */
static void
set_up(struct client *c, const char *method, const char *url,
    const char *body, int seconds, struct curl_slist *fields,
    struct answer *answer)
{
    curl_easy_reset(c->curl);
    curl_easy_setopt(c->curl, CURLOPT_UNIX_SOCKET_PATH, c->socket);
    curl_easy_setopt(c->curl, CURLOPT_URL, url);
    curl_easy_setopt(c->curl, CURLOPT_PROTOCOLS_STR, "http");
    curl_easy_setopt(c->curl, CURLOPT_PROXY, "");
    curl_easy_setopt(c->curl, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(c->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c->curl, CURLOPT_HTTP_VERSION,
        (long) CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(c->curl, CURLOPT_CONNECTTIMEOUT,
        (long) CONNECT_SECONDS);
    curl_easy_setopt(c->curl, CURLOPT_TIMEOUT, (long) seconds);
    curl_easy_setopt(c->curl, CURLOPT_ERRORBUFFER, c->said);
    curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, fields);
    curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, take_answer);
    curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, answer);

    if (strcmp(method, "GET") != 0) {
        curl_easy_setopt(c->curl, CURLOPT_CUSTOMREQUEST, method);
        curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS,
            body != NULL ? body : "");
    }

    if (c->stop != NULL) {
        curl_easy_setopt(c->curl, CURLOPT_NOPROGRESS, 0L);
        curl_easy_setopt(c->curl, CURLOPT_XFERINFOFUNCTION, look_at_stop);
        curl_easy_setopt(c->curl, CURLOPT_XFERINFODATA, c);
    }
}


/* Called by libcurl with a piece of the body. */
static size_t
take_answer(char *data, size_t size, size_t count, void *arg)
{
    size_t          len;
    struct answer  *answer;

    answer = arg;
    len = size * count;

    if (len > ANSWER_MAX - answer->len) {
        return 0;
    }

    if (answer->len + len > answer->room) {
        answer->room = (answer->len + len) * 2;
        answer->data = memory_resize(answer->data, answer->room);
    }

    if (len > 0) {
        memcpy(answer->data + answer->len, data, len);
        answer->len += len;
    }

    return len;
}


/* Called by libcurl at least once a second, and after every signal. */
static int
look_at_stop(void *arg, curl_off_t dl_total, curl_off_t dl_now,
    curl_off_t ul_total, curl_off_t ul_now)
{
    const struct client  *c;

    c = arg;

    return *c->stop != 0;
}


/* What libcurl's result means here. */
static enum client_result
judge(struct client *c, CURLcode code)
{
    long  error;

    switch (code) {

    case CURLE_OK:
        return CLIENT_OK;

    case CURLE_ABORTED_BY_CALLBACK:
        return CLIENT_STOPPED;

    case CURLE_COULDNT_CONNECT:
        error = 0;
        curl_easy_getinfo(c->curl, CURLINFO_OS_ERRNO, &error);
        return error == EACCES || error == EPERM ? CLIENT_DENIED
                                                 : CLIENT_DOWN;

    default:
        snprintf(c->problem, sizeof(c->problem), "%s",
            c->said[0] != '\0' ? c->said : curl_easy_strerror(code));
        return CLIENT_LOST;
    }
}


/* Frees the body of a reply. */
void
client_reply_free(struct client_reply *reply)
{
    json_decref(reply->body);
    reply->body = NULL;
}


/* Says why there is no reply. */
void
client_explain(const struct client *c, enum client_result result)
{
    switch (result) {

    case CLIENT_DOWN:
        output_line(stderr, "Server is not running: start it with "
            "'lemonade-cli serve'");
        break;

    case CLIENT_DENIED:
        output_error("no permission for %s: run this as root, as the user "
            "who runs the server or in that user's group", c->socket);
        break;

    case CLIENT_LOST:
        output_error("no answer from the server (%s): look at its log, then "
            "start it again", c->problem);
        break;

    default:
        break;
    }
}


/* Whether it worked; see client.h. */
bool
client_succeeded(const struct client *c, enum client_result result,
    const struct client_reply *reply)
{
    const char  *message;

    if (result != CLIENT_OK) {
        client_explain(c, result);
        return false;
    }

    if (reply->status >= 200 && reply->status < 300) {
        return true;
    }

    message = client_text(reply->body, "message");

    if (message == NULL) {
        message = client_text(json_object_get(reply->body, "error"),
                      "message");
    }

    if (message != NULL) {
        output_error("%s", message);

    } else {
        output_error("the server answered with HTTP status %ld: look at its "
            "log", reply->status);
    }

    return false;
}


/* A member of an object that is a string. */
const char *
client_text(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}


/* Percent-encodes all but unreserved characters. */
char *
client_escape(const char *text)
{
    char  *escaped, *copy;

    escaped = curl_easy_escape(NULL, text, (int) strlen(text));
    copy = memory_copy(escaped != NULL ? escaped : "");
    curl_free(escaped);

    return copy;
}
