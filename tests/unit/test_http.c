/*
 * The control socket's HTTP server, from a raw client's view.
 *
 * link: helper/http.c helper/http_conn.c helper/http_request.c helper/http_reply.c helper/listen.c helper/log.c
 */

#define _GNU_SOURCE

#include "http.h"
#include "listen.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>


#define HOST  "Host: h\r\n"
#define GET   "GET /echo HTTP/1.1\r\n" HOST


static char  path[64];
static int   failed;


/* Says what was not as it should be. */
static void __attribute__((format(printf, 1, 2)))
complain(const char *format, ...)
{
    va_list  args;

    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);

    fputc('\n', stderr);
    failed = 1;
}


/*
 * The server under test, in a process of its own.
 */

static struct event_base   *base;
static struct http_server  *server;
static struct http_conn    *held;
static struct event        *release;
static int                  gone_count;


/* Counts the clients that left before their reply. */
static void
on_gone(void *arg)
{
    gone_count++;
}


/* Replies to the request that was held back. */
static void
on_release(evutil_socket_t fd, short what, void *arg)
{
    http_reply(held, 200, json_pack("{s:s}", "late", "yes"));
}


/* Tells the client what the server understood. */
static void
handle_echo(struct http_conn *c)
{
    size_t       len;
    const char  *body, *field, *arg;

    body = http_body(c, &len);
    field = http_header(c, "x-field");
    arg = http_query(c, "arg");

    if (body[len] != '\0') {
        http_error(c, 500, "no_nul", NULL, "no NUL behind the body");
        return;
    }

    http_reply_header(c, "X-Good", "fine");
    http_reply_header(c, "X-Bad", "a\r\nX-Forged: 1");
    http_reply_header(c, "X Bad", "x");

    http_reply(c, 200, json_pack("{s:s,s:s,s:s?,s:s?,s:I,s:s%}",
                                 "method", http_method(c),
                                 "path", http_path(c),
                                 "field", field, "arg", arg,
                                 "len", (json_int_t) len,
                                 "body", body, len < 100 ? len : 100));
}


/* Routes a request of the tests. */
static void
handle(struct http_conn *c, void *arg)
{
    const char                  *name;
    char                        *big;
    static const struct timeval  soon = { .tv_usec = 50000 };

    name = http_path(c);

    if (strcmp(name, "/late") == 0) {
        held = c;
        event_add(release, &soon);

    } else if (strcmp(name, "/hang") == 0) {
        http_on_gone(c, on_gone, NULL);

    } else if (strcmp(name, "/gone") == 0) {
        http_reply(c, 200, json_pack("{s:i,s:i}", "gone", gone_count, "open",
                                     (int) http_server_connections(server)));

    } else if (strcmp(name, "/empty") == 0) {
        http_reply(c, 204, NULL);

    } else if (strcmp(name, "/none") == 0) {
        http_reply(c, 200, NULL);

    } else if (strcmp(name, "/big") == 0) {
        big = malloc(5000000);
        memset(big, 'x', 5000000);
        http_reply_bytes(c, 200, "text/plain", big, 5000000);
        free(big);

    } else if (strcmp(name, "/error") == 0) {
        http_error(c, 404, "model_not_found", "model", "no \"%s\"",
                   "a\xff\x01");

    } else if (strcmp(name, "/stop") == 0) {
        http_reply(c, 200, json_pack("{s:s}", "status", "bye"));
        event_base_loopbreak(base);

    } else {
        handle_echo(c);
    }
}


/* Serves until told to stop; exits with 0 when nothing went wrong. */
static void
serve(int ready, unsigned limit, unsigned request_ms, unsigned idle_ms)
{
    int  lost;

    base = event_base_new();
    server = http_server_new(base, path, 0600, (gid_t) -1, handle, NULL);

    if (server == NULL) {
        perror(path);
        exit(1);
    }

    http_server_limit(server, limit, request_ms, idle_ms);
    release = evtimer_new(base, on_release, NULL);

    if (write(ready, "x", 1) != 1) {
        exit(1);
    }

    close(ready);
    event_base_dispatch(base);

    lost = gone_count;
    http_server_free(server);
    gone_count -= lost;             /* those that hung until the end */

    event_free(release);
    event_base_free(base);
    libevent_global_shutdown();

    exit(access(path, F_OK) == 0 ? 3 : gone_count);
}


