/*
 * lemonade-cli list: the models one can use, those on disk first.
 */

#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"
#include "launch.h"
#include "memory.h"
#include "output.h"


#define LIST_SECONDS  10
#define USER_PREFIX   "user."

enum { COLUMN_NAME, COLUMN_DOWNLOADED, COLUMN_DETAILS, COLUMNS };


static int run_list(const struct cli_args *args);
static json_t *choose(const json_t *all);
static bool is_shown(const json_t *model);
static int by_rank(const void *a, const void *b);
static void print_table(const json_t *models);
static char *join_labels(const json_t *model);


static const struct cli_option  options[] = {
    { "json", NULL, "print it for programs" },
    { NULL, NULL, NULL }
};

const struct cli_command  command_list = {
    .name = "list",
    .words = "",
    .summary = "List the models, those on disk first.",
    .about = NULL,
    .example = "  lemonade-cli list\n"
               "  lemonade-cli list --json | jq -r '.[].id'",
    .options = options,
    .min_words = 0,
    .max_words = 0,
    .run = run_list,
};


/* Fetches all models and prints the suggested ones and the user's own. */
static int
run_list(const struct cli_args *args)
{
    bool                  good;
    json_t               *models;
    struct client        *c;
    enum client_result    result;
    struct client_reply   reply;

    c = client_new();

    if (c == NULL) {
        return CLI_FAILED;
    }

    result = launch_and_send(c, "GET", "/v1/models?show_all=true", NULL,
                 LIST_SECONDS, &reply);
    good = client_succeeded(c, result, &reply);

    if (good) {
        models = choose(json_object_get(reply.body, "data"));

        if (cli_value(args, "json") != NULL) {
            output_json(models);

        } else {
            print_table(models);
        }

        json_decref(models);
    }

    client_reply_free(&reply);
    client_free(c);

    return good ? CLI_OK : CLI_FAILED;
}


/* A new array of the models to show, in their order. */
static json_t *
choose(const json_t *all)
{
    size_t    i, n;
    json_t   *chosen, *model, **sorted;

    sorted = memory_zero((json_array_size(all) + 1) * sizeof(json_t *));
    n = 0;

    json_array_foreach(all, i, model) {
        if (is_shown(model)) {
            sorted[n++] = model;
        }
    }

    qsort(sorted, n, sizeof(json_t *), by_rank);
    chosen = json_array();

    for (i = 0; i < n; i++) {
        json_array_append(chosen, sorted[i]);
    }

    free(sorted);

    return chosen;
}


/* Whether a model is suggested or the user's own. */
static bool
is_shown(const json_t *model)
{
    json_t      *suggested;
    const char  *id;

    id = client_text(model, "id");
    suggested = json_object_get(model, "suggested");

    return id != NULL && (suggested == NULL || json_is_true(suggested)
                          || strncmp(id, USER_PREFIX,
                                     sizeof(USER_PREFIX) - 1) == 0);
}


/* Called by qsort: what is on disk comes first, then by name. */
static int
by_rank(const void *a, const void *b)
{
    int            here_a, here_b;
    const json_t  *model_a, *model_b;

    model_a = *(json_t *const *) a;
    model_b = *(json_t *const *) b;
    here_a = json_is_true(json_object_get(model_a, "downloaded"));
    here_b = json_is_true(json_object_get(model_b, "downloaded"));

    if (here_a != here_b) {
        return here_b - here_a;
    }

    return strcasecmp(client_text(model_a, "id"),
               client_text(model_b, "id"));
}


/* Prints the models as people read them. */
static void
print_table(const json_t *models)
{
    static const char *const  headers[COLUMNS] = {
        "Model Name", "Downloaded", "Details"
    };

    char                 *labels;
    size_t                i;
    json_t               *model;
    const char           *cells[COLUMNS];
    struct output_table  *table;

    table = output_table_new(headers, COLUMNS);

    json_array_foreach(models, i, model) {
        labels = join_labels(model);
        cells[COLUMN_NAME] = client_text(model, "id");
        cells[COLUMN_DOWNLOADED] =
            json_is_true(json_object_get(model, "downloaded")) ? "Yes" : "No";
        cells[COLUMN_DETAILS] = labels;

        output_table_add(table, cells);
        free(labels);
    }

    output_table_print(table);
    output_table_free(table);
}


/* "vision, reasoning"; "-" for none. */
static char *
join_labels(const json_t *model)
{
    char        *joined, *longer;
    size_t       i;
    json_t      *label;
    const char  *text;

    joined = NULL;

    json_array_foreach(json_object_get(model, "labels"), i, label) {
        text = json_string_value(label);

        if (text != NULL) {
            longer = memory_format("%s%s%s", joined != NULL ? joined : "",
                         joined != NULL ? ", " : "", text);
            free(joined);
            joined = longer;
        }
    }

    return joined != NULL ? joined : memory_copy("-");
}
