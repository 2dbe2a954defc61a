/*
 * Child processes.
 *
 * A child is watched by its pidfd and, like orphans, by SIGCHLD; whichever
 * comes first ends it.  It is reaped last: while it is a zombie, its number
 * stands for its process group and for nobody else's.
 */

#define _GNU_SOURCE

#include "runner.h"
#include "lines.h"
#include "log.h"
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>


#define RUNNER_TURN     (64 * 1024)     /* bytes of one pipe in one turn */
#define RUNNER_REST     (1024 * 1024)   /* bytes taken after the exit */
#define RUNNER_STOP_MS  2000
#define RUNNER_KILL_MS  3000
#define RUNNER_FINI_MS  2000


/* One of the two pipes, cut to lines. */
struct runner_pipe {
    struct runner   *runner;
    int              fd;
    bool             is_stderr;
    struct event    *event;
    struct lines     lines;
};


enum runner_stage {
    STAGE_RUNNING = 0,
    STAGE_ASKED,
    STAGE_ASKED_AGAIN,
    STAGE_KILLED,
};


struct runner {
    LIST_ENTRY(runner)   link;
    pid_t                pid;
    int                  pidfd;
    struct event        *death;
    struct event        *timer;
    enum runner_stage    stage;
    int                  stop_signal;
    unsigned             stop_ms;
    unsigned             kill_ms;
    bool                 dead;
    char                *name;
    runner_line          on_line;
    runner_exit          on_exit;
    void                *arg;
    struct runner_pipe   pipes[2];
};


static LIST_HEAD(, runner)  runners = LIST_HEAD_INITIALIZER(runners);
static unsigned             runners_alive;
static struct event_base   *loop;
static struct event        *sigchld;
static struct rlimit        files;
static bool                 strangers_are_ours;


/* Gives one line to the owner. */
static void
pipe_on_line(const char *line, size_t len, void *arg)
{
    struct runner       *r;
    struct runner_pipe  *p;

    p = arg;
    r = p->runner;

    if (r->on_line != NULL) {
        r->on_line(r, line, len, p->is_stderr, r->arg);
    }
}


/* Closes a pipe; an unfinished line counts as one. */
static void
pipe_close(struct runner_pipe *p)
{
    if (p->fd == -1) {
        return;
    }

    if (p->event != NULL) {
        event_free(p->event);
        p->event = NULL;
    }

    close(p->fd);
    p->fd = -1;

    lines_end(&p->lines);
}


/* Reads what is there, at most so many bytes. */
static void
pipe_read(struct runner_pipe *p, size_t limit)
{
    char     data[16 * 1024];
    size_t   total;
    ssize_t  n;

    for (total = 0; total < limit; total += (size_t) n) {
        n = read(p->fd, data, sizeof(data));

        if (n == -1 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }

        if (n <= 0) {
            pipe_close(p);
            return;
        }

        lines_add(&p->lines, data, (size_t) n);
    }
}


/* The loop calls this when a pipe has something to read. */
static void
pipe_on_readable(evutil_socket_t fd, short what, void *arg)
{
    pipe_read(arg, RUNNER_TURN);
}


/* Frees everything but the process. */
static void
runner_free(struct runner *r)
{
    int  i;

    r->on_line = NULL;

    for (i = 0; i < 2; i++) {
        pipe_close(&r->pipes[i]);
    }

    if (r->death != NULL) {
        event_free(r->death);
    }

    /* Only after its event: epoll cannot forget a closed descriptor. */

    if (r->pidfd != -1) {
        close(r->pidfd);
    }

    if (r->timer != NULL) {
        event_free(r->timer);
    }

    free(r->name);
    free(r);
}


/* Takes the end of a child that is known to be dead. */
static void
runner_finish(struct runner *r)
{
    int   i, status;
    char  text[64];

    LIST_REMOVE(r, link);
    runners_alive--;
    r->dead = true;

    kill(-r->pid, SIGKILL);

    for (i = 0; i < 2; i++) {
        if (r->pipes[i].fd != -1) {
            pipe_read(&r->pipes[i], RUNNER_REST);
            pipe_close(&r->pipes[i]);
        }
    }

    status = 0;

    while (waitpid(r->pid, &status, 0) == -1 && errno == EINTR) {
        /* void */
    }

    log_write(LOG_DEBUG, "runner", "%s (pid %d) has ended: %s", r->name,
              (int) r->pid, runner_status_text(status, text, sizeof(text)));

    if (r->on_exit != NULL) {
        r->on_exit(r, status, r->arg);
    }

    runner_free(r);
}


/* True when the child is dead though its exit was not delivered yet. */
bool
runner_dead(const struct runner *r)
{
    siginfo_t  info;

    if (r->dead) {
        return true;
    }

    memset(&info, 0, sizeof(info));

    if (waitid(P_PID, (id_t) r->pid, &info, WEXITED | WNOHANG | WNOWAIT)
        == -1)
    {
        return errno == ECHILD;
    }

    return info.si_pid == r->pid;
}


