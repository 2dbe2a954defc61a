/*
 * lemonade-cli run: a server with this model in memory, and its chat page.
 */

#define _GNU_SOURCE

#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client.h"
#include "clock.h"
#include "launch.h"
#include "memory.h"
#include "output.h"
#include "server.h"


#define MODEL_SECONDS  10
#define START_SECONDS  60
#define LOOK_AGAIN_MS  20

/* The server that we started; pid 0: it ran already. */
struct child {
    pid_t  pid;
    int    pidfd;
    bool   ended;
    int    status;
};


static int run_run(const struct cli_args *args);
static int run_model(struct client *c, const struct cli_args *args,
    struct child *child);
static bool find_or_start(struct client *c, const struct cli_args *args,
    struct server *s, struct child *child);
static enum client_result find_settled(struct client *c, struct server *s);
static bool wait_until_serving(struct client *c, struct server *s,
    struct child *child);
static bool load_model(struct client *c, const char *model);
static void announce(const struct server *s, const char *model);
static void open_browser(const char *url);
static void child_wait(struct child *child, int ms);
static void child_end(struct child *child);
static int child_exit_code(const struct child *child);
static void catch_signals(void);
static void on_signal(int signo, siginfo_t *info, void *context);


/* The signal that asked us to stop, or 0. */
static volatile sig_atomic_t  stop;

/* Set when stop came from a program: a terminal tells our child too. */
static volatile sig_atomic_t  stop_is_ours;


const struct cli_command  command_run = {
    .name = "run",
    .words = "MODEL",
    .summary = "Load a model and open its chat page, with a server if needed.",
    .about = "Uses the running server, else starts one, with serve's "
             "options, that ends\nwith this command. LEMONADE_DISABLE_BROWSER "
             "keeps the browser closed.",
    .example = "  lemonade-cli run Lemonade-Demo-GGUF",
    .options = serve_options,
    .min_words = 1,
    .max_words = 1,
    .run = run_run,
};


/* Runs a model; if we start the server for it, we stay as long as it. */
static int
run_run(const struct cli_args *args)
{
    int             status;
    struct child    child;
    struct client  *c;

    memset(&child, 0, sizeof(child));
    child.pidfd = -1;
    catch_signals();

    c = client_new();

    if (c == NULL) {
        return CLI_FAILED;
    }

    client_stop_on(c, &stop);
    status = run_model(c, args, &child);
    client_free(c);

    if (child.pid != 0) {
        if (status != CLI_OK) {
            child_end(&child);

        } else {
            while (!child.ended) {
                child_wait(&child, -1);
            }

            status = child_exit_code(&child);
        }

        close(child.pidfd);
    }

    return status;
}


/* Everything up to the model being ready. */
static int
run_model(struct client *c, const struct cli_args *args, struct child *child)
{
    struct server  s;

    if (!find_or_start(c, args, &s, child)) {
        return stop != 0 ? 128 + stop
               : child->ended && child_exit_code(child) != 0
                     ? child_exit_code(child) : CLI_FAILED;
    }

    if (!load_model(c, args->words[0])) {
        return stop != 0 ? 128 + stop : CLI_FAILED;
    }

    announce(&s, args->words[0]);

    return CLI_OK;
}


/* Uses the running server or starts one. */
static bool
find_or_start(struct client *c, const struct cli_args *args,
    struct server *s, struct child *child)
{
    int                 i;
    enum client_result  result;

    result = find_settled(c, s);

    if (result != CLIENT_OK) {
        client_explain(c, result);
        return false;
    }

    if (s->serves) {
        for (i = 0; args->options[i].name != NULL; i++) {
            if (args->values[i] != NULL) {
                output_line(stderr, "A server runs already: its own options "
                    "stay as they are.");
                break;
            }
        }

        return true;
    }

    child->pid = launch_child(args);

    if (child->pid == -1) {
        child->pid = 0;
        return false;
    }

    child->pidfd = pidfd_open(child->pid, 0);

    return wait_until_serving(c, s, child);
}


/* As server_find, but gives a server that is just starting some time. */
static enum client_result
find_settled(struct client *c, struct server *s)
{
    long                deadline;
    enum client_result  result;

    deadline = clock_now() + START_SECONDS * 1000;

    while (clock_now() < deadline) {
        result = server_find(c, s);

        if (result != CLIENT_OK || !s->alive || s->on_demand || s->serves) {
            return result;
        }

        if (stop != 0) {
            return CLIENT_STOPPED;
        }

        clock_pause(LOOK_AGAIN_MS);
    }

    output_error("a server (process %d) has started but is not ready: look "
        "at its log", (int) s->pid);

    return CLIENT_STOPPED;
}


/* Waits for our server, or for one that somebody started just before us. */
static bool
wait_until_serving(struct client *c, struct server *s, struct child *child)
{
    while (stop == 0) {
        if (server_find(c, s) == CLIENT_OK && s->serves
            && (s->pid == child->pid || child->ended))
        {
            if (child->ended) {
                /* it is not ours, so we do not stay with it */
                close(child->pidfd);
                child->pidfd = -1;
                child->pid = 0;
            }

            return true;
        }

        if (child->ended) {
            /* it has said why on stderr */
            return false;
        }

        child_wait(child, LOOK_AGAIN_MS);
    }

    return false;
}


