/*
 * From a command's option table to parsed arguments and to help.
 */

#include "cli.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "output.h"


#define OPTION_HELP  'h'
#define OPTION_BASE  256        /* above every short option */


static void fill_table(const struct cli_option *options,
    struct option table[CLI_OPTIONS_MAX + 2]);
static const char *option_word(char **argv);
static void wrong_option(const struct cli_command *command, int kind,
    char **argv);
static bool all_text(int argc, char **argv);
static bool words_fit(const struct cli_command *command,
    const struct cli_args *args);


/* Sorts the arguments of one command; see cli.h. */
enum cli_parsed
cli_parse(const struct cli_command *command, int argc, char **argv,
    struct cli_args *args)
{
    int            opt, index;
    size_t         typed;
    const char    *word;
    struct option  table[CLI_OPTIONS_MAX + 2];

    memset(args, 0, sizeof(*args));
    args->options = command->options;

    if (!all_text(argc, argv)) {
        return CLI_PARSED_WRONG;
    }

    fill_table(command->options, table);
    opterr = 0;
    optind = 0;

    for ( ;; ) {
        index = -1;
        opt = getopt_long(argc, argv, ":h", table, &index);

        if (opt == -1) {
            break;
        }

        if (opt == '?' || opt == ':') {
            wrong_option(command, opt, argv);
            return CLI_PARSED_WRONG;
        }

        if (index >= 0) {
            /* getopt_long takes "--po" for "--port"; we do not */
            word = option_word(argv);
            typed = strcspn(word, "=");

            if (typed != strlen(table[index].name) + 2) {
                wrong_option(command, '?', argv);
                return CLI_PARSED_WRONG;
            }
        }

        if (opt == OPTION_HELP) {
            return CLI_PARSED_HELP;
        }

        args->values[opt - OPTION_BASE] = optarg != NULL ? optarg : "";
    }

    args->words = argv + optind;
    args->count = argc - optind;

    return words_fit(command, args) ? CLI_PARSED : CLI_PARSED_WRONG;
}


/* Turns our table into getopt's. */
static void
fill_table(const struct cli_option *options,
    struct option table[CLI_OPTIONS_MAX + 2])
{
    int  i;

    memset(table, 0, sizeof(struct option) * (CLI_OPTIONS_MAX + 2));

    for (i = 0; i < CLI_OPTIONS_MAX && options[i].name != NULL; i++) {
        table[i].name = options[i].name;
        table[i].has_arg = options[i].value != NULL ? required_argument
                                                    : no_argument;
        table[i].val = OPTION_BASE + i;
    }

    table[i].name = "help";
    table[i].val = OPTION_HELP;
}


/* The word with the option that getopt_long has just taken. */
static const char *
option_word(char **argv)
{
    if (optarg != NULL && optarg == argv[optind - 1]) {
        return argv[optind - 2];
    }

    return argv[optind - 1];
}


/* Says in one line what is wrong with an option. */
static void
wrong_option(const struct cli_command *command, int kind, char **argv)
{
    int          i, len;
    const char  *word, *problem;

    if (optopt > 0 && optopt < OPTION_BASE && optopt != OPTION_HELP) {
        output_error("unknown option '-%c'; see 'lemonade-cli %s --help'",
            optopt, command->name);
        return;
    }

    word = option_word(argv);
    len = (int) strcspn(word, "=");
    problem = "unknown option";

    for (i = 0; i < CLI_OPTIONS_MAX && command->options[i].name; i++) {
        if (len > 2 && strlen(command->options[i].name) == (size_t) len - 2
            && strncmp(command->options[i].name, word + 2, len - 2) == 0)
        {
            problem = kind == ':' ? "a value is missing behind"
                                  : "no value is taken by";
        }
    }

    output_error("%s '%.*s'; see 'lemonade-cli %s --help'", problem, len,
        word, command->name);
}


/* JSON has no place for what is not UTF-8. */
static bool
all_text(int argc, char **argv)
{
    int      i;
    json_t  *text;

    for (i = 1; i < argc; i++) {
        text = json_string(argv[i]);

        if (text == NULL) {
            output_error("argument %d is not UTF-8: write it so", i);
            return false;
        }

        json_decref(text);
    }

    return true;
}


/* Checks the number of words, and says what is missing or too much. */
static bool
words_fit(const struct cli_command *command, const struct cli_args *args)
{
    if (args->count < command->min_words) {
        output_error("%s is missing; usage: lemonade-cli %s %s",
            command->words, command->name, command->words);
        return false;
    }

    if (command->max_words >= 0 && args->count > command->max_words) {
        output_error("unexpected argument '%s'; see 'lemonade-cli %s --help'",
            args->words[command->max_words], command->name);
        return false;
    }

    return true;
}


/* The value of one option; see cli.h. */
const char *
cli_value(const struct cli_args *args, const char *name)
{
    int  i;

    for (i = 0; i < CLI_OPTIONS_MAX && args->options[i].name != NULL; i++) {
        if (strcmp(args->options[i].name, name) == 0) {
            return args->values[i];
        }
    }

    return NULL;
}


/* Writes the help of one command. */
void
cli_help(const struct cli_command *command)
{
    int                       width;
    char                      left[64];
    const struct cli_option  *o;

    printf("Usage: lemonade-cli %s%s%s%s\n\n%s\n", command->name,
        command->options[0].name != NULL ? " [options]" : "",
        command->words[0] != '\0' ? " " : "", command->words,
        command->summary);

    if (command->about != NULL) {
        printf("\n%s\n", command->about);
    }

    printf("\nOptions:\n");

    for (o = command->options; o->name != NULL; o++) {
        width = snprintf(left, sizeof(left), "--%s%s%s", o->name,
                    o->value != NULL ? " " : "",
                    o->value != NULL ? o->value : "");
        printf("  %-26s %s%s\n", left, width > 26 ? "\n" : "", o->help);
    }

    printf("  %-26s %s\n\nExample:\n%s\n", "-h, --help", "show this help",
        command->example);
}
