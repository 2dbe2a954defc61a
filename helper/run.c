/*
 * Runs a program and waits; see run.h.
 */

#define _GNU_SOURCE

#include "run.h"
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>


/* In the child: it shall not outlive us; output into the pipe; program. */
static void
run_exec(char *const *argv, const char *cwd, int out)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);

    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);

    if (cwd == NULL || chdir(cwd) == 0) {
        execvp(argv[0], argv);
    }

    _exit(errno == ENOENT ? 127 : 126);
}


/*
 * Keeps the line that tells most about a failure: what could not be fetched,
 * else the first error, else the last line of all.
 */
static void
run_note(char *error, size_t size, const char *line)
{
    int                       i, have, got;
    static const char *const  telling[] = { "E: ", "Failed to fetch" };

    have = 0;
    got = 0;

    for (i = 0; i < 2; i++) {
        if (strstr(error, telling[i]) != NULL) {
            have = i + 1;
        }

        if (strstr(line, telling[i]) != NULL) {
            got = i + 1;
        }
    }

    if (got > have || (got == 0 && have == 0 && line[0] != '\0')) {
        text_copy(error, size, line);
        text_clean(error);
    }
}


/* Runs it and waits. */
int
run_program(char *const *argv, const char *cwd, char *out, size_t out_size,
    char *error, size_t error_size)
{
    int      fds[2], status;
    char    *line;
    FILE    *in;
    pid_t    pid;
    size_t   room, used;
    ssize_t  n;

    error[0] = '\0';
    used = 0;

    if (pipe2(fds, O_CLOEXEC) == -1) {
        return -1;
    }

    pid = fork();

    if (pid == 0) {
        run_exec(argv, cwd, fds[1]);
    }

    close(fds[1]);
    in = fdopen(fds[0], "r");

    if (pid == -1 || in == NULL) {
        close(fds[0]);
        return -1;
    }

    line = NULL;
    room = 0;

    while ((n = getline(&line, &room, in)) > 0) {

        if (used + (size_t) n < out_size) {
            memcpy(out + used, line, (size_t) n);
            used += (size_t) n;
        }

        line[strcspn(line, "\n")] = '\0';
        run_note(error, error_size, line);
    }

    if (out_size > 0) {
        out[used] = '\0';
    }

    free(line);
    fclose(in);

    while (waitpid(pid, &status, 0) == -1) {
        if (errno != EINTR) {
            return -1;
        }
    }

    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