/* The loop calls this when a pidfd says that its child is dead. */
static void
runner_on_death(evutil_socket_t fd, short what, void *arg)
{
    if (runner_dead(arg)) {
        runner_finish(arg);
    }
}


/* The runner of a process, or NULL. */
static struct runner *
runner_find(pid_t pid)
{
    struct runner  *r;

    LIST_FOREACH(r, &runners, link) {
        if (r->pid == pid) {
            return r;
        }
    }

    return NULL;
}


/* The loop calls this after SIGCHLD: takes every child that is dead. */
static void
runner_on_sigchld(evutil_socket_t fd, short what, void *arg)
{
    siginfo_t       info;
    struct runner  *r;

    for ( ;; ) {
        memset(&info, 0, sizeof(info));

        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == -1
            || info.si_pid == 0)
        {
            return;
        }

        r = runner_find(info.si_pid);

        if (r != NULL) {
            runner_finish(r);

        } else {
            waitpid(info.si_pid, NULL, WNOHANG);
            log_write(LOG_TRACE, "runner", "reaped the orphan %d",
                      (int) info.si_pid);
        }
    }
}


/* Makes sure that no pipe of ours gets a number that a child needs. */
static int
standard_files_open(void)
{
    int  fd;

    do {
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    } while (fd >= 0 && fd <= STDERR_FILENO);

    if (fd == -1) {
        return -1;
    }

    close(fd);

    return 0;
}


/* Prepares for children. */
int
runner_init(struct event_base *base)
{
    siginfo_t  info;

    if (standard_files_open() == -1
        || getrlimit(RLIMIT_NOFILE, &files) == -1
        || prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == -1)
    {
        return -1;
    }

    /* A shell that became the helper by exec may have left us its jobs. */

    strangers_are_ours = waitid(P_ALL, 0, &info,
                                WEXITED | WNOHANG | WNOWAIT) == -1;

    sigchld = evsignal_new(base, SIGCHLD, runner_on_sigchld, NULL);

    if (sigchld == NULL || event_add(sigchld, NULL) == -1) {
        errno = ENOMEM;
        return -1;
    }

    loop = base;

    return 0;
}


/* Kills the orphans that came to us. */
static void
strangers_kill(void)
{
    int      pid;
    char     path[64];
    FILE    *file;

    snprintf(path, sizeof(path), "/proc/self/task/%d/children",
             (int) getpid());

    file = fopen(path, "re");
    if (file == NULL) {
        return;
    }

    while (fscanf(file, "%d", &pid) == 1) {
        kill(pid, SIGKILL);
    }

    fclose(file);
}


/* Kills and reaps everything, synchronously and for a bounded time. */
void
runner_fini(void)
{
    pid_t                  pid;
    unsigned               ms;
    struct runner         *r;
    const struct timespec  pause = { .tv_nsec = 1000000 };

    LIST_FOREACH(r, &runners, link) {
        kill(-r->pid, SIGKILL);
    }

    for (ms = 0; ms < RUNNER_FINI_MS; /* void */) {

        if (strangers_are_ours) {
            strangers_kill();
        }

        pid = waitpid(-1, NULL, WNOHANG);

        if (pid == -1 || (pid == 0 && LIST_EMPTY(&runners)
                          && !strangers_are_ours))
        {
            break;
        }

        if (pid == 0) {
            nanosleep(&pause, NULL);
            ms++;
            continue;
        }

        r = runner_find(pid);

        if (r != NULL) {
            LIST_REMOVE(r, link);
            runner_free(r);
        }
    }

    while ((r = LIST_FIRST(&runners)) != NULL) {
        log_write(LOG_ERROR, "runner", "%s (pid %d) does not die", r->name,
                  (int) r->pid);
        LIST_REMOVE(r, link);
        runner_free(r);
    }

    runners_alive = 0;

    if (sigchld != NULL) {
        event_free(sigchld);
        sigchld = NULL;
    }

    loop = NULL;
}


/* The loop calls this when a rung of the ladder was not enough. */
static void
runner_on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct runner   *r;
    struct timeval   tv;

    r = arg;

    if (r->stage != STAGE_ASKED) {
        log_write(LOG_WARNING, "runner", "%s (pid %d) does not stop, "
                  "killing it", r->name, (int) r->pid);
        runner_kill(r);
        return;
    }

    r->stage = STAGE_ASKED_AGAIN;
    kill(-r->pid, SIGTERM);

    tv.tv_sec = r->kill_ms / 1000;
    tv.tv_usec = (suseconds_t) (r->kill_ms % 1000) * 1000;
    event_add(r->timer, &tv);
}


/* Makes one of the two pipes; the child's end, or -1 with errno. */
static int
pipe_open(struct runner *r, int i)
{
    int                  fds[2], saved;
    struct runner_pipe  *p;

    p = &r->pipes[i];

    if (pipe2(fds, O_CLOEXEC) == -1) {
        return -1;
    }

    p->fd = fds[0];
    p->event = event_new(loop, p->fd, EV_READ | EV_PERSIST, pipe_on_readable,
                         p);

    if (p->event == NULL
        || fcntl(p->fd, F_SETFL, O_NONBLOCK) == -1
        || event_add(p->event, NULL) == -1)
    {
        saved = errno;
        close(fds[1]);
        errno = saved;
        return -1;
    }

    return fds[1];
}


