/*
 * llama-server on this machine: found, installed, asked for its version.
 * See llamacpp_program.h.
 */

#define _GNU_SOURCE

#include "llamacpp_program.h"
#include "file.h"
#include "helper.h"
#include "install.h"
#include "log.h"
#include "paths.h"
#include "runner.h"
#include "text.h"

#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <unistd.h>


#define LLAMACPP_SOCKET_BUILD   10000   /* first build we give a socket */
#define LLAMACPP_PROBE_MS       10000
#define LLAMACPP_INSTALL_LOADS  2       /* load timeouts, to install one */


/* Somebody who waits for the program. */
struct llamacpp_wait {
    TAILQ_ENTRY(llamacpp_wait)   link;
    bool                         install;
    backend_prepared             done;
    void                        *arg;
};


static TAILQ_HEAD(, llamacpp_wait)  waits = TAILQ_HEAD_INITIALIZER(waits);

static struct backend_program   program;
static struct stat              probed;     /* the file program stands for */
static struct runner           *worker;     /* version or install */
static struct event            *later;      /* next step, worker's limit */
static bool                     installed;  /* tried since the last answer */
static bool                     late;       /* the worker was killed for it */
static char                     problem[512];


static void llamacpp_step(evutil_socket_t fd, short what, void *arg);


/* Goes on from the loop. */
static void
llamacpp_soon(void)
{
    struct timeval  tv = { .tv_sec = 0, .tv_usec = 0 };

    if (later == NULL) {
        later = evtimer_new(helper.base, llamacpp_step, NULL);
    }

    evtimer_add(later, &tv);
}


/* Answers all who wait, or only those who would not install. */
static void
llamacpp_answer(const struct backend_program *p, const char *error, bool all)
{
    struct llamacpp_wait  *w, *next;

    for (w = TAILQ_FIRST(&waits); w != NULL; w = next) {
        next = TAILQ_NEXT(w, link);

        if (all || !w->install) {
            TAILQ_REMOVE(&waits, w, link);
            w->done(p, error, w->arg);
            free(w);
        }
    }
}


/* The folder an installed llama-server lives in. */
static char *
llamacpp_root(void)
{
    return paths_join(helper.cache_dir, "bin/llamacpp/cpu");
}


/* The only path that matches a pattern below a folder, or NULL. */
static char *
llamacpp_glob(const char *root, const char *pattern)
{
    char    *full, *found;
    glob_t   g;

    full = text_format("%s/%s", root, pattern);
    found = NULL;

    if (glob(full, 0, NULL, &g) == 0) {
        if (g.gl_pathc > 0) {
            found = text_dup(g.gl_pathv[0]);
        }

        globfree(&g);
    }

    free(full);

    return found;
}


/*
 * Fills in the program of a private root.  The working directory is where
 * the CPU backends are, because ggml's own search path is absolute and the
 * next place it looks is ".".
 */
bool
llamacpp_in_root(const char *root, struct backend_program *p)
{
    char  *bin, *loader, *backends, *libs;

    bin = paths_join(root, "usr/bin/llama-server");
    loader = llamacpp_glob(root, "usr/lib*/ld-linux-*.so.*");
    backends = llamacpp_glob(root, "usr/lib/*/ggml/backends*");
    libs = NULL;

    if (file_executable(bin) && loader != NULL && backends != NULL) {
        libs = text_dup(backends);
        *strstr(libs, "/ggml/backends") = '\0';

        words_add(&p->argv, loader);
        words_add(&p->argv, "--library-path");
        words_addf(&p->argv, "%s:%s/llama", libs, libs);
        words_add(&p->argv, "--argv0");
        words_add(&p->argv, "llama-server");
        words_add(&p->argv, bin);
        p->cwd = text_dup(backends);
    }

    free(libs);
    free(bin);
    free(loader);
    free(backends);

    return p->argv.count > 0;
}


/* What LEMONADE_LLAMACPP_CPU_BIN says; false: problem tells what is wrong. */
static bool
llamacpp_in_variable(const char *value, struct backend_program *p)
{
    char  *path, *cwd;

    if (strchr(value, '/') == NULL) {
        path = paths_search(value);

    } else if (value[0] == '/') {
        path = text_dup(value);

    } else {
        cwd = get_current_dir_name();
        path = cwd != NULL ? paths_join(cwd, value) : NULL;
        free(cwd);
    }

    if (path == NULL || !file_executable(path)) {
        snprintf(problem, sizeof(problem), "LEMONADE_LLAMACPP_CPU_BIN: "
                 "%.300s is not a program", value);
        free(path);
        return false;
    }

    words_add(&p->argv, path);
    free(path);

    return true;
}


