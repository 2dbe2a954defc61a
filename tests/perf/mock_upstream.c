/*
 * An upstream for measurements: answers like llama-server, at no cost.
 *
 *   mock_upstream PATH-OF-UNIX-SOCKET | TCP-PORT  [TOKENS [TOKENS-PER-SECOND]]
 *
 * One thread, epoll.  A request body is read and thrown away, except that
 * "stream":true in its first bytes asks for an event stream of TOKENS events,
 * sent one at a time on a timer.  All other requests get one fixed chat
 * answer.  It ends when its standard input ends.
 */

#define _GNU_SOURCE

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>


#define HEAD_MAX  8192
#define EVENTS    512
#define BACKLOG   4096
#define SECOND    1000000000ULL


enum phase {
    READ_HEAD,
    READ_BODY,
    ANSWER,
    STREAM,
};


struct conn {
    int           fd;
    enum phase    phase;
    bool          close;            /* the peer wants the end after this */
    bool          waiting;          /* for room to write */
    size_t        have;             /* bytes in head */
    size_t        body_left;
    const char   *out;              /* what is not written yet */
    size_t        out_left;
    unsigned      sent;             /* tokens of this stream */
    uint64_t      due;              /* of the next token, ns */
    struct conn  *next;             /* streams in the order they are due */
    struct conn  *prev;
    char          head[HEAD_MAX];   /* the head and the body's first bytes */
};


static int          epoll_fd;
static int          listen_fd;
static unsigned     tokens = 200;
static uint64_t     period = SECOND / 20;
static char         scratch[256 * 1024];

/* The streams: one rate for all, so appending keeps them sorted by time. */
static struct conn  timers = { .next = &timers, .prev = &timers };

static char         answer_text[2048];
static char         token_text[1024];
static char         first_text[2048];
static char         last_text[4096];


/* Says what failed and ends. */
static void
fail(const char *what)
{
    perror(what);
    exit(1);
}


/* Monotonic time in nanoseconds. */
static uint64_t
now_ns(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * SECOND + (uint64_t) ts.tv_nsec;
}


/* Appends one chunk of the chunked coding to a text. */
static void
text_chunk(char *text, size_t size, const char *data)
{
    size_t  len = strlen(text);

    snprintf(text + len, size - len, "%zx\r\n%s\r\n", strlen(data), data);
}


/* Writes the answers down once; their shape is llama-server's. */
static void
texts_init(void)
{
    char  body[1024];

#define CHUNK_TAIL                                                           \
    ",\"created\":1763690000,\"id\":"                                        \
    "\"chatcmpl-Zk3vT0a9QmB7xL2yWcR5uE8sHn1pJd4f\",\"model\":\"bench\","     \
    "\"system_fingerprint\":\"b11669-Debian\","                              \
    "\"object\":\"chat.completion.chunk\""

#define TIMINGS                                                              \
    "\"timings\":{\"cache_n\":0,\"prompt_n\":12,\"prompt_ms\":4.481,"        \
    "\"prompt_per_token_ms\":0.373,\"prompt_per_second\":2677.9,"            \
    "\"predicted_n\":42,\"predicted_ms\":420.1,"                             \
    "\"predicted_per_token_ms\":10.0,\"predicted_per_second\":97.6}"

#define USAGE                                                                \
    "\"usage\":{\"completion_tokens\":42,\"prompt_tokens\":12,"              \
    "\"total_tokens\":54,\"prompt_tokens_details\":{\"cached_tokens\":0}}"

    snprintf(body, sizeof(body),
        "{\"choices\":[{\"finish_reason\":\"stop\",\"index\":0,\"message\":"
        "{\"role\":\"assistant\",\"content\":\"Hello! The answer is 42.\"}}],"
        "\"created\":1763690000,\"model\":\"bench\","
        "\"system_fingerprint\":\"b11669-Debian\","
        "\"object\":\"chat.completion\"," USAGE ",\"id\":"
        "\"chatcmpl-Zk3vT0a9QmB7xL2yWcR5uE8sHn1pJd4f\"," TIMINGS "}");

    snprintf(answer_text, sizeof(answer_text),
        "HTTP/1.1 200 OK\r\nServer: llama.cpp\r\n"
        "Access-Control-Allow-Origin: \r\n"
        "Content-Type: application/json; charset=utf-8\r\n"
        "Content-Length: %zu\r\n\r\n%s", strlen(body), body);

    snprintf(first_text, sizeof(first_text),
        "HTTP/1.1 200 OK\r\nServer: llama.cpp\r\n"
        "Access-Control-Allow-Origin: \r\nX-Accel-Buffering: no\r\n"
        "Content-Type: text/event-stream\r\n"
        "Transfer-Encoding: chunked\r\n\r\n");
    text_chunk(first_text, sizeof(first_text),
        "data: {\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":"
        "{\"role\":\"assistant\",\"content\":null}}]" CHUNK_TAIL "}\n\n");

    text_chunk(token_text, sizeof(token_text),
        "data: {\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":"
        "{\"content\":\" token\"}}]" CHUNK_TAIL "}\n\n");

    text_chunk(last_text, sizeof(last_text),
        "data: {\"choices\":[{\"finish_reason\":\"stop\",\"index\":0,"
        "\"delta\":{}}]" CHUNK_TAIL "," TIMINGS "}\n\n");
    text_chunk(last_text, sizeof(last_text), "data: [DONE]\n\n");
    text_chunk(last_text, sizeof(last_text), "");
}


