/*
 * libFuzzer target: the control socket's server, fed through a socket.
 *
 * The first byte of the input says in which pieces the rest arrives and when
 * held requests are answered.  What comes back must be a row of well-formed
 * replies, and nothing may be left when the client has gone.
 *
 * link: helper/http.c helper/http_conn.c helper/http_request.c helper/http_reply.c helper/listen.c helper/log.c
 */

#define _GNU_SOURCE

#include "http.h"
#include "log.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>


#define HELD_MAX   64
#define HEARD_MAX  (4 * 1024 * 1024)


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static struct event_base   *base;
static struct http_server  *server;
static struct http_conn    *held[HELD_MAX];
static char                 heard[HEARD_MAX];
static size_t               heard_len;


/* Ends the run with a message that the fuzzer keeps. */
static void
die(const char *why)
{
    fprintf(stderr, "fuzz_http: %s\n", why);
    abort();
}


/* The client of a held request has left. */
static void
on_gone(void *arg)
{
    struct http_conn  **slot;

    slot = arg;

    if (*slot == NULL) {
        die("told twice that a client left");
    }

    *slot = NULL;
}


/* Holds a request back. */
static void
hold(struct http_conn *c, int wants_to_know)
{
    int  i;

    for (i = 0; i < HELD_MAX; i++) {
        if (held[i] == NULL) {
            held[i] = c;

            if (wants_to_know) {
                http_on_gone(c, on_gone, &held[i]);
            }

            return;
        }
    }

    http_reply(c, 503, NULL);
}


/* Answers all that is held. */
static void
answer_held(void)
{
    int                i;
    struct http_conn  *c;

    for (i = 0; i < HELD_MAX; i++) {
        c = held[i];
        held[i] = NULL;

        if (c != NULL) {
            http_reply(c, 200, json_pack("{s:i}", "held", i));
        }
    }
}


/* Uses everything a handler may use. */
static void
handle(struct http_conn *c, void *arg)
{
    char         copy[64];
    size_t       len;
    const char  *path, *body, *value;

    path = http_path(c);
    body = http_body(c, &len);
    value = http_query(c, "a");

    if (path[0] != '/' || path[1] == '/' || strlen(body) > len
        || body[len] != '\0')
    {
        die("a request that must not be");
    }

    snprintf(copy, sizeof(copy), "%s", path);
    (void) http_unescape(copy);

    if (path[1] == 'h' || path[1] == 'H') {
        hold(c, path[1] == 'h');
        return;
    }

    if (path[1] == 'e') {
        http_error(c, 400, value, path, "%s %s %.99s", http_method(c), copy,
                   body);
        return;
    }

    if (path[1] == 'n') {
        http_reply(c, 204, NULL);
        return;
    }

    value = http_header(c, "a");
    http_reply_header(c, "X-A", value != NULL ? value : "none");
    http_reply_text(c, 200, "text/plain", path);
}


/* Takes turns in the loop and keeps what the server says. */
static void
turn(int fd)
{
    int      i;
    ssize_t  n;

    for (i = 0; i < 3; i++) {
        event_base_loop(base, EVLOOP_NONBLOCK);

        while (fd != -1 && heard_len < HEARD_MAX) {
            n = recv(fd, heard + heard_len, HEARD_MAX - heard_len,
                     MSG_DONTWAIT);

            if (n <= 0) {
                break;
            }

            heard_len += (size_t) n;
        }
    }
}


/* The replies to HEAD have a length but no body, so only heads are checked. */
static void
check_heard(void)
{
    char    *p, *end;
    size_t   left;

    p = heard;
    left = heard_len;

    if (left == 0) {
        return;
    }

    if (left < 12 || memcmp(p, "HTTP/1.1 ", 9) != 0) {
        die("what came is no reply");
    }

    end = memmem(p, left, "\r\n\r\n", 4);

    if (end == NULL && left < HEARD_MAX) {
        die("the reply's head has no end");
    }
}


/* One client's life. */
int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int      i, fds[2];
    size_t   step, n;
    uint8_t  how;
    ssize_t  sent;
    char     path[64];

    if (base == NULL) {
        log_level_set(LOG_CRITICAL);
        base = event_base_new();
        snprintf(path, sizeof(path), "/tmp/fuzz_http.%d", (int) getpid());
        server = http_server_new(base, path, 0600, (gid_t) -1, handle, NULL);
        unlink(path);

        if (server == NULL) {
            die("no server");
        }
    }

    if (size < 2) {
        return 0;
    }

    how = data[0];
    data++;
    size--;

    heard_len = 0;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0,
                   fds) == -1
        || http_server_attach(server, fds[0]) == -1)
    {
        die("no connection");
    }

    step = ((how & 7) == 0) ? size : (size_t) 1 << ((how & 7) * 2 - 2);

    if (size / step > 2000) {
        step = size / 2000;
    }

    for (n = 0; n < size; n += (size_t) sent) {
        sent = send(fds[1], data + n, size - n < step ? size - n : step,
                    MSG_NOSIGNAL);

        if (sent <= 0) {
            if (errno == EAGAIN && (how & 8) == 0) {
                answer_held();
            } else if (errno != EAGAIN || http_server_connections(server) == 0
                       || held[0] != NULL)
            {
                break;
            }

            sent = 0;
        }

        turn(fds[1]);

        if (how & 16) {
            answer_held();
        }
    }

    turn(fds[1]);

    if (how & 32) {
        answer_held();
        turn(fds[1]);
    }

    if (how & 64) {
        shutdown(fds[1], SHUT_WR);
        turn(fds[1]);
    }

    check_heard();
    close(fds[1]);

    for (i = 0; i < 10000 && http_server_connections(server) > 0; i++) {
        turn(-1);
    }

    answer_held();
    turn(-1);

    if (http_server_connections(server) > 0) {
        die("a connection is left");
    }

    return 0;
}
