/*
 * What the helper was asked to do: flag > LEMONADE_* > saved setting >
 * default.
 */

#ifndef LEMONADE_OPTIONS_H
#define LEMONADE_OPTIONS_H

#include "log.h"
#include "words.h"

#include <stdbool.h>


enum helper_mode {
    MODE_SERVE = 0,     /* with an nginx of our own */
    MODE_NO_NGINX,      /* a system nginx includes conf/lemonade.conf */
    MODE_ON_DEMAND,     /* started by the CLI, ends when nobody asks */
};


struct options {
    enum helper_mode  mode;
    char             *host;
    unsigned          port;
    enum log_level    log_level;
    long              ctx_size;             /* 0: the model's own */
    long              max_loaded_models;    /* per type; -1: no limit */
    long              load_timeout;         /* seconds */
    bool              ci_mode;
    struct words      llamacpp_args;
};


/*
 * Parses the command line and the environment.  Returns -1 to go on, else
 * the exit code (--help, --version, or an error already printed).
 */
int options_parse(struct options *opt, int argc, char **argv);

/* Takes the saved log_level where neither flag nor environment gave one. */
void options_saved(struct options *opt, const char *cache_dir);

void options_free(struct options *opt);

/* "serve", "no-nginx", "on-demand" */
const char *options_mode_name(enum helper_mode mode);


#endif /* LEMONADE_OPTIONS_H */
