/*
 * Starting lemonade-helper.
 */

#define _GNU_SOURCE

#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "memory.h"
#include "output.h"
#include "paths.h"
#include "server.h"


#define HELPER          "lemonade-helper"
#define START_SECONDS   20
#define LOOK_AGAIN_MS   10
#define TRIES           3
#define LOG_TAIL        4096

/* Accepted for old scripts, without a meaning here. */
#define OPTION_IGNORED  "no-tray"


static char *find_helper(void);
static char **serve_arguments(const struct cli_args *args);
static void free_arguments(char **argv);
static bool start_on_demand(struct client *c);
static bool own_run_dir(void);
static int lock_start(const char *run_dir);
static bool start_and_wait(struct client *c, const char *program,
    const char *log);
static void become_on_demand(const char *program, const char *log)
    __attribute__((noreturn));
static void explain_log(const char *log);


/* Becomes the helper; see launch.h. */
void
launch_in_place(const struct cli_args *args)
{
    char  *program, **argv;

    program = find_helper();

    if (program == NULL) {
        return;
    }

    argv = serve_arguments(args);
    execv(program, argv);

    output_error("cannot start %s: %s", program, strerror(errno));

    free_arguments(argv);
    free(program);
}


/* Starts the helper as a child; see launch.h. */
pid_t
launch_child(const struct cli_args *args)
{
    char   *program, **argv;
    pid_t   parent, pid;

    program = find_helper();

    if (program == NULL) {
        return -1;
    }

    argv = serve_arguments(args);
    parent = getpid();
    fflush(NULL);
    pid = fork();

    if (pid == 0) {
        /* however we end, the server does not stay behind */
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        signal(SIGPIPE, SIG_DFL);

        if (getppid() == parent) {
            execv(program, argv);
            output_error("cannot start %s: %s", program, strerror(errno));
        }

        _exit(CLI_FAILED);
    }

    if (pid == -1) {
        output_error("cannot start %s: %s", program, strerror(errno));
    }

    free_arguments(argv);
    free(program);

    return pid;
}


/* The helper's path; NULL after one line on stderr. */
static char *
find_helper(void)
{
    char  *program;

    program = paths_program(HELPER);

    if (program == NULL) {
        output_error(HELPER " was not found beside lemonade-cli, in ../sbin "
            "or in PATH: install it again");
    }

    return program;
}


/* The helper's argument list from the options of serve. */
static char **
serve_arguments(const struct cli_args *args)
{
    int                       i, n;
    char                    **argv;
    const struct cli_option  *o;

    argv = memory_zero(sizeof(char *) * (CLI_OPTIONS_MAX * 2 + 2));
    argv[0] = memory_copy(HELPER);
    n = 1;

    for (i = 0; args->options[i].name != NULL; i++) {
        o = &args->options[i];

        if (args->values[i] == NULL || strcmp(o->name, OPTION_IGNORED) == 0) {
            continue;
        }

        argv[n++] = memory_format("--%s", o->name);

        if (o->value != NULL) {
            argv[n++] = memory_copy(args->values[i]);
        }
    }

    return argv;
}


/* Frees an argument list. */
static void
free_arguments(char **argv)
{
    char  **p;

    for (p = argv; *p != NULL; p++) {
        free(*p);
    }

    free(argv);
}


/* Sends, and starts a helper if there is none; see launch.h. */
enum client_result
launch_and_send(struct client *c, const char *method, const char *path,
    const json_t *body, int seconds, struct client_reply *reply)
{
    int                 i;
    struct server       s;
    enum client_result  result;

    for (i = 0; i < TRIES; i++) {
        result = client_send(c, method, path, body, seconds, reply);

        if (result == CLIENT_LOST) {
            /* this one may have ended just as we came; not if it is stuck */
            if (server_find(c, &s) != CLIENT_OK || s.alive) {
                break;
            }

        } else if (result != CLIENT_DOWN) {
            break;
        }

        if (!start_on_demand(c)) {
            /* the reason has been told */
            return CLIENT_STOPPED;
        }
    }

    return result;
}


