/*
 * One helper per run dir; see instance.h.
 */

#define _GNU_SOURCE

#include "instance.h"
#include "file.h"
#include "helper.h"
#include "log.h"
#include "paths.h"
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>


#define INSTANCE_WAIT_MS    10000   /* for an on-demand helper to end */
#define INSTANCE_ASK_MS     3000    /* for the other one's socket */


/* Waits a little; only before the loop runs. */
static void
instance_pause(void)
{
    struct timespec  ts = { .tv_sec = 0, .tv_nsec = 5000000 };

    nanosleep(&ts, NULL);
}


/* Connects to the helper of this run dir, or -1. */
static int
instance_connect(const char *run_dir)
{
    int                  fd;
    struct timeval       tv = { .tv_sec = 2, .tv_usec = 0 };
    struct sockaddr_un   sun;

    memset(&sun, 0, sizeof(sun));
    sun.sun_family = AF_UNIX;

    if (snprintf(sun.sun_path, sizeof(sun.sun_path), "%s/helper.sock",
                 run_dir) >= (int) sizeof(sun.sun_path))
    {
        return -1;
    }

    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd == -1) {
        return -1;
    }

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));

    if (connect(fd, (struct sockaddr *) &sun, sizeof(sun)) == -1) {
        close(fd);
        return -1;
    }

    return fd;
}


/* Sends one request and reads the answer's JSON; NULL: no answer. */
static json_t *
instance_ask(const char *run_dir, const char *request)
{
    int       fd;
    char      buf[16384], *body;
    size_t    len;
    ssize_t   n;

    fd = instance_connect(run_dir);
    if (fd == -1) {
        return NULL;
    }

    len = strlen(request);

    if (send(fd, request, len, MSG_NOSIGNAL) != (ssize_t) len) {
        close(fd);
        return NULL;
    }

    for (len = 0; len < sizeof(buf) - 1; len += (size_t) n) {
        n = recv(fd, buf + len, sizeof(buf) - 1 - len, 0);
        if (n <= 0) {
            break;
        }
    }

    close(fd);
    buf[len] = '\0';

    body = strstr(buf, "\r\n\r\n");

    return body ? json_loads(body + 4, 0, NULL) : NULL;
}


/* Waits for the lock until a moment on the clock. */
static int
instance_wait(int fd, uint64_t until)
{
    for ( ;; ) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
            return 0;
        }

        if (clock_ms() >= until) {
            return -1;
        }

        instance_pause();
    }
}


/* Says that somebody else is here. */
static int
instance_refuse(json_t *status)
{
    json_t  *port;

    port = json_object_get(status, "port");

    if (json_is_integer(port)) {
        printf("Lemonade Server is already running on port %d\n",
               (int) json_integer_value(port));

    } else {
        printf("Lemonade Server is already running\n");
    }

    printf("Please stop the existing server before starting a new "
           "instance.\n");

    json_decref(status);

    return 2;
}


/* Finds out who holds the lock and takes over where that is right. */
static int
instance_negotiate(const char *run_dir, int fd)
{
    json_t      *status;
    uint64_t     until;
    const char  *mode;

    until = clock_ms() + INSTANCE_ASK_MS;

    /* a helper that has just begun, or is about to end, does not answer */

    do {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
            return -1;
        }

        status = instance_ask(run_dir, "GET /internal/status HTTP/1.1\r\n"
                              "Host: helper\r\nConnection: close\r\n\r\n");
        if (status == NULL) {
            instance_pause();
        }

    } while (status == NULL && clock_ms() < until);

    mode = json_string_value(json_object_get(status, "mode"));

    if (mode == NULL || strcmp(mode, "on-demand") != 0
        || helper.opt.mode == MODE_ON_DEMAND)
    {
        return instance_refuse(status);
    }

    json_decref(status);
    json_decref(instance_ask(run_dir, "POST /internal/shutdown HTTP/1.1\r\n"
                             "Host: helper\r\nContent-Length: 0\r\n"
                             "Connection: close\r\n\r\n"));

    if (instance_wait(fd, clock_ms() + INSTANCE_WAIT_MS) == -1) {
        return instance_refuse(NULL);
    }

    return -1;
}


/* Takes the lock. */
int
instance_lock(const char *run_dir)
{
    int    fd, rc;
    char  *path;

    path = paths_join(run_dir, "lock");
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd == -1) {
        fprintf(stderr, "lemonade-helper: %s: %s\n", path, strerror(errno));
        free(path);
        return 1;
    }

    free(path);

    /* the descriptor stays open, and the lock ours, until the end */

    if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
        return -1;
    }

    rc = instance_negotiate(run_dir, fd);

    if (rc != -1) {
        close(fd);
    }

    return rc;
}


/* Reads what a helper that was killed left behind. */
unsigned
instance_stale_port(const char *run_dir)
{
    char      *path, *data;
    size_t     len;
    json_t    *root;
    unsigned   port;

    path = paths_join(run_dir, "server.json");
    data = file_read(path, 65536, &len);
    free(path);

    if (data == NULL) {
        return 0;
    }

    root = json_loadb(data, len, 0, NULL);
    free(data);

    port = (unsigned) json_integer_value(json_object_get(root, "port"));
    json_decref(root);

    return port;
}


/* Writes server.json. */
void
instance_announce(void)
{
    char    *path;
    json_t  *root;

    root = json_pack("{s:i, s:s, s:s, s:s}", "pid", (int) getpid(),
                     "host", helper.opt.host, "version", LEMONADE_VERSION,
                     "mode", options_mode_name(helper.opt.mode));

    json_object_set_new(root, "port", helper.opt.mode == MODE_SERVE
                        ? json_integer(helper.opt.port) : json_null());

    path = paths_join(helper.run_dir, "server.json");

    if (file_write_json(path, root, 0644) == -1) {
        log_write(LOG_ERROR, "helper", "%s: %s", path, strerror(errno));
    }

    free(path);
    json_decref(root);
}


/* Removes it. */
void
instance_retract(void)
{
    char  *path;

    path = paths_join(helper.run_dir, "server.json");
    unlink(path);
    free(path);
}
