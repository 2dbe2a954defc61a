/*
 * Addresses to listen on; see address.h.
 */

#define _GNU_SOURCE

#include "address.h"
#include "text.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>


#define ADDRESS_MAX  16


static struct sockaddr_storage  addresses[ADDRESS_MAX];
static unsigned                 count;


/* Size of an address. */
static socklen_t
address_length(const struct sockaddr_storage *ss)
{
    return ss->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                     : sizeof(struct sockaddr_in);
}


/*
 * Takes an address, once.  nginx cannot listen on one with a zone
 * (fe80::1%eth0).
 */
static void
address_add(const struct sockaddr *sa, unsigned port)
{
    unsigned                  i;
    struct sockaddr_in       *sin;
    struct sockaddr_in6      *sin6;
    struct sockaddr_storage   ss;

    memset(&ss, 0, sizeof(ss));
    sin = (struct sockaddr_in *) &ss;
    sin6 = (struct sockaddr_in6 *) &ss;

    if (sa->sa_family == AF_INET) {
        memcpy(&ss, sa, sizeof(*sin));
        sin->sin_port = htons((uint16_t) port);

    } else if (sa->sa_family == AF_INET6) {
        memcpy(&ss, sa, sizeof(*sin6));
        sin6->sin6_port = htons((uint16_t) port);

        if (sin6->sin6_scope_id != 0) {
            return;
        }

    } else {
        return;
    }

    for (i = 0; i < count; i++) {
        if (memcmp(&addresses[i], &ss, sizeof(ss)) == 0) {
            return;
        }
    }

    if (count < ADDRESS_MAX) {
        addresses[count++] = ss;
    }
}


/* Takes an address in figures; nothing if it is none. */
static void
address_add_text(const char *text, unsigned port)
{
    struct sockaddr_in    sin = { .sin_family = AF_INET };
    struct sockaddr_in6   sin6 = { .sin6_family = AF_INET6 };

    if (inet_pton(AF_INET, text, &sin.sin_addr) == 1) {
        address_add((struct sockaddr *) &sin, port);

    } else if (inet_pton(AF_INET6, text, &sin6.sin6_addr) == 1) {
        address_add((struct sockaddr *) &sin6, port);
    }
}


/* Takes the addresses of a name. */
static bool
address_resolve(const char *host, unsigned port)
{
    int               rc;
    struct addrinfo   hints, *list, *ai;

    memset(&hints, 0, sizeof(hints));
    hints.ai_socktype = SOCK_STREAM;

    rc = getaddrinfo(host, NULL, &hints, &list);
    if (rc != 0) {
        fprintf(stderr, "lemonade-helper: host \"%s\" cannot be resolved: "
                "%s\n", host, gai_strerror(rc));
        return false;
    }

    for (ai = list; ai != NULL; ai = ai->ai_next) {
        address_add(ai->ai_addr, port);
    }

    freeaddrinfo(list);

    if (count == 0) {
        fprintf(stderr, "lemonade-helper: host \"%s\" has no address that "
                "nginx can listen on; give an IPv4 address, or an IPv6 "
                "address without a zone\n", host);
    }

    return count > 0;
}


/* Binds an address for a moment; 0 or an errno. */
static int
address_try(const struct sockaddr_storage *ss)
{
    int  fd, one, rc;

    fd = socket(ss->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd == -1) {
        return errno;
    }

    one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));

    if (ss->ss_family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    }

    rc = bind(fd, (const struct sockaddr *) ss, address_length(ss)) == -1
         ? errno : 0;

    close(fd);

    return rc;
}


/* Drops IPv6 addresses beside others if this machine has them not. */
static void
address_drop_missing(void)
{
    int       rc;
    unsigned  i;

    for (i = 0; i < count && count > 1; i++) {
        rc = addresses[i].ss_family == AF_INET6 ? address_try(&addresses[i])
                                                : 0;

        if (rc == EADDRNOTAVAIL || rc == EAFNOSUPPORT) {
            addresses[i--] = addresses[--count];
        }
    }
}


