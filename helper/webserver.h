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


#endif /* LEMONADE_WEBSERVER_H */
