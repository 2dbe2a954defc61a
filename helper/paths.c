/*
 * Where things are.  Used by the helper and by lemonade-cli, so nothing here
 * needs another file of the helper.
 */

#define _GNU_SOURCE

#include "paths.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>


#define PATHS_RUN      "/run/lemonade"
#define PATHS_SHARE    LEMONADE_PREFIX "/share/lemonade"
#define PATHS_MODULE   "ngx_http_lemonade_module.so"
#define PATHS_MODULES  "/usr/lib/nginx/modules/"


/* Value of a variable, or NULL when it is unset or empty. */
static const char *
variable_get(const char *name)
{
    const char  *value;

    value = getenv(name);

    return (value != NULL && value[0] != '\0') ? value : NULL;
}


/* "dir/name", malloc'ed. */
char *
paths_join(const char *dir, const char *name)
{
    char    *path;
    size_t   dir_len, name_len;

    dir_len = strlen(dir);
    name_len = strlen(name);

    while (dir_len > 0 && dir[dir_len - 1] == '/') {
        dir_len--;
    }

    path = malloc(dir_len + 1 + name_len + 1);
    if (path == NULL) {
        return NULL;
    }

    memcpy(path, dir, dir_len);
    path[dir_len] = '/';
    memcpy(path + dir_len + 1, name, name_len + 1);

    return path;
}


/* A copy that is absolute and does not end in a slash. */
static char *
path_absolute(const char *path)
{
    char    *copy, cwd[PATH_MAX];
    size_t   len;

    if (path[0] == '/') {
        copy = strdup(path);

    } else {
        if (getcwd(cwd, sizeof(cwd)) == NULL) {
            return NULL;
        }

        copy = paths_join(cwd, path);
    }

    if (copy != NULL) {
        len = strlen(copy);

        while (len > 1 && copy[len - 1] == '/') {
            copy[--len] = '\0';
        }
    }

    return copy;
}


/* Makes one folder; one that is there already is no error. */
static int
folder_make(const char *path)
{
    int          saved;
    struct stat  sb;

    if (mkdir(path, 0700) == 0) {
        return 0;
    }

    saved = errno;

    if (stat(path, &sb) == 0) {
        if (S_ISDIR(sb.st_mode)) {
            return 0;
        }

        saved = ENOTDIR;
    }

    errno = saved;

    return -1;
}


/* mkdir -p with mode 0700 for what is made; -1 with errno. */
int
paths_mkdirs(const char *path)
{
    int    rc;
    char  *copy, *p;

    copy = strdup(path);
    if (copy == NULL) {
        return -1;
    }

    for (p = copy; *p == '/'; p++) { /* void */ }

    rc = 0;

    for ( ;; ) {
        p = strchrnul(p, '/');

        if (*p == '\0') {
            break;
        }

        *p = '\0';
        rc = folder_make(copy);
        *p = '/';

        if (rc == -1) {
            goto done;
        }

        while (*p == '/') {
            p++;
        }

        if (*p == '\0') {
            goto done;
        }
    }

    rc = folder_make(copy);

done:

    free(copy);

    return rc;
}


/* Makes one folder of ours or takes it over; the open folder or -1. */
int
paths_own_folder(const char *path, mode_t mode, gid_t group)
{
    int          fd, saved;
    struct stat  sb;

    if (mkdir(path, 0700) == -1 && errno != EEXIST) {
        return -1;
    }

    fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd == -1) {
        return -1;
    }

    if (fstat(fd, &sb) == -1) {
        goto failed;
    }

    if (sb.st_uid != geteuid()) {
        errno = EPERM;
        goto failed;
    }

    if ((group != (gid_t) -1 && fchown(fd, (uid_t) -1, group) == -1)
        || fchmod(fd, mode) == -1)
    {
        goto failed;
    }

    return fd;

failed:

    saved = errno;
    close(fd);
    errno = saved;

    return -1;
}


