/*
 * A helper for measurements: the state file and "ensure", nothing behind.
 *
 *   fake_helper STATE-FILE SOCKET UPSTREAM MODEL COLD-MODEL
 *
 * MODEL is published at once and led to UPSTREAM, a Unix socket.  COLD-MODEL
 * is not: whoever asks for it waits.  Commands, one line on standard input
 * each, answered by one line:
 *
 *   held      "held N": requests that wait now
 *   release   publishes COLD-MODEL and answers all that wait
 *   hide      takes COLD-MODEL out again
 *
 * It ends when its standard input ends.
 */

#define _GNU_SOURCE

#include "state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>


#define HEAD_MAX  4096
#define EVENTS    256
#define BACKLOG   4096


/* One connection of nginx; in the list while it waits for the cold model. */
struct asker {
    int            fd;
    size_t         have;
    struct asker  *next;
    struct asker  *prev;
    char           head[HEAD_MAX];
};


static int              epoll_fd;
static int              listen_fd;
static struct lm_state  state;
static const char      *state_path, *upstream, *model, *cold;
static int              cold_slot = -1;
static unsigned         held;
static struct asker     waiting = { .next = &waiting, .prev = &waiting };


/* Says what failed and ends. */
static void
fail(const char *what)
{
    perror(what);
    exit(1);
}


/* Fills in the address of a Unix socket. */
static void
address_set(struct sockaddr_un *un, const char *path)
{
    memset(un, 0, sizeof(*un));
    un->sun_family = AF_UNIX;

    if (snprintf(un->sun_path, sizeof(un->sun_path), "%s", path)
        >= (int) sizeof(un->sun_path))
    {
        errno = ENAMETOOLONG;
        fail(path);
    }
}


/* Publishes a name with the upstream behind it. */
static int
publish(const char *name)
{
    int                slot;
    struct lm_replica  replica;

    memset(&replica, 0, sizeof(replica));
    address_set(&replica.address, upstream);
    replica.address_len = sizeof(replica.address);
    snprintf(replica.label, sizeof(replica.label), "llamacpp/cpu 1");

    /* as long as the helper's random keys */
    memset(replica.key, 'k', LM_KEY_MAX - 1);

    slot = lm_route_publish(&state, name, &replica, 1);
    if (slot == -1) {
        fail(name);
    }

    return slot;
}


/* Takes an asker out of those that wait and closes it. */
static void
asker_free(struct asker *a)
{
    if (a->next != NULL) {
        a->prev->next = a->next;
        a->next->prev = a->prev;
        held--;
    }

    close(a->fd);
    free(a);
}


/* Answers and closes; the answers fit into any socket buffer. */
static void
asker_reply(struct asker *a, const char *name)
{
    int   len;
    char  text[512];

    if (name != NULL) {
        len = snprintf(text, sizeof(text),
                       "HTTP/1.1 204 No Content\r\nX-Lemonade-Model: %s\r\n"
                       "Connection: close\r\n\r\n", name);
    } else {
        len = snprintf(text, sizeof(text),
                       "HTTP/1.1 404 Not Found\r\n"
                       "X-Lemonade-Code: model_not_found\r\n"
                       "X-Lemonade-Message: not%%20found\r\n"
                       "Content-Length: 0\r\nConnection: close\r\n\r\n");
    }

    if (send(a->fd, text, (size_t) len, MSG_NOSIGNAL) != len) {
        perror("send");
    }

    asker_free(a);
}


/* Is a header field of the request this value? */
static bool
asker_asks(const struct asker *a, const char *name)
{
    size_t       len;
    const char  *value;

    value = strcasestr(a->head, "\r\nX-Lemonade-Model: ");
    if (value == NULL) {
        return false;
    }

    value += strlen("\r\nX-Lemonade-Model: ");
    len = strlen(name);

    return strncmp(value, name, len) == 0 && value[len] == '\r';
}


/* Lets an asker wait for the cold model. */
static void
asker_hold(struct asker *a)
{
    a->prev = waiting.prev;
    a->next = &waiting;
    waiting.prev->next = a;
    waiting.prev = a;
    held++;
}


