/*
 * Who listens on a port; see owner.h.
 */

#define _GNU_SOURCE

#include "owner.h"
#include "text.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>


#define OWNER_SOCKETS   16
#define OWNER_LISTEN    0x0a    /* TCP_LISTEN */


/* Inode numbers of sockets whose owner is not known yet. */
struct owner_sockets {
    unsigned long   inode[OWNER_SOCKETS];
    unsigned        count;
};


/* Does a socket bound to this address get what is sent to 127.0.0.1? */
static bool
owner_is_loopback(const char *address)
{
    char    loopback[16];
    size_t  len;

    snprintf(loopback, sizeof(loopback), "%08X",
             (unsigned) htonl(INADDR_LOOPBACK));
    len = strlen(address);

    return strspn(address, "0") == len
           || (len == 8 && strcmp(address, loopback) == 0)
           || (len == 32 && strcmp(address + 24, loopback) == 0);
}


/* Adds the sockets in one of the kernel's lists; false: it is not there. */
static bool
owner_collect(struct owner_sockets *s, const char *path, unsigned port)
{
    char            *line, address[40];
    FILE            *in;
    size_t           room;
    unsigned         p, state;
    unsigned long    inode;

    in = fopen(path, "re");
    if (in == NULL) {
        return false;
    }

    line = NULL;
    room = 0;

    while (getline(&line, &room, in) > 0) {
        if (sscanf(line, " %*d: %32[0-9A-F]:%x %*s %x %*s %*s %*s %*s %*s "
                   "%lu", address, &p, &state, &inode) == 4
            && p == port && state == OWNER_LISTEN
            && owner_is_loopback(address) && s->count < OWNER_SOCKETS)
        {
            s->inode[s->count++] = inode;
        }
    }

    free(line);
    fclose(in);

    return true;
}


/* Takes those out that a process has; false: we may not see it. */
static bool
owner_forget(struct owner_sockets *s, pid_t pid)
{
    DIR            *d;
    char            path[64], link[64];
    ssize_t         n;
    unsigned        i;
    unsigned long   inode;
    struct dirent  *entry;

    snprintf(path, sizeof(path), "/proc/%d/fd", (int) pid);

    d = opendir(path);
    if (d == NULL) {
        return false;
    }

    while ((entry = readdir(d)) != NULL) {
        n = readlinkat(dirfd(d), entry->d_name, link, sizeof(link) - 1);

        if (n <= 0) {
            continue;
        }

        link[n] = '\0';

        if (sscanf(link, "socket:[%lu]", &inode) != 1) {
            continue;
        }

        for (i = 0; i < s->count; i++) {
            if (s->inode[i] == inode) {
                s->inode[i--] = s->inode[--s->count];
            }
        }
    }

    closedir(d);

    return true;
}


/* The same for all processes of a group: a wrapper may have started ours. */
static bool
owner_forget_group(struct owner_sockets *s, pid_t group)
{
    DIR            *d;
    bool            seen;
    long            pid;
    struct dirent  *entry;

    d = opendir("/proc");
    if (d == NULL) {
        return false;
    }

    seen = true;

    while (s->count > 0 && (entry = readdir(d)) != NULL) {
        if (text_number(entry->d_name, 1, INT32_MAX, &pid)
            && getpgid((pid_t) pid) == group)
        {
            seen = owner_forget(s, (pid_t) pid) && seen;
        }
    }

    closedir(d);

    return seen;
}


/* Looks for the sockets, then for their owners. */
bool
owner_is_group(pid_t group, unsigned port)
{
    struct owner_sockets  s = { .count = 0 };

    if (!owner_collect(&s, "/proc/net/tcp", port)) {
        return true;
    }

    (void) owner_collect(&s, "/proc/net/tcp6", port);

    return s.count > 0 && (!owner_forget_group(&s, group) || s.count == 0);
}
