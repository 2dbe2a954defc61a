/*
 * lemonade-cli stop: ends the server and waits until it is gone.
 */

#include "cli.h"

#include <stdio.h>

#include "client.h"
#include "output.h"
#include "server.h"


static int run_stop(const struct cli_args *args);


static const struct cli_option  options[] = {
    { NULL, NULL, NULL }
};

const struct cli_command  command_stop = {
    .name = "stop",
    .words = "",
    .summary = "Stop the server with everything it started.",
    .about = "Exit status 0 also when none runs; 3 when it was asked to end "
             "but still\nruns after 30 seconds; 4 when it could not be "
             "asked.",
    .example = "  lemonade-cli stop",
    .options = options,
    .min_words = 0,
    .max_words = 0,
    .run = run_stop,
};


/* Stops what runs on the control socket. */
static int
run_stop(const struct cli_args *args)
{
    struct client        *c;
    struct server         s;
    enum client_result    result;
    enum server_stopped   stopped;

    c = client_new();

    if (c == NULL) {
        return CLI_STOP_FAILED;
    }

    result = server_find(c, &s);
    stopped = SERVER_STOPPED;

    if (result != CLIENT_OK) {
        client_explain(c, result);
        stopped = SERVER_STOP_FAILED;

    } else if (s.alive) {
        /* a helper that only did a chore ends too, but is no server */
        stopped = server_stop(c, &s);
    }

    client_free(c);

    if (stopped == SERVER_STOP_FAILED) {
        return CLI_STOP_FAILED;
    }

    if (stopped == SERVER_STOP_TIMEOUT) {
        output_error("the server (process %d) was asked to stop but still "
            "runs: look at its log, or end it with 'kill -9 %d'",
            (int) s.pid, (int) s.pid);
        return CLI_STOP_TIMEOUT;
    }

    puts(s.alive && !s.on_demand ? "Lemonade Server stopped successfully."
                                 : "Lemonade Server is not running\n");

    return CLI_OK;
}
