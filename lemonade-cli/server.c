/*
 * Finding and stopping the server.
 */

#include "server.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "cli.h"
#include "clock.h"
#include "output.h"


#define STATUS_SECONDS  5
#define STOP_SECONDS    30      /* longer than the helper's own ladder */
#define LOOK_AGAIN_MS   50


static void read_status(const json_t *body, struct server *s);
static void copy_text(char *to, size_t size, const char *from);
static bool wait_for_exit(struct client *c, int pidfd);


/* Asks the helper what it is; see server.h. */
enum client_result
server_find(struct client *c, struct server *s)
{
    enum client_result   result;
    struct client_reply  reply;

    memset(s, 0, sizeof(*s));

    result = client_send(c, "GET", "/internal/status", NULL, STATUS_SECONDS,
                 &reply);

    if (result == CLIENT_OK) {
        read_status(reply.body, s);
    }

    client_reply_free(&reply);

    return result == CLIENT_DOWN ? CLIENT_OK : result;
}


/* Reads the helper's answer. */
static void
read_status(const json_t *body, struct server *s)
{
    json_int_t  pid, port;

    pid = json_integer_value(json_object_get(body, "pid"));
    port = json_integer_value(json_object_get(body, "port"));

    s->alive = true;
    s->pid = pid > 1 && pid <= INT32_MAX ? (pid_t) pid : 0;
    s->port = port > 0 && port <= 65535 ? (int) port : 0;

    copy_text(s->host, sizeof(s->host), client_text(body, "host"));
    copy_text(s->version, sizeof(s->version), client_text(body, "version"));
    copy_text(s->mode, sizeof(s->mode), client_text(body, "mode"));

    s->on_demand = strcmp(s->mode, "on-demand") == 0;

    /* "ready" is false until nginx answers */
    s->serves = !json_is_false(json_object_get(body, "ready"))
                && (strcmp(s->mode, "no-nginx") == 0
                    || (strcmp(s->mode, "serve") == 0 && s->port != 0));
}


/* Copies what fits; the text is only shown. */
static void
copy_text(char *to, size_t size, const char *from)
{
    size_t  len;

    len = from != NULL ? strnlen(from, size - 1) : 0;

    if (len > 0) {
        memcpy(to, from, len);
    }

    to[len] = '\0';
}


/* A server must be there. */
bool
server_require(struct client *c, struct server *s)
{
    enum client_result  result;

    result = server_find(c, s);

    if (result == CLIENT_OK && !s->serves) {
        result = CLIENT_DOWN;
    }

    client_explain(c, result);

    return result == CLIENT_OK;
}


/* One order to the server; see server.h. */
int
server_order(const char *path, json_t *body, const char *done)
{
    bool                  good;
    const char           *message;
    struct client        *c;
    struct server         s;
    struct client_reply   reply;

    c = client_new();
    reply.body = NULL;

    good = c != NULL && server_require(c, &s)
           && client_succeeded(c, client_send(c, "POST", path, body, 0,
                                              &reply), &reply);

    if (good) {
        message = client_text(reply.body, "message");
        output_line(stdout, "%s", message != NULL ? message : done);
    }

    client_reply_free(&reply);
    json_decref(body);
    client_free(c);

    return good ? CLI_OK : CLI_FAILED;
}


/* Ends a helper in good order. */
enum server_stopped
server_stop(struct client *c, const struct server *s)
{
    int                  pidfd;
    bool                 asked, gone;
    enum client_result   result;
    struct client_reply  reply;

    /* opened first: afterwards the number could be somebody else's */
    pidfd = s->pid > 0 ? pidfd_open(s->pid, 0) : -1;

    result = client_send(c, "POST", "/internal/shutdown", NULL,
                 STATUS_SECONDS, &reply);

    /* one that ends at the same moment by itself is as good */
    asked = result == CLIENT_DOWN || client_succeeded(c, result, &reply);
    client_reply_free(&reply);

    gone = asked && wait_for_exit(c, pidfd);

    if (pidfd != -1) {
        close(pidfd);
    }

    return !asked ? SERVER_STOP_FAILED
                  : gone ? SERVER_STOPPED : SERVER_STOP_TIMEOUT;
}


/* Waits for the end of a process, or of its socket if it is not visible. */
static bool
wait_for_exit(struct client *c, int pidfd)
{
    long           deadline;
    struct pollfd  event;
    struct server  s;

    if (pidfd != -1) {
        event.fd = pidfd;
        event.events = POLLIN;
        return poll(&event, 1, STOP_SECONDS * 1000) == 1;
    }

    deadline = clock_now() + STOP_SECONDS * 1000;

    while (clock_now() < deadline) {
        if (server_find(c, &s) == CLIENT_OK && !s.alive) {
            return true;
        }

        clock_pause(LOOK_AGAIN_MS);
    }

    return false;
}
