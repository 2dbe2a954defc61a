/*
 * One child that serves one model; see server.h.
 *
 *   prepare (find, install)  ->  launch  ->  ask /health  ->  ready
 *
 * A start that failed because somebody else took the port is tried again
 * with another one; any other end is the end.
 */

#define _GNU_SOURCE

#include "server.h"
#include "health.h"
#include "helper.h"
#include "log.h"
#include "owner.h"
#include "runner.h"
#include "text.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/un.h>
#include <unistd.h>


#define SERVER_PATH_MAX     100     /* bytes of a Unix socket's path */
#define SERVER_TRIES        5       /* ports */
#define SERVER_RING         200     /* lines kept */
#define SERVER_FAST_MS      5       /* in the first second */
#define SERVER_SLOW_MS      100
#define SERVER_DOUBT_MS     3000
#define SERVER_LOG_LINES    500     /* a second, into our log */


struct server {
    const struct backend         *backend;
    const struct registry_model  *model;
    struct runner                *runner;
    struct health                *health;
    struct event                 *later;    /* load timeout, then the end */
    struct log_ring              *ring;
    struct backend_timing         timing;
    struct sockaddr_un            address;
    socklen_t                     address_len;
    char                         *socket;   /* path, NULL: TCP */
    unsigned                      port;
    unsigned                      tries;
    bool                          preparing;
    bool                          ready;
    bool                          stopping;
    bool                          port_taken;
    bool                          explained;    /* error is the cause */
    bool                          stranger; /* answered on our port */
    char                          key[LM_KEY_MAX];
    char                         *tag;
    uint64_t                      log_since;
    unsigned                      log_lines;
    char                          error[512];
    server_ready                  on_ready;
    server_sure                   on_sure;  /* while it is in doubt */
    server_exit                   on_exit;
    void                         *arg;
};


/* Of the last server that ended. */
static char  *last_socket;


static unsigned  server_serial;


/* Tells how many lines of the last second were not logged. */
static void
server_log_settle(struct server *s)
{
    if (s->log_lines > SERVER_LOG_LINES) {
        log_write(LOG_WARNING, s->tag, "%u lines left out",
                  s->log_lines - SERVER_LOG_LINES);
    }

    s->log_lines = 0;
}


/*
 * Leaves the socket of a server that has ended until the next one ends.
 * Whoever leased it a moment ago then finds nobody listening, which nginx
 * takes for an ordinary error, and not that there is no such file.
 */
static void
server_leave_socket(char *path)
{
    if (last_socket != NULL) {
        unlink(last_socket);
        free(last_socket);
    }

    last_socket = path;
}


/* Removes what the last server has left. */
void
server_fini(void)
{
    server_leave_socket(NULL);
}


/* Frees a server whose child is gone, or no longer waited for. */
void
server_free(struct server *s)
{
    server_log_settle(s);

    if (s->socket != NULL) {
        server_leave_socket(s->socket);
    }

    health_free(s->health);
    event_free(s->later);
    log_ring_free(s->ring);
    free(s->tag);
    free(s);
}


/* Tells the owner that it is over. */
static void
server_end(struct server *s, const char *reason)
{
    server_exit   on_exit = s->on_exit;
    void         *arg = s->arg;
    char          line[sizeof(s->error)];

    text_copy(line, sizeof(line), reason);
    text_clean(line);

    on_exit(s, line, arg);
    server_free(s);
}


/* The server in doubt answers, or has had its time. */
static void
server_settle(struct server *s, bool answered)
{
    server_sure  on_sure = s->on_sure;

    s->health = NULL;
    s->on_sure = NULL;
    event_del(s->later);

    if (!s->stopping && !runner_dead(s->runner)) {
        on_sure(s, answered, s->arg);
    }
}


/* The server in doubt answers. */
static void
server_on_sure(void *arg)
{
    server_settle(arg, true);
}


/*
 * The load takes too long, or there never was a child to wait for, or a
 * doubt lasts too long.
 */
static void
server_on_later(evutil_socket_t fd, short what, void *arg)
{
    struct server  *s = arg;

    if (s->on_sure != NULL) {
        health_free(s->health);
        server_settle(s, false);
        return;
    }

    if (s->runner == NULL) {
        server_end(s, s->error[0] ? s->error : "stopped");
        return;
    }

    snprintf(s->error, sizeof(s->error), "not ready within %ld s%s",
             helper.opt.load_timeout,
             s->stranger ? ", another program answers on its port" : "");
    s->stopping = true;
    runner_stop(s->runner);
}


/* Ends a server that has no child, from the loop. */
static void
server_end_soon(struct server *s)
{
    struct timeval  tv = { .tv_sec = 0, .tv_usec = 0 };

    evtimer_add(s->later, &tv);
}


/* Somebody answered 200: the child, or who took its port before it could? */
static void
server_on_health(void *arg)
{
    struct server  *s = arg;

    s->health = NULL;

    if (s->stopping || runner_dead(s->runner)) {
        return;
    }

    if (s->socket == NULL && !owner_is_group(server_pid(s), s->port)) {
        s->stranger = true;
        s->health = health_new(helper.base, (struct sockaddr *) &s->address,
                               s->address_len, s->backend->health_path,
                               SERVER_SLOW_MS, SERVER_SLOW_MS,
                               server_on_health, s);
        return;
    }

    s->ready = true;
    event_del(s->later);
    s->on_ready(s, s->arg);
}


