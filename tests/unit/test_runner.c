/*
 * Children: their world, their output, their end.
 *
 * link: helper/runner.c helper/spawn.c helper/lines.c helper/log.c
 */

#define _GNU_SOURCE

#include "lines.h"
#include "log.h"
#include "runner.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>


/* What became of one child. */
struct seen {
    struct runner  *runner;
    bool            done;
    bool            was_dead;       /* runner_dead() in on_exit */
    int             status;
    unsigned        lines;
    bool            on_stderr;
    char            out[20000];     /* its lines, with newlines */
    size_t          len;
    unsigned        stop_at;        /* lines after which to stop it */
};


static struct event_base  *base;
static int                 failed;
static unsigned            running;


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


/* Milliseconds on a clock that does not jump. */
static long
clock_ms(void)
{
    struct timespec  now;

    clock_gettime(CLOCK_MONOTONIC, &now);

    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}


/* Keeps a line. */
static void
on_line(struct runner *r, const char *line, size_t len, bool is_stderr,
    void *arg)
{
    struct seen  *s;

    s = arg;
    s->lines++;
    s->on_stderr = is_stderr;

    if (s->len + len + 2 < sizeof(s->out)) {
        memcpy(s->out + s->len, line, len);
        s->len += len;
        s->out[s->len++] = '\n';
        s->out[s->len] = '\0';
    }

    if (s->stop_at == s->lines) {
        runner_stop(r);
    }
}


/* Keeps the status; the last child ends the loop. */
static void
on_exit_(struct runner *r, int status, void *arg)
{
    struct seen  *s;

    s = arg;

    if (s->done) {
        complain("a child ended twice");
    }

    s->done = true;
    s->status = status;
    s->was_dead = runner_dead(r);
    s->runner = NULL;

    runner_stop(r);             /* harmless */
    runner_kill(r);

    if (--running == 0) {
        event_base_loopbreak(base);
    }
}


/* Starts a shell. */
static void
start(struct seen *s, const char *script, unsigned stop_ms, unsigned kill_ms)
{
    char                 error[256];
    char                *argv[] = { (char *) (intptr_t) "/bin/sh",
                                    (char *) (intptr_t) "-c", NULL, NULL };
    char                *envp[] = { (char *) (intptr_t) "PATH=/usr/bin:/bin",
                                    (char *) (intptr_t) "ONLY=this", NULL };
    struct runner_spec   spec;

    argv[2] = strdup(script);

    memset(s, 0, sizeof(*s));
    memset(&spec, 0, sizeof(spec));
    spec.name = "test";
    spec.argv = argv;
    spec.envp = envp;
    spec.stop_ms = stop_ms;
    spec.kill_ms = kill_ms;
    spec.on_line = on_line;
    spec.on_exit = on_exit_;
    spec.arg = s;

    s->runner = runner_start(&spec, error, sizeof(error));

    if (s->runner == NULL) {
        complain("start: %s", error);

    } else {
        running++;
    }

    free(argv[2]);
}


/* Ends the loop. */
static void
on_timeout(evutil_socket_t fd, short what, void *arg)
{
    event_base_loopbreak(base);
}


/* Runs the loop for a time, or until every child has ended. */
static void
turn(int ms)
{
    struct event    *timer;
    struct timeval   tv = { .tv_sec = ms / 1000,
                            .tv_usec = (ms % 1000) * 1000 };

    timer = evtimer_new(base, on_timeout, NULL);
    event_add(timer, &tv);
    event_base_dispatch(base);
    event_free(timer);
}


/* Runs the loop until every child has ended. */
static void
finish(const char *what)
{
    if (running > 0) {
        turn(10000);
    }

    if (running > 0 || runner_count() > 0) {
        complain("%s: %u children are left", what, running);
        exit(1);
    }
}


/* Runs a script to its end. */
static void
play(struct seen *s, const char *script)
{
    start(s, script, 0, 0);
    finish(script);

    if (!s->done || !s->was_dead) {
        complain("%s: not done", script);
    }
}


/* True while the process exists. */
static bool
is_alive(pid_t pid)
{
    return kill(pid, 0) == 0;
}


/* The lines of which a stream consists. */
static void
keep_line(const char *line, size_t len, void *arg)
{
    on_line(NULL, line, len, false, arg);
}


