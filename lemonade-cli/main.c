/*
 * lemonade-cli: the command line of Lemonade Server.
 *
 * Start here: a table of commands, each in command_NAME.c with its own
 * table entry on top.  All of them talk to lemonade-helper (client.c); none
 * has state or logic of its own.
 */

#include "cli.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "output.h"


static int run_command(const struct cli_command *command, int argc,
    char **argv);
static const struct cli_command *find_command(const char *name);
static void unknown_command(const char *name);
static int distance(const char *a, const char *b);
static void overview(void);


/* In the order of the overview. */
static const struct cli_command  *commands[] = {
    &command_serve,
    &command_status,
    &command_stop,
    &command_list,
    &command_pull,
    &command_run,
    &command_load,
    &command_unload,
    &command_ps,
};

#define COMMANDS  (sizeof(commands) / sizeof(commands[0]))


/* Finds the command and runs it. */
int
main(int argc, char **argv)
{
    int                        status;
    const char                *name;
    const struct cli_command  *command;

    /* whoever started us may ignore it; "| head" has to end us quietly */
    signal(SIGPIPE, SIG_DFL);
    output_init();

    name = argc > 1 ? argv[1] : "help";
    status = CLI_OK;

    if (strcmp(name, "--version") == 0 || strcmp(name, "-v") == 0) {
        puts(LEMONADE_VERSION);

    } else if (strcmp(name, "help") == 0 && argc > 2) {
        command = find_command(argv[2]);

        if (command != NULL) {
            cli_help(command);

        } else {
            unknown_command(argv[2]);
            status = CLI_FAILED;
        }

    } else if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0
               || strcmp(name, "-h") == 0)
    {
        overview();

    } else {
        command = find_command(name);

        if (command != NULL) {
            status = run_command(command, argc - 1, argv + 1);

        } else {
            unknown_command(name);
            status = CLI_FAILED;
        }
    }

    if (!output_finish() && status == CLI_OK) {
        status = CLI_FAILED;
    }

    return status;
}


/* Parses a command's arguments and runs it. */
static int
run_command(const struct cli_command *command, int argc, char **argv)
{
    struct cli_args  args;

    switch (cli_parse(command, argc, argv, &args)) {

    case CLI_PARSED_HELP:
        cli_help(command);
        return CLI_OK;

    case CLI_PARSED_WRONG:
        return CLI_FAILED;

    default:
        return command->run(&args);
    }
}


/* The command of that name, or NULL. */
static const struct cli_command *
find_command(const char *name)
{
    size_t  i;

    for (i = 0; i < COMMANDS; i++) {
        if (strcmp(commands[i]->name, name) == 0) {
            return commands[i];
        }
    }

    return NULL;
}


/* Says what could have been meant, but does not run it. */
static void
unknown_command(const char *name)
{
    int          d, best;
    size_t       i;
    const char  *nearest;

    best = 3;
    nearest = NULL;

    for (i = 0; i < COMMANDS; i++) {
        d = distance(name, commands[i]->name);

        if (d < best) {
            best = d;
            nearest = commands[i]->name;
        }
    }

    if (name[0] == '-') {
        output_error("unknown option '%s'; see 'lemonade-cli --help'", name);

    } else if (nearest != NULL) {
        output_error("unknown command '%s': did you mean '%s'?", name,
            nearest);

    } else {
        output_error("unknown command '%s'; see 'lemonade-cli --help'", name);
    }
}


/* Letters to add, remove or change from one short word to the other. */
static int
distance(const char *a, const char *b)
{
    int     row[16], i, j, diagonal, above, best;
    size_t  len;

    len = strlen(b);

    if (len >= 16 || strlen(a) >= 16) {
        return 16;
    }

    for (j = 0; j <= (int) len; j++) {
        row[j] = j;
    }

    for (i = 1; a[i - 1] != '\0'; i++) {
        diagonal = row[0];
        row[0] = i;

        for (j = 1; j <= (int) len; j++) {
            above = row[j];
            best = diagonal + (a[i - 1] != b[j - 1]);
            best = above + 1 < best ? above + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            diagonal = above;
            row[j] = best;
        }
    }

    return row[len];
}


/* The help without a command. */
static void
overview(void)
{
    size_t  i;

    puts("Usage: lemonade-cli COMMAND [options]\n\n"
         "Runs language models on this computer, behind an OpenAI-compatible "
         "server.\n\nCommands:");

    for (i = 0; i < COMMANDS; i++) {
        printf("  %-8s %s\n", commands[i]->name, commands[i]->summary);
    }

    puts("\nOptions:\n"
         "  -h, --help     show this help; 'lemonade-cli COMMAND --help' "
         "shows more\n"
         "  -v, --version  print the version\n\n"
         "Examples:\n"
         "  lemonade-cli serve\n"
         "  lemonade-cli run Lemonade-Demo-GGUF");
}
