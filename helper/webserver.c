/*
 * Our own nginx; see webserver.h.
 */

#define _GNU_SOURCE

#include "webserver.h"
#include "backend.h"
#include "file.h"
#include "health.h"
#include "helper.h"
#include "instance.h"
#include "address.h"
#include "log.h"
#include "paths.h"
#include "runner.h"
#include "text.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>


#define WEB_FAST_MS         2
#define WEB_SLOW_MS         100
#define WEB_STALE_MS        3000    /* for the nginx of a killed helper */
#define WEB_STEADY_MS       10000   /* it lived so long: no crash loop */
#define WEB_BACKOFF_MAX     60000
#define WEB_PATIENCE        15      /* seconds for the first answer */


static struct runner  *nginx;
static struct health  *health;
static struct event   *again;
static struct event   *patience;
static char           *program;
static char           *dir;
static uint64_t        started;
static unsigned        restarts;
static char            last_line[512];


/* Who opens the machine to others should know it. */
static void
web_warn(void)
{
    const char  *key;

    key = getenv("LEMONADE_API_KEY");

    if (address_public() && (key == NULL || *key == '\0')) {
        log_write(LOG_WARNING, "helper", "everybody who reaches %s port %u "
                  "can use this server, load and unload its models; set "
                  "LEMONADE_API_KEY", helper.opt.host, helper.opt.port);
    }
}


/* Finds, checks, writes. */
bool
webserver_prepare(void)
{
    int          fd;
    const char  *value;

    value = getenv("LEMONADE_NGINX_BIN");

    if (value != NULL && *value != '\0') {
        program = strchr(value, '/') ? realpath(value, NULL)
                                     : paths_search(value);
    } else {
        program = paths_search("nginx");
    }

    if (program == NULL || !file_executable(program)) {
        fputs("lemonade-helper: nginx not found; install nginx, or set "
              "LEMONADE_NGINX_BIN, or use --no-nginx\n", stderr);
        return false;
    }

    if (!address_check(helper.opt.host, helper.opt.port,
                      instance_stale_port(helper.run_dir) == helper.opt.port
                      ? WEB_STALE_MS : 0))
    {
        return false;
    }

    web_warn();

    if (!webserver_reachable()) {
        return false;
    }

    dir = paths_join(helper.run_dir, "nginx");
    fd = paths_own_folder(dir, 0710, helper.nginx_group);

    if (fd == -1) {
        fprintf(stderr, "lemonade-helper: %s: %s\n", dir, strerror(errno));
        return false;
    }

    close(fd);

    return webserver_write_conf(dir);
}


/* One line of nginx's error log. */
static void
web_on_line(struct runner *r, const char *line, size_t len, bool is_stderr,
    void *arg)
{
    char            copy[1024];
    enum log_level  level;

    if (len >= sizeof(copy)) {
        len = sizeof(copy) - 1;
    }

    memcpy(copy, line, len);
    copy[len] = '\0';
    text_clean(copy);
    text_copy(last_line, sizeof(last_line), copy);

    if (strstr(copy, "[emerg]") || strstr(copy, "[alert]")
        || strstr(copy, "[crit]"))
    {
        level = LOG_CRITICAL;

    } else if (strstr(copy, "[error]")) {
        level = LOG_ERROR;

    } else if (strstr(copy, "[notice]") || strstr(copy, "[info]")) {
        level = LOG_INFO;

    } else {
        level = LOG_WARNING;
    }

    log_write(level, "nginx", "%s", copy);
}


/* nginx runs but has never answered: somebody else's lines in it? */
static void
web_on_patience(evutil_socket_t fd, short what, void *arg)
{
    if (helper.ready || helper.stopping) {
        return;
    }

    fprintf(stderr, "lemonade-helper: nginx runs but does not answer "
            "\"GET /live\" on port %u%s%s; look at its configuration in %s "
            "and at who else has the port\n", helper.opt.port,
            last_line[0] ? ": " : "", last_line, dir);
    helper_shutdown(1, "nginx does not answer");
}


/* Gives nginx its time for the first answer. */
static void
web_wait(void)
{
    struct timeval  tv = { .tv_sec = WEB_PATIENCE };

    if (patience == NULL) {
        patience = evtimer_new(helper.base, web_on_patience, NULL);
        evtimer_add(patience, &tv);
    }
}


/* nginx answers. */
static void
web_on_health(void *arg)
{
    health = NULL;
    log_write(LOG_INFO, "nginx", "answers on port %u", helper.opt.port);
    helper_ready();
}