/* Starts a server. */
static pid_t
server_start(unsigned limit, unsigned request_ms, unsigned idle_ms)
{
    int    fds[2];
    char   c;
    pid_t  pid;

    if (pipe(fds) == -1) {
        exit(1);
    }

    pid = fork();

    if (pid == 0) {
        close(fds[0]);
        log_level_set(LOG_CRITICAL);
        serve(fds[1], limit, request_ms, idle_ms);
    }

    close(fds[1]);

    if (read(fds[0], &c, 1) != 1) {
        complain("the server did not start");
        exit(1);
    }

    close(fds[0]);

    return pid;
}


/*
 * The client.
 */

struct client {
    int     fd;
    size_t  len;
    size_t  used;           /* by the reply before */
    char    buf[6000000];
};


struct reply {
    int     status;         /* 0: closed, -1: nothing came, -2: garbage */
    bool    closing;
    char    head[2048];
    size_t  len;
    char   *body;
};


static struct client  client;


/* Connects. */
static void
dial(void)
{
    struct sockaddr_un  address = { .sun_family = AF_UNIX };

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);

    client.len = 0;
    client.used = 0;
    client.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (connect(client.fd, (struct sockaddr *) &address, sizeof(address))
        == -1)
    {
        complain("connect: %s", strerror(errno));
        exit(1);
    }
}


/* Sends bytes; a server that closed is no error here. */
static void
say(const char *data, size_t len)
{
    ssize_t  n;

    while (len > 0) {
        n = send(client.fd, data, len, MSG_NOSIGNAL);

        if (n <= 0) {
            return;
        }

        data += n;
        len -= (size_t) n;
    }
}


/* Reads more; 1, or 0 at the end, or -1 after ms without a byte. */
static int
hear(int ms)
{
    ssize_t        n;
    struct pollfd  pfd = { .fd = client.fd, .events = POLLIN };

    if (poll(&pfd, 1, ms) != 1) {
        return -1;
    }

    n = read(client.fd, client.buf + client.len,
             sizeof(client.buf) - 1 - client.len);

    if (n <= 0) {
        return 0;
    }

    client.len += (size_t) n;
    client.buf[client.len] = '\0';

    return 1;
}


/* Reads one reply.  It is valid until the next. */
static struct reply
answer(bool is_head, int ms)
{
    int            rc;
    char          *end, *p;
    size_t         head;
    struct reply   r;

    memset(&r, 0, sizeof(r));

    client.len -= client.used;
    memmove(client.buf, client.buf + client.used, client.len);
    client.buf[client.len] = '\0';
    client.used = 0;

    while ((end = strstr(client.buf, "\r\n\r\n")) == NULL) {
        rc = hear(ms);

        if (rc != 1) {
            r.status = (rc == 0 && client.len > 0) ? -2 : rc;
            return r;
        }
    }

    head = (size_t) (end + 4 - client.buf);

    if (head >= sizeof(r.head)
        || sscanf(client.buf, "HTTP/1.1 %d ", &r.status) != 1)
    {
        r.status = -2;
        return r;
    }

    memcpy(r.head, client.buf, head);
    r.closing = strstr(r.head, "\r\nConnection: close\r\n") != NULL;

    p = strstr(r.head, "\r\nContent-Length: ");

    if (p != NULL && !is_head) {
        r.len = strtoul(p + 18, NULL, 10);
    }

    while (client.len < head + r.len) {
        if (hear(ms) != 1) {
            r.status = -2;
            return r;
        }
    }

    r.body = client.buf + head;
    client.used = head + r.len;

    if (client.len == client.used) {
        r.body[r.len] = '\0';
    }

    return r;
}


/* Asks and reads one reply on an open connection. */
static struct reply
ask(const char *request)
{
    say(request, strlen(request));

    return answer(strncmp(request, "HEAD ", 5) == 0, 3000);
}