/* Cutting, however the bytes arrive. */
static void
test_lines(void)
{
    char                *text;
    size_t               step, i, n;
    struct seen          s;
    struct lines         l;
    static const char    input[] = "a\r\n\nb\rc\r\r\n\r\nd";

    for (step = 1; step < sizeof(input); step++) {
        memset(&s, 0, sizeof(s));
        memset(&l, 0, sizeof(l));
        l.handler = keep_line;
        l.arg = &s;

        for (i = 0; i < sizeof(input) - 1; i += step) {
            n = sizeof(input) - 1 - i;
            lines_add(&l, input + i, n < step ? n : step);
        }

        lines_end(&l);

        if (s.lines != 5 || strcmp(s.out, "a\n\nb\rc\r\n\nd\n") != 0) {
            complain("lines in steps of %zu: %s", step, s.out);
        }
    }

    /* At the limit, over it, and far over it. */

    text = malloc(30000);
    memset(text, 'x', 30000);

    for (i = 8190; i < 30000; i += (i == 8195) ? 10001 : 1) {
        memset(&s, 0, sizeof(s));
        memset(&l, 0, sizeof(l));
        l.handler = keep_line;
        l.arg = &s;

        lines_add(&l, text, i);
        lines_add(&l, "\nshort\n", 7);
        lines_end(&l);

        if (s.lines != 2
            || s.len != (i < LINES_MAX ? i : LINES_MAX) + 1 + 6)
        {
            complain("a line of %zu: %u lines, %zu bytes", i, s.lines, s.len);
        }
    }

    free(text);
}


/*
 * posix_spawn, by which make starts us, leaves the two signals that glibc
 * keeps for itself ignored, and glibc lets nobody change that.
 */
static void
heed_signals(void)
{
    int            number;
    unsigned char  action[64] = { 0 };      /* SIG_DFL */

    for (number = 32; number <= 33; number++) {
        syscall(SYS_rt_sigaction, number, action, NULL, 8);
    }
}


/* The world a child finds. */
static void
test_world(void)
{
    int            fd;
    char           limit[64], *end;
    long           group;
    struct seen    s;
    struct rlimit  files;

    /* An inherited descriptor, a blocked and an ignored signal. */

    fd = open("/dev/null", O_RDONLY);
    signal(SIGPIPE, SIG_IGN);
    heed_signals();

    play(&s, "ls /proc/$$/fd; readlink /proc/$$/fd/0; pwd;"
             " env | sort | tr '\\n' ' '; echo;"
             " grep -E '^Sig(Blk|Ign)' /proc/$$/status | cut -f2;"
             " cut -d' ' -f5 /proc/$$/stat; echo $$");

    if (strncmp(s.out, "0\n1\n2\n/dev/null\n/\n"
                       "ONLY=this PATH=/usr/bin:/bin PWD=/ \n"
                       "0000000000000000\n0000000000000000\n", 88) != 0)
    {
        complain("a child's world: %s", s.out);
    }

    end = NULL;
    group = strtol(s.out + 88, &end, 10);

    if (group <= 1 || group != strtol(end, NULL, 10)) {
        complain("a child's group: %s", s.out);
    }

    getrlimit(RLIMIT_NOFILE, &files);
    snprintf(limit, sizeof(limit), "%lu\n", (unsigned long) files.rlim_cur);
    files.rlim_cur /= 2;
    setrlimit(RLIMIT_NOFILE, &files);

    play(&s, "ulimit -Sn");

    if (strcmp(s.out, limit) != 0) {
        complain("a child's limit: %s", s.out);
    }

    files.rlim_cur *= 2;
    setrlimit(RLIMIT_NOFILE, &files);
    close(fd);
}


/* Exit codes, signals, streams. */
static void
test_results(void)
{
    char         text[64];
    struct seen  s;

    play(&s, "echo out; exit 3");

    if (strcmp(s.out, "out\n") != 0 || s.on_stderr
        || strcmp(runner_status_text(s.status, text, sizeof(text)),
                  "exit code 3") != 0)
    {
        complain("exit 3: %s %s", s.out, text);
    }

    play(&s, "printf 'no newline' >&2; kill -9 $$");

    if (strcmp(s.out, "no newline\n") != 0 || !s.on_stderr
        || strcmp(runner_status_text(s.status, text, sizeof(text)),
                  "killed by signal 9 (Killed)") != 0)
    {
        complain("kill -9: %s %s", s.out, text);
    }

    /* More than a pipe holds, and all of it before on_exit. */

    play(&s, "seq 100000");

    if (s.lines != 100000) {
        complain("seq: %u lines", s.lines);
    }

    play(&s, "exec 1>&- 2>&-; sleep 0.05; exit 4");

    if (s.lines != 0 || WEXITSTATUS(s.status) != 4) {
        complain("closed output: %x", (unsigned) s.status);
    }
}