/* Reads a request and answers or holds it. */
static void
asker_read(struct asker *a)
{
    ssize_t  n;

    n = recv(a->fd, a->head + a->have, HEAD_MAX - 1 - a->have, 0);

    if (n == -1 && errno == EAGAIN) {
        return;
    }

    if (n <= 0) {
        asker_free(a);
        return;
    }

    a->have += (size_t) n;
    a->head[a->have] = '\0';

    if (a->next != NULL || strstr(a->head, "\r\n\r\n") == NULL) {
        return;
    }

    if (asker_asks(a, model)) {
        asker_reply(a, model);

    } else if (!asker_asks(a, cold)) {
        asker_reply(a, NULL);

    } else if (cold_slot != -1) {
        asker_reply(a, cold);

    } else {
        asker_hold(a);
    }
}


/* Takes every connection that waits. */
static void
accept_all(void)
{
    int                 fd;
    struct asker       *a;
    struct epoll_event  ev;

    while ((fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC))
           != -1)
    {
        a = calloc(1, sizeof(*a));
        if (a == NULL) {
            fail("calloc");
        }

        a->fd = fd;
        ev.events = EPOLLIN;
        ev.data.ptr = a;

        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) == -1) {
            fail("epoll_ctl");
        }
    }
}


/* Runs one command of standard input; false at its end. */
static bool
command_run(void)
{
    char     line[64];
    ssize_t  n;

    n = read(STDIN_FILENO, line, sizeof(line) - 1);
    if (n <= 0) {
        return false;
    }

    line[n] = '\0';

    printf("held %u\n", held);
    fflush(stdout);

    if (strcmp(line, "release\n") == 0 && cold_slot == -1) {
        cold_slot = publish(cold);

        while (waiting.next != &waiting) {
            asker_reply(waiting.next, cold);
        }

    } else if (strcmp(line, "hide\n") == 0 && cold_slot != -1) {
        lm_route_retire(&state, (unsigned) cold_slot);
        cold_slot = -1;
    }

    return true;
}


/* Listens on the control socket. */
static void
listen_on(const char *path)
{
    struct sockaddr_un  un;

    address_set(&un, path);
    unlink(path);

    listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (listen_fd == -1
        || bind(listen_fd, (struct sockaddr *) &un, sizeof(un)) == -1
        || listen(listen_fd, BACKLOG) == -1)
    {
        fail(path);
    }
}


/* Serves until standard input ends. */
static void
serve(void)
{
    int                 i, n;
    struct epoll_event  events[EVENTS];

    for ( ;; ) {
        n = epoll_wait(epoll_fd, events, EVENTS, 1000);

        if (n == -1 && errno != EINTR) {
            fail("epoll_wait");
        }

        /* stdin comes last: it may free an asker that has an event */

        for (i = 0; i < n; i++) {
            if (events[i].data.ptr == &listen_fd) {
                accept_all();
            } else if (events[i].data.ptr != &waiting) {
                asker_read(events[i].data.ptr);
            }
        }

        for (i = 0; i < n; i++) {
            if (events[i].data.ptr == &waiting && !command_run()) {
                return;
            }
        }

        lm_state_reap(&state);
    }
}


/* Publishes, listens, serves, cleans up. */
int
main(int argc, char **argv)
{
    struct rlimit       rl;
    struct epoll_event  ev;

    if (argc != 6) {
        fprintf(stderr, "usage: %s STATE SOCKET UPSTREAM MODEL COLD-MODEL\n",
                argv[0]);
        return 2;
    }

    state_path = argv[1];
    upstream = argv[3];
    model = argv[4];
    cold = argv[5];

    if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
        rl.rlim_cur = rl.rlim_max;
        setrlimit(RLIMIT_NOFILE, &rl);
    }

    if (lm_state_create(&state, state_path, 0600, (gid_t) -1) == -1) {
        fail(state_path);
    }

    publish(model);
    listen_on(argv[2]);

    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    ev.events = EPOLLIN;
    ev.data.ptr = &listen_fd;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &ev);
    ev.data.ptr = &waiting;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &ev);

    printf("ready\n");
    fflush(stdout);

    serve();

    lm_state_destroy(&state, state_path);
    unlink(argv[2]);

    return 0;
}
