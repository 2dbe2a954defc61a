/*
 * Our own nginx: configured, started, watched, started again.
 */

#ifndef LEMONADE_WEBSERVER_H
#define LEMONADE_WEBSERVER_H

#include <stdbool.h>


/*
 * Finds nginx and our module, sees that the port is free, writes the
 * configuration.  False after a line on stderr.  Before the loop runs.
 */
bool webserver_prepare(void);

/* Starts it; helper_ready() is called when it answers. */
bool webserver_start(void);

/* Is there an nginx? */
bool webserver_running(void);

void webserver_reload(void);
void webserver_stop(void);
void webserver_kill(void);
void webserver_free(void);


/*
 * webserver_conf.c: writes RUNDIR/nginx/nginx.conf from conf/serve.conf.in.
 * False after a line on stderr.
 */
bool webserver_write_conf(const char *dir);


/*
 * webserver_html.c: the folder of pages to serve, malloc'ed: our own, or a
 * copy of them in dir where nginx's workers cannot read our own.  NULL after
 * a line on stderr.
 */
char *webserver_html(const char *dir);
void webserver_remove_html(const char *dir);

/* Can the workers get to the run dir?  False after a line on stderr. */
bool webserver_reachable(void);


#endif /* LEMONADE_WEBSERVER_H */