/*
 * Takes other people's right to write in a folder that is ours; the rest of
 * the mode is the administrator's or systemd's decision.  Root does not
 * touch what is for everybody, as /tmp is.
 */
static int
private_folder_close(int fd, const struct stat *sb)
{
    if ((sb->st_mode & 0022) == 0) {
        return 0;
    }

    if (geteuid() == 0 && (sb->st_mode & S_ISVTX) != 0) {
        errno = EPERM;
        return -1;
    }

    return fchmod(fd, sb->st_mode & 07755);
}


/* Makes the folder unless it is there and checks that it is ours alone. */
static int
private_folder_make(const char *path)
{
    int          fd, rc;
    struct stat  sb;

    if (lstat(path, &sb) == -1) {
        if (errno != ENOENT || paths_mkdirs(path) == -1) {
            return -1;
        }

    } else if (S_ISLNK(sb.st_mode)) {
        errno = EPERM;
        return -1;
    }

    fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd == -1) {
        if (errno == ELOOP || errno == EACCES) {
            errno = EPERM;
        }

        return -1;
    }

    rc = fstat(fd, &sb);

    if (rc == 0 && sb.st_uid != geteuid()) {
        errno = EPERM;
        rc = -1;
    }

    if (rc == 0) {
        rc = private_folder_close(fd, &sb);
    }

    close(fd);

    return rc;
}


/*
 * Looks whether a folder can be a client's run dir.  Somebody who can write
 * in another's run dir could put a socket of his own there.
 */
static int
client_folder_check(const char *path)
{
    struct stat  sb;

    if (lstat(path, &sb) == -1) {
        return errno == ENOENT ? 0 : -1;
    }

    if (!S_ISDIR(sb.st_mode)) {
        errno = S_ISLNK(sb.st_mode) ? EPERM : ENOTDIR;
        return -1;
    }

    if (sb.st_uid == geteuid()) {
        return private_folder_make(path);
    }

    if ((sb.st_mode & 0022) != 0
        || (variable_get("LEMONADE_RUN_DIR") == NULL
            && strcmp(path, PATHS_RUN) != 0))
    {
        errno = EPERM;
        return -1;
    }

    return 0;
}


/* The run dir by the variables, not made yet. */
static char *
run_dir_name(void)
{
    char         name[64];
    const char  *value;

    value = variable_get("LEMONADE_RUN_DIR");
    if (value != NULL) {
        return path_absolute(value);
    }

    /* not root's own: nginx's workers, who are not root, must get there */

    if (geteuid() == 0) {
        return strdup(PATHS_RUN);
    }

    value = variable_get("XDG_RUNTIME_DIR");
    if (value != NULL && value[0] == '/') {
        return paths_join(value, "lemonade");
    }

    snprintf(name, sizeof(name), "/tmp/lemonade-%lu",
             (unsigned long) geteuid());

    return strdup(name);
}


/* The run dir; NULL with errno. */
char *
paths_run_dir(bool serving)
{
    int    rc, saved;
    char  *path;

    path = run_dir_name();
    if (path == NULL) {
        return NULL;
    }

    rc = serving ? private_folder_make(path) : client_folder_check(path);

    if (rc == -1) {
        saved = errno;
        free(path);
        errno = saved;
        return NULL;
    }

    return path;
}


/* The cache dir, made if it is not there; NULL with errno. */
char *
paths_cache_dir(void)
{
    int             saved;
    char           *path;
    const char     *value;
    struct passwd  *pw;

    value = variable_get("LEMONADE_CACHE_DIR");

    if (value != NULL) {
        path = path_absolute(value);

    } else {
        value = variable_get("HOME");

        if (value == NULL || value[0] != '/') {
            pw = getpwuid(geteuid());
            value = (pw != NULL) ? pw->pw_dir : NULL;
        }

        if (value == NULL || value[0] != '/') {
            errno = ENOENT;
            return NULL;
        }

        path = paths_join(value, ".cache/lemonade");
    }

    if (path != NULL && paths_mkdirs(path) == -1) {
        saved = errno;
        free(path);
        errno = saved;
        return NULL;
    }

    return path;
}


