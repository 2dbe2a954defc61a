/*
 * Which llama-server runs here.  The program is the first of
 *   LEMONADE_LLAMACPP_CPU_BIN
 *   llama-server in PATH
 *   CACHE/bin/llamacpp/cpu, Debian's own build in a private root, run
 *   through that root's loader
 * and else is installed into the last place (install.c).  It is asked for
 * its version once; builds since 10000 listen on Unix sockets for certain.
 */

#ifndef LEMONADE_LLAMACPP_PROGRAM_H
#define LEMONADE_LLAMACPP_PROGRAM_H

#include "backend.h"


/* Of struct backend. */
void llamacpp_prepare(bool install, backend_prepared done, void *arg);
void llamacpp_cancel(void *arg);
void llamacpp_fini(void);

/*
 * Fills in the program of a private root.  The working directory is where
 * the CPU backends are, because ggml's own search path is absolute and the
 * next place it looks is ".".  False: there is no llama-server in it.
 */
bool llamacpp_in_root(const char *root, struct backend_program *p);


#endif /* LEMONADE_LLAMACPP_PROGRAM_H */
