/*
 * What another user may open.
 *
 * link: helper/reach.c helper/text.c
 */

#define _GNU_SOURCE

#include "reach.h"

#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>


/* A user and a group of somebody else than whoever runs the tests. */
#define USER    "daemon"
#define GROUP   54321


/* The tree: what ends in a slash is a folder, what has a target is a link. */
static const struct {
    const char  *name;
    const char  *target;
    unsigned     mode;
} things[] = {
    { "open/", NULL, 0755 },
    { "open/file", NULL, 0644 },
    { "open/secret", NULL, 0600 },
    { "open/listless/", NULL, 0711 },
    { "open/listless/file", NULL, 0604 },
    { "closed/", NULL, 0700 },
    { "closed/open/", NULL, 0755 },
    { "closed/open/file", NULL, 0644 },
    { "group/", NULL, 0750 },
    { "group/file", NULL, 0640 },
    { "notgroup/", NULL, 0707 },
    { "to-open", "open", 0 },
    { "to-closed", "closed/open", 0 },
    { "open/up", "../open/file", 0 },
    { "open/down", "../closed/../open/file", 0 },
    { "loop", "loop", 0 },
    { "dangling", "nothing", 0 },
};


static const struct {
    const char  *path;
    int          want;
    bool         good;
    const char  *blocker;
} cases[] = {
    { "open", R_OK | X_OK, true, NULL },
    { "open/", X_OK, true, NULL },
    { "open//./file", R_OK, true, NULL },
    { "open/file", X_OK, false, "open/file" },
    { "open/secret", R_OK, false, "open/secret" },
    { "open/listless", X_OK, true, NULL },
    { "open/listless", R_OK | X_OK, false, "open/listless" },
    { "open/listless/file", R_OK, true, NULL },
    { "open/nothing", R_OK, false, "open" },
    { "open/file/below", R_OK, false, "open/file" },
    { "closed", X_OK, false, "closed" },
    { "closed/open", R_OK | X_OK, false, "closed" },
    { "closed/open/file", R_OK, false, "closed" },
    { "group/file", R_OK, true, NULL },
    { "notgroup", X_OK, false, "notgroup" },
    { "to-open/file", R_OK, true, NULL },
    { "to-closed/file", R_OK, false, "closed" },
    { "open/up", R_OK, true, NULL },
    { "open/down", R_OK, false, "closed" },
    { "loop", R_OK, false, "" },
    { "dangling", R_OK, false, "" },
};


static int   failed;
static char  top[PATH_MAX];


/* "top/name". */
static const char *
under(const char *name)
{
    static char      buf[4][2 * PATH_MAX];
    static unsigned  i;

    i = (i + 1) % 4;
    snprintf(buf[i], sizeof(buf[i]), "%s%s%s", top, name[0] ? "/" : "", name);

    return buf[i];
}


/* Makes the tree; what is called group is the user's group's. */
static int
make(void)
{
    int          rc;
    size_t       i;
    const char  *path;

    for (i = 0; i < sizeof(things) / sizeof(things[0]); i++) {
        path = under(things[i].name);

        if (things[i].target != NULL) {
            rc = symlink(things[i].target, path);

        } else if (path[strlen(path) - 1] == '/') {
            rc = mkdir(path, 0700);

        } else {
            rc = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

            if (rc != -1) {
                close(rc);
            }
        }

        if (rc != -1 && strstr(things[i].name, "group") != NULL) {
            rc = chown(path, (uid_t) -1, GROUP);
        }

        if (rc != -1 && things[i].target == NULL) {
            rc = chmod(path, things[i].mode);
        }

        if (rc == -1) {
            perror(path);
            return -1;
        }
    }

    return 0;
}


/* All cases. */
static void
test_paths(void)
{
    bool           good;
    char           blocker[PATH_MAX];
    size_t         i;
    struct reach  *who;

    who = reach_new(USER, GROUP);

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        blocker[0] = '\0';
        good = reach_path(who, under(cases[i].path), cases[i].want, blocker,
                          sizeof(blocker));

        if (good != cases[i].good
            || (!good && strcmp(blocker, under(cases[i].blocker)) != 0))
        {
            fprintf(stderr, "%s: %d, %s\n", cases[i].path, good, blocker);
            failed = 1;
        }
    }

    if (!reach_path(who, "/", X_OK, NULL, 0)
        || reach_path(who, "tmp", X_OK, NULL, 0)
        || reach_path(who, "", X_OK, NULL, 0))
    {
        fputs("root, or a relative path\n", stderr);
        failed = 1;
    }

    reach_free(who);
}


/* Users that are special. */
static void
test_users(void)
{
    struct reach  *root;

    root = reach_new("root", 0);

    if (!reach_path(root, under("closed/open/file"), R_OK, NULL, 0)
        || reach_new("no such user", 0) != NULL)
    {
        fputs("root, or nobody at all\n", stderr);
        failed = 1;
    }

    reach_free(root);
}


/* A path longer than any can be. */
static void
test_long(void)
{
    char          *path;
    struct reach  *who;

    who = reach_new(USER, GROUP);
    path = malloc(3 * PATH_MAX);
    memset(path, 'a', 3 * PATH_MAX - 1);
    path[0] = '/';
    path[3 * PATH_MAX - 1] = '\0';

    if (reach_path(who, path, R_OK, NULL, 0)) {
        fputs("a long path\n", stderr);
        failed = 1;
    }

    path[NAME_MAX + 10] = '\0';

    if (reach_path(who, path, R_OK, NULL, 0)) {
        fputs("a long name\n", stderr);
        failed = 1;
    }

    free(path);
    reach_free(who);
}


/* Removes one thing. */
static int
clean(const char *path, const struct stat *sb, int type, struct FTW *ftw)
{
    return remove(path);
}


/* Runs everything in a folder of its own; root alone can give files away. */
int
main(void)
{
    snprintf(top, sizeof(top), "/tmp/test_reach.XXXXXX");

    if (geteuid() != 0) {
        return 0;
    }

    if (mkdtemp(top) == NULL || chmod(top, 0755) == -1 || make() == -1) {
        return 1;
    }

    test_paths();
    test_users();
    test_long();
    nftw(top, clean, 10, FTW_DEPTH | FTW_PHYS);

    return failed;
}