/* Finds the program; false when there is none or problem is set. */
static bool
llamacpp_look(struct backend_program *p)
{
    bool         found;
    char        *path, *root;
    const char  *value;

    problem[0] = '\0';

    value = getenv("LEMONADE_LLAMACPP_CPU_BIN");
    if (value != NULL && *value != '\0') {
        return llamacpp_in_variable(value, p);
    }

    path = paths_search("llama-server");
    if (path != NULL) {
        words_add(&p->argv, path);
        free(path);
        return true;
    }

    root = llamacpp_root();
    found = llamacpp_in_root(root, p);
    free(root);

    return found;
}


/* Forgets a program. */
static void
llamacpp_forget(struct backend_program *p)
{
    words_free(&p->argv);
    free(p->cwd);
    memset(p, 0, sizeof(*p));
}


/*
 * "version: 0.7.0 (build 11669, commit Debian)" and, older,
 * "version: 6510 (3edfa7d3)".
 */
static void
llamacpp_on_version(struct runner *r, const char *line, size_t len,
    bool is_stderr, void *arg)
{
    char         copy[256];
    const char  *p;

    if (program.build != 0 || len >= sizeof(copy)
        || strncmp(line, "version: ", 9) != 0)
    {
        return;
    }

    memcpy(copy, line, len);
    copy[len] = '\0';

    p = strstr(copy, "(build ");
    p = p != NULL ? p + 7 : copy + 9;

    program.build = strtol(p, NULL, 10);
}


/* The program has said its version, or nothing. */
static void
llamacpp_on_probed(struct runner *r, int status, void *arg)
{
    worker = NULL;
    evtimer_del(later);

    program.sockets = program.build >= LLAMACPP_SOCKET_BUILD;

    log_write(LOG_INFO, "llamacpp", "%s, build %ld",
              program.argv.item[program.argv.count - 1], program.build);

    llamacpp_answer(&program, NULL, true);
}


/* Starts "llama-server --version". */
static bool
llamacpp_probe(void)
{
    struct words         argv = { 0 }, env = { 0 };
    struct timeval       tv = { .tv_sec = LLAMACPP_PROBE_MS / 1000 };
    struct runner_spec   spec;
    size_t               i;

    for (i = 0; i < program.argv.count; i++) {
        words_add(&argv, program.argv.item[i]);
    }

    words_add(&argv, "--version");
    backend_environment(&env);

    memset(&spec, 0, sizeof(spec));
    spec.name = "llamacpp version";
    spec.argv = argv.item;
    spec.envp = env.item;
    spec.cwd = program.cwd;
    spec.on_line = llamacpp_on_version;
    spec.on_exit = llamacpp_on_probed;

    worker = runner_start(&spec, problem, sizeof(problem));

    words_free(&argv);
    words_free(&env);

    if (worker != NULL) {
        evtimer_add(later, &tv);
    }

    return worker != NULL;
}


/* The installer's output: progress for the log, the error for the user. */
static void
llamacpp_on_install_line(struct runner *r, const char *line, size_t len,
    bool is_stderr, void *arg)
{
    char  copy[sizeof(problem)];

    if (len >= sizeof(copy)) {
        len = sizeof(copy) - 1;
    }

    memcpy(copy, line, len);
    copy[len] = '\0';
    text_clean(copy);

    log_write(is_stderr ? LOG_WARNING : LOG_INFO, "install", "%s", copy);

    if (is_stderr) {
        text_copy(problem, sizeof(problem), copy);
    }
}


/* The installer has ended; look again. */
static void
llamacpp_on_installed(struct runner *r, int status, void *arg)
{
    char  how[64], why[sizeof(problem)];

    worker = NULL;
    evtimer_del(later);

    if (status == 0) {
        llamacpp_soon();
        return;
    }

    if (late) {
        snprintf(problem, sizeof(problem), "llama-server was not installed "
                 "within %ld s; look at the Debian mirror, or set "
                 "LEMONADE_DEBIAN_MIRROR or LEMONADE_LLAMACPP_CPU_BIN",
                 LLAMACPP_INSTALL_LOADS * helper.opt.load_timeout);
    }

    runner_status_text(status, how, sizeof(how));
    text_copy(why, sizeof(why), problem[0] ? problem : how);
    installed = false;
    llamacpp_answer(NULL, why, true);
}


