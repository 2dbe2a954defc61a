/*
 * lemonade-cli serve: becomes the server.
 */

#include "cli.h"

#include <stddef.h>

#include "launch.h"


static int run_serve(const struct cli_args *args);


const struct cli_option  serve_options[] = {
    { "port", "N", "TCP port (LEMONADE_PORT, else 8000)" },
    { "host", "HOST", "address to listen on (LEMONADE_HOST, else localhost)" },
    { "log-level", "LEVEL",
        "critical, error, warning, info, debug or trace" },
    { "llamacpp", "BACKEND", "llama-server's kind: cpu, vulkan, rocm, metal" },
    { "ctx-size", "N", "context length for models (else 4096)" },
    { "llamacpp-args", "ARGS", "more options for llama-server" },
    { "max-loaded-models", "N", "models in memory at once" },
    { "no-nginx", NULL, "leave HTTP to the system's nginx" },
    { "no-tray", NULL, "accepted and ignored" },
    { NULL, NULL, NULL }
};

const struct cli_command  command_serve = {
    .name = "serve",
    .words = "",
    .summary = "Run the server in the foreground until Ctrl-C.",
    .about = "Exit status 2 means that a server runs already.",
    .example = "  lemonade-cli serve --port 8001 --log-level debug",
    .options = serve_options,
    .min_words = 0,
    .max_words = 0,
    .run = run_serve,
};


/* Hands over to the helper; everything else is its work. */
static int
run_serve(const struct cli_args *args)
{
    launch_in_place(args);

    return CLI_FAILED;
}