/* Puts a stream at the end of those waiting for their time. */
static void
timer_add(struct conn *c)
{
    c->prev = timers.prev;
    c->next = &timers;
    timers.prev->next = c;
    timers.prev = c;
}


/* Takes a stream out, if it is in. */
static void
timer_del(struct conn *c)
{
    if (c->next != NULL) {
        c->prev->next = c->next;
        c->next->prev = c->prev;
        c->next = c->prev = NULL;
    }
}


/* Closes and forgets a connection. */
static void
conn_free(struct conn *c)
{
    timer_del(c);
    close(c->fd);
    free(c);
}


/* Watches for room to write as well, or no longer. */
static void
conn_watch(struct conn *c, bool write)
{
    struct epoll_event  ev;

    if (c->waiting == write) {
        return;
    }

    ev.events = write ? EPOLLIN | EPOLLOUT : EPOLLIN;
    ev.data.ptr = c;
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &ev);
    c->waiting = write;
}


/* Writes what is left; false: the connection is gone. */
static bool
conn_write(struct conn *c)
{
    ssize_t  n;

    while (c->out_left > 0) {
        n = send(c->fd, c->out, c->out_left, MSG_NOSIGNAL);

        if (n == -1 && errno == EAGAIN) {
            conn_watch(c, true);
            return true;
        }

        if (n == -1) {
            conn_free(c);
            return false;
        }

        c->out += n;
        c->out_left -= (size_t) n;
    }

    conn_watch(c, false);

    if (c->phase == STREAM && c->sent <= tokens) {
        return true;
    }

    if (c->close) {
        conn_free(c);
        return false;
    }

    c->phase = READ_HEAD;
    c->have = 0;

    return true;
}


/* Starts the answer to a whole request. */
static bool
conn_answer(struct conn *c)
{
    c->head[c->have] = '\0';

    if (strstr(c->head, "\"stream\":true") == NULL
        && strstr(c->head, "\"stream\": true") == NULL)
    {
        c->phase = ANSWER;
        c->out = answer_text;
        c->out_left = strlen(answer_text);
        return conn_write(c);
    }

    c->phase = STREAM;
    c->sent = 0;
    c->out = first_text;
    c->out_left = strlen(first_text);
    c->due = now_ns() + period;
    timer_add(c);

    return conn_write(c);
}


/* Sends the tokens that are due. */
static void
timers_run(uint64_t now)
{
    struct conn  *c;

    while ((c = timers.next) != &timers && c->due <= now) {
        timer_del(c);

        if (c->out_left > 0) {
            c->due = now + period;
            timer_add(c);
            continue;
        }

        c->sent++;

        if (c->sent <= tokens) {
            c->out = token_text;
            c->due += period;
            timer_add(c);

        } else {
            c->out = last_text;
        }

        c->out_left = strlen(c->out);
        conn_write(c);
    }
}


/* Looks whether the head is whole, and begins the body. */
static bool
conn_head(struct conn *c)
{
    char    *end, *field;
    size_t   head_len, rest;

    c->head[c->have] = '\0';

    end = strstr(c->head, "\r\n\r\n");
    if (end == NULL) {
        if (c->have < HEAD_MAX - 1) {
            return true;
        }

        conn_free(c);
        return false;
    }

    head_len = (size_t) (end - c->head) + 4;
    rest = c->have - head_len;
    *end = '\0';

    field = strcasestr(c->head, "\r\nContent-Length:");
    c->body_left = field ? strtoull(field + 17, NULL, 10) : 0;
    c->close = strcasestr(c->head, "\r\nConnection: close") != NULL
               || strstr(c->head, " HTTP/1.0") != NULL;

    /* only the body is searched later */

    memmove(c->head, c->head + head_len, rest);
    c->have = rest;
    c->body_left -= rest < c->body_left ? rest : c->body_left;
    c->phase = READ_BODY;

    return c->body_left > 0 ? true : conn_answer(c);
}


