/*
 * lemonade-cli ps: the models in memory.
 */

#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "client.h"
#include "memory.h"
#include "output.h"
#include "server.h"


#define HEALTH_SECONDS  10

enum {
    COLUMN_NAME, COLUMN_RECIPE, COLUMN_PID, COLUMN_STATUS, COLUMN_INFLIGHT,
    COLUMN_REQUESTS, COLUMN_LAST_USED, COLUMNS
};


static int run_ps(const struct cli_args *args);
static void print_table(const json_t *models);
static char *number(const json_t *model, const char *name);
static char *ago(const json_t *model);


static const struct cli_option  options[] = {
    { "json", NULL, "print it for programs" },
    { NULL, NULL, NULL }
};

const struct cli_command  command_ps = {
    .name = "ps",
    .words = "",
    .summary = "Show the models in memory and what they are doing.",
    .about = NULL,
    .example = "  lemonade-cli ps",
    .options = options,
    .min_words = 0,
    .max_words = 0,
    .run = run_ps,
};


/* Reads the server's health and prints its models. */
static int
run_ps(const struct cli_args *args)
{
    bool                  good;
    json_t               *models;
    struct client        *c;
    struct server         s;
    struct client_reply   reply;

    c = client_new();
    reply.body = NULL;

    good = c != NULL && server_require(c, &s)
           && client_succeeded(c, client_send(c, "GET", "/v1/health", NULL,
                                              HEALTH_SECONDS, &reply), &reply);

    if (good) {
        models = json_object_get(reply.body, "all_models_loaded");

        if (cli_value(args, "json") == NULL) {
            print_table(models);

        } else if (models != NULL) {
            output_json(models);

        } else {
            puts("[]");
        }
    }

    client_reply_free(&reply);
    client_free(c);

    return good ? CLI_OK : CLI_FAILED;
}


/* Prints the models as people read them. */
static void
print_table(const json_t *models)
{
    static const char *const  headers[COLUMNS] = {
        "Model Name", "Recipe", "PID", "Status", "In flight", "Requests",
        "Last used"
    };

    int                   column;
    char                 *cells[COLUMNS];
    size_t                i;
    json_t               *model;
    const char           *status, *shown[COLUMNS];
    struct output_table  *table;

    table = output_table_new(headers, COLUMNS);

    json_array_foreach(models, i, model) {
        status = client_text(model, "status");

        cells[COLUMN_PID] = number(model, "pid");
        cells[COLUMN_INFLIGHT] = number(model, "in_flight");
        cells[COLUMN_REQUESTS] = number(model, "requests");
        cells[COLUMN_LAST_USED] = ago(model);

        shown[COLUMN_NAME] = client_text(model, "model_name");
        shown[COLUMN_RECIPE] = client_text(model, "recipe");
        shown[COLUMN_PID] = cells[COLUMN_PID];
        shown[COLUMN_STATUS] = status;
        shown[COLUMN_INFLIGHT] = cells[COLUMN_INFLIGHT];
        shown[COLUMN_REQUESTS] = cells[COLUMN_REQUESTS];
        shown[COLUMN_LAST_USED] = cells[COLUMN_LAST_USED];

        for (column = 0; column < COLUMNS; column++) {
            shown[column] = shown[column] != NULL ? shown[column] : "-";
        }

        output_table_add(table, shown);
        free(cells[COLUMN_PID]);
        free(cells[COLUMN_INFLIGHT]);
        free(cells[COLUMN_REQUESTS]);
        free(cells[COLUMN_LAST_USED]);
    }

    output_table_print(table);
    output_table_free(table);
}


/* An integer member as text, "-" without one. */
static char *
number(const json_t *model, const char *name)
{
    const json_t  *value;

    value = json_object_get(model, name);

    if (!json_is_integer(value)) {
        return memory_copy("-");
    }

    return memory_format("%lld", (long long) json_integer_value(value));
}


/* "12 s ago" from the seconds since 1970 in last_use. */
static char *
ago(const json_t *model)
{
    double         last, seconds;
    const json_t  *value;

    value = json_object_get(model, "last_use");
    last = json_number_value(value);

    if (!json_is_number(value) || last <= 0) {
        return memory_copy("never");
    }

    seconds = (double) time(NULL) - last;

    if (seconds < 1) {
        return memory_copy("now");
    }

    if (seconds < 120) {
        return memory_format("%.0f s ago", seconds);
    }

    if (seconds < 2 * 3600) {
        return memory_format("%.0f min ago", seconds / 60);
    }

    return memory_format("%.0f h ago", seconds / 3600);
}