/* Path of name in the folder of the running executable, malloc'ed. */
static char *
path_beside(const char *name)
{
    char      exe[PATH_MAX], *slash;
    ssize_t   len;

    len = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    if (len <= 0) {
        return NULL;
    }

    exe[len] = '\0';

    slash = strrchr(exe, '/');
    if (slash == NULL) {
        return NULL;
    }

    *slash = '\0';

    return paths_join(exe, name);
}


/* Returns path if it is there for us to read, else frees it and NULL. */
static char *
path_if_readable(char *path)
{
    if (path != NULL && access(path, R_OK) == -1) {
        free(path);
        path = NULL;
    }

    return path;
}


/* A file or folder of our data. */
char *
paths_share(const char *name)
{
    char        *dir, *path;
    const char  *value;

    value = variable_get("LEMONADE_SHARE_DIR");

    if (value != NULL) {
        dir = path_absolute(value);

    } else {
        dir = path_if_readable(path_beside("share"));

        if (dir == NULL) {
            dir = path_if_readable(path_beside("../share/lemonade"));
        }

        if (dir == NULL) {
            dir = strdup(PATHS_SHARE);
        }
    }

    if (dir == NULL) {
        return NULL;
    }

    path = paths_join(dir, name);
    free(dir);

    return path;
}


/* True for a regular file that we may execute. */
static bool
is_program(const char *path)
{
    struct stat  sb;

    return stat(path, &sb) == 0 && S_ISREG(sb.st_mode)
           && access(path, X_OK) == 0;
}


/* Returns path if it is a program, else frees it and returns NULL. */
static char *
path_if_program(char *path)
{
    if (path != NULL && !is_program(path)) {
        free(path);
        path = NULL;
    }

    return path;
}


/* The first executable of that name in PATH, else in /usr/sbin, or NULL. */
char *
paths_search(const char *name)
{
    char        *path, *dirs, *dir, *rest;
    const char  *value;

    if (name[0] == '\0' || strchr(name, '/') != NULL) {
        return NULL;
    }

    value = variable_get("PATH");

    rest = dirs = strdup(value != NULL ? value : "/usr/bin:/bin");
    if (dirs == NULL) {
        return NULL;
    }

    path = NULL;

    while (path == NULL && (dir = strsep(&rest, ":")) != NULL) {

        /* Not what happens to lie in the current folder. */

        if (dir[0] == '/') {
            path = path_if_program(paths_join(dir, name));
        }
    }

    free(dirs);

    if (path == NULL) {
        path = path_if_program(paths_join("/usr/sbin", name));
    }

    return path;
}


/* One of our own programs or NULL. */
char *
paths_program(const char *name)
{
    char  *path, sbin[64];

    path = path_if_program(path_beside(name));

    if (path == NULL) {
        snprintf(sbin, sizeof(sbin), "../sbin/%s", name);
        path = path_if_program(path_beside(sbin));
    }

    if (path == NULL) {
        path = paths_search(name);
    }

    return path;
}


/* The nginx module, or NULL. */
char *
paths_module(void)
{
    char        *path;
    const char  *value;

    value = variable_get("LEMONADE_NGINX_MODULE");

    if (value != NULL) {
        return path_if_readable(path_absolute(value));
    }

    path = path_if_readable(path_beside(PATHS_MODULE));

    if (path == NULL) {
        path = path_if_readable(path_beside("../lib/nginx/modules/"
                                            PATHS_MODULE));
    }

    if (path == NULL) {
        path = path_if_readable(strdup(PATHS_MODULES PATHS_MODULE));
    }

    return path;
}