/* Programs that cannot be executed. */
static void
test_errors(void)
{
    unsigned            i;
    char                error[256];
    char               *argv[] = { NULL, NULL };
    char               *envp[] = { NULL };
    struct runner_spec  spec;

    static const struct {
        const char  *program;
        const char  *cwd;
        const char  *error;
    } errors[] = {
        { "/nonexistent/x", NULL,
          "/nonexistent/x: No such file or directory" },
        { "/etc/passwd", NULL, "/etc/passwd: Permission denied" },
        { "/bin/sh", "/nonexistent",
          "/nonexistent: No such file or directory" },
        { "/bin", "/", "/bin: Permission denied" },
    };

    for (i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        argv[0] = strdup(errors[i].program);

        memset(&spec, 0, sizeof(spec));
        spec.argv = argv;
        spec.envp = envp;
        spec.cwd = errors[i].cwd;
        spec.on_exit = on_exit_;

        if (runner_start(&spec, error, sizeof(error)) != NULL
            || strcmp(error, errors[i].error) != 0)
        {
            complain("%s: %s", errors[i].program, error);
        }

        free(argv[0]);
    }

    if (runner_count() != 0 || waitpid(-1, NULL, WNOHANG) != -1) {
        complain("a child is left of those that could not start");
    }
}


/* Starts one with a ladder, stops it after its first line, and looks. */
static void
climb(const char *script, int wanted, const char *out, long least, long most)
{
    long         from, ms;
    struct seen  s;

    start(&s, script, 150, 200);
    s.stop_at = 1;
    from = clock_ms();
    finish(script);
    ms = clock_ms() - from;

    if (s.status != wanted || strcmp(s.out, out) != 0
        || ms < least || ms > most)
    {
        complain("%s: status %x after %ld ms: %s", script,
                 (unsigned) s.status, ms, s.out);
    }
}


/* Children that stop at once, at the second asking, and never. */
static void
test_ladder(void)
{
    climb("echo up; exec sleep 9", SIGTERM, "up\n", 0, 140);

    climb("exec 2>&-; trap 'echo one; trap \"echo two; exit 5\" TERM' TERM; echo up;"
          " while :; do sleep 0.01; done",
          5 << 8, "up\none\ntwo\n", 150, 340);

    climb("trap '' TERM; echo up; while :; do sleep 0.01; done",
          SIGKILL, "up\n", 350, 700);
}


/* Direct kill, signals to the child alone, and death without the loop. */
static void
test_signals(void)
{
    int          i;
    struct seen  s;

    start(&s, "trap 'echo hup' HUP; echo up; while :; do sleep 0.01; done",
          0, 0);

    while (s.lines == 0) {
        turn(5);
    }

    runner_signal(s.runner, SIGHUP);

    while (s.lines == 1) {
        turn(5);
    }

    if (strcmp(s.out, "up\nhup\n") != 0 || runner_dead(s.runner)
        || runner_count() != 1)
    {
        complain("SIGHUP: %s", s.out);
    }

    runner_kill(s.runner);

    for (i = 0; i < 500 && !runner_dead(s.runner); i++) {
        usleep(1000);
    }

    if (s.done || !runner_dead(s.runner)) {
        complain("a killed child is not dead");
    }

    finish("kill");

    if (s.status != SIGKILL) {
        complain("kill: %x", (unsigned) s.status);
    }
}


/* Grandchildren: in the group, holding the pipe, and escaped from both. */
static void
test_grandchildren(void)
{
    int          i, pid;
    long         from;
    struct seen  s;

    from = clock_ms();
    play(&s, "sleep 30 & echo $!");
    pid = (int) strtol(s.out, NULL, 10);

    if (clock_ms() - from > 2000) {
        complain("a grandchild with the pipe delayed the end");
    }

    for (i = 0; i < 100 && is_alive(pid); i++) {
        turn(5);
    }

    if (pid <= 0 || is_alive(pid)) {
        complain("the grandchild %d is left", pid);
    }

    /* Out of the group: it lives on, is adopted and at last reaped. */

    from = clock_ms();
    play(&s, "setsid sh -c 'echo $$; sleep 0.2' & sleep 0.1");
    pid = (int) strtol(s.out, NULL, 10);

    if (clock_ms() - from > 190 && !is_alive(pid)) {
        complain("an escaped grandchild delayed the end");
    }

    for (i = 0; i < 100 && is_alive(pid); i++) {
        turn(10);
    }

    if (pid <= 0 || is_alive(pid)) {
        complain("the orphan %d was not reaped", pid);
    }
}


