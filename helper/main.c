/*
 * lemonade-helper: order of the start, order of the end.
 */

#define _GNU_SOURCE

#include "api.h"
#include "backend.h"
#include "helper.h"
#include "install.h"
#include "instance.h"
#include "loader.h"
#include "log.h"
#include "model.h"
#include "paths.h"
#include "runner.h"
#include "text.h"
#include "webserver.h"

#include <dirent.h>
#include <errno.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>


#define MAIN_FILES_MAX      65536
#define MAIN_FILES_MIN      256     /* half of it is not for clients */
#define MAIN_STOP_POLL_MS   5
#define MAIN_NGINX_MS       1000    /* it has so long before its backends */
#define MAIN_REPLY_MS       20      /* for the last reply to leave */
#define MAIN_STOP_MS        15000   /* longer than the ladder of signals */
#define MAIN_KILL_MS        2000    /* the same after a second signal */
#define MAIN_IDLE_POLL_MS   250
#define MAIN_IDLE_MS        2000    /* on demand: so long alone is the end */


struct helper  helper;

static struct event  *stop_timer;
static struct event  *idle_timer;
static struct event  *signals[3];
static uint64_t       stop_since;
static uint64_t       stop_by;
static uint64_t       idle_since;
static uint64_t       empty_since;
static bool           children_told;
static bool           terminal;     /* we began on one, and care for HUP */


/* Gives a path of the run dir its mode and group. */
int
helper_share(const char *path, mode_t mode)
{
    if (helper.nginx_group != (gid_t) -1
        && chown(path, (uid_t) -1, helper.nginx_group) == -1)
    {
        return -1;
    }

    return chmod(path, mode);
}


/* Lets nginx through the run dir, and takes no right from anybody. */
static int
main_share_run_dir(void)
{
    struct stat  sb;

    if (helper.nginx_group == (gid_t) -1) {
        return 0;
    }

    if (stat(helper.run_dir, &sb) == -1) {
        return -1;
    }

    return (sb.st_mode & 0001) != 0
           ? 0 : helper_share(helper.run_dir, (sb.st_mode & 07777) | 0010);
}


/* Prints what a person at the terminal wants to know. */
static void
main_banner(void)
{
    const char  *host = helper.opt.host;
    const char  *left, *right, *key;

    if (strcmp(host, "0.0.0.0") == 0 || strcmp(host, "*") == 0
        || strcmp(host, "::") == 0)
    {
        host = "localhost";
    }

    left = strchr(host, ':') != NULL ? "[" : "";
    right = *left != '\0' ? "]" : "";

    printf("\n\xf0\x9f\x8d\x8b  Lemonade Server v%s Ready!\n",
           LEMONADE_VERSION);
    printf("    http://%s%s%s:%u\n\n", left, host, right, helper.opt.port);
    key = getenv("LEMONADE_API_KEY");

    printf("Try:\n  curl http://%s%s%s:%u/v1/chat/completions %s-H "
           "'Content-Type: application/json' -d '{\"model\":"
           "\"Lemonade-Demo-GGUF\",\"messages\":[{\"role\":\"user\","
           "\"content\":\"Hello!\"}]}'\n",
           left, host, right, helper.opt.port,
           key != NULL && *key != '\0'
           ? "-H \"Authorization: Bearer $LEMONADE_API_KEY\" " : "");
    fflush(stdout);
}


/* We serve. */
void
helper_ready(void)
{
    if (helper.ready) {
        return;
    }

    helper.ready = true;
    instance_announce();

    if (helper.opt.mode == MODE_SERVE) {
        main_banner();
    }

    if (helper.opt.mode != MODE_ON_DEMAND) {
        backend_warm();
    }
}


