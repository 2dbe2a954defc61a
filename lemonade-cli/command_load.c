/*
 * lemonade-cli load: gets a model into memory before it is asked for.
 */

#include "cli.h"

#include "server.h"


static int run_load(const struct cli_args *args);


static const struct cli_option  options[] = {
    { NULL, NULL, NULL }
};

const struct cli_command  command_load = {
    .name = "load",
    .words = "MODEL",
    .summary = "Load a model into the running server's memory.",
    .about = "A request for a model loads it too; this saves the first "
             "request the wait.",
    .example = "  lemonade-cli load Lemonade-Demo-GGUF",
    .options = options,
    .min_words = 1,
    .max_words = 1,
    .run = run_load,
};


/* Asks the server to load, however long that takes. */
static int
run_load(const struct cli_args *args)
{
    return server_order("/v1/load",
               json_pack("{ss}", "model_name", args->words[0]), "Loaded");
}