/* A hundred children and three hundred orphans, each reaped once. */
static void
test_many(void)
{
    int                  i;
    siginfo_t            info;
    struct dirent       *entry;
    DIR                 *fds;
    unsigned             before, after;
    static struct seen   s[100];

    before = after = 0;

    for (fds = opendir("/proc/self/fd"); readdir(fds) != NULL; before++) { }
    closedir(fds);

    for (i = 0; i < 100; i++) {
        start(&s[i], "for i in 1 2 3; do setsid true & done; echo x; exit 7",
              0, 0);
    }

    if (runner_count() != 100) {
        complain("%u of 100 children", runner_count());
    }

    finish("many");

    for (i = 0; i < 100; i++) {
        if (!s[i].done || s[i].status != 7 << 8 || s[i].lines != 1) {
            complain("child %d of 100: %x, %u lines", i,
                     (unsigned) s[i].status, s[i].lines);
        }
    }

    for (i = 0; i < 100 && waitid(P_ALL, 0, &info, WEXITED | WNOHANG
                                  | WNOWAIT) != -1; i++)
    {
        turn(20);
    }

    if (i == 100) {
        complain("orphans are left");
    }

    fds = opendir("/proc/self/fd");

    while ((entry = readdir(fds)) != NULL) {
        after++;
    }

    closedir(fds);

    if (after != before) {
        complain("%u descriptors, %u before", after, before);
    }
}


/* Signals to the group between fork and exec must not reach our loop. */
static void
on_term(evutil_socket_t fd, short what, void *arg)
{
    (*(int *) arg)++;
}


/* Stops many children right after their start. */
static void
test_early_signal(void)
{
    int                 i, terms;
    struct event       *term;
    static struct seen  s[50];

    terms = 0;
    term = evsignal_new(base, SIGTERM, on_term, &terms);
    event_add(term, NULL);

    for (i = 0; i < 50; i++) {
        start(&s[i], "sleep 30", 1000, 1000);
        runner_stop(s[i].runner);
    }

    finish("early signal");
    event_free(term);

    for (i = 0; i < 50; i++) {
        if (s[i].status != SIGTERM) {
            complain("early signal %d: %x", i, (unsigned) s[i].status);
        }
    }

    if (terms != 0) {
        complain("%d signals for a child came to us", terms);
    }
}


/* The end kills and reaps all, also who escaped from its group. */
static void
test_fini(void)
{
    int          pid;
    char         text[64];
    long         from;
    struct seen  stubborn, escaped;

    start(&stubborn, "trap '' TERM; echo up; sleep 30 & wait", 0, 0);
    start(&escaped, "setsid sh -c 'trap \"\" TERM; echo $$; sleep 30; :' &"
                    " sleep 30", 0, 0);

    while (stubborn.lines == 0 || escaped.lines == 0) {
        turn(5);
    }

    pid = (int) strtol(escaped.out, NULL, 10);
    from = clock_ms();
    runner_fini();

    if (clock_ms() - from > 500 || stubborn.done || escaped.done) {
        complain("the end took %ld ms", clock_ms() - from);
    }

    if (runner_count() != 0 || pid <= 0 || is_alive(pid)
        || waitpid(-1, NULL, WNOHANG) != -1 || errno != ECHILD)
    {
        complain("somebody survived the end: %s",
                 runner_status_text(0, text, sizeof(text)));
    }
}


/* A helper that is killed takes its children along. */
static void
test_parent_death(void)
{
    int          fds[2], child, i;
    pid_t        pid;
    struct seen  s;

    if (pipe(fds) == -1) {
        return;
    }

    prctl(PR_SET_CHILD_SUBREAPER, 1);
    pid = fork();

    if (pid == 0) {
        base = event_base_new();

        if (runner_init(base) == -1) {
            _exit(1);
        }

        start(&s, "exec sleep 30", 0, 0);
        child = runner_pid(s.runner);

        if (write(fds[1], &child, sizeof(child)) != sizeof(child)) {
            _exit(1);
        }

        kill(getpid(), SIGKILL);
    }

    if (read(fds[0], &child, sizeof(child)) != sizeof(child)) {
        complain("no child");
        return;
    }

    waitpid(pid, NULL, 0);

    for (i = 0; i < 500 && waitpid(child, NULL, WNOHANG) == 0; i++) {
        usleep(1000);
    }

    if (i == 500) {
        complain("a child survived its parent");
        kill(child, SIGKILL);
    }

    close(fds[0]);
    close(fds[1]);
}


/* Runs everything. */
int
main(void)
{
    alarm(60);
    log_level_set(LOG_ERROR);

    test_lines();
    test_parent_death();

    base = event_base_new();

    if (runner_init(base) == -1) {
        complain("init: %s", strerror(errno));
        return 1;
    }

    test_world();
    test_results();
    test_errors();
    test_ladder();
    test_signals();
    test_grandchildren();
    test_many();
    test_early_signal();
    test_fini();

    event_base_free(base);
    libevent_global_shutdown();

    return failed;
}
