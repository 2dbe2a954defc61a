/*
 * A client of many event streams at once.
 *
 *   stream_client PORT STREAMS MODEL
 *
 * Opens STREAMS connections to 127.0.0.1:PORT, each with one streaming chat
 * request for MODEL, and reads what comes.  A line on standard input is
 * answered with one line of counts:
 *
 *   sent N open N done N failed N events N bytes N
 *
 * open: streams whose answer began with status 200 (of all that were sent);
 * done: of these, streams that ended whole; events: SSE events read.  It ends
 * when its standard input ends.
 */

#define _GNU_SOURCE

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>


#define EVENTS     512
#define AT_ONCE    64           /* connections in the making */
#define STATUS_LEN 12           /* "HTTP/1.1 200" */
#define END        "0\r\n\r\n"  /* last chunk */
#define END_LEN    5


struct stream {
    int       fd;
    bool      sent;
    bool      open;
    char      tail[END_LEN];    /* last bytes read */
    unsigned  tail_len;
};


static int          epoll_fd;
static uint16_t     port;
static char         request[1024];
static int          request_len;

static unsigned     opened;     /* connections made or in the making */
static unsigned     sent, begun, done, failed;
static uint64_t     events_read, bytes_read;
static char         buffer[64 * 1024];


/* Says what failed and ends. */
static void
fail(const char *what)
{
    perror(what);
    exit(1);
}


/* Starts one connection; it is writable when it stands. */
static void
stream_open(struct stream *s)
{
    int                 one = 1;
    struct epoll_event  ev;
    struct sockaddr_in  sin = {
        .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };

    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->fd == -1) {
        fail("socket");
    }

    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));

    if (connect(s->fd, (struct sockaddr *) &sin, sizeof(sin)) == -1
        && errno != EINPROGRESS)
    {
        fail("connect");
    }

    ev.events = EPOLLOUT;
    ev.data.ptr = s;

    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, s->fd, &ev) == -1) {
        fail("epoll_ctl");
    }

    opened++;
}


/* Counts the end of a stream as good or bad. */
static void
stream_end(struct stream *s, bool whole)
{
    close(s->fd);
    s->fd = -1;

    if (whole) {
        done++;
    } else {
        failed++;
    }

    if (!s->sent) {
        sent++;
    }
}


/* Sends the request of a connection that stands. */
static void
stream_send(struct stream *s)
{
    struct epoll_event  ev;

    /* it always fits into an empty socket buffer */

    if (send(s->fd, request, (size_t) request_len, MSG_NOSIGNAL)
        != request_len)
    {
        stream_end(s, false);
        return;
    }

    s->sent = true;
    sent++;

    ev.events = EPOLLIN;
    ev.data.ptr = s;
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, s->fd, &ev);
}


/* Counts event ends (two newlines), also one cut by the end of a read. */
static uint64_t
events_count(const struct stream *s, const char *data, size_t len)
{
    char         last;
    uint64_t     n;
    const char  *p, *end;

    n = 0;
    p = data;
    end = data + len;
    last = s->tail_len > 0 ? s->tail[s->tail_len - 1] : '\0';

    if (last == '\n' && *p == '\n') {
        n++;
        p++;
    }

    while ((p = memchr(p, '\n', (size_t) (end - p))) != NULL
           && p + 1 < end)
    {
        if (p[1] == '\n') {
            n++;
            p++;
        }

        p++;
    }

    return n;
}


/* Keeps the last bytes read, which tell a whole stream from a cut one. */
static void
tail_keep(struct stream *s, const char *data, size_t len)
{
    size_t  keep;

    if (len >= END_LEN) {
        memcpy(s->tail, data + len - END_LEN, END_LEN);
        s->tail_len = END_LEN;
        return;
    }

    keep = END_LEN - len < s->tail_len ? END_LEN - len : s->tail_len;

    memmove(s->tail, s->tail + s->tail_len - keep, keep);
    memcpy(s->tail + keep, data, len);
    s->tail_len = (unsigned) (keep + len);
}


/* Reads what a stream has. */
static void
stream_read(struct stream *s)
{
    ssize_t  n;

    n = recv(s->fd, buffer, sizeof(buffer), 0);

    if (n == -1 && errno == EAGAIN) {
        return;
    }

    if (n <= 0) {
        stream_end(s, false);
        return;
    }

    if (!s->open) {
        if (n < STATUS_LEN || memcmp(buffer, "HTTP/1.1 200", STATUS_LEN) != 0) {
            if (failed == 0) {
                fprintf(stderr, "stream_client: %.*s\n",
                        n > 500 ? 500 : (int) n, buffer);
            }

            stream_end(s, false);
            return;
        }

        s->open = true;
        begun++;
    }

    bytes_read += (uint64_t) n;
    events_read += events_count(s, buffer, (size_t) n);
    tail_keep(s, buffer, (size_t) n);

    if (s->tail_len == END_LEN && memcmp(s->tail, END, END_LEN) == 0) {
        stream_end(s, true);
    }
}


/* Answers one line of standard input; false at its end. */
static bool
command_run(void)
{
    char  line[64];

    if (read(STDIN_FILENO, line, sizeof(line)) <= 0) {
        return false;
    }

    printf("sent %u open %u done %u failed %u events %llu bytes %llu\n",
           sent, begun, done, failed, (unsigned long long) events_read,
           (unsigned long long) bytes_read);
    fflush(stdout);

    return true;
}


/* The request that every stream sends. */
static void
request_init(const char *model)
{
    int   len;
    char  body[512];

    len = snprintf(body, sizeof(body),
                   "{\"messages\":[{\"role\":\"user\",\"content\":"
                   "\"What is the answer?\"}],\"model\":\"%s\","
                   "\"stream\":true}", model);

    request_len = snprintf(request, sizeof(request),
                           "POST /api/v1/chat/completions HTTP/1.1\r\n"
                           "Host: localhost\r\n"
                           "Content-Type: application/json\r\n"
                           "Content-Length: %d\r\n\r\n%s", len, body);

    if (len >= (int) sizeof(body) || request_len >= (int) sizeof(request)) {
        fprintf(stderr, "stream_client: model name is too long\n");
        exit(2);
    }
}


/* Opens the streams and reads them until standard input ends. */
int
main(int argc, char **argv)
{
    int                 i, n;
    unsigned            total;
    struct rlimit       rl;
    struct stream      *streams, *s;
    struct epoll_event  ev, events[EVENTS];

    if (argc != 4) {
        fprintf(stderr, "usage: %s PORT STREAMS MODEL\n", argv[0]);
        return 2;
    }

    port = (uint16_t) strtoul(argv[1], NULL, 10);
    total = (unsigned) strtoul(argv[2], NULL, 10);
    request_init(argv[3]);

    if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
        rl.rlim_cur = rl.rlim_max;
        setrlimit(RLIMIT_NOFILE, &rl);
    }

    streams = calloc(total, sizeof(*streams));
    if (streams == NULL) {
        fail("calloc");
    }

    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    ev.events = EPOLLIN;
    ev.data.ptr = NULL;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &ev);

    for ( ;; ) {
        while (opened < total && opened - sent < AT_ONCE) {
            stream_open(&streams[opened]);
        }

        n = epoll_wait(epoll_fd, events, EVENTS, -1);

        if (n == -1 && errno != EINTR) {
            fail("epoll_wait");
        }

        for (i = 0; i < n; i++) {
            s = events[i].data.ptr;

            if (s == NULL) {
                if (!command_run()) {
                    return 0;
                }

            } else if (!s->sent) {
                stream_send(s);

            } else {
                stream_read(s);
            }
        }
    }
}