/* Gets the model onto the disk and into memory. */
static bool
load_model(struct client *c, const char *model)
{
    bool                 good, here;
    char                *name, *path;
    json_t              *body;
    struct client_reply  reply;

    name = client_escape(model);
    path = memory_format("/v1/models/%s", name);
    body = json_pack("{ss}", "model_name", model);

    good = client_succeeded(c, client_send(c, "GET", path, NULL,
                                           MODEL_SECONDS, &reply), &reply);
    here = !json_is_false(json_object_get(reply.body, "downloaded"));
    client_reply_free(&reply);

    if (good && !here) {
        output_line(stderr, "Pulling model: %s", model);
        good = client_succeeded(c, client_send(c, "POST", "/internal/pull",
                                               body, 0, &reply), &reply);
        client_reply_free(&reply);
    }

    if (good) {
        output_line(stderr, "Loading model: %s", model);
        good = client_succeeded(c, client_send(c, "POST", "/v1/load", body,
                                               0, &reply), &reply);
        client_reply_free(&reply);
    }

    json_decref(body);
    free(path);
    free(name);

    return good;
}


/* Tells where to chat, and goes there. */
static void
announce(const struct server *s, const char *model)
{
    bool         bare6;
    char        *name, *url;
    const char  *host;

    if (s->port == 0) {
        output_line(stdout, "You can now chat with %s through your nginx",
            model);
        fflush(stdout);
        return;
    }

    host = s->host;

    if (host[0] == '\0' || strcmp(host, "0.0.0.0") == 0
        || strcmp(host, "::") == 0 || strcmp(host, "*") == 0)
    {
        host = "localhost";
    }

    bare6 = strchr(host, ':') != NULL && host[0] != '[';
    name = client_escape(model);
    url = memory_format("http://%s%s%s:%d/?model=%s#llm-chat",
              bare6 ? "[" : "", host, bare6 ? "]" : "", s->port, name);

    output_line(stdout, "You can now chat with %s at %s", model, url);
    fflush(stdout);
    open_browser(url);

    free(url);
    free(name);
}


/* Opens a page, where there is a screen and nobody objects. */
static void
open_browser(const char *url)
{
    int     null;
    char   *argv[] = { memory_copy("xdg-open"), memory_copy(url), NULL };
    pid_t   pid;

    if (getenv("LEMONADE_DISABLE_BROWSER") != NULL
        || (getenv("DISPLAY") == NULL && getenv("WAYLAND_DISPLAY") == NULL))
    {
        free(argv[0]);
        free(argv[1]);
        return;
    }

    pid = fork();

    if (pid == 0) {
        /* out of the terminal's reach: Ctrl-C ends the server, not it */
        setsid();
        null = open("/dev/null", O_RDWR);
        dup2(null, STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
        close_range(STDERR_FILENO + 1, ~0U, 0);
        signal(SIGPIPE, SIG_DFL);

        /* once more, so that nobody has to wait for it */
        if (fork() == 0) {
            execvp(argv[0], argv);
        }

        _exit(0);
    }

    if (pid > 0) {
        while (waitpid(pid, NULL, 0) == -1 && errno == EINTR) {
            continue;
        }
    }

    free(argv[0]);
    free(argv[1]);
}


/*
 * Waits for the child's end, ms at most (-1: no limit), and passes on a
 * signal that it did not get itself.
 */
static void
child_wait(struct child *child, int ms)
{
    sigset_t         blocked, before;
    struct pollfd    event;
    struct timespec  limit;

    event.fd = child->pidfd;
    event.events = POLLIN;
    limit.tv_sec = ms / 1000;
    limit.tv_nsec = (long) (ms % 1000) * 1000000L;

    /* a signal between the look at its flag and ppoll must end ppoll */
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGINT);
    sigaddset(&blocked, SIGTERM);
    sigprocmask(SIG_BLOCK, &blocked, &before);

    if (stop_is_ours) {
        stop_is_ours = 0;
        kill(child->pid, stop);
    }

    ppoll(&event, 1, ms < 0 ? NULL : &limit, &before);
    sigprocmask(SIG_SETMASK, &before, NULL);

    if (waitpid(child->pid, &child->status, WNOHANG) == child->pid) {
        child->ended = true;
    }
}


/*
 * Ends a server that is of no use, and waits for it.  It may have been told
 * before; to tell it twice does no harm, never to tell it would.
 */
static void
child_end(struct child *child)
{
    if (!child->ended) {
        kill(child->pid, SIGTERM);
    }

    while (!child->ended) {
        child_wait(child, -1);
    }
}


/* The child's exit code, as a shell would give it. */
static int
child_exit_code(const struct child *child)
{
    if (WIFSIGNALED(child->status)) {
        return 128 + WTERMSIG(child->status);
    }

    return WEXITSTATUS(child->status);
}


/* Ctrl-C and SIGTERM end the server before us. */
static void
catch_signals(void)
{
    struct sigaction  action;

    memset(&action, 0, sizeof(action));
    sigemptyset(&action.sa_mask);
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO;

    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);

    /* a reader of our lines who leaves does not end the server */
    signal(SIGPIPE, SIG_IGN);
}


/* Called on SIGINT and SIGTERM. */
static void
on_signal(int signo, siginfo_t *info, void *context)
{
    stop = signo;

    /* what the kernel sends for a key goes to the whole process group */
    if (info->si_code != SI_KERNEL) {
        stop_is_ours = 1;
    }
}
