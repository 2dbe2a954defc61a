/*
 * nginx.conf from its template: @NAME@ is replaced by a value.
 */

#define _GNU_SOURCE

#include "file.h"
#include "helper.h"
#include "address.h"
#include "log.h"
#include "paths.h"
#include "text.h"
#include "webserver.h"

#include <ctype.h>
#include <errno.h>
#include <grp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>


/* 420 bytes each in every worker, used or not. */
#define CONF_CONNECTIONS_MAX    8192
#define CONF_FILES_MAX          65536

/* One worker moves 90 000 tokens a second; each costs memory. */
#define CONF_WORKERS_MAX        4

#define CONF_VALUES             16

/* An access log that is larger when nginx starts is put aside. */
#define CONF_LOG_MAX            (16 << 20)


struct conf_value {
    const char  *name;
    char        *value;
};


/* The values of one configuration. */
struct conf {
    struct conf_value   value[CONF_VALUES];
    unsigned            count;
};


/* Adds a value, which becomes the configuration's. */
static void
conf_add(struct conf *conf, const char *name, char *value)
{
    conf->value[conf->count].name = name;
    conf->value[conf->count].value = value;
    conf->count++;
}


/*
 * Adds a path.  In nginx.conf blanks, quotes, braces, brackets, semicolons,
 * '$', '#', '*', '?' and '\' mean something, so such paths cannot be had.
 */
static bool
conf_add_path(struct conf *conf, const char *name, const char *path)
{
    const char  *p;

    if (path == NULL) {
        fprintf(stderr, "lemonade-helper: no path for %s\n", name);
        return false;
    }

    for (p = path; *p != '\0'; p++) {
        if ((unsigned char) *p < 0x80 && !isalnum((unsigned char) *p)
            && strchr("/._-+,:=@%~^!()&", *p) == NULL)
        {
            fprintf(stderr, "lemonade-helper: nginx cannot use the path "
                    "\"%s\" because of the character '%c'; choose another "
                    "folder (LEMONADE_RUN_DIR, LEMONADE_CACHE_DIR, "
                    "LEMONADE_SHARE_DIR)\n", path,
                    isprint((unsigned char) *p) ? *p : '?');
            return false;
        }
    }

    conf_add(conf, name, text_dup(path));

    return true;
}


/* "user NAME GROUP;" when we are root. */
static char *
conf_user(void)
{
    struct group  *gr;

    if (helper.nginx_user == NULL) {
        return text_dup("");
    }

    gr = getgrgid(helper.nginx_group);

    return gr != NULL
           ? text_format("user %s %s;", helper.nginx_user, gr->gr_name)
           : text_format("user %s;", helper.nginx_user);
}


/* Writes the API key where nginx reads it; the directive that says so. */
static char *
conf_api_key(const char *dir)
{
    int          rc;
    char        *path, *line;
    const char  *key;

    path = paths_join(dir, "api_keys");
    key = getenv("LEMONADE_API_KEY");

    if (key == NULL || *key == '\0') {
        unlink(path);
        free(path);
        return text_dup("");
    }

    if (!text_printable(key, strlen(key)) || strlen(key) > 1024) {
        fputs("lemonade-helper: LEMONADE_API_KEY must be one line of at most "
              "1024 bytes\n", stderr);
        free(path);
        return NULL;
    }

    line = text_format("%s\n", key);
    rc = file_write(path, line, strlen(line), 0600);
    explicit_bzero(line, strlen(line));
    free(line);

    if (rc == -1) {
        fprintf(stderr, "lemonade-helper: %s: %s\n", path, strerror(errno));
        free(path);
        return NULL;
    }

    line = text_format("lemonade_api_key_file %s;", path);
    free(path);

    return line;
}


/* Adds what follows from the number of files a process may have open. */
static void
conf_add_limits(struct conf *conf)
{
    rlim_t          files, connections;
    struct rlimit   limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == -1
        || limit.rlim_max == RLIM_INFINITY
        || limit.rlim_max > CONF_FILES_MAX)
    {
        files = CONF_FILES_MAX;

    } else {
        files = limit.rlim_max;
    }

    connections = files > 256 ? files - 128 : files / 2;

    if (connections > CONF_CONNECTIONS_MAX) {
        connections = CONF_CONNECTIONS_MAX;
    }

    conf_add(conf, "WORKER_NOFILE",
             text_format("%lu", (unsigned long) files));
    conf_add(conf, "WORKER_CONNECTIONS",
             text_format("%lu", (unsigned long) connections));
}


/*
 * The names we answer to when only this machine can reach us.  A web page
 * whose own name was pointed at 127.0.0.1 must not be able to use the server
 * (DNS rebinding); names without a domain cannot be pointed anywhere.
 */
static char *
conf_names(void)
{
    char        *names;
    const char  *more;

    more = getenv("LEMONADE_ALLOWED_HOSTS");

    if (address_public()) {
        return text_dup("\"\"");
    }

    if (more != NULL
        && more[strspn(more, "abcdefghijklmnopqrstuvwxyz"
                       "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_* ")] != '\0')
    {
        fputs("lemonade-helper: LEMONADE_ALLOWED_HOSTS must be host names "
              "with blanks between them\n", stderr);
        return NULL;
    }

    names = text_format("\"\" localhost *.localhost [::1] ~^127[.][0-9.]+$ "
                        "~^[^.]+$ %s", more != NULL ? more : "");

    return names;
}