/* Called when there is something to read. */
static void
conn_read(struct conn *c)
{
    char    *to;
    size_t   room;
    ssize_t  n;

    for ( ;; ) {
        to = scratch;
        room = sizeof(scratch);

        if (c->phase == READ_HEAD
            || (c->phase == READ_BODY && c->have < HEAD_MAX - 1))
        {
            to = c->head + c->have;
            room = HEAD_MAX - 1 - c->have;
        }

        n = recv(c->fd, to, room, 0);

        if (n == -1 && errno == EAGAIN) {
            return;
        }

        if (n <= 0) {
            conn_free(c);
            return;
        }

        if (to != scratch) {
            c->have += (size_t) n;
        }

        if (c->phase == READ_HEAD) {
            if (!conn_head(c)) {
                return;
            }

        } else if (c->phase == READ_BODY) {
            c->body_left -= (size_t) n < c->body_left ? (size_t) n
                                                      : c->body_left;
            if (c->body_left == 0 && !conn_answer(c)) {
                return;
            }
        }

        if ((size_t) n < room) {
            return;
        }
    }
}


/* Takes every connection that waits. */
static void
accept_all(void)
{
    int                 fd, one = 1;
    struct conn        *c;
    struct epoll_event  ev;

    while ((fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC))
           != -1)
    {
        /* fails on a Unix socket, where nothing waits anyway */
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));

        c = malloc(sizeof(*c));
        if (c == NULL) {
            fail("malloc");
        }

        memset(c, 0, offsetof(struct conn, head));
        c->fd = fd;

        ev.events = EPOLLIN;
        ev.data.ptr = c;

        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) == -1) {
            fail("epoll_ctl");
        }
    }
}


/* Listens on a Unix socket (the address has a slash) or a loopback port. */
static int
listen_on(const char *address)
{
    int                 fd, one = 1;
    struct sockaddr_in  in = { .sin_family = AF_INET };
    struct sockaddr_un  un = { .sun_family = AF_UNIX };
    struct sockaddr    *sa = (struct sockaddr *) &in;
    socklen_t           len = sizeof(in);

    if (strchr(address, '/') != NULL) {
        if (snprintf(un.sun_path, sizeof(un.sun_path), "%s", address)
            >= (int) sizeof(un.sun_path))
        {
            fprintf(stderr, "mock_upstream: path is too long\n");
            exit(1);
        }

        unlink(address);
        sa = (struct sockaddr *) &un;
        len = sizeof(un);

    } else {
        in.sin_port = htons((uint16_t) strtoul(address, NULL, 10));
        in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    }

    fd = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd == -1) {
        fail("socket");
    }

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));

    if (bind(fd, sa, len) == -1 || listen(fd, BACKLOG) == -1) {
        fail(address);
    }

    return fd;
}


/* As many descriptors as we may have. */
static void
limits_raise(void)
{
    struct rlimit  rl;

    if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
        rl.rlim_cur = rl.rlim_max;
        setrlimit(RLIMIT_NOFILE, &rl);
    }
}


/* Milliseconds until the next token, rounded up, or for ever. */
static int
timers_wait(void)
{
    uint64_t  now;

    if (timers.next == &timers) {
        return -1;
    }

    now = now_ns();

    return timers.next->due <= now
           ? 0 : (int) ((timers.next->due - now + 999999) / 1000000);
}


/* Handles what epoll reported; false: standard input ended. */
static bool
events_run(struct epoll_event *events, int n)
{
    int           i;
    char          line[64];
    struct conn  *c;

    for (i = 0; i < n; i++) {
        c = events[i].data.ptr;

        if (c == NULL) {
            accept_all();

        } else if (c == &timers) {
            if (read(STDIN_FILENO, line, sizeof(line)) <= 0) {
                return false;
            }

        } else if (events[i].events & EPOLLOUT) {
            conn_write(c);

        } else {
            conn_read(c);
        }
    }

    return true;
}


/* Listens, then serves until standard input ends. */
int
main(int argc, char **argv)
{
    int                 n;
    struct epoll_event  ev, events[EVENTS];

    if (argc < 2) {
        fprintf(stderr, "usage: %s PATH|PORT [TOKENS [PER-SECOND]]\n", argv[0]);
        return 2;
    }

    if (argc > 2) {
        tokens = (unsigned) strtoul(argv[2], NULL, 10);
    }

    if (argc > 3 && strtoul(argv[3], NULL, 10) > 0) {
        period = SECOND / strtoul(argv[3], NULL, 10);
    }

    limits_raise();
    texts_init();

    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    listen_fd = listen_on(argv[1]);

    ev.events = EPOLLIN;
    ev.data.ptr = NULL;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &ev);

    ev.data.ptr = &timers;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &ev);

    printf("ready\n");
    fflush(stdout);

    /* timers last: they may free a connection that has an event */

    do {
        n = epoll_wait(epoll_fd, events, EVENTS, timers_wait());

        if (!events_run(events, n)) {
            return 0;
        }

        timers_run(now_ns());
    } while (n >= 0 || errno == EINTR);

    fail("epoll_wait");
}
