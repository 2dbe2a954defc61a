/*
 * Whole small files; see file.h.
 */

#define _GNU_SOURCE

#include "file.h"
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>


/* Opens for reading if it is a regular file; never waits for a FIFO. */
static int
file_open(const char *path, struct stat *sb)
{
    int  fd, err;

    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd == -1) {
        return -1;
    }

    if (fstat(fd, sb) == -1) {
        err = errno;

    } else if (!S_ISREG(sb->st_mode)) {
        err = S_ISDIR(sb->st_mode) ? EISDIR : EINVAL;

    } else {
        return fd;
    }

    close(fd);
    errno = err;
    return -1;
}


/* Reads until len bytes or the end; -1 with errno. */
static ssize_t
file_fill(int fd, char *buf, size_t len)
{
    size_t   got;
    ssize_t  n;

    for (got = 0; got < len; got += (size_t) n) {
        n = read(fd, buf + got, len - got);

        if (n == -1) {
            if (errno == EINTR) {
                n = 0;
                continue;
            }

            return -1;
        }

        if (n == 0) {
            break;
        }
    }

    return (ssize_t) got;
}


/* Reads a file. */
char *
file_read(const char *path, size_t limit, size_t *len)
{
    int           fd, err;
    char         *data;
    ssize_t       n;
    struct stat   sb;

    fd = file_open(path, &sb);
    if (fd == -1) {
        return NULL;
    }

    if (sb.st_size < 0 || (size_t) sb.st_size > limit) {
        close(fd);
        errno = EFBIG;
        return NULL;
    }

    data = text_alloc((size_t) sb.st_size + 1);
    n = file_fill(fd, data, (size_t) sb.st_size);
    err = errno;
    close(fd);

    if (n == -1) {
        free(data);
        errno = err;
        return NULL;
    }

    data[n] = '\0';
    *len = (size_t) n;

    return data;
}


/* Writes all of it; -1 with errno. */
static int
file_put(int fd, const char *data, size_t len)
{
    ssize_t  n;

    while (len > 0) {
        n = write(fd, data, len);

        if (n == -1) {
            if (errno == EINTR) {
                continue;
            }

            return -1;
        }

        data += n;
        len -= (size_t) n;
    }

    return 0;
}


/* Makes the rename itself survive a power cut; its failure harms nobody. */
static void
file_sync_parent(const char *path)
{
    int    fd;
    char  *dir, *slash;

    dir = text_dup(path);
    slash = strrchr(dir, '/');

    if (slash != NULL && slash != dir) {
        *slash = '\0';
        fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        if (fd != -1) {
            (void) fsync(fd);
            close(fd);
        }
    }

    free(dir);
}


/* Writes a file. */
int
file_write(const char *path, const char *data, size_t len, mode_t mode)
{
    int    fd, err;
    char  *temp;

    temp = text_format("%s.XXXXXX", path);

    fd = mkostemp(temp, O_CLOEXEC);
    if (fd == -1) {
        err = errno;
        free(temp);
        errno = err;
        return -1;
    }

    if (file_put(fd, data, len) == -1 || fchmod(fd, mode) == -1
        || fsync(fd) == -1)
    {
        err = errno;
        close(fd);
        goto failed;
    }

    if (close(fd) == -1 || rename(temp, path) == -1) {
        err = errno;
        goto failed;
    }

    file_sync_parent(path);
    free(temp);

    return 0;

failed:

    unlink(temp);
    free(temp);
    errno = err;
    return -1;
}


/* Writes JSON as people like to read it. */
int
file_write_json(const char *path, const json_t *value, mode_t mode)
{
    int    rc, err;
    char  *data;

    data = json_dumps(value, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    if (data == NULL) {
        errno = ENOMEM;
        return -1;
    }

    rc = file_write(path, data, strlen(data), mode);
    err = errno;
    free(data);
    errno = err;

    return rc;
}


/* Tests by opening, so that ACLs and capabilities count too. */
bool
file_readable(const char *path, off_t *size)
{
    int          fd;
    struct stat  sb;

    fd = file_open(path, &sb);
    if (fd == -1) {
        return false;
    }

    close(fd);

    if (size != NULL) {
        *size = sb.st_size;
    }

    return true;
}


/* Tests for a program. */
bool
file_executable(const char *path)
{
    struct stat  sb;

    return stat(path, &sb) == 0 && S_ISREG(sb.st_mode)
           && access(path, X_OK) == 0;
}


/* Looks at the first four bytes. */
bool
file_is_gguf(const char *path)
{
    int          fd;
    char         magic[4];
    ssize_t      n;
    struct stat  sb;

    fd = file_open(path, &sb);
    if (fd == -1) {
        return false;
    }

    n = file_fill(fd, magic, sizeof(magic));
    close(fd);

    return n == (ssize_t) sizeof(magic) && memcmp(magic, "GGUF", 4) == 0;
}
