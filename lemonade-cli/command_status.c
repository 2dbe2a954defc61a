/*
 * lemonade-cli status: whether a server runs, and where.
 */

#include "cli.h"

#include <stdio.h>

#include "client.h"
#include "output.h"
#include "server.h"


static int run_status(const struct cli_args *args);
static void print_json(const struct server *s);


static const struct cli_option  options[] = {
    { "json", NULL, "print it for programs" },
    { NULL, NULL, NULL }
};

const struct cli_command  command_status = {
    .name = "status",
    .words = "",
    .summary = "Tell whether a server runs, and on which port.",
    .about = "Exit status 0 in both cases.",
    .example = "  lemonade-cli status --json",
    .options = options,
    .min_words = 0,
    .max_words = 0,
    .run = run_status,
};


/* Asks the helper and prints one line. */
static int
run_status(const struct cli_args *args)
{
    struct client       *c;
    struct server        s;
    enum client_result   result;

    c = client_new();

    if (c == NULL) {
        return CLI_FAILED;
    }

    result = server_find(c, &s);
    client_explain(c, result);
    client_free(c);

    if (result != CLIENT_OK) {
        return CLI_FAILED;
    }

    if (cli_value(args, "json") != NULL) {
        print_json(&s);

    } else if (!s.serves) {
        puts("Server is not running");

    } else if (s.port != 0) {
        printf("Server is running on port %d\n", s.port);

    } else {
        puts("Server is running behind the system's nginx");
    }

    return CLI_OK;
}


/* The same for programs. */
static void
print_json(const struct server *s)
{
    json_t  *json;

    if (s->serves) {
        json = json_pack("{sb so ss ss ss si}", "running", 1,
                   "port", s->port != 0 ? json_integer(s->port) : json_null(),
                   "host", s->host, "version", s->version, "mode", s->mode,
                   "pid", (int) s->pid);

    } else {
        json = json_pack("{sb sn}", "running", 0, "port");
    }

    output_json(json);
    json_decref(json);
}
