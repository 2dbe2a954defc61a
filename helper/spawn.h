/*
 * fork and exec, done with care.
 */

#ifndef LEMONADE_SPAWN_H
#define LEMONADE_SPAWN_H

#include <stddef.h>
#include <sys/resource.h>
#include <sys/types.h>


/* What the new process is to be. */
struct spawn {
    char *const          *argv;         /* argv[0] is the path to execute */
    char *const          *envp;
    const char           *cwd;
    int                   death_signal; /* sent when this process dies */
    int                   out;          /* its standard output ... */
    int                   err;          /* ... and error; stay ours to close */
    const struct rlimit  *files;        /* its limit of open files */
};


/*
 * Makes a process that leads its own group, with /dev/null as its standard
 * input, no descriptor above 2, no signal blocked or ignored.  Returns its
 * number once it runs the program, or -1 with the reason in error.
 * Descriptors 0 to 2 of this process must be open.
 */
pid_t spawn_process(const struct spawn *what, char *error, size_t error_size);


#endif /* LEMONADE_SPAWN_H */
