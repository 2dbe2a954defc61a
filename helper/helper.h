/*
 * The one helper process: what its parts share.
 */

#ifndef LEMONADE_HELPER_H
#define LEMONADE_HELPER_H

#include "http.h"
#include "options.h"
#include "registry.h"
#include "state.h"

#include <stdbool.h>
#include <sys/types.h>

#include <event2/event.h>


struct helper {
    struct event_base   *base;
    struct options       opt;
    struct lm_state      state;
    struct registry     *registry;
    struct http_server  *http;
    char                *run_dir;
    char                *cache_dir;
    char                *state_path;
    const char          *nginx_user;    /* name, NULL: we are not root */
    gid_t                nginx_group;   /* (gid_t) -1: as it falls */
    bool                 ready;         /* what we serve can be reached */
    bool                 stopping;
    int                  exit_code;
};

extern struct helper  helper;


/* Called when the helper serves: once, by the web server or by main. */
void helper_ready(void);

/*
 * Starts the end: nginx first, then every child, then the loop.  Harmless
 * when called again.
 */
void helper_shutdown(int exit_code, const char *why);

/*
 * Gives a file or folder of the run dir its mode, and nginx's group when
 * there is one.  -1 with errno.
 */
int helper_share(const char *path, mode_t mode);


#endif /* LEMONADE_HELPER_H */
