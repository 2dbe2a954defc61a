/*
 * A listening Unix socket that appears ready-made under its name.
 */

#ifndef LEMONADE_LISTEN_H
#define LEMONADE_LISTEN_H

#include <sys/types.h>
#include <sys/un.h>


/* Where the socket is, and which one it is. */
struct listen_path {
    struct sockaddr_un  address;
    dev_t               dev;
    ino_t               ino;
};


/*
 * Listens at path (at most 107 bytes).  The socket is made under another
 * name of the same length in the same folder, gets mode and group ((gid_t)
 * -1: as it falls), and is renamed over path, so that no client ever meets a
 * socket that does not listen.  A non-blocking descriptor, or -1 with errno.
 */
int listen_unix(struct listen_path *where, const char *path, mode_t mode,
    gid_t group, int backlog);

/* Removes the path unless somebody else's socket is there by now. */
void listen_unlink(const struct listen_path *where);


#endif /* LEMONADE_LISTEN_H */
