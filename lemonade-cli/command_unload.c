/*
 * lemonade-cli unload: frees the memory of one model or of all.
 */

#include "cli.h"

#include "server.h"


static int run_unload(const struct cli_args *args);


static const struct cli_option  options[] = {
    { NULL, NULL, NULL }
};

const struct cli_command  command_unload = {
    .name = "unload",
    .words = "[MODEL]",
    .summary = "Remove a model from memory, or all of them.",
    .about = "A model that is answering a request is removed after the "
             "answer.",
    .example = "  lemonade-cli unload Lemonade-Demo-GGUF",
    .options = options,
    .min_words = 0,
    .max_words = 1,
    .run = run_unload,
};


/* Asks the server to unload, and waits until its answers are finished. */
static int
run_unload(const struct cli_args *args)
{
    json_t  *body;

    body = args->count > 0
               ? json_pack("{ss}", "model_name", args->words[0])
               : json_object();

    return server_order("/v1/unload", body, "Unloaded");
}
