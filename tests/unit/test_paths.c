/*
 * Where things are found and made.
 *
 * link: helper/paths.c
 */

#define _GNU_SOURCE

#include "paths.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>


static int   failed;
static char  top[64];


/* Says what was not as it should be. */
static void __attribute__((format(printf, 1, 2)))
complain(const char *format, ...)
{
    va_list  args;

    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);

    fputc('\n', stderr);
    failed = 1;
}


/* "top/name" in one of a few static buffers. */
static const char *
under(const char *name)
{
    static char      buf[8][PATH_MAX];
    static unsigned  i;

    i = (i + 1) % 8;
    snprintf(buf[i], sizeof(buf[i]), "%s/%s", top, name);

    return buf[i];
}


/* Compares a malloc'ed path and frees it. */
static void
expect(const char *what, char *path, const char *wanted)
{
    if ((path == NULL) != (wanted == NULL)
        || (path != NULL && strcmp(path, wanted) != 0))
    {
        complain("%s: %s, not %s (%s)", what, path != NULL ? path : "NULL",
                 wanted != NULL ? wanted : "NULL", strerror(errno));
    }

    free(path);
}


/* Mode of a file, or 0. */
static unsigned
mode(const char *path)
{
    struct stat  sb;

    return (stat(path, &sb) == 0) ? sb.st_mode & 07777 : 0;
}


