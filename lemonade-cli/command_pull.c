/*
 * lemonade-cli pull: gets models, or registers one's own.
 */

#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"
#include "launch.h"
#include "memory.h"
#include "output.h"


#define MODEL_SECONDS  10


static int run_pull(const struct cli_args *args);
static bool pull_one(struct client *c, const struct cli_args *args,
    const char *model);
static enum client_result look_for(struct client *c, const char *model,
    bool *here);
static json_t *request(const struct cli_args *args, const char *model);
static void add_path(json_t *body, const char *name, const char *value);


static const struct cli_option  options[] = {
    { "checkpoint", "PATH", "the model's GGUF file" },
    { "recipe", "RECIPE", "what runs it: llamacpp" },
    { "reasoning", NULL, "label it: it thinks before it answers" },
    { "vision", NULL, "label it: it understands pictures" },
    { "embedding", NULL, "label it: it makes embeddings" },
    { "reranking", NULL, "label it: it ranks documents" },
    { "mmproj", "PATH", "the file with its vision part" },
    { NULL, NULL, NULL }
};

const struct cli_command  command_pull = {
    .name = "pull",
    .words = "MODEL...",
    .summary = "Get models, or register a model file of your own.",
    .about = "With --checkpoint and --recipe a file is registered under a "
             "new name, which\nmust begin with 'user.'.",
    .example = "  lemonade-cli pull user.Mine --checkpoint ./mine.gguf "
               "--recipe llamacpp",
    .options = options,
    .min_words = 1,
    .max_words = -1,
    .run = run_pull,
};


/* Pulls one model after the other; the first failure ends it. */
static int
run_pull(const struct cli_args *args)
{
    int             i;
    bool            good;
    struct client  *c;

    if (args->count > 1 && (cli_value(args, "checkpoint") != NULL
                            || cli_value(args, "mmproj") != NULL))
    {
        output_error("--checkpoint and --mmproj describe one model: give "
            "one name");
        return CLI_FAILED;
    }

    c = client_new();
    good = c != NULL;

    for (i = 0; good && i < args->count; i++) {
        good = pull_one(c, args, args->words[i]);
    }

    client_free(c);

    return good ? CLI_OK : CLI_FAILED;
}


/* Pulls one model and says so. */
static bool
pull_one(struct client *c, const struct cli_args *args, const char *model)
{
    bool                 good, here;
    json_t              *body;
    enum client_result   result;
    struct client_reply  reply;

    output_line(stderr, "Pulling model: %s", model);

    here = false;
    reply.body = NULL;
    body = request(args, model);
    result = CLIENT_OK;

    if (cli_value(args, "checkpoint") == NULL) {
        result = look_for(c, model, &here);
    }

    if (result == CLIENT_OK) {
        result = launch_and_send(c, "POST", "/internal/pull", body, 0,
                     &reply);
    }

    good = client_succeeded(c, result, &reply);

    if (good) {
        if (here) {
            output_line(stderr, "%s was on this computer already.", model);
        }

        output_line(stdout, "Model pulled successfully: %s", model);
        fflush(stdout);
    }

    client_reply_free(&reply);
    json_decref(body);

    return good;
}


/* Finds out whether a model is on the disk already. */
static enum client_result
look_for(struct client *c, const char *model, bool *here)
{
    char                 *name, *path;
    enum client_result    result;
    struct client_reply   reply;

    name = client_escape(model);
    path = memory_format("/v1/models/%s", name);

    result = launch_and_send(c, "GET", path, NULL, MODEL_SECONDS, &reply);
    *here = result == CLIENT_OK && reply.status == 200
            && json_is_true(json_object_get(reply.body, "downloaded"));

    client_reply_free(&reply);
    free(path);
    free(name);

    return result;
}


/* The request's body. */
static json_t *
request(const struct cli_args *args, const char *model)
{
    static const char *const  flags[] = {
        "reasoning", "vision", "embedding", "reranking"
    };

    size_t       i;
    json_t      *body;
    const char  *recipe;

    body = json_pack("{ss}", "model_name", model);
    recipe = cli_value(args, "recipe");

    add_path(body, "checkpoint", cli_value(args, "checkpoint"));
    add_path(body, "mmproj", cli_value(args, "mmproj"));

    if (recipe != NULL) {
        json_object_set_new(body, "recipe", json_string(recipe));
    }

    for (i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        if (cli_value(args, flags[i]) != NULL) {
            json_object_set_new(body, flags[i], json_true());
        }
    }

    return body;
}


/* Adds a path; the helper works elsewhere, so it gets an absolute one. */
static void
add_path(json_t *body, const char *name, const char *value)
{
    char  *absolute;

    if (value == NULL) {
        return;
    }

    absolute = realpath(value, NULL);
    json_object_set_new(body, name,
        json_string(absolute != NULL ? absolute : value));
    free(absolute);
}