/* Everything but the process. */
static struct runner *
runner_new(const struct runner_spec *spec)
{
    int             i;
    struct runner  *r;

    r = calloc(1, sizeof(*r));
    if (r == NULL) {
        return NULL;
    }

    r->pidfd = -1;
    r->stop_signal = spec->stop_signal != 0 ? spec->stop_signal : SIGTERM;
    r->stop_ms = spec->stop_ms != 0 ? spec->stop_ms : RUNNER_STOP_MS;
    r->kill_ms = spec->kill_ms != 0 ? spec->kill_ms : RUNNER_KILL_MS;
    r->on_line = spec->on_line;
    r->on_exit = spec->on_exit;
    r->arg = spec->arg;

    for (i = 0; i < 2; i++) {
        r->pipes[i].runner = r;
        r->pipes[i].fd = -1;
        r->pipes[i].is_stderr = (i == 1);
        r->pipes[i].lines.handler = pipe_on_line;
        r->pipes[i].lines.arg = &r->pipes[i];
    }

    r->name = strdup(spec->name != NULL ? spec->name : spec->argv[0]);
    r->timer = evtimer_new(loop, runner_on_timer, r);

    if (r->name == NULL || r->timer == NULL) {
        runner_free(r);
        errno = ENOMEM;
        return NULL;
    }

    return r;
}


/* Makes the pipes and the process; -1 with the reason in error. */
static int
runner_spawn(struct runner *r, const struct runner_spec *spec, char *error,
    size_t error_size)
{
    int           out, err;
    struct spawn  what;

    out = pipe_open(r, 0);
    err = (out == -1) ? -1 : pipe_open(r, 1);

    if (err == -1) {
        snprintf(error, error_size, "%s: %s", spec->argv[0], strerror(errno));
        r->pid = -1;

    } else {
        what.argv = spec->argv;
        what.envp = spec->envp;
        what.cwd = (spec->cwd != NULL) ? spec->cwd : "/";
        what.death_signal = (spec->death_signal != 0) ? spec->death_signal
                                                      : SIGKILL;
        what.out = out;
        what.err = err;
        what.files = &files;

        r->pid = spawn_process(&what, error, error_size);
        close(err);
    }

    if (out != -1) {
        close(out);
    }

    return (r->pid == -1) ? -1 : 0;
}


/* Waits for the end; without a pidfd SIGCHLD alone has to tell it. */
static void
runner_watch(struct runner *r)
{
    r->pidfd = pidfd_open(r->pid, 0);
    if (r->pidfd == -1) {
        return;
    }

    r->death = event_new(loop, r->pidfd, EV_READ | EV_PERSIST,
                         runner_on_death, r);

    if (r->death != NULL) {
        event_add(r->death, NULL);
    }
}


/* Starts a child. */
struct runner *
runner_start(const struct runner_spec *spec, char *error, size_t error_size)
{
    struct runner  *r;

    r = runner_new(spec);

    if (r == NULL) {
        snprintf(error, error_size, "%s: %s", spec->argv[0], strerror(errno));
        return NULL;
    }

    if (runner_spawn(r, spec, error, error_size) == -1) {
        runner_free(r);
        return NULL;
    }

    LIST_INSERT_HEAD(&runners, r, link);
    runners_alive++;
    runner_watch(r);

    log_write(LOG_DEBUG, "runner", "%s (pid %d) started", r->name,
              (int) r->pid);

    return r;
}


/* Process number of the child. */
pid_t
runner_pid(const struct runner *r)
{
    return r->pid;
}


/* Starts the ladder. */
void
runner_stop(struct runner *r)
{
    struct timeval  tv;

    if (r->stage != STAGE_RUNNING || r->dead) {
        return;
    }

    r->stage = STAGE_ASKED;
    kill(-r->pid, r->stop_signal);

    tv.tv_sec = r->stop_ms / 1000;
    tv.tv_usec = (suseconds_t) (r->stop_ms % 1000) * 1000;
    event_add(r->timer, &tv);
}


/* SIGKILL to the group now. */
void
runner_kill(struct runner *r)
{
    if (r->dead) {
        return;
    }

    r->stage = STAGE_KILLED;
    event_del(r->timer);
    kill(-r->pid, SIGKILL);
}


/* One signal to the child alone. */
void
runner_signal(struct runner *r, int signal)
{
    if (!r->dead) {
        kill(r->pid, signal);
    }
}


/* Children alive. */
unsigned
runner_count(void)
{
    return runners_alive;
}


/* A wait status in words. */
const char *
runner_status_text(int status, char *buf, size_t size)
{
    if (WIFSIGNALED(status)) {
        snprintf(buf, size, "killed by signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));

    } else {
        snprintf(buf, size, "exit code %d", WEXITSTATUS(status));
    }

    return buf;
}