/* Looks whether everything has ended. */
static void
main_on_stop(evutil_socket_t fd, short what, void *arg)
{
    uint64_t  now;

    now = clock_ms();

    if (!children_told
        && (!webserver_running() || now - stop_since >= MAIN_NGINX_MS))
    {
        children_told = true;
        models_shutdown();
        backend_fini();
    }

    if (now >= stop_by) {
        log_write(LOG_ERROR, "helper", "%u children do not end, going "
                  "without them", runner_count());
        event_base_loopbreak(helper.base);
        return;
    }

    if (!children_told || runner_count() != 0 || webserver_running()
        || models_running())
    {
        empty_since = 0;
        return;
    }

    if (empty_since == 0) {
        empty_since = now;
    }

    if (now - empty_since >= MAIN_REPLY_MS) {
        event_base_loopbreak(helper.base);
    }
}


/* Starts the end. */
void
helper_shutdown(int exit_code, const char *why)
{
    struct timeval  tv = { .tv_sec = 0, .tv_usec = MAIN_STOP_POLL_MS * 1000 };

    if (helper.stopping) {
        return;
    }

    log_write(LOG_INFO, "helper", "stopping: %s", why);

    helper.stopping = true;
    helper.exit_code = exit_code;
    stop_since = clock_ms();
    stop_by = stop_since + MAIN_STOP_MS;

    instance_retract();
    webserver_stop();

    stop_timer = event_new(helper.base, -1, EV_PERSIST, main_on_stop, NULL);
    event_add(stop_timer, &tv);
}


/* Are stdin, stdout or stderr a terminal? */
static bool
main_on_terminal(void)
{
    return isatty(STDIN_FILENO) || isatty(STDOUT_FILENO)
           || isatty(STDERR_FILENO);
}


/* HUP: the terminal was closed, or somebody wants us to look again. */
static void
main_on_hangup(void)
{
    if (terminal && !main_on_terminal()) {
        helper_shutdown(0, "the terminal was closed");
        return;
    }

    log_write(LOG_INFO, "helper", "reloading");
    registry_refresh(helper.registry);
    webserver_reload();
}


/* INT, TERM: once to stop, twice to kill. */
static void
main_on_signal(evutil_socket_t sig, short what, void *arg)
{
    if (sig == SIGHUP) {
        main_on_hangup();
        return;
    }

    if (!helper.stopping) {
        helper_shutdown(0, sig == SIGINT ? "SIGINT" : "SIGTERM");
        return;
    }

    log_write(LOG_WARNING, "helper", "second signal, killing children");

    children_told = true;
    stop_by = clock_ms() + MAIN_KILL_MS;
    models_shutdown();
    backend_fini();
    webserver_kill();
    models_kill();
}


/* On demand: nobody asks any more. */
static void
main_on_idle(evutil_socket_t fd, short what, void *arg)
{
    if (http_server_connections(helper.http) != 0 || runner_count() != 0) {
        idle_since = clock_ms();
        return;
    }

    if (clock_ms() - idle_since >= MAIN_IDLE_MS) {
        helper_shutdown(0, "nobody asks");
    }
}


/* Handles signals.  Who has HUP ignored (nohup) wants us to outlive it. */
static bool
main_signals(void)
{
    size_t             i;
    struct sigaction   hangup;
    static const int   numbers[] = { SIGINT, SIGTERM, SIGHUP };

    terminal = main_on_terminal() && sigaction(SIGHUP, NULL, &hangup) == 0
               && hangup.sa_handler != SIG_IGN;

    for (i = 0; i < 3; i++) {
        signals[i] = evsignal_new(helper.base, numbers[i], main_on_signal,
                                  NULL);
        if (signals[i] == NULL || event_add(signals[i], NULL) == -1) {
            return false;
        }
    }

    return true;
}


