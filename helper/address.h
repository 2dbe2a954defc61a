/*
 * The addresses nginx listens on, from --host and --port.
 */

#ifndef LEMONADE_ADDRESS_H
#define LEMONADE_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>


/*
 * Resolves the host and sees that nobody else has the port; waits up to
 * wait_ms for one who leaves.  False after a line on stderr.  May block:
 * called before the loop runs.
 */
bool address_check(const char *host, unsigned port, unsigned wait_ms);

/* "listen 127.0.0.1:8000; listen [::1]:8000;", malloc'ed. */
char *address_directives(void);

/* Can other machines reach one of them? */
bool address_public(void);

/* Where a client on this machine reaches it. */
const struct sockaddr *address_probe(socklen_t *len);


#endif /* LEMONADE_ADDRESS_H */