/* Starts it again. */
static void
web_again(evutil_socket_t fd, short what, void *arg)
{
    if (!helper.stopping) {
        webserver_start();
    }
}


/* Decides when to start an nginx that died again: at once, 1, 2 ... 60 s. */
static void
web_schedule(void)
{
    unsigned        ms;
    struct timeval  tv;

    if (clock_ms() - started >= WEB_STEADY_MS) {
        restarts = 0;
    }

    ms = restarts == 0 ? 10
         : restarts > 6 ? WEB_BACKOFF_MAX : 1000u << (restarts - 1);

    if (ms > WEB_BACKOFF_MAX) {
        ms = WEB_BACKOFF_MAX;
    }

    restarts++;

    if (again == NULL) {
        again = evtimer_new(helper.base, web_again, NULL);
    }

    tv.tv_sec = ms / 1000;
    tv.tv_usec = (suseconds_t) (ms % 1000) * 1000;
    evtimer_add(again, &tv);
}


/* nginx is gone. */
static void
web_on_exit(struct runner *r, int status, void *arg)
{
    char  how[64];

    nginx = NULL;
    health_free(health);
    health = NULL;

    if (helper.stopping) {
        return;
    }

    runner_status_text(status, how, sizeof(how));

    if (!helper.ready) {
        fprintf(stderr, "lemonade-helper: nginx did not start: %s\n",
                last_line[0] ? last_line : how);
        helper_shutdown(1, "nginx did not start");
        return;
    }

    log_write(LOG_ERROR, "nginx", "ended unexpectedly: %s", how);
    web_schedule();
}


/* Adds the variables that sanitizers read. */
static void
web_environment(struct words *env)
{
    size_t              i;
    const char         *value;
    static const char  *names[] = {
        "ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS"
    };

    backend_environment(env);

    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        value = getenv(names[i]);

        if (value != NULL) {
            words_addf(env, "%s=%s", names[i], value);
        }
    }
}


/* Starts it. */
bool
webserver_start(void)
{
    char                    error[512];
    socklen_t               len;
    struct words            argv = { 0 }, env = { 0 };
    struct runner_spec      spec;
    const struct sockaddr  *address;

    words_add(&argv, program);
    words_add(&argv, "-e");
    words_add(&argv, "stderr");
    words_add(&argv, "-p");
    words_add(&argv, dir);
    words_add(&argv, "-c");
    words_addf(&argv, "%s/nginx.conf", dir);
    web_environment(&env);

    memset(&spec, 0, sizeof(spec));
    spec.name = "nginx";
    spec.argv = argv.item;
    spec.envp = env.item;
    spec.cwd = dir;
    spec.death_signal = SIGTERM;    /* the master takes its workers along */
    spec.on_line = web_on_line;
    spec.on_exit = web_on_exit;

    started = clock_ms();
    nginx = runner_start(&spec, error, sizeof(error));

    words_free(&argv);
    words_free(&env);

    if (nginx == NULL) {
        log_write(LOG_ERROR, "nginx", "%s", error);

        if (!helper.ready) {
            return false;
        }

        web_schedule();
        return true;
    }

    address = address_probe(&len);
    health = health_new(helper.base, address, len, "/live", WEB_FAST_MS,
                        WEB_SLOW_MS, web_on_health, NULL);
    web_wait();

    return true;
}


/* Is there one? */
bool
webserver_running(void)
{
    return nginx != NULL;
}


/* Reads its configuration again; streams go on. */
void
webserver_reload(void)
{
    if (nginx != NULL) {
        runner_signal(nginx, SIGHUP);
    }
}


/* Ends it at once, open connections too. */
void
webserver_stop(void)
{
    if (nginx != NULL) {
        runner_stop(nginx);
    }
}


/* Kills it. */
void
webserver_kill(void)
{
    if (nginx != NULL) {
        runner_kill(nginx);
    }
}


/* Frees what is left when it is gone, and what it leaves behind. */
void
webserver_free(void)
{
    char    *path;
    size_t   i;
    static const char *const  left[] = {
        "nginx.pid", "api_keys", "nginx.conf"
    };

    if (dir != NULL) {
        for (i = 0; i < sizeof(left) / sizeof(left[0]); i++) {
            path = paths_join(dir, left[i]);
            unlink(path);
            free(path);
        }

        webserver_remove_html(dir);
    }

    health_free(health);
    health = NULL;

    if (again != NULL) {
        event_free(again);
        again = NULL;
    }

    if (patience != NULL) {
        event_free(patience);
        patience = NULL;
    }

    free(program);
    free(dir);
    program = NULL;
    dir = NULL;
}
