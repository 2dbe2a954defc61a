/*
 * Installing a backend: a worker process of this same program, which may
 * block, and can be killed at any moment without leaving anything half.
 */

#ifndef LEMONADE_INSTALL_H
#define LEMONADE_INSTALL_H

#include "runner.h"

#include <stddef.h>


/* Debian's own llama-server, from the signed package index of sid. */
#define INSTALL_LLAMACPP_DEBIAN     "install-llamacpp-debian"


/*
 * Starts a worker that installs into the folder dest.  spec says who hears
 * of it: progress comes as lines on stdout, the error as the last line on
 * stderr.  NULL with error.
 */
struct runner *install_start(struct runner_spec *spec, const char *job,
    const char *dest, char *error, size_t error_size);

/* The worker: "--worker JOB DEST".  Returns the exit code. */
int install_worker(int argc, char **argv);


#endif /* LEMONADE_INSTALL_H */
