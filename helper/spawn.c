/*
 * fork and exec, done with care.
 */

#define _GNU_SOURCE

#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>


/* What the child says when it cannot become the program. */
struct spawn_error {
    int  in_cwd;
    int  number;
};


/* Tells the parent why there will be no program. */
static void
child_fail(int fd, int in_cwd)
{
    struct spawn_error  e = { .in_cwd = in_cwd, .number = errno };

    if (write(fd, &e, sizeof(e)) != sizeof(e)) {
        _exit(126);
    }

    _exit(127);
}


/*
 * Becomes the program.  Runs in the child with every signal blocked; only
 * async-signal-safe calls.  report is where an errno goes.
 */
static void
child_run(const struct spawn *what, pid_t parent, int report)
{
    int               i, null;
    sigset_t          none;
    struct sigaction  action;

    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, what->death_signal);

    if (getppid() != parent) {
        _exit(127);         /* it died before we asked to be told */
    }

    memset(&action, 0, sizeof(action));
    action.sa_handler = SIG_DFL;

    for (i = 1; i < NSIG; i++) {
        (void) sigaction(i, &action, NULL);
    }

    null = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (null == -1
        || dup2(null, STDIN_FILENO) == -1
        || dup2(what->out, STDOUT_FILENO) == -1
        || dup2(what->err, STDERR_FILENO) == -1
        || (report != 3 && dup3(report, 3, O_CLOEXEC) == -1))
    {
        child_fail(report, 0);
    }

    closefrom(4);

    (void) setrlimit(RLIMIT_NOFILE, what->files);

    if (chdir(what->cwd) == -1) {
        child_fail(3, 1);
    }

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);

    execve(what->argv[0], what->argv, what->envp);

    child_fail(3, 0);
}


/* Makes a process. */
pid_t
spawn_process(const struct spawn *what, char *error, size_t error_size)
{
    int                 report[2];
    pid_t               pid, parent;
    ssize_t             n;
    sigset_t            all, old;
    struct spawn_error  e;

    n = -1;
    e.in_cwd = 0;

    if (pipe2(report, O_CLOEXEC) == -1) {
        e.number = errno;
        goto failed;
    }

    /*
     * A signal that met the child between fork and exec would run libevent's
     * handler there and wake the parent through their common pipe.
     */

    parent = getpid();
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &old);

    pid = fork();
    e.number = errno;

    if (pid == 0) {
        child_run(what, parent, report[1]);
    }

    sigprocmask(SIG_SETMASK, &old, NULL);
    close(report[1]);

    if (pid != -1) {
        setpgid(pid, pid);

        do {
            n = read(report[0], &e, sizeof(e));
        } while (n == -1 && errno == EINTR);
    }

    close(report[0]);

    if (pid != -1 && n != sizeof(e)) {
        return pid;
    }

    while (pid != -1 && waitpid(pid, NULL, 0) == -1 && errno == EINTR) {
        /* void */
    }

failed:

    snprintf(error, error_size, "%s: %s",
             e.in_cwd ? what->cwd : what->argv[0], strerror(e.number));

    return -1;
}