/* Asks on a connection of its own, which stays open. */
static struct reply
dial_ask(const char *request)
{
    dial();

    return ask(request);
}


/* A number that the server keeps. */
static int
number(const char *name)
{
    int           value;
    char          key[32];
    const char   *p;
    struct reply  r;

    r = dial_ask("GET /gone HTTP/1.0\r\n\r\n");
    close(client.fd);

    snprintf(key, sizeof(key), "\"%s\":", name);
    p = (r.status == 200) ? strstr(r.body, key) : NULL;
    value = (p == NULL) ? -1 : (int) strtol(p + strlen(key), NULL, 10);

    return value;
}


/* Waits until the server's number is this. */
static void
number_await(const char *name, int wanted)
{
    int                    i, value;
    const struct timespec  pause = { .tv_nsec = 5000000 };

    value = -1;

    for (i = 0; i < 400; i++) {
        value = number(name);

        if (value == wanted) {
            return;
        }

        nanosleep(&pause, NULL);
    }

    complain("%s is %d, not %d", name, value, wanted);
}


/* Milliseconds on a clock that does not jump. */
static long
clock_ms(void)
{
    struct timespec  now;

    clock_gettime(CLOCK_MONOTONIC, &now);

    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}


/*
 * The tests.
 */

#define R(s)  s, sizeof(s) - 1