/* A server for all other names, in front of ours. */
static char *
conf_guard(void)
{
    char  *listen, *guard;

    if (address_public()) {
        return text_dup("");
    }

    listen = address_directives();
    guard = text_format("server {\n        %sserver_name _;\n"
                        "        lemonade_json_errors on;\n"
                        "        return 403;\n    }\n", listen);
    free(listen);

    return guard;
}


/* How many workers: one for each core that we may use, up to the limit. */
static char *
conf_workers(void)
{
    int         cores;
    cpu_set_t   set;

    cores = sched_getaffinity(0, sizeof(set), &set) == 0
            ? CPU_COUNT(&set) : CONF_WORKERS_MAX;

    return text_format("%d", cores < CONF_WORKERS_MAX ? cores
                                                      : CONF_WORKERS_MAX);
}


/* Puts a large access log aside, in the place of the one before. */
static void
conf_rotate(const char *logs)
{
    char         *log, *old;
    struct stat   sb;

    log = paths_join(logs, "access.log");
    old = paths_join(logs, "access.log.1");

    if (stat(log, &sb) == 0 && sb.st_size > CONF_LOG_MAX
        && rename(log, old) == -1)
    {
        log_write(LOG_WARNING, "nginx", "%s: %s", log, strerror(errno));
    }

    free(log);
    free(old);
}


/* Adds all paths. */
static bool
conf_add_paths(struct conf *conf)
{
    bool   good;
    char  *share, *logs, *module;

    module = paths_module();

    if (module == NULL) {
        fputs("lemonade-helper: ngx_http_lemonade_module.so not found; set "
              "LEMONADE_NGINX_MODULE\n", stderr);
        return false;
    }

    share = paths_share("");
    logs = paths_join(helper.cache_dir, "logs");

    if (share != NULL && share[0] != '\0'
        && share[strlen(share) - 1] == '/')
    {
        share[strlen(share) - 1] = '\0';
    }

    good = false;

    if (paths_mkdirs(logs) == -1) {
        fprintf(stderr, "lemonade-helper: %s: %s\n", logs, strerror(errno));

    } else {
        conf_rotate(logs);
        good = conf_add_path(conf, "RUN_DIR", helper.run_dir)
               && conf_add_path(conf, "SHARE_DIR", share)
               && conf_add_path(conf, "LOG_DIR", logs)
               && conf_add_path(conf, "MODULE", module);
    }

    free(module);
    free(share);
    free(logs);

    return good;
}


/* Replaces the names in the template; the result is malloc'ed. */
static char *
conf_fill(const struct conf *conf, const char *template, size_t *size)
{
    FILE          *out;
    char          *text;
    size_t         len;
    unsigned       i;
    const char    *p, *end;

    out = open_memstream(&text, size);
    if (out == NULL) {
        return NULL;
    }

    for (p = template; *p != '\0'; p++) {

        if (*p != '@' || (end = strchr(p + 1, '@')) == NULL) {
            fputc(*p, out);
            continue;
        }

        len = (size_t) (end - p - 1);

        for (i = 0; i < conf->count; i++) {
            if (strlen(conf->value[i].name) == len
                && strncmp(conf->value[i].name, p + 1, len) == 0)
            {
                break;
            }
        }

        if (i < conf->count) {
            fputs(conf->value[i].value, out);
            p = end;

        } else {
            fputc(*p, out);
        }
    }

    return fclose(out) == 0 ? text : NULL;
}


/* Reads the template, fills it, writes the result. */
static bool
conf_write(const struct conf *conf, const char *dir)
{
    char    *source, *target, *template, *text;
    size_t   len;

    source = paths_share("conf/serve.conf.in");
    template = source != NULL ? file_read(source, 1 << 20, &len) : NULL;

    if (template == NULL) {
        fprintf(stderr, "lemonade-helper: %s: %s; set LEMONADE_SHARE_DIR\n",
                source != NULL ? source : "conf/serve.conf.in",
                strerror(errno));
        free(source);
        return false;
    }

    free(source);

    text = conf_fill(conf, template, &len);
    free(template);

    if (text == NULL) {
        return false;
    }

    target = paths_join(dir, "nginx.conf");

    if (file_write(target, text, len, 0600) == -1) {
        fprintf(stderr, "lemonade-helper: %s: %s\n", target,
                strerror(errno));
        free(target);
        free(text);
        return false;
    }

    free(target);
    free(text);

    return true;
}


/* Writes nginx.conf. */
bool
webserver_write_conf(const char *dir)
{
    bool          good;
    char         *key, *names, *html;
    unsigned      i;
    struct conf   conf;

    memset(&conf, 0, sizeof(conf));

    key = conf_api_key(dir);
    if (key == NULL) {
        return false;
    }

    names = conf_names();
    if (names == NULL) {
        free(key);
        return false;
    }

    conf_add(&conf, "API_KEY", key);
    conf_add(&conf, "NAMES", names);
    conf_add(&conf, "GUARD", conf_guard());
    conf_add(&conf, "USER", conf_user());
    conf_add(&conf, "LISTEN", address_directives());
#ifdef __SANITIZE_ADDRESS__
    conf_add(&conf, "ENV", text_dup("env ASAN_OPTIONS; env UBSAN_OPTIONS; "
                                    "env LSAN_OPTIONS;"));
#else
    conf_add(&conf, "ENV", text_dup(""));
#endif
    conf_add(&conf, "WORKERS", conf_workers());
    conf_add_limits(&conf);

    html = webserver_html(dir);
    good = html != NULL && conf_add_path(&conf, "HTML_DIR", html)
           && conf_add_paths(&conf) && conf_write(&conf, dir);
    free(html);

    for (i = 0; i < conf.count; i++) {
        free(conf.value[i].value);
    }

    return good;
}
