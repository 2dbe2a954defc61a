/*
 * Readiness by small requests; see health.h.
 *
 * Each question is a connection of its own: the server at the other end may
 * be one that has not opened its socket yet.
 */

#define _GNU_SOURCE

#include "health.h"
#include "text.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>


#define HEALTH_FAST_FOR     1000    /* ms */
#define HEALTH_PATIENCE     5       /* seconds for one answer */
#define HEALTH_LINE_MAX     1024


struct health {
    struct event_base        *base;
    struct bufferevent       *bev;      /* a question on its way */
    struct event             *timer;
    struct sockaddr_storage   address;
    socklen_t                 len;
    char                     *path;
    unsigned                  fast_ms;
    unsigned                  slow_ms;
    uint64_t                  since;
    bool                      poked;
    health_ready              ready;
    void                     *arg;
};


/* Ends a question and arms the timer for the next one. */
static void
health_again(struct health *h)
{
    unsigned         ms;
    struct timeval   tv;

    bufferevent_free(h->bev);
    h->bev = NULL;

    ms = clock_ms() - h->since < HEALTH_FAST_FOR ? h->fast_ms : h->slow_ms;

    if (h->poked) {
        h->poked = false;
        ms = 1;
    }

    tv.tv_sec = ms / 1000;
    tv.tv_usec = (suseconds_t) (ms % 1000) * 1000;
    evtimer_add(h->timer, &tv);
}


/* The first line of the answer is there, or not yet. */
static void
health_on_read(struct bufferevent *bev, void *arg)
{
    bool               good;
    char              *line;
    size_t             len;
    void              *ready_arg;
    health_ready       ready;
    struct health     *h = arg;
    struct evbuffer   *input = bufferevent_get_input(bev);

    line = evbuffer_readln(input, &len, EVBUFFER_EOL_CRLF);

    if (line == NULL) {
        if (evbuffer_get_length(input) > HEALTH_LINE_MAX) {
            health_again(h);
        }

        return;
    }

    good = strncmp(line, "HTTP/1.", 7) == 0 && line[7] != '\0'
           && strncmp(line + 8, " 200", 4) == 0;
    free(line);

    if (!good) {
        health_again(h);
        return;
    }

    ready = h->ready;
    ready_arg = h->arg;

    health_free(h);
    ready(ready_arg);
}


/* Refused, closed, timed out. */
static void
health_on_event(struct bufferevent *bev, short what, void *arg)
{
    if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR | BEV_EVENT_TIMEOUT)) {
        health_again(arg);
    }
}


/* Asks. */
static void
health_ask(evutil_socket_t fd, short what, void *arg)
{
    struct health    *h = arg;
    struct timeval    tv = { .tv_sec = HEALTH_PATIENCE, .tv_usec = 0 };

    h->bev = bufferevent_socket_new(h->base, -1, BEV_OPT_CLOSE_ON_FREE
                                    | BEV_OPT_DEFER_CALLBACKS);
    if (h->bev == NULL) {
        evtimer_add(h->timer, &tv);
        return;
    }

    bufferevent_setcb(h->bev, health_on_read, NULL, health_on_event, h);
    bufferevent_set_timeouts(h->bev, &tv, &tv);
    bufferevent_enable(h->bev, EV_READ | EV_WRITE);

    evbuffer_add_printf(bufferevent_get_output(h->bev),
                        "GET %s HTTP/1.1\r\nHost: localhost\r\n"
                        "Connection: close\r\n\r\n", h->path);

    if (bufferevent_socket_connect(h->bev, (struct sockaddr *) &h->address,
                                   (int) h->len) == -1
        && h->bev != NULL)
    {
        health_again(h);
    }
}


/* Starts. */
struct health *
health_new(struct event_base *base, const struct sockaddr *address,
    socklen_t len, const char *path, unsigned fast_ms, unsigned slow_ms,
    health_ready ready, void *arg)
{
    struct health    *h;
    struct timeval    tv = { .tv_sec = 0, .tv_usec = 1000 };

    h = text_alloc(sizeof(*h));
    h->base = base;
    memcpy(&h->address, address, len);
    h->len = len;
    h->path = text_dup(path);
    h->fast_ms = fast_ms;
    h->slow_ms = slow_ms;
    h->since = clock_ms();
    h->ready = ready;
    h->arg = arg;
    h->timer = evtimer_new(base, health_ask, h);
    evtimer_add(h->timer, &tv);

    return h;
}


/* Asks now, or as soon as the present question is answered. */
void
health_poke(struct health *h)
{
    struct timeval  tv = { .tv_sec = 0, .tv_usec = 0 };

    if (h->bev != NULL) {
        h->poked = true;

    } else {
        evtimer_add(h->timer, &tv);
    }
}


/* Stops asking. */
void
health_free(struct health *h)
{
    if (h == NULL) {
        return;
    }

    if (h->bev != NULL) {
        bufferevent_free(h->bev);
    }

    event_free(h->timer);
    free(h->path);
    free(h);
}