/* Requests on connections of their own, and what becomes of them. */
static const struct {
    const char  *name;
    const char  *request;
    size_t       len;
    int          status;
    bool         closing;
    const char  *has;           /* in the body */
} requests[] = {

    { "plain", R(GET "\r\n"), 200, false, "\"method\":\"GET\"" },
    { "1.0", R("GET /echo HTTP/1.0\r\n\r\n"), 200, true, "\"/echo\"" },
    { "1.0 keepalive",
      R("GET /echo HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"),
      200, false, NULL },
    { "close", R(GET "Connection: x, Close\r\n\r\n"), 200, true, NULL },
    { "field in any case", R(GET "x-FIELD: \t a b \t\r\n\r\n"), 200, false,
      "\"field\":\"a b\"" },
    { "arguments", R("GET /echo?x&arg=a%20b+c%2B&y=1 HTTP/1.1\r\n" HOST
                     "\r\n"), 200, false, "\"arg\":\"a b c+\"" },
    { "path as sent", R("GET /a%2fb%20 HTTP/1.1\r\n" HOST "\r\n"), 200,
      false, "\"path\":\"/a%2fb%20\"" },
    { "body", R("POST /e HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\n"
                "hello"), 200, false, "\"len\":5,\"body\":\"hello\"" },
    { "body of a GET", R(GET "Content-Length: 002\r\n\r\nhi"), 200, false,
      "\"body\":\"hi\"" },
    { "any method", R("BREW /e HTTP/1.1\r\n" HOST "\r\n"), 200, false,
      "\"BREW\"" },
    { "no body", R("POST /e HTTP/1.1\r\n" HOST "\r\n"), 200, false,
      "\"len\":0" },

    { "no host", R("GET /echo HTTP/1.1\r\n\r\n"), 400, true, "Host" },
    { "two hosts", R(GET HOST "\r\n"), 400, true, "Host" },
    { "two lengths", R(GET "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx"),
      400, true, "Content-Length" },
    { "list of lengths", R(GET "Content-Length: 1, 1\r\n\r\nx"), 400, true,
      NULL },
    { "signed length", R(GET "Content-Length: +3\r\n\r\nabc"), 400, true,
      NULL },
    { "negative length", R(GET "Content-Length: -3\r\n\r\nabc"), 400, true,
      NULL },
    { "empty length", R(GET "Content-Length:\r\n\r\n"), 400, true, NULL },
    { "hexadecimal length", R(GET "Content-Length: 0x3\r\n\r\nabc"), 400,
      true, NULL },
    { "space before the colon", R(GET "Content-Length : 3\r\n\r\nabc"), 400,
      true, "malformed" },
    { "long length", R(GET "Content-Length: 1048577\r\n\r\n"), 413, true,
      "1 MB" },
    { "overflowing length",
      R(GET "Content-Length: 18446744073709551617\r\n\r\n"), 413, true, NULL },
    { "chunked", R(GET "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 501,
      true, "not_implemented" },
    { "chunked with length", R(GET "Content-Length: 3\r\n"
      "Transfer-Encoding: chunked\r\n\r\nabc"), 501, true, NULL },
    { "expectation", R(GET "Expect: 200-ok\r\n\r\n"), 417, true, NULL },
    { "bare LF", R("GET /echo HTTP/1.1\nHost: h\n\n"), 400, true, "CR LF" },
    { "one bare LF", R(GET "A: b\n\r\n"), 400, true, NULL },
    { "bare CR", R(GET "A: b\rC: d\r\n\r\n"), 400, true, NULL },
    { "NUL", R(GET "A: b\0c\r\n\r\n"), 400, true, NULL },
    { "DEL", R(GET "A: b\x7f\r\n\r\n"), 400, true, NULL },
    { "escape", R("GET /\x1b HTTP/1.1\r\n" HOST "\r\n"), 400, true, NULL },
    { "folding", R(GET "A: b\r\n c\r\n\r\n"), 400, true, NULL },
    { "folding first", R("GET / HTTP/1.1\r\n A: b\r\n" HOST "\r\n"), 400,
      true, NULL },
    { "no colon", R(GET "Abc\r\n\r\n"), 400, true, NULL },
    { "no name", R(GET ": b\r\n\r\n"), 400, true, NULL },
    { "odd name", R(GET "A(b): c\r\n\r\n"), 400, true, NULL },
    { "two slashes", R("GET //evil/echo HTTP/1.1\r\n" HOST "\r\n"), 400,
      true, "one \\\"/\\\"" },
    { "absolute", R("GET http://h/echo HTTP/1.1\r\n" HOST "\r\n"), 400, true,
      NULL },
    { "asterisk", R("OPTIONS * HTTP/1.1\r\n" HOST "\r\n"), 400, true, NULL },
    { "authority", R("CONNECT h:1 HTTP/1.1\r\n" HOST "\r\n"), 400, true,
      NULL },
    { "fragment", R("GET /echo#a HTTP/1.1\r\n" HOST "\r\n"), 400, true,
      NULL },
    { "raw UTF-8", R("GET /\xc3\xbc HTTP/1.1\r\n" HOST "\r\n"), 400, true,
      "percent" },
    { "space in the target", R("GET /a b HTTP/1.1\r\n" HOST "\r\n"), 400,
      true, NULL },
    { "two spaces", R("GET  /echo HTTP/1.1\r\n" HOST "\r\n"), 400, true,
      NULL },
    { "tab", R("GET\t/echo\tHTTP/1.1\r\n" HOST "\r\n"), 400, true, NULL },
    { "no version", R("GET /echo\r\n\r\n"), 400, true, NULL },
    { "odd version", R("GET /echo HTTP/1.10\r\n\r\n"), 400, true, NULL },
    { "small version", R("GET /echo http/1.1\r\n\r\n"), 400, true, NULL },
    { "1.9", R("GET /echo HTTP/1.9\r\n" HOST "\r\n"), 505, true, NULL },
    { "2.0", R("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505, true,
      "version_not_supported" },
    { "no method", R(" /echo HTTP/1.1\r\n" HOST "\r\n"), 400, true, NULL },
    { "odd method", R("G@T /echo HTTP/1.1\r\n" HOST "\r\n"), 400, true,
      NULL },
    { "empty line", R("\r\n" GET "\r\n"), 400, true, NULL },
    { "bad escape in a query", R("GET /e?a=%zz HTTP/1.1\r\n" HOST "\r\n"),
      400, true, NULL },
    { "cut escape", R("GET /e?a=%4 HTTP/1.1\r\n" HOST "\r\n"), 400, true,
      NULL },
    { "%00 in a query", R("GET /e?a=%00 HTTP/1.1\r\n" HOST "\r\n"), 400,
      true, NULL },
    { "TLS", R("\x16\x03\x01\x02"), 400, true, NULL },
};


/* Each request of the table, whole and byte by byte. */
static void
test_requests(void)
{
    size_t        i, j, slow;
    struct reply  r;

    for (i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        for (slow = 0; slow < 2; slow++) {
            dial();

            if (slow) {
                for (j = 0; j < requests[i].len; j++) {
                    say(requests[i].request + j, 1);
                }

            } else {
                say(requests[i].request, requests[i].len);
            }

            r = answer(false, 3000);

            if (r.status != requests[i].status
                || r.closing != requests[i].closing
                || (requests[i].has != NULL
                    && strstr(r.body, requests[i].has) == NULL))
            {
                complain("%s: %d %s %s", requests[i].name, r.status, r.head,
                         r.body);
            }

            if (r.status >= 400
                && strncmp(r.body, "{\"error\":{\"message\":\"", 21) != 0)
            {
                complain("%s: not the error body: %s", requests[i].name,
                         r.body);
            }

            if (r.closing && answer(false, 3000).status != 0) {
                complain("%s: not closed", requests[i].name);
            }

            close(client.fd);
        }
    }
}


/* Heads at and over the limits. */
static void
test_limits(void)
{
    int           i, fields;
    char          head[20000];
    size_t        n;
    struct reply  r;

    n = (size_t) snprintf(head, sizeof(head), GET "X-Field: ");
    memset(head + n, 'x', 16384 - n);
    memcpy(head + 16384 - 4, "\r\n\r\n", 5);

    r = dial_ask(head);
    if (r.status != 200) {
        complain("head of 16 KB: %d", r.status);
    }

    close(client.fd);

    memcpy(head + 16384 - 4, "xxxx\r\n\r\n", 9);

    r = dial_ask(head);
    if (r.status != 431) {
        complain("head of 16 KB and 4: %d", r.status);
    }

    close(client.fd);

    for (fields = 63; fields <= 64; fields++) {
        n = (size_t) snprintf(head, sizeof(head), GET);

        for (i = 0; i < fields; i++) {
            n += (size_t) snprintf(head + n, sizeof(head) - n, "A: b\r\n");
        }

        snprintf(head + n, sizeof(head) - n, "\r\n");
        r = dial_ask(head);

        if (r.status != (fields == 63 ? 200 : 431)) {
            complain("%d fields and a Host: %d", fields, r.status);
        }

        close(client.fd);
    }
}


/* Sends a POST with a body of so many bytes. */
static void
post(size_t len)
{
    char    head[128], *body;
    size_t  i;

    body = malloc(len);

    for (i = 0; i < len; i++) {
        body[i] = (char) ('a' + i % 26);
    }

    snprintf(head, sizeof(head), "POST /e HTTP/1.1\r\n" HOST
             "Content-Length: %zu\r\n\r\n", len);
    say(head, strlen(head));
    say(body, len);
    free(body);
}


/* Large bodies in both directions, and one too large. */
static void
test_bodies(void)
{
    struct reply  r;

    dial();
    post(1048576);
    r = answer(false, 3000);

    if (r.status != 200 || strstr(r.body, "\"len\":1048576") == NULL) {
        complain("body of 1 MB: %d %s", r.status, r.body);
    }

    r = ask("GET /big HTTP/1.1\r\n" HOST "\r\n");

    if (r.status != 200 || r.len != 5000000 || r.body[4999999] != 'x') {
        complain("reply of 5 MB: %d %zu", r.status, r.len);
    }

    /* The reason must arrive although nobody wants the rest. */

    post(8000000);
    r = answer(false, 3000);

    if (r.status != 413 || strstr(r.body, "request_too_large") == NULL) {
        complain("body of 8 MB: %d", r.status);
    }

    close(client.fd);
}


/* Replies without a body, then one with, on one connection. */
static void
test_bodyless(void)
{
    struct reply  r;

    r = dial_ask("HEAD /echo HTTP/1.1\r\n" HOST "\r\n");

    if (r.status != 200 || strstr(r.head, "Content-Length: 0\r\n") != NULL
        || strstr(r.head, "Content-Length: ") == NULL)
    {
        complain("HEAD: %s", r.head);
    }

    r = ask("GET /empty HTTP/1.1\r\n" HOST "\r\n");

    if (r.status != 204 || strstr(r.head, "Content-Length") != NULL) {
        complain("204: %s", r.head);
    }

    r = ask("GET /none HTTP/1.1\r\n" HOST "\r\n");

    if (r.status != 200 || strstr(r.head, "Content-Length: 0\r\n") == NULL
        || strstr(r.head, "Content-Type") != NULL)
    {
        complain("no body: %s", r.head);
    }

    r = ask(GET "\r\n");

    if (r.status != 200 || strstr(r.head, "X-Good: fine\r\n") == NULL
        || strstr(r.head, "Bad") != NULL || strstr(r.head, "Forged") != NULL)
    {
        complain("fields of a reply: %s", r.head);
    }

    r = ask("GET /error HTTP/1.1\r\n" HOST "\r\n");

    if (r.status != 404 || strcmp(r.body,
        "{\"error\":{\"message\":\"no \\\"a\\\\xff\\\\x01\\\"\","
        "\"type\":\"invalid_request_error\",\"param\":\"model\","
        "\"code\":\"model_not_found\"},\"status\":\"error\","
        "\"message\":\"no \\\"a\\\\xff\\\\x01\\\"\","
        "\"detail\":\"no \\\"a\\\\xff\\\\x01\\\"\"}") != 0)
    {
        complain("error body: %s", r.body);
    }

    close(client.fd);
}


/* Many requests in one write, one of them answered late. */
static void
test_pipelining(void)
{
    int           i;
    char          name[32];
    struct reply  r;

    dial();

    for (i = 0; i < 50; i++) {
        char  line[64];

        snprintf(line, sizeof(line), "GET /%d HTTP/1.1\r\n" HOST "\r\n", i);
        say(line, strlen(line));

        if (i == 20) {
            say(R("GET /late HTTP/1.1\r\n" HOST "\r\n"));
            say(R("POST /p HTTP/1.1\r\n" HOST
                  "Content-Length: 3\r\n\r\nabc"));
        }
    }

    for (i = 0; i < 50; i++) {
        r = answer(false, 3000);
        snprintf(name, sizeof(name), "\"path\":\"/%d\"", i);

        if (r.status != 200 || strstr(r.body, name) == NULL) {
            complain("pipelined %d: %d", i, r.status);
            break;
        }

        if (i == 20) {
            r = answer(false, 3000);

            if (r.status != 200 || strncmp(r.body, "{\"late\"", 7) != 0) {
                complain("pipelined late: %d", r.status);
            }

            r = answer(false, 3000);

            if (r.status != 200 || strstr(r.body, "\"abc\"") == NULL) {
                complain("pipelined POST: %d", r.status);
            }
        }
    }

    if (client.len == 0 || answer(false, 50).status != -1) {
        complain("pipelined: more came, or the connection was closed");
    }

    close(client.fd);
}


/* "100 Continue" is sent to those who wait for it, and only to them. */
static void
test_expect(void)
{
    struct reply  r;

    r = dial_ask("POST /e HTTP/1.1\r\n" HOST "Content-Length: 2\r\n"
                 "Expect: 100-Continue\r\n\r\n");

    if (r.status != 100) {
        complain("expect: %d", r.status);
    }

    r = ask("ok");

    if (r.status != 200 || strstr(r.body, "\"ok\"") == NULL) {
        complain("after 100: %d", r.status);
    }

    r = ask("POST /e HTTP/1.1\r\n" HOST "Content-Length: 2\r\n"
            "Expect: 100-continue\r\n\r\nok");

    if (r.status != 200) {
        complain("expect with the body at once: %d", r.status);
    }

    r = ask("POST /e HTTP/1.1\r\n" HOST "Content-Length: 2000000\r\n"
            "Expect: 100-continue\r\n\r\n");

    if (r.status != 413) {
        complain("expect, too large: %d", r.status);
    }

    close(client.fd);
}


/* Clients that leave, in every state. */
static void
test_gone(void)
{
    int           i, before;
    struct reply  r;

    before = number("gone");

    for (i = 0; i < 10; i++) {
        dial();
        say(R("GET /hang HTTP/1.1\r\n" HOST "\r\n"));

        if (i % 2 == 0) {
            say(R(GET "\r\nGET /ha"));        /* pipelined behind it */
        }

        close(client.fd);
    }

    number_await("gone", before + 10);

    /* Nobody asked to be told: the late reply must not hurt. */

    dial();
    say(R("GET /late HTTP/1.1\r\n" HOST "\r\n"));
    close(client.fd);
    poll(NULL, 0, 100);

    /* In the head, in the body, while a large reply is under way. */

    dial();
    say(R("GET /ha"));
    close(client.fd);

    dial();
    say(R("POST /e HTTP/1.1\r\n" HOST "Content-Length: 9\r\n\r\nabc"));
    close(client.fd);

    dial();
    say(R("GET /big HTTP/1.1\r\n" HOST "\r\n"));
    hear(3000);
    close(client.fd);

    /* Half closed after the request: the reply still comes. */

    dial();
    say(R("GET /big HTTP/1.1\r\n" HOST "\r\n"));
    hear(3000);
    shutdown(client.fd, SHUT_WR);
    r = answer(false, 3000);

    if (r.status != 200 || r.len != 5000000) {
        complain("half closed: %d %zu", r.status, r.len);
    }

    close(client.fd);

    number_await("gone", before + 10);
    number_await("open", 1);
}


/* Requests that trickle in, and connections that do nothing. */
static void
test_deadlines(void)
{
    int           i;
    long          start;
    struct reply  r;

    start = clock_ms();
    dial();
    say(R("GET /echo HTTP/1.1\r\n"));

    for (i = 0; i < 100; i++) {
        say("a", 1);

        if (hear(10) != -1) {
            break;
        }
    }

    r = answer(false, 1000);

    if (r.status != 408 || !r.closing || clock_ms() - start > 450
        || clock_ms() - start < 190)
    {
        complain("slow head: %d after %ld ms", r.status,
                 clock_ms() - start);
    }

    close(client.fd);

    start = clock_ms();
    dial();
    say(R("POST /e HTTP/1.1\r\n" HOST "Content-Length: 999\r\n\r\n"));

    for (i = 0; i < 100; i++) {
        say("a", 1);

        if (hear(10) != -1) {
            break;
        }
    }

    r = answer(false, 1000);

    if (r.status != 408 || clock_ms() - start > 450) {
        complain("slow body: %d after %ld ms", r.status,
                 clock_ms() - start);
    }

    close(client.fd);

    start = clock_ms();
    r = dial_ask(GET "\r\n");

    if (r.status != 200 || answer(false, 2000).status != 0
        || clock_ms() - start < 390)
    {
        complain("idle: %d, closed after %ld ms", r.status,
                 clock_ms() - start);
    }

    close(client.fd);

    /* A reply that takes its time has no deadline. */

    dial();
    say(R("GET /hang HTTP/1.1\r\n" HOST "\r\n"));

    if (answer(false, 800).status != -1) {
        complain("a pending reply met a deadline");
    }

    close(client.fd);
}


/* More connections than the limit: the others wait for their turn. */
static void
test_cap(void)
{
    int           i, fds[30];
    struct reply  r;

    for (i = 0; i < 30; i++) {
        dial();
        fds[i] = client.fd;
    }

    dial();
    say(R("GET /gone HTTP/1.0\r\n\r\n"));
    r = answer(false, 200);

    if (r.status != -1) {
        complain("over the cap of 20 connections: %d", r.status);
    }

    for (i = 0; i < 30; i++) {
        close(fds[i]);
    }

    if (answer(false, 3000).status != 200) {
        complain("no turn after the others left");
    }

    close(client.fd);
    number_await("open", 1);
}


/* Without descriptors the server waits instead of spinning, then goes on. */
static void
test_descriptors(pid_t pid)
{
    int            i, fds[12];
    struct rlimit  few, old;

    if (prlimit(pid, RLIMIT_NOFILE, NULL, &old) == -1) {
        complain("prlimit: %s", strerror(errno));
        return;
    }

    few = old;
    few.rlim_cur = 16;
    prlimit(pid, RLIMIT_NOFILE, &few, NULL);

    for (i = 0; i < 12; i++) {
        dial();
        fds[i] = client.fd;
    }

    poll(NULL, 0, 100);
    prlimit(pid, RLIMIT_NOFILE, &old, NULL);
    dial();

    for (i = 0; i < 12; i++) {
        close(fds[i]);
    }

    if (ask(GET "\r\n").status != 200) {
        complain("no answer after a shortage of descriptors");
    }

    close(client.fd);
}


/* Ends a server politely; everything of it must be freed and in order. */
static void
server_end(pid_t pid, bool hanging)
{
    int  status, hung[2];

    if (hanging) {
        dial();
        say(R("GET /hang HTTP/1.1\r\n" HOST "\r\n"));
        hung[0] = client.fd;
        dial();
        say(R("GET /ha"));
        hung[1] = client.fd;
        poll(NULL, 0, 20);
    }

    if (dial_ask("POST /stop HTTP/1.1\r\n" HOST "\r\n").status != 200) {
        complain("the reply to /stop did not arrive");
    }

    close(client.fd);

    /* The exit status is the number of pending requests that were told. */

    if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status)
        || WEXITSTATUS(status) != (hanging ? 1 : 0))
    {
        complain("the server ended with %x", (unsigned) status);
    }

    if (hanging) {
        close(hung[0]);
        close(hung[1]);
    }
}