/* Logs a line unless there were too many: a child may write for ever. */
static void
server_log(struct server *s, enum log_level level, const char *line)
{
    if (clock_ms() - s->log_since >= 1000) {
        server_log_settle(s);
        s->log_since = clock_ms();
    }

    if (++s->log_lines <= SERVER_LOG_LINES) {
        log_write(level, s->tag, "%s", line);
    }
}


/* One line of the child's output. */
static void
server_on_line(struct runner *r, const char *line, size_t len,
    bool is_stderr, void *arg)
{
    char                copy[1024];
    enum log_level      level;
    struct server      *s = arg;

    if (len >= sizeof(copy)) {
        len = sizeof(copy) - 1;
    }

    memcpy(copy, line, len);
    copy[len] = '\0';
    text_clean(copy);

    log_ring_add(s->ring, copy, len);
    level = LOG_DEBUG;

    switch (s->backend->line(copy, &s->timing)) {

    case LINE_PORT_TAKEN:
        s->port_taken = true;
        /* fall through */

    case LINE_CAUSE:
        s->explained = true;
        level = LOG_ERROR;
        text_copy(s->error, sizeof(s->error), s->backend->message(copy));
        break;

    case LINE_ERROR:
        level = LOG_ERROR;

        if (!s->explained) {
            text_copy(s->error, sizeof(s->error), s->backend->message(copy));
        }

        break;

    case LINE_FAREWELL:
        level = LOG_ERROR;

        if (s->error[0] == '\0') {
            text_copy(s->error, sizeof(s->error), s->backend->message(copy));
        }

        break;

    case LINE_READY:
        if (s->health != NULL) {
            health_poke(s->health);
        }

        break;

    default:
        break;
    }

    server_log(s, level, copy);
}


static void server_launch(struct server *s,
    const struct backend_program *program);


/* The program is known now, or it is known that there is none. */
static void
server_on_prepared(const struct backend_program *program, const char *error,
    void *arg)
{
    struct server  *s = arg;

    s->preparing = false;

    if (program == NULL) {
        text_copy(s->error, sizeof(s->error), error);
        server_end_soon(s);
        return;
    }

    server_launch(s, program);
}


/* The child is dead. */
static void
server_on_exit(struct runner *r, int status, void *arg)
{
    char            how[64], reason[640];
    struct server  *s = arg;

    s->runner = NULL;
    s->on_sure = NULL;
    health_free(s->health);
    s->health = NULL;
    event_del(s->later);

    if (s->port_taken && !s->ready && !s->stopping && s->tries < SERVER_TRIES)
    {
        log_write(LOG_WARNING, s->tag, "port %u was taken, trying another",
                  s->port);
        s->preparing = true;
        s->backend->prepare(true, server_on_prepared, s);
        return;
    }

    runner_status_text(status, how, sizeof(how));

    if (s->error[0] != '\0') {
        snprintf(reason, sizeof(reason), "%s (%s)", s->error, how);

    } else {
        snprintf(reason, sizeof(reason), "%s ended: %s", s->model->recipe,
                 how);
    }

    server_end(s, reason);
}


/* A port of the loopback that was free a moment ago; 0: none. */
static unsigned
server_free_port(void)
{
    int                  fd;
    unsigned             port;
    socklen_t            len;
    struct sockaddr_in   sin;

    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd == -1) {
        return 0;
    }

    memset(&sin, 0, sizeof(sin));
    sin.sin_family = AF_INET;
    sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);

    len = sizeof(sin);
    port = 0;

    if (bind(fd, (struct sockaddr *) &sin, len) == 0
        && getsockname(fd, (struct sockaddr *) &sin, &len) == 0)
    {
        port = ntohs(sin.sin_port);
    }

    close(fd);

    return port;
}


/* Chooses where the child shall listen. */
static bool
server_choose_address(struct server *s,
    const struct backend_program *program)
{
    char                *path;
    struct sockaddr_in  *sin;

    memset(&s->address, 0, sizeof(s->address));

    path = text_format("%s/backends/%u.sock", helper.run_dir,
                       ++server_serial);

    if (program->sockets && strlen(path) <= SERVER_PATH_MAX) {
        unlink(path);
        free(s->socket);
        s->socket = path;
        s->address.sun_family = AF_UNIX;
        text_copy(s->address.sun_path, sizeof(s->address.sun_path), path);
        s->address_len = sizeof(s->address);
        return true;
    }

    free(path);

    s->port = server_free_port();
    if (s->port == 0) {
        return false;
    }

    sin = (struct sockaddr_in *) (void *) &s->address;
    sin->sin_family = AF_INET;
    sin->sin_port = htons((uint16_t) s->port);
    sin->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    s->address_len = sizeof(*sin);

    return true;
}


