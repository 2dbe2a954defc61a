/*
 * Child processes: each in its own process group, killed with the helper,
 * watched by pidfd, stopped by a ladder of signals, its output cut to lines.
 */

#ifndef LEMONADE_RUNNER_H
#define LEMONADE_RUNNER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include <event2/event.h>


struct runner;


/*
 * One line of output, without its newline and a carriage return before it;
 * else bytes as the child wrote them, not NUL-terminated.  At most 8 KB: the
 * rest of a longer line is dropped.  r may be stopped or killed from here.
 */
typedef void (*runner_line)(struct runner *r, const char *line, size_t len,
    bool is_stderr, void *arg);

/*
 * The child is dead and reaped; status as of waitpid.  All its output has
 * been delivered, and what was left of its process group has got SIGKILL.
 * Always called from the loop, never from runner_start or runner_kill.  The
 * runner is freed after this returns.
 */
typedef void (*runner_exit)(struct runner *r, int status, void *arg);


/* What to run.  Strings are copied as needed before runner_start returns. */
struct runner_spec {
    const char         *name;       /* for the log */
    char *const        *argv;       /* argv[0] is the path to execute */
    char *const        *envp;       /* whole environment of the child */
    const char         *cwd;        /* NULL: "/" */
    int                 death_signal; /* when the helper dies; 0: SIGKILL */
    int                 stop_signal;  /* first rung; 0: SIGTERM */
    unsigned            stop_ms;    /* rung 1 -> 2 (SIGTERM); 0: 2000 */
    unsigned            kill_ms;    /* rung 2 -> 3 (SIGKILL); 0: 3000 */
    runner_line         on_line;    /* may be NULL */
    runner_exit         on_exit;
    void               *arg;
};


/*
 * Called once at start: makes the helper a subreaper and watches SIGCHLD for
 * orphans.  Also remembers the limit of open files: children get the one
 * found here, so raise the helper's own only afterwards.  -1 with errno set.
 */
int runner_init(struct event_base *base);

/*
 * Called once at the end, before the event base is freed.  Kills and reaps
 * every child and every orphan that came to us, waiting at most 2 seconds.
 * on_line and on_exit are not called any more; the runners are freed.
 */
void runner_fini(void);

/*
 * Starts a child in a process group of its own: standard input is /dev/null,
 * standard output and error come to on_line, no other file descriptor, no
 * signal blocked or ignored.  NULL when it could not be executed; error then
 * says why ("/usr/bin/x: No such file or directory").
 */
struct runner *runner_start(const struct runner_spec *spec, char *error,
    size_t error_size);

pid_t runner_pid(const struct runner *r);

/* True when the child is dead though its exit was not delivered yet. */
bool runner_dead(const struct runner *r);

/*
 * Starts the ladder, each rung for the whole group: stop_signal, SIGTERM
 * after stop_ms, SIGKILL after another kill_ms.  Repeated calls are harmless.
 * on_exit tells the end.
 */
void runner_stop(struct runner *r);

/* SIGKILL to the group now.  on_exit tells the end. */
void runner_kill(struct runner *r);

/* One signal to the child alone (nginx: SIGHUP). */
void runner_signal(struct runner *r, int signal);

/* Children alive. */
unsigned runner_count(void);

/* "exit code 1", "killed by signal 9 (Killed)" into buf. */
const char *runner_status_text(int status, char *buf, size_t size);


#endif /* LEMONADE_RUNNER_H */