/* Lets the helper have many files; how many.  Children keep the old limit. */
static rlim_t
main_raise_files(void)
{
    rlim_t         wanted;
    struct rlimit  limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == -1) {
        return MAIN_FILES_MIN;
    }

    wanted = limit.rlim_max == RLIM_INFINITY
             || limit.rlim_max > MAIN_FILES_MAX
             ? MAIN_FILES_MAX : limit.rlim_max;

    if (limit.rlim_cur < wanted) {
        limit.rlim_cur = wanted;
        (void) setrlimit(RLIMIT_NOFILE, &limit);
        (void) getrlimit(RLIMIT_NOFILE, &limit);
    }

    return limit.rlim_cur;
}


/* Leaves files for children and models; more clients wait in the backlog. */
static void
main_limit_clients(rlim_t files)
{
    rlim_t  clients;

    clients = files > MAIN_FILES_MIN ? files - MAIN_FILES_MIN / 2 : files / 2;

    if (clients > HTTP_CONNECTIONS) {
        clients = HTTP_CONNECTIONS;
    }

    http_server_limit(helper.http, (unsigned) clients, HTTP_REQUEST_MS,
                      HTTP_IDLE_MS);
}


/* As root nginx's workers are somebody else, who must reach our files. */
static void
main_find_nginx_user(void)
{
    struct passwd  *pw;

    helper.nginx_group = (gid_t) -1;

    if (geteuid() != 0 || helper.opt.mode == MODE_ON_DEMAND) {
        return;
    }

    pw = getpwnam("www-data");
    helper.nginx_user = "www-data";

    if (pw == NULL) {
        pw = getpwnam("nobody");
        helper.nginx_user = "nobody";
    }

    if (pw == NULL) {
        helper.nginx_user = NULL;
        return;
    }

    helper.nginx_group = pw->pw_gid;
}


/* Removes sockets that a killed helper's children left; closes fd. */
static void
main_clean(int fd)
{
    DIR            *d;
    size_t          len;
    struct dirent  *entry;

    d = fdopendir(fd);
    if (d == NULL) {
        close(fd);
        return;
    }

    while ((entry = readdir(d)) != NULL) {
        len = strlen(entry->d_name);

        if (len > 5 && strcmp(entry->d_name + len - 5, ".sock") == 0) {
            (void) unlinkat(fd, entry->d_name, 0);
        }
    }

    closedir(d);
}


/* Finds the folders. */
static bool
main_folders(void)
{
    helper.run_dir = paths_run_dir(true);
    if (helper.run_dir == NULL) {
        fprintf(stderr, "lemonade-helper: run dir: %s; set LEMONADE_RUN_DIR "
                "to a folder of your own\n",
                errno == EPERM ? "it belongs to another user, or is a "
                                 "symbolic link" : strerror(errno));
        return false;
    }

    helper.cache_dir = paths_cache_dir();
    if (helper.cache_dir == NULL) {
        fprintf(stderr, "lemonade-helper: cache dir: %s; set "
                "LEMONADE_CACHE_DIR\n", strerror(errno));
        return false;
    }

    return true;
}


/* Makes those in the run dir; the lock is ours. */
static bool
main_prepare_run_dir(void)
{
    int    fd;
    char  *backends;

    backends = paths_join(helper.run_dir, "backends");
    fd = main_share_run_dir() == -1
         ? -1 : paths_own_folder(backends, 0710, helper.nginx_group);

    if (fd == -1) {
        fprintf(stderr, "lemonade-helper: %s: %s\n", backends,
                strerror(errno));
        free(backends);
        return false;
    }

    main_clean(fd);
    free(backends);

    return true;
}


