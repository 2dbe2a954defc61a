/*
 * The pages that our nginx serves.  Where its workers cannot read our own,
 * as in a clone below /root, they get a copy in the run dir.
 */

#define _GNU_SOURCE

#include "helper.h"
#include "paths.h"
#include "reach.h"
#include "text.h"
#include "webserver.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>


#define HTML_DEPTH_MAX  16


/* Opens a folder for a walk, which closes it; NULL with errno. */
static DIR *
html_open(int parent, const char *name, int flags)
{
    int   fd, err;
    DIR  *d;

    fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | flags);
    if (fd == -1) {
        return NULL;
    }

    d = fdopendir(fd);

    if (d == NULL) {
        err = errno;
        close(fd);
        errno = err;
    }

    return d;
}


/* The next entry that is not the folder itself or its parent. */
static struct dirent *
html_next(DIR *d)
{
    struct dirent  *entry;

    do {
        errno = 0;
        entry = readdir(d);

    } while (entry != NULL && (strcmp(entry->d_name, ".") == 0
                               || strcmp(entry->d_name, "..") == 0));

    return entry;
}


/* May the workers read this folder and all that is in it? */
static bool
html_readable(const struct reach *who, const char *path, unsigned depth)
{
    DIR            *d;
    bool            good;
    char           *child;
    struct stat     sb;
    struct dirent  *entry;

    if (stat(path, &sb) == -1
        || !reach_path(who, path, S_ISDIR(sb.st_mode) ? R_OK | X_OK : R_OK,
                       NULL, 0))
    {
        return false;
    }

    if (!S_ISDIR(sb.st_mode) || depth == HTML_DEPTH_MAX) {
        return true;
    }

    d = html_open(AT_FDCWD, path, 0);
    if (d == NULL) {
        return false;
    }

    good = true;

    while (good && (entry = html_next(d)) != NULL) {
        child = paths_join(path, entry->d_name);
        good = html_readable(who, child, depth + 1);
        free(child);
    }

    closedir(d);

    return good;
}


/* Copies what one file holds, and its time, which browsers compare. */
static int
html_copy_data(int from, int to, const struct stat *sb)
{
    char             buf[16384], *p;
    ssize_t          n, written;
    struct timespec  times[2] = { sb->st_atim, sb->st_mtim };

    while ((n = read(from, buf, sizeof(buf))) > 0) {

        for (p = buf; n > 0; p += written, n -= written) {
            written = write(to, p, (size_t) n);

            if (written == -1) {
                return -1;
            }
        }
    }

    return n == -1 ? -1 : futimens(to, times);
}


/* Gives an open file or folder to the workers' group. */
static int
html_share(int fd, mode_t mode)
{
    return fchown(fd, (uid_t) -1, helper.nginx_group) == -1
           ? -1 : fchmod(fd, mode);
}


/* Copies one file into a folder. */
static int
html_copy_file(int from, const struct stat *sb, int dir, const char *name)
{
    int  to, rc, err;

    to = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (to == -1) {
        return -1;
    }

    rc = html_copy_data(from, to, sb);

    if (rc == 0) {
        rc = html_share(to, 0640);
    }

    err = errno;
    close(to);
    errno = err;

    return rc;
}


static int html_copy_folder(DIR *from, int dir, const char *name,
    unsigned depth);


/* Copies one entry; what is no file and no folder is left out. */
static int
html_copy_entry(int from_dir, const char *name, int to_dir, unsigned depth)
{
    int           fd, rc;
    DIR          *d;
    struct stat   sb;

    if (fstatat(from_dir, name, &sb, AT_SYMLINK_NOFOLLOW) == -1) {
        return -1;
    }

    if (S_ISDIR(sb.st_mode)) {
        if (depth == HTML_DEPTH_MAX) {
            errno = ELOOP;
            return -1;
        }

        d = html_open(from_dir, name, O_NOFOLLOW);

        return d != NULL ? html_copy_folder(d, to_dir, name, depth + 1) : -1;
    }

    if (!S_ISREG(sb.st_mode)) {
        return 0;
    }

    fd = openat(from_dir, name,
                O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd == -1) {
        return -1;
    }

    rc = html_copy_file(fd, &sb, to_dir, name);
    close(fd);

    return rc;
}


/* Copies a folder, and closes it. */
static int
html_copy_folder(DIR *from, int dir, const char *name, unsigned depth)
{
    int             to, rc, err;
    struct dirent  *entry;

    rc = -1;
    to = mkdirat(dir, name, 0700) == 0
         ? openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
         : -1;

    if (to != -1) {
        rc = html_share(to, 0750);

        while (rc == 0 && (entry = html_next(from)) != NULL) {
            rc = html_copy_entry(dirfd(from), entry->d_name, to, depth);
        }
    }

    err = errno;
    closedir(from);

    if (to != -1) {
        close(to);
    }

    errno = err;

    return rc;
}


/* Removes a file, or a folder with all that is in it. */
static void
html_remove_entry(int dir, const char *name, unsigned depth)
{
    DIR            *d;
    struct dirent  *entry;

    if (unlinkat(dir, name, 0) == 0 || errno != EISDIR
        || depth == HTML_DEPTH_MAX + 1)
    {
        return;
    }

    d = html_open(dir, name, O_NOFOLLOW);

    if (d != NULL) {
        while ((entry = html_next(d)) != NULL) {
            html_remove_entry(dirfd(d), entry->d_name, depth + 1);
        }

        closedir(d);
    }

    unlinkat(dir, name, AT_REMOVEDIR);
}


/* Removes the copy. */
void
webserver_remove_html(const char *dir)
{
    char  *copy;

    copy = paths_join(dir, "html");
    html_remove_entry(AT_FDCWD, copy, 0);
    free(copy);
}


/* Copies our pages; NULL after a line on stderr. */
static char *
html_copy(const char *source, const char *dir)
{
    DIR   *from;
    char  *copy;

    copy = paths_join(dir, "html");
    from = html_open(AT_FDCWD, source, 0);

    if (from == NULL
        || html_copy_folder(from, AT_FDCWD, copy, 0) == -1)
    {
        fprintf(stderr, "lemonade-helper: %s cannot be copied to %s: %s\n",
                source, copy, strerror(errno));
        free(copy);
        return NULL;
    }

    return copy;
}


/* Decides which pages are served. */
char *
webserver_html(const char *dir)
{
    char          *html, *copy;
    struct reach  *who;

    webserver_remove_html(dir);

    html = paths_share("html");
    who = helper.nginx_user != NULL
          ? reach_new(helper.nginx_user, helper.nginx_group) : NULL;

    if (who == NULL || html_readable(who, html, 0)) {
        reach_free(who);
        return html;
    }

    reach_free(who);
    copy = html_copy(html, dir);
    free(html);

    return copy;
}


/* Sees that the workers get through to the run dir. */
bool
webserver_reachable(void)
{
    bool           good;
    char           blocker[4096];
    struct stat    sb;
    struct reach  *who;

    who = helper.nginx_user != NULL
          ? reach_new(helper.nginx_user, helper.nginx_group) : NULL;

    good = who == NULL || reach_path(who, helper.run_dir, X_OK, blocker,
                                     sizeof(blocker));
    reach_free(who);

    if (!good) {
        fprintf(stderr, "lemonade-helper: nginx's workers run as %s, who "
                "cannot enter %s (mode %04o) on the way to the run dir %s; "
                "set LEMONADE_RUN_DIR to a folder elsewhere\n",
                helper.nginx_user, blocker,
                stat(blocker, &sb) == 0 ? sb.st_mode & 07777 : 0,
                helper.run_dir);
    }

    return good;
}
