/*
 * Starting lemonade-helper: in our place, as our child, or on demand.
 */

#ifndef LEMONADE_LAUNCH_H
#define LEMONADE_LAUNCH_H

#include <sys/types.h>

#include "cli.h"
#include "client.h"


/*
 * Becomes the helper, with the options of serve.  Returns only if that
 * fails, after one line on stderr.
 */
void launch_in_place(const struct cli_args *args);

/*
 * Starts the helper as a child in our process group, with the options of
 * serve; it ends when we die.  -1 after one line on stderr.
 */
pid_t launch_child(const struct cli_args *args);

/*
 * As client_send, but starts a helper of its own session where none runs.
 * That one serves nobody over TCP and ends when it is idle.
 */
enum client_result launch_and_send(struct client *c, const char *method,
    const char *path, const json_t *body, int seconds,
    struct client_reply *reply);


#endif /* LEMONADE_LAUNCH_H */