/* The file of the socket, and a second server on the same path. */
static void
test_path(void)
{
    int                 fd, second;
    char                name[120];
    struct stat         sb;
    struct listen_path  where, other;

    fd = listen_unix(&where, path, 0620, getegid(), 8);

    if (fd == -1 || stat(path, &sb) == -1 || !S_ISSOCK(sb.st_mode)
        || (sb.st_mode & 0777) != 0620)
    {
        complain("the socket's file: %s %o", strerror(errno),
                 (unsigned) sb.st_mode);
    }

    second = listen_unix(&other, path, 0600, (gid_t) -1, 8);
    listen_unlink(&where);

    if (second == -1 || stat(path, &sb) == -1) {
        complain("the first server removed the second one's socket");
    }

    listen_unlink(&other);

    if (stat(path, &sb) == 0) {
        complain("the socket's file is left");
    }

    close(fd);
    close(second);

    memset(name, 'x', sizeof(name));
    memcpy(name, "/tmp/", 5);
    name[108] = '\0';

    if (listen_unix(&where, name, 0600, (gid_t) -1, 8) != -1
        || errno != ENAMETOOLONG)
    {
        complain("a path of 108 bytes");
    }

    if (listen_unix(&where, "/nonexistent/x", 0600, (gid_t) -1, 8) != -1
        || errno != ENOENT)
    {
        complain("a path in no folder");
    }
}


