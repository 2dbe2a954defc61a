/*
 * The list of backends, and what all of them need; see backend.h.
 */

#define _GNU_SOURCE

#include "backend.h"

#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>


static const struct backend *const  backends[] = {
    &backend_llamacpp,
};

#define BACKENDS  (sizeof(backends) / sizeof(backends[0]))


/* Finds a backend. */
const struct backend *
backend_find(const char *recipe)
{
    size_t  i;

    for (i = 0; i < BACKENDS; i++) {
        if (strcmp(backends[i]->recipe, recipe) == 0) {
            return backends[i];
        }
    }

    return NULL;
}


/* Nobody waits for this result. */
static void
backend_warmed(const struct backend_program *program, const char *error,
    void *arg)
{
}


/* Looks for every program. */
void
backend_warm(void)
{
    size_t  i;

    for (i = 0; i < BACKENDS; i++) {
        backends[i]->prepare(false, backend_warmed, NULL);
    }
}


/* Ends everything. */
void
backend_fini(void)
{
    size_t  i;

    for (i = 0; i < BACKENDS; i++) {
        backends[i]->fini();
    }
}


/* May a child see this variable?  entry is NAME=VALUE. */
static bool
backend_passes(const char *entry)
{
    size_t              i, len;
    static const char  *names[] = {
        "PATH=", "HOME=", "LANG=", "TZ=", "TMPDIR=", "USER=",
        "CUDA_VISIBLE_DEVICES=", "HIP_VISIBLE_DEVICES=", "LD_LIBRARY_PATH=",
        "LC_", "XDG_", "GGML_", "OMP_",
    };

    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        len = strlen(names[i]);

        if (strncmp(entry, names[i], len) == 0) {
            return true;
        }
    }

    return false;
}


/* Makes a clean environment; HOME is always in it. */
void
backend_environment(struct words *env)
{
    size_t          i;
    struct passwd  *pw;

    for (i = 0; environ[i] != NULL; i++) {
        if (backend_passes(environ[i])) {
            words_add(env, environ[i]);
        }
    }

    if (getenv("HOME") == NULL) {
        pw = getpwuid(getuid());
        words_addf(env, "HOME=%s", pw != NULL ? pw->pw_dir : "/");
    }

    if (getenv("PATH") == NULL) {
        words_add(env, "PATH=/usr/local/bin:/usr/bin:/bin");
    }
}