/* Opens the loop and what hangs on it; a line on stderr if it cannot. */
static bool
main_open(void)
{
    char                  *path;
    rlim_t                 files;
    struct event_config   *config;

    config = event_config_new();
    event_config_set_flag(config, EVENT_BASE_FLAG_IGNORE_ENV);
    helper.base = event_base_new_with_config(config);
    event_config_free(config);

    if (helper.base == NULL || runner_init(helper.base) == -1) {
        perror("lemonade-helper: event loop");
        return false;
    }

    files = main_raise_files();

    helper.registry = registry_new(helper.cache_dir);
    if (helper.registry == NULL) {
        return false;
    }

    helper.state_path = paths_join(helper.run_dir, "state");

    if (lm_state_create(&helper.state, helper.state_path, 0660,
                        helper.nginx_group) == -1)
    {
        fprintf(stderr, "lemonade-helper: %s: %s\n", helper.state_path,
                strerror(errno));
        return false;
    }

    path = paths_join(helper.run_dir, "helper.sock");
    helper.http = http_server_new(helper.base, path, 0660,
                                  helper.nginx_group, api_handle, NULL);

    if (helper.http == NULL) {
        fprintf(stderr, "lemonade-helper: %s: %s\n", path,
                errno == ENAMETOOLONG ? "path too long, set LEMONADE_RUN_DIR"
                                      : strerror(errno));
        free(path);
        return false;
    }

    free(path);
    main_limit_clients(files);
    loader_init();

    return main_signals();
}


/* Serves until the loop is left. */
static bool
main_serve(void)
{
    struct timeval  tv = { .tv_sec = 0, .tv_usec = MAIN_IDLE_POLL_MS * 1000 };

    if (helper.opt.mode == MODE_SERVE) {
        if (!webserver_start()) {
            return false;
        }

    } else {
        helper_ready();
    }

    if (helper.opt.mode == MODE_ON_DEMAND) {
        idle_since = clock_ms();
        idle_timer = event_new(helper.base, -1, EV_PERSIST, main_on_idle,
                               NULL);
        event_add(idle_timer, &tv);
    }

    log_write(LOG_INFO, "helper", "version %s, mode %s, run dir %s",
              LEMONADE_VERSION, options_mode_name(helper.opt.mode),
              helper.run_dir);

    event_base_dispatch(helper.base);

    return true;
}


/* Frees an event that may not be there. */
static void
main_free_event(struct event *ev)
{
    if (ev != NULL) {
        event_free(ev);
    }
}


/* Closes what was opened, in the other order. */
static void
main_close(void)
{
    size_t  i;

    if (helper.http != NULL) {
        http_server_free(helper.http);
        models_free();
        server_fini();
        loader_free();
        backend_fini();
    }

    webserver_free();

    if (helper.state.file != NULL) {
        lm_state_destroy(&helper.state, helper.state_path);
    }

    registry_free(helper.registry);
    main_free_event(stop_timer);
    main_free_event(idle_timer);

    for (i = 0; i < 3; i++) {
        main_free_event(signals[i]);
    }

    if (helper.base != NULL) {
        runner_fini();
        event_base_free(helper.base);
        libevent_global_shutdown();
    }

    options_free(&helper.opt);
    free(helper.state_path);
    free(helper.run_dir);
    free(helper.cache_dir);
}


/* From the command line to the exit code. */
int
main(int argc, char **argv)
{
    int  rc;

    if (argc > 1 && strcmp(argv[1], "--worker") == 0) {
        return install_worker(argc - 2, argv + 2);
    }

    rc = options_parse(&helper.opt, argc, argv);
    if (rc != -1) {
        options_free(&helper.opt);
        return rc;
    }

    umask(0077);
    signal(SIGPIPE, SIG_IGN);
    main_find_nginx_user();

    rc = 1;

    if (!main_folders()) {
        goto done;
    }

    options_saved(&helper.opt, helper.cache_dir);
    log_level_set(helper.opt.log_level);

    rc = instance_lock(helper.run_dir);
    if (rc != -1) {
        goto done;
    }

    rc = 1;

    if (!main_prepare_run_dir()) {
        goto done;
    }

    if (helper.opt.mode == MODE_SERVE) {
        printf("Starting Lemonade Server...\n");
        fflush(stdout);

        if (!webserver_prepare()) {
            goto done;
        }
    }

    if (!main_open() || !main_serve()) {
        instance_retract();
        goto done;
    }

    instance_retract();
    rc = helper.exit_code;

done:

    main_close();

    return rc;
}
