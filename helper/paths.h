/*
 * Where things are: run dir, cache dir, shared data, our own programs.
 * Used by the helper and by lemonade-cli.  All strings are malloc'ed.
 */

#ifndef LEMONADE_PATHS_H
#define LEMONADE_PATHS_H

#include <stdbool.h>
#include <sys/types.h>


/*
 * The run dir: LEMONADE_RUN_DIR > /run/lemonade (root) >
 * $XDG_RUNTIME_DIR/lemonade > /tmp/lemonade-UID.  NULL with errno; EPERM
 * when the folder is a symbolic link or belongs to somebody else.
 *
 * serving: it is made if it is not there (0700), and has to be ours.  One
 * that is there keeps its mode, but others lose the right to write in it.
 * EPERM as well for root in a folder like /tmp, which is for everybody.
 *
 * Not serving: it is not made, and need not be there.  It may be somebody
 * else's if it is named by LEMONADE_RUN_DIR or is /run/lemonade, and only
 * its owner can write in it: the system's helper, asked by an administrator
 * or by a member of its group.
 */
char *paths_run_dir(bool serving);

/* LEMONADE_CACHE_DIR > ~/.cache/lemonade, made if it is not there. */
char *paths_cache_dir(void);

/*
 * A file or folder of our data ("registry/server_models.json"), below
 * LEMONADE_SHARE_DIR > "share" or "../share/lemonade" beside the running
 * executable > PREFIX/share/lemonade.  NULL only for want of memory: whether
 * the file is there is found by opening it.
 */
char *paths_share(const char *name);

/*
 * One of our own programs or NULL: beside the running executable, else in
 * ../sbin from there, else in PATH.  name is short and has no slash.
 */
char *paths_program(const char *name);

/*
 * The nginx module or NULL: LEMONADE_NGINX_MODULE, else beside the running
 * executable, in ../lib/nginx/modules from there, in /usr/lib/nginx/modules.
 */
char *paths_module(void);

/*
 * The first executable of that name in PATH (relative entries do not count),
 * else in /usr/sbin, or NULL.  A name with a slash is never found.
 */
char *paths_search(const char *name);

/* "dir/name", malloc'ed. */
char *paths_join(const char *dir, const char *name);

/*
 * Makes a folder, in one that is there, unless it is there, and gives it
 * this mode and group ((gid_t) -1: it keeps its own).  Returns it open, or
 * -1 with errno: EPERM when it is somebody else's, ENOTDIR when it is a
 * symbolic link.
 */
int paths_own_folder(const char *path, mode_t mode, gid_t group);

/* mkdir -p with mode 0700 for what is made; -1 with errno. */
int paths_mkdirs(const char *path);


#endif /* LEMONADE_PATHS_H */