/* Percent-encoding there and back. */
static void
test_escape(void)
{
    int                       i;
    char                     *s;
    char                      text[64];
    static const char *const  bad[] = { "%", "a%4", "%zz", "%00", "%4g" };

    s = http_escape("Az09-._~ /%\xc3\xbc");

    if (strcmp(s, "Az09-._~%20%2F%25%C3%BC") != 0 || http_unescape(s) == -1
        || strcmp(s, "Az09-._~ /%\xc3\xbc") != 0)
    {
        complain("escape: %s", s);
    }

    free(s);

    for (i = 0; i < 5; i++) {
        snprintf(text, sizeof(text), "%s", bad[i]);

        if (http_unescape(text) != -1) {
            complain("unescape took %s", bad[i]);
        }
    }
}


/* Runs everything. */
int
main(void)
{
    pid_t  pid;

    alarm(60);

    snprintf(path, sizeof(path), "/tmp/test_http.%d", (int) getpid());

    test_escape();
    test_path();

    pid = server_start(8192, 10000, 75000);
    test_requests();
    test_limits();
    test_bodies();
    test_bodyless();
    test_pipelining();
    test_expect();
    test_gone();
    test_descriptors(pid);
    server_end(pid, true);

    pid = server_start(20, 200, 400);
    test_deadlines();
    test_cap();
    server_end(pid, false);

    return failed;
}
