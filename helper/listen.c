/*
 * A listening Unix socket that appears ready-made under its name.
 */

#define _GNU_SOURCE

#include "listen.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>


/* Makes the socket under the other name. */
static int
socket_bind(int fd, const struct sockaddr_un *address, mode_t mode,
    gid_t group, int backlog)
{
    /* The mode a socket is born with is that of its descriptor. */

    if (fchmod(fd, mode) == -1
        || (unlink(address->sun_path) == -1 && errno != ENOENT)
        || bind(fd, (const struct sockaddr *) address, sizeof(*address)) == -1)
    {
        return -1;
    }

    if ((group != (gid_t) -1
         && lchown(address->sun_path, (uid_t) -1, group) == -1)
        || chmod(address->sun_path, mode) == -1
        || listen(fd, backlog) == -1)
    {
        return -1;
    }

    return 0;
}


/* Listens at path. */
int
listen_unix(struct listen_path *where, const char *path, mode_t mode,
    gid_t group, int backlog)
{
    int                  fd, saved;
    char                *last;
    size_t               len;
    struct stat          sb;
    struct sockaddr_un   other;

    len = strlen(path);

    if (len == 0 || len >= sizeof(other.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }

    memset(where, 0, sizeof(*where));
    where->address.sun_family = AF_UNIX;
    memcpy(where->address.sun_path, path, len);

    other = where->address;
    last = &other.sun_path[len - 1];
    *last = (*last == '~') ? '#' : '~';

    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd == -1) {
        return -1;
    }

    if (socket_bind(fd, &other, mode, group, backlog) == -1
        || lstat(other.sun_path, &sb) == -1
        || rename(other.sun_path, path) == -1)
    {
        saved = errno;
        unlink(other.sun_path);
        close(fd);
        errno = saved;
        return -1;
    }

    where->dev = sb.st_dev;
    where->ino = sb.st_ino;

    return fd;
}


/* Removes the path unless somebody else's socket is there by now. */
void
listen_unlink(const struct listen_path *where)
{
    struct stat  sb;

    if (lstat(where->address.sun_path, &sb) == 0
        && sb.st_dev == where->dev && sb.st_ino == where->ino)
    {
        unlink(where->address.sun_path);
    }
}