/* Starts the installer. */
static bool
llamacpp_install(void)
{
    char                 *root;
    bool                  started;
    struct timeval        tv = { .tv_usec = 0 };
    struct runner_spec    spec;

    late = false;
    tv.tv_sec = LLAMACPP_INSTALL_LOADS * helper.opt.load_timeout;

    memset(&spec, 0, sizeof(spec));
    spec.name = "install llamacpp";
    spec.on_line = llamacpp_on_install_line;
    spec.on_exit = llamacpp_on_installed;

    root = llamacpp_root();
    worker = install_start(&spec, INSTALL_LLAMACPP_DEBIAN, root, problem,
                           sizeof(problem));
    started = worker != NULL;
    free(root);

    if (started) {
        evtimer_add(later, &tv);
    }

    return started;
}


/* Is the program we know still the one on disk? */
static bool
llamacpp_unchanged(const struct backend_program *found)
{
    size_t       last;
    struct stat  sb;

    last = found->argv.count - 1;

    if (stat(found->argv.item[last], &sb) == -1) {
        return false;
    }

    if (program.argv.count == found->argv.count
        && strcmp(program.argv.item[last], found->argv.item[last]) == 0
        && probed.st_ino == sb.st_ino && probed.st_size == sb.st_size
        && probed.st_mtim.tv_sec == sb.st_mtim.tv_sec
        && probed.st_mtim.tv_nsec == sb.st_mtim.tv_nsec)
    {
        return true;
    }

    probed = sb;

    return false;
}


/* There is no program: install one, for those who want that. */
static void
llamacpp_missing(void)
{
    if (problem[0] == '\0') {
        text_copy(problem, sizeof(problem), "llama-server was not found");
    }

    llamacpp_answer(NULL, problem, false);

    if (TAILQ_EMPTY(&waits)) {
        return;
    }

    if (getenv("LEMONADE_LLAMACPP_CPU_BIN") != NULL
        && *getenv("LEMONADE_LLAMACPP_CPU_BIN") != '\0')
    {
        llamacpp_answer(NULL, problem, true);
        return;
    }

    problem[0] = '\0';

    if (installed || !llamacpp_install()) {
        installed = false;
        llamacpp_answer(NULL, problem[0] ? problem : "the installed "
                        "llama-server is not complete; remove its folder "
                        "in the cache dir", true);
        return;
    }

    installed = true;
}


/* The next step towards a program, or the end of a worker that hangs. */
static void
llamacpp_step(evutil_socket_t fd, short what, void *arg)
{
    struct backend_program  found = { 0 };

    if (worker != NULL) {
        late = true;
        runner_kill(worker);
        return;
    }

    if (TAILQ_EMPTY(&waits)) {
        return;
    }

    if (!llamacpp_look(&found)) {
        llamacpp_missing();
        return;
    }

    installed = false;

    if (llamacpp_unchanged(&found)) {
        llamacpp_forget(&found);
        llamacpp_answer(&program, NULL, true);
        return;
    }

    llamacpp_forget(&program);
    program = found;

    if (!llamacpp_probe()) {
        memset(&probed, 0, sizeof(probed));
        llamacpp_answer(NULL, problem, true);
    }
}


/* Waits for the program. */
void
llamacpp_prepare(bool install, backend_prepared done, void *arg)
{
    struct llamacpp_wait  *w;

    w = text_alloc(sizeof(*w));
    w->install = install;
    w->done = done;
    w->arg = arg;
    TAILQ_INSERT_TAIL(&waits, w, link);

    if (worker == NULL) {
        llamacpp_soon();
    }
}


/* Waits no more.  An installation goes on: it will be wanted again. */
void
llamacpp_cancel(void *arg)
{
    struct llamacpp_wait  *w, *next;

    for (w = TAILQ_FIRST(&waits); w != NULL; w = next) {
        next = TAILQ_NEXT(w, link);

        if (w->arg == arg) {
            TAILQ_REMOVE(&waits, w, link);
            free(w);
        }
    }
}


/* Ends the worker; its exit is delivered before the loop ends. */
void
llamacpp_fini(void)
{
    struct llamacpp_wait  *w;

    while ((w = TAILQ_FIRST(&waits)) != NULL) {
        TAILQ_REMOVE(&waits, w, link);
        free(w);
    }

    if (worker != NULL) {
        runner_stop(worker);
        return;
    }

    if (later != NULL) {
        event_free(later);
        later = NULL;
    }

    llamacpp_forget(&program);
}