/* Says why a port cannot be had. */
static void
address_complain(int error, const char *host, unsigned port)
{
    if (error == EADDRINUSE) {
        fprintf(stderr, "lemonade-helper: port %u is in use by another "
                "program; choose another with --port\n", port);

    } else if (error == EACCES) {
        fprintf(stderr, "lemonade-helper: port %u may only be used by root; "
                "choose one from 1024 with --port\n", port);

    } else {
        fprintf(stderr, "lemonade-helper: cannot listen on %s, port %u: "
                "%s\n", host, port, strerror(error));
    }
}


/* Resolves and looks. */
bool
address_check(const char *host, unsigned port, unsigned wait_ms)
{
    int               rc;
    unsigned          i;
    uint64_t          until;
    struct timespec   ts = { .tv_sec = 0, .tv_nsec = 10000000 };

    count = 0;

    if (strcmp(host, "localhost") == 0) {
        address_add_text("127.0.0.1", port);
        address_add_text("::1", port);

    } else if (strcmp(host, "*") == 0 || strcmp(host, "0.0.0.0") == 0
               || strcmp(host, "::") == 0)
    {
        address_add_text("0.0.0.0", port);
        address_add_text("::", port);

    } else {
        address_add_text(host, port);

        if (count == 0 && !address_resolve(host, port)) {
            return false;
        }
    }

    address_drop_missing();

    until = clock_ms() + wait_ms;

    for (i = 0; i < count; i++) {

        while ((rc = address_try(&addresses[i])) == EADDRINUSE
               && clock_ms() < until)
        {
            nanosleep(&ts, NULL);
        }

        if (rc != 0) {
            address_complain(rc, host, port);
            return false;
        }
    }

    return true;
}


/* Writes them for nginx. */
char *
address_directives(void)
{
    char                        *text, *more, address[INET6_ADDRSTRLEN];
    unsigned                     i;
    const struct sockaddr_in    *sin;
    const struct sockaddr_in6   *sin6;

    text = text_dup("");

    for (i = 0; i < count; i++) {
        sin = (const struct sockaddr_in *) &addresses[i];
        sin6 = (const struct sockaddr_in6 *) &addresses[i];

        if (addresses[i].ss_family == AF_INET) {
            inet_ntop(AF_INET, &sin->sin_addr, address, sizeof(address));
            more = text_format("%slisten %s:%u;\n        ", text, address,
                               ntohs(sin->sin_port));

        } else {
            inet_ntop(AF_INET6, &sin6->sin6_addr, address, sizeof(address));
            more = text_format("%slisten [%s]:%u;\n        ",
                               text, address, ntohs(sin6->sin6_port));
        }

        free(text);
        text = more;
    }

    return text;
}


/* Is any of them not of the loopback? */
bool
address_public(void)
{
    unsigned                    i;
    const struct sockaddr_in   *sin;
    const struct sockaddr_in6  *sin6;

    for (i = 0; i < count; i++) {
        sin = (const struct sockaddr_in *) &addresses[i];
        sin6 = (const struct sockaddr_in6 *) &addresses[i];

        if (addresses[i].ss_family == AF_INET
            ? ntohl(sin->sin_addr.s_addr) >> 24 != IN_LOOPBACKNET
            : !IN6_IS_ADDR_LOOPBACK(&sin6->sin6_addr))
        {
            return true;
        }
    }

    return false;
}


/* The first address, where "any" means loopback. */
const struct sockaddr *
address_probe(socklen_t *len)
{
    static struct sockaddr_storage   ss;
    struct sockaddr_in              *sin = (struct sockaddr_in *) &ss;

    ss = addresses[0];
    *len = address_length(&ss);

    if (ss.ss_family == AF_INET && sin->sin_addr.s_addr == INADDR_ANY) {
        sin->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    }

    return (const struct sockaddr *) &ss;
}
