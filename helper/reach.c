/*
 * What another user may open; see reach.h.
 */

#define _GNU_SOURCE

#include "reach.h"
#include "text.h"

#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>


#define REACH_GROUPS    64
#define REACH_LINKS     40      /* as many as Linux follows */


struct reach {
    uid_t   uid;
    int     count;
    gid_t   groups[REACH_GROUPS];
};


/* A path on the way: what is done has no link in it. */
struct reach_way {
    char      done[PATH_MAX];
    char      rest[PATH_MAX];
    unsigned  links;
};


/* Looks a user up. */
struct reach *
reach_new(const char *user, gid_t gid)
{
    struct reach   *who;
    struct passwd  *pw;

    pw = getpwnam(user);
    if (pw == NULL) {
        return NULL;
    }

    who = text_alloc(sizeof(*who));
    who->uid = pw->pw_uid;
    who->count = REACH_GROUPS;

    if (getgrouplist(user, gid, who->groups, &who->count) == -1) {
        who->count = REACH_GROUPS;      /* more than fit: the first ones */
    }

    return who;
}


/* Frees a user. */
void
reach_free(struct reach *who)
{
    free(who);
}


/* Do owner, group and mode let the user? */
static bool
reach_allowed(const struct reach *who, const struct stat *sb, int want)
{
    int       i;
    unsigned  bits;

    if (who->uid == 0) {
        return true;
    }

    bits = sb->st_mode & 7;

    for (i = 0; i < who->count; i++) {
        if (sb->st_gid == who->groups[i]) {
            bits = sb->st_mode >> 3 & 7;
        }
    }

    if (sb->st_uid == who->uid) {
        bits = sb->st_mode >> 6 & 7;
    }

    return (bits & (unsigned) want) == (unsigned) want;
}


/* Puts a link's target before the rest of the way. */
static bool
reach_follow(struct reach_way *way, const char *link)
{
    int      n;
    char     target[PATH_MAX], rest[PATH_MAX];
    ssize_t  len;

    len = readlink(link, target, sizeof(target) - 1);

    if (len <= 0 || ++way->links > REACH_LINKS) {
        return false;
    }

    target[len] = '\0';
    text_copy(rest, sizeof(rest), way->rest);
    n = snprintf(way->rest, sizeof(way->rest), "%s/%s", target, rest);

    if (target[0] == '/') {
        way->done[0] = '\0';
    }

    return n >= 0 && n < (int) sizeof(way->rest);
}


/* Takes the next name off the rest; false: there is none. */
static bool
reach_name(struct reach_way *way, char *name, size_t size)
{
    size_t       len;
    const char  *p;

    p = way->rest + strspn(way->rest, "/");
    len = strcspn(p, "/");

    if (len == 0 || len >= size) {
        return false;
    }

    memcpy(name, p, len);
    name[len] = '\0';
    memmove(way->rest, p + len, strlen(p + len) + 1);

    return true;
}


/* Goes one name further; false: something is in the way. */
static bool
reach_step(const struct reach *who, struct reach_way *way, const char *name)
{
    int           n;
    char          next[PATH_MAX], *slash;
    struct stat   sb;

    if (stat(way->done[0] != '\0' ? way->done : "/", &sb) == -1
        || !reach_allowed(who, &sb, X_OK))
    {
        return false;
    }

    if (strcmp(name, ".") == 0) {
        return true;
    }

    if (strcmp(name, "..") == 0) {
        slash = strrchr(way->done, '/');

        if (slash != NULL) {
            *slash = '\0';
        }

        return true;
    }

    n = snprintf(next, sizeof(next), "%s/%s", way->done, name);

    if (n < 0 || n >= (int) sizeof(next) || lstat(next, &sb) == -1) {
        return false;
    }

    if (S_ISLNK(sb.st_mode)) {
        return reach_follow(way, next);
    }

    text_copy(way->done, sizeof(way->done), next);

    return true;
}


/* Walks the path as the kernel would. */
bool
reach_path(const struct reach *who, const char *path, int want,
    char *blocker, size_t size)
{
    bool              good;
    char              name[NAME_MAX + 1];
    struct stat       sb;
    struct reach_way  way;

    memset(&way, 0, sizeof(way));
    text_copy(way.rest, sizeof(way.rest), path);

    good = path[0] == '/' && strlen(path) < sizeof(way.rest);

    while (good && reach_name(&way, name, sizeof(name))) {
        good = reach_step(who, &way, name);
    }

    if (way.done[0] == '\0') {
        text_copy(way.done, sizeof(way.done), "/");
    }

    good = good && way.rest[strspn(way.rest, "/")] == '\0'
           && stat(way.done, &sb) == 0 && reach_allowed(who, &sb, want);

    if (!good && blocker != NULL) {
        text_copy(blocker, size, way.done);
    }

    return good;
}