/* Runs the child's command. */
static struct runner *
server_run(struct server *s, const struct backend_program *program)
{
    struct words         argv = { 0 }, env = { 0 };
    struct runner       *r;
    struct backend_job   job = {
        .model = s->model,
        .program = program,
        .socket = s->socket,
        .port = s->port,
        .key = s->key,
    };
    struct runner_spec   spec;

    s->backend->command(&job, &argv, &env);

    memset(&spec, 0, sizeof(spec));
    spec.name = s->tag;
    spec.argv = argv.item;
    spec.envp = env.item;
    spec.cwd = program->cwd;
    spec.on_line = server_on_line;
    spec.on_exit = server_on_exit;
    spec.arg = s;

    r = runner_start(&spec, s->error, sizeof(s->error));

    words_free(&argv);
    words_free(&env);

    return r;
}


/* Starts the child and begins to ask it. */
static void
server_launch(struct server *s, const struct backend_program *program)
{
    struct timeval  tv = { .tv_sec = helper.opt.load_timeout, .tv_usec = 0 };

    s->tries++;
    s->port_taken = false;
    s->explained = false;
    s->stranger = false;
    s->error[0] = '\0';

    if (!server_choose_address(s, program)) {
        text_copy(s->error, sizeof(s->error), "no free port on 127.0.0.1");
        server_end_soon(s);
        return;
    }

    s->runner = server_run(s, program);

    if (s->runner == NULL) {
        server_end_soon(s);
        return;
    }

    evtimer_add(s->later, &tv);

    s->health = health_new(helper.base, (struct sockaddr *) &s->address,
                           s->address_len, s->backend->health_path,
                           SERVER_FAST_MS, SERVER_SLOW_MS, server_on_health,
                           s);
}


/* A key nobody can guess. */
static bool
server_make_key(char *key)
{
    size_t         i;
    unsigned char  bytes[32];

    if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t) sizeof(bytes)) {
        return false;
    }

    for (i = 0; i < sizeof(bytes); i++) {
        snprintf(key + 2 * i, 3, "%02x", bytes[i]);
    }

    return true;
}


/* Starts a server. */
struct server *
server_start(const struct registry_model *model, server_ready on_ready,
    server_exit on_exit, void *arg)
{
    struct server  *s;

    s = text_alloc(sizeof(*s));
    s->model = model;
    s->backend = backend_find(model->recipe);
    s->ring = log_ring_new(SERVER_RING);
    s->tag = text_format("%s %s", model->recipe, model->name);
    s->later = evtimer_new(helper.base, server_on_later, s);
    s->on_ready = on_ready;
    s->on_exit = on_exit;
    s->arg = arg;

    if (!server_make_key(s->key)) {
        text_copy(s->error, sizeof(s->error), "no random numbers");
        server_end_soon(s);
        return s;
    }

    s->preparing = true;
    s->backend->prepare(true, server_on_prepared, s);

    return s;
}


/* Asks a ready server again. */
void
server_doubt(struct server *s, server_sure on_sure)
{
    struct timeval  tv = {
        .tv_sec = SERVER_DOUBT_MS / 1000,
        .tv_usec = (SERVER_DOUBT_MS % 1000) * 1000,
    };

    s->on_sure = on_sure;
    evtimer_add(s->later, &tv);
    s->health = health_new(helper.base, (struct sockaddr *) &s->address,
                           s->address_len, s->backend->health_path,
                           SERVER_FAST_MS, SERVER_SLOW_MS, server_on_sure,
                           s);
}


/* Stops it. */
void
server_stop(struct server *s)
{
    s->stopping = true;

    if (s->preparing) {
        s->preparing = false;
        s->backend->cancel(s);
        server_end_soon(s);

    } else if (s->runner != NULL) {
        runner_stop(s->runner);
    }
}


/* Kills it. */
void
server_kill(struct server *s)
{
    server_stop(s);

    if (s->runner != NULL) {
        runner_kill(s->runner);
    }
}


/* Is it dead? */
bool
server_dead(const struct server *s)
{
    return s->runner == NULL || runner_dead(s->runner);
}


/* Its process. */
pid_t
server_pid(const struct server *s)
{
    return s->runner != NULL ? runner_pid(s->runner) : 0;
}


/* Describes it for the state file. */
void
server_describe(const struct server *s, struct lm_replica *replica)
{
    memset(replica, 0, sizeof(*replica));
    replica->address = s->address;
    replica->address_len = s->address_len;
    text_copy(replica->key, sizeof(replica->key), s->key);
    snprintf(replica->label, sizeof(replica->label), "%.32s %d",
             s->model->recipe, (int) server_pid(s));

    if (s->socket != NULL && helper_share(s->socket, 0660) == -1) {
        log_write(LOG_ERROR, s->tag, "%s: %s", s->socket, strerror(errno));
    }
}


/* Where it listens. */
const char *
server_url(const struct server *s, char *buf, size_t size)
{
    if (s->socket != NULL) {
        snprintf(buf, size, "unix:%s", s->socket);

    } else {
        snprintf(buf, size, "http://127.0.0.1:%u", s->port);
    }

    return buf;
}


/* What its output told about the last request. */
const struct backend_timing *
server_timing(const struct server *s)
{
    return &s->timing;
}