/* The run dir in its four places, and the folders it refuses. */
static void
test_run_dir(void)
{
    setenv("LEMONADE_RUN_DIR", under("new/run//"), 1);
    expect("run dir, new", paths_run_dir(true), under("new/run"));

    if (mode(under("new")) != 0700 || mode(under("new/run")) != 0700) {
        complain("the run dir's mode is %o", mode(under("new/run")));
    }

    chmod(under("new/run"), 0750);
    expect("run dir, again", paths_run_dir(true), under("new/run"));

    if (mode(under("new/run")) != 0750) {
        complain("the run dir's mode was changed to %o",
                 mode(under("new/run")));
    }

    if (symlink(under("new/run"), under("link")) == -1) {
        complain("cannot make a symbolic one, %s", strerror(errno));
    }

    setenv("LEMONADE_RUN_DIR", under("link/"), 1);
    errno = 0;
    expect("run dir, a link", paths_run_dir(true), NULL);

    if (errno != EPERM) {
        complain("run dir behind a symlink, %s", strerror(errno));
    }

    close(open(under("file"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    setenv("LEMONADE_RUN_DIR", under("file"), 1);
    expect("run dir, a file", paths_run_dir(true), NULL);

    if (errno != ENOTDIR) {
        complain("run dir, a file: %s", strerror(errno));
    }

    setenv("LEMONADE_RUN_DIR", "", 1);
    setenv("XDG_RUNTIME_DIR", under("xdg"), 1);

    if (geteuid() != 0) {
        expect("run dir, XDG", paths_run_dir(true), under("xdg/lemonade"));

    } else {
        expect("run dir, root", paths_run_dir(false), "/run/lemonade");
    }

    unsetenv("LEMONADE_RUN_DIR");

    if (chdir(top) == 0) {
        setenv("LEMONADE_RUN_DIR", "here", 1);
        expect("run dir, relative", paths_run_dir(true), under("here"));
        unsetenv("LEMONADE_RUN_DIR");
    }
}


/* A client makes nothing, and uses what is there. */
static void
test_client(void)
{
    struct stat  sb;

    setenv("LEMONADE_RUN_DIR", under("client"), 1);
    expect("client, nothing there", paths_run_dir(false), under("client"));

    if (stat(under("client"), &sb) != -1) {
        complain("a client made a run dir");
    }

    expect("helper, nothing there", paths_run_dir(true), under("client"));
    expect("client, own", paths_run_dir(false), under("client"));

    setenv("LEMONADE_RUN_DIR", under("link"), 1);
    errno = 0;
    expect("client, a link", paths_run_dir(false), NULL);

    if (errno != EPERM) {
        complain("client, a link, %s", strerror(errno));
    }

    setenv("LEMONADE_RUN_DIR", under("file"), 1);
    expect("client, a file", paths_run_dir(false), NULL);

    if (errno != ENOTDIR) {
        complain("client, a file: %s", strerror(errno));
    }

    setenv("LEMONADE_RUN_DIR", under("file/below"), 1);
    expect("client, below a file", paths_run_dir(false), NULL);
    unsetenv("LEMONADE_RUN_DIR");
}


/* A client in a run dir of somebody else, of several modes. */
static void
test_foreign(void)
{
    size_t  i;
    static const struct {
        mode_t  mode;
        bool    good;
    } modes[] = {
        { 0750, true }, { 0755, true }, { 0700, true }, { 0711, true },
        { 0770, false }, { 0757, false }, { 01777, false },
    };

    if (geteuid() != 0) {
        return;
    }

    mkdir(under("foreign"), 0700);

    if (chown(under("foreign"), 54321, 54321) == -1) {
        complain("cannot give a folder away: %s", strerror(errno));
    }

    setenv("LEMONADE_RUN_DIR", under("foreign"), 1);

    for (i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        chmod(under("foreign"), modes[i].mode);
        expect("client, foreign", paths_run_dir(false),
               modes[i].good ? under("foreign") : NULL);
        expect("helper, foreign", paths_run_dir(true), NULL);

        if (mode(under("foreign")) != modes[i].mode) {
            complain("a client changed a mode to %o",
                     mode(under("foreign")));
        }
    }

    unsetenv("LEMONADE_RUN_DIR");
}


/* As somebody else: other people's folders, and the one in /tmp. */
static void
test_other_user(void)
{
    char  name[64];

    if (geteuid() != 0) {
        return;
    }

    chmod(top, 0755);
    mkdir(under("root"), 0777);
    mkdir(under("user"), 0700);
    chmod(under("user"), 0777);

    if (chown(under("user"), 54321, 54321) == -1 || seteuid(54321) == -1) {
        complain("cannot become another user: %s", strerror(errno));
        return;
    }

    setenv("LEMONADE_RUN_DIR", under("root"), 1);
    errno = 0;
    expect("run dir of root", paths_run_dir(true), NULL);

    if (errno != EPERM) {
        complain("run dir of root: %s", strerror(errno));
    }

    setenv("LEMONADE_RUN_DIR", under("user"), 1);
    expect("run dir, too open", paths_run_dir(true), under("user"));

    if (mode(under("user")) != 0755) {
        complain("run dir, too open: %o", mode(under("user")));
    }

    setenv("LEMONADE_RUN_DIR", under("forbidden"), 1);
    errno = 0;
    expect("run dir, forbidden", paths_run_dir(true), NULL);

    if (errno != EACCES) {
        complain("run dir, forbidden: %s", strerror(errno));
    }

    unsetenv("LEMONADE_RUN_DIR");
    setenv("XDG_RUNTIME_DIR", under("user"), 1);
    expect("run dir, XDG", paths_run_dir(true), under("user/lemonade"));
    unsetenv("XDG_RUNTIME_DIR");

    snprintf(name, sizeof(name), "/tmp/lemonade-%d", 54321);
    expect("run dir in /tmp", paths_run_dir(true), name);

    if (seteuid(0) == -1 || chown(name, 1, 1) == -1
        || chmod(name, 0755) == -1 || seteuid(54321) == -1)
    {
        complain("cannot give %s away", name);
    }

    errno = 0;
    expect("client, another's in /tmp", paths_run_dir(false), NULL);

    if (errno != EPERM) {
        complain("client, another's in /tmp: %s", strerror(errno));
    }

    if (seteuid(0) == -1) {
        complain("cannot become root again");
    }

    rmdir(name);
}


/* The cache dir. */
static void
test_cache_dir(void)
{
    setenv("LEMONADE_CACHE_DIR", under("cache/a"), 1);
    expect("cache dir", paths_cache_dir(), under("cache/a"));

    unsetenv("LEMONADE_CACHE_DIR");
    setenv("HOME", under("home"), 1);
    expect("cache dir at home", paths_cache_dir(),
           under("home/.cache/lemonade"));
    expect("cache dir, again", paths_cache_dir(),
           under("home/.cache/lemonade"));

    setenv("LEMONADE_CACHE_DIR", under("file/a"), 1);
    expect("cache dir below a file", paths_cache_dir(), NULL);

    if (errno != ENOTDIR) {
        complain("cache dir below a file: %s", strerror(errno));
    }
}


/* Our data: by the variable, else by the place of this program. */
static void
test_share(void)
{
    char     beside[PATH_MAX], wanted[PATH_MAX + 32];
    ssize_t  len;

    setenv("LEMONADE_SHARE_DIR", "/some/where/", 1);
    expect("share", paths_share("a/b"), "/some/where/a/b");
    unsetenv("LEMONADE_SHARE_DIR");

    len = readlink("/proc/self/exe", beside, sizeof(beside) - 1);
    beside[len > 0 ? len : 0] = '\0';
    *strrchr(beside, '/') = '\0';

    snprintf(wanted, sizeof(wanted), "%s/share", beside);

    if (access(wanted, F_OK) == -1) {
        expect("share, installed", paths_share("a"),
               LEMONADE_PREFIX "/share/lemonade/a");

        mkdir(wanted, 0700);
        snprintf(wanted, sizeof(wanted), "%s/share/a", beside);
        expect("share, beside", paths_share("a"), wanted);
        *strrchr(wanted, '/') = '\0';
        rmdir(wanted);
    }
}


/* Programs beside this one, and in PATH. */
static void
test_programs(void)
{
    char     exe[PATH_MAX], path[3 * PATH_MAX];
    ssize_t  len;

    mkdir(under("bin1"), 0700);
    mkdir(under("bin2"), 0700);
    mkdir(under("bin1/prog"), 0700);        /* no program, a folder */
    close(open(under("bin1/data"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    close(open(under("bin2/prog"), O_WRONLY | O_CREAT | O_CLOEXEC, 0700));
    close(open(under("bin2/data"), O_WRONLY | O_CREAT | O_CLOEXEC, 0700));

    snprintf(path, sizeof(path), "%s::.:%s", under("bin1"), under("bin2"));
    setenv("PATH", path, 1);

    expect("search", paths_search("prog"), under("bin2/prog"));
    expect("program", paths_program("prog"), under("bin2/prog"));

    if (geteuid() != 0) {
        expect("search, not executable", paths_search("data"),
               under("bin2/data"));
    }

    expect("search for nothing", paths_search("no-such-program"), NULL);
    expect("search, a path", paths_search("bin2/prog"), NULL);
    expect("search, empty", paths_search(""), NULL);

    if (chdir(under("bin2")) == 0) {
        setenv("PATH", ":.:bin", 1);
        expect("search here", paths_search("prog"), NULL);
    }

    len = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    exe[len > 0 ? len : 0] = '\0';
    expect("program beside", paths_program(strrchr(exe, '/') + 1), exe);
}


/* Joining and making. */
static void
test_folders(void)
{
    expect("join", paths_join("/a/", "b"), "/a/b");
    expect("join with root", paths_join("/", "b"), "/b");

    if (paths_mkdirs(under("x//y/z/")) == -1 || mode(under("x/y/z")) != 0700
        || paths_mkdirs(under("x/y")) == -1 || paths_mkdirs("/") == -1)
    {
        complain("mkdirs: %s", strerror(errno));
    }

    if (paths_mkdirs(under("file")) != -1 || errno != ENOTDIR
        || paths_mkdirs("") != -1)
    {
        complain("mkdirs made a folder of a file");
    }
}


/* Removes one file or empty folder. */
static int
clean(const char *path, const struct stat *sb, int type, struct FTW *ftw)
{
    return remove(path);
}


/* Runs everything in a folder of its own. */
int
main(void)
{
    snprintf(top, sizeof(top), "/tmp/test_paths.XXXXXX");

    if (mkdtemp(top) == NULL) {
        return 1;
    }

    umask(0);
    test_run_dir();
    test_client();
    test_foreign();
    test_cache_dir();
    test_share();
    test_folders();
    test_programs();
    test_other_user();

    nftw(top, clean, 10, FTW_DEPTH | FTW_PHYS);

    return failed;
}