/* Starts one helper, however many of us want one at this moment. */
static bool
start_on_demand(struct client *c)
{
    int                  lock;
    bool                 started;
    char                *program, *log;
    struct server        s;
    enum client_result   result;

    program = find_helper();

    if (program == NULL || !own_run_dir()) {
        free(program);
        return false;
    }

    lock = lock_start(client_run_dir(c));
    log = paths_join(client_run_dir(c), "on-demand.log");

    if (lock == -1 || log == NULL) {
        free(log);
        free(program);
        return false;
    }

    /* somebody may have started one while we waited for the lock */
    result = server_find(c, &s);
    client_explain(c, result);
    started = result == CLIENT_OK
              && (s.alive || start_and_wait(c, program, log));

    close(lock);
    free(log);
    free(program);

    return started;
}


/* Makes the run dir; a helper of ours cannot use somebody else's. */
static bool
own_run_dir(void)
{
    char  *run_dir;

    run_dir = paths_run_dir(true);

    if (run_dir == NULL) {
        client_explain_run_dir();
        return false;
    }

    free(run_dir);

    return true;
}


/* Takes RUNDIR/start.lock; -1 after one line on stderr. */
static int
lock_start(const char *run_dir)
{
    int    fd;
    char  *path;
    long   deadline;

    path = memory_format("%s/start.lock", run_dir);
    fd = open(path, O_RDWR|O_CREAT|O_CLOEXEC|O_NOFOLLOW, 0600);

    deadline = clock_now() + START_SECONDS * 1000;

    while (fd != -1 && flock(fd, LOCK_EX|LOCK_NB) == -1) {
        if (errno != EWOULDBLOCK || clock_now() > deadline) {
            close(fd);
            fd = -1;
            break;
        }

        clock_pause(LOOK_AGAIN_MS);
    }

    if (fd == -1) {
        output_error("cannot lock %s: %s", path, strerror(errno));
    }

    free(path);

    return fd;
}


/* Starts a helper and waits until it answers, has ended or is too slow. */
static bool
start_and_wait(struct client *c, const char *program, const char *log)
{
    int            status;
    bool           ended;
    long           deadline;
    pid_t          pid;
    struct server  s;

    fflush(NULL);
    pid = fork();

    if (pid == -1) {
        output_error("cannot start %s: %s", program, strerror(errno));
        return false;
    }

    if (pid == 0) {
        become_on_demand(program, log);
    }

    ended = false;
    deadline = clock_now() + START_SECONDS * 1000;

    while (clock_now() < deadline) {
        if (server_find(c, &s) == CLIENT_OK && s.alive) {
            return true;
        }

        if (!ended && waitpid(pid, &status, WNOHANG) == pid) {
            ended = true;

            /* a server that is just starting was first: it will answer */
            if (!WIFEXITED(status)
                || WEXITSTATUS(status) != CLI_ALREADY_RUNNING)
            {
                break;
            }
        }

        clock_pause(LOOK_AGAIN_MS);
    }

    explain_log(log);

    return false;
}


/*
 * Turns a fork of us into the helper.  setsid cuts it from the terminal,
 * and no file of the caller stays open in it.  It needs no second fork: we
 * end soon, and until then see at once how it ended.
 */
static void
become_on_demand(const char *program, const char *log)
{
    int    in, out;
    char  *argv[] = { memory_copy(HELPER), memory_copy("--on-demand"), NULL };

    setsid();
    signal(SIGPIPE, SIG_DFL);

    in = open("/dev/null", O_RDONLY);
    out = open(log, O_WRONLY|O_CREAT|O_TRUNC|O_APPEND|O_NOFOLLOW, 0600);

    if (out == -1) {
        out = open("/dev/null", O_WRONLY);
    }

    dup2(in, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    close_range(STDERR_FILENO + 1, ~0U, 0);

    execv(program, argv);
    output_error("cannot start %s: %s", program, strerror(errno));
    _exit(CLI_FAILED);
}


/* Says that the helper did not start, with the last line of its log. */
static void
explain_log(const char *log)
{
    char         tail[LOG_TAIL + 1];
    FILE        *f;
    size_t       len;
    const char  *line;

    len = 0;
    f = fopen(log, "re");

    if (f != NULL) {
        if (fseek(f, -LOG_TAIL, SEEK_END) == -1) {
            rewind(f);
        }

        len = fread(tail, 1, LOG_TAIL, f);
        fclose(f);
    }

    while (len > 0 && tail[len - 1] == '\n') {
        len--;
    }

    tail[len] = '\0';
    line = strrchr(tail, '\n');
    line = line != NULL ? line + 1 : tail;

    output_error(HELPER " did not start: %s; its log is %s",
        line[0] != '\0' ? line : "it gave no reason", log);
}
