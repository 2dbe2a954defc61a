/*
 * Runs a program and waits for it: for worker processes, never in the loop.
 */

#ifndef LEMONADE_RUN_H
#define LEMONADE_RUN_H

#include <stddef.h>


/*
 * argv[0] is looked up in PATH; cwd NULL: as it is.  out (may be NULL with
 * size 0) gets the first bytes of what the program says on either stream,
 * error the line that tells most about a failure.  Returns the exit code,
 * 127 when there is no such program, -1 when it was killed.
 */
int run_program(char *const *argv, const char *cwd, char *out,
    size_t out_size, char *error, size_t error_size);


#endif /* LEMONADE_RUN_H */
