/*
 * Asks a server "GET PATH" again and again until it says 200.
 */

#ifndef LEMONADE_HEALTH_H
#define LEMONADE_HEALTH_H

#include <sys/socket.h>

#include <event2/event.h>


struct health;

/* Called once, with the first 200; the health is freed after it. */
typedef void (*health_ready)(void *arg);


/*
 * Starts asking: at once, every fast_ms for a second, then every slow_ms.
 * address is a Unix or TCP address; path is copied.
 */
struct health *health_new(struct event_base *base,
    const struct sockaddr *address, socklen_t len, const char *path,
    unsigned fast_ms, unsigned slow_ms, health_ready ready, void *arg);

/* Asks now: somebody said that it is ready. */
void health_poke(struct health *h);

void health_free(struct health *h);


#endif /* LEMONADE_HEALTH_H */
