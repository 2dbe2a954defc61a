/*
 * What a command is.  Each command_NAME.c describes itself in one table
 * entry, from which main.c parses its arguments and writes its help.
 */

#ifndef LEMONADE_CLI_H
#define LEMONADE_CLI_H

#include <stdbool.h>


/* Exit codes; 2 to 4 are those of the server's first command line. */
enum cli_exit {
    CLI_OK = 0,
    CLI_FAILED = 1,             /* anything else, also wrong usage */
    CLI_ALREADY_RUNNING = 2,    /* serve: the helper itself says so */
    CLI_STOP_TIMEOUT = 3,       /* stop: asked, but the server still runs */
    CLI_STOP_FAILED = 4,        /* stop: could not even ask */
};


#define CLI_OPTIONS_MAX  16

/* One option of a command, "--name" or "--name VALUE". */
struct cli_option {
    const char  *name;          /* NULL ends the table */
    const char  *value;         /* what the value is called; NULL: a flag */
    const char  *help;
};


/* What the user typed behind the command, as cli_parse understood it. */
struct cli_args {
    const struct cli_option  *options;
    const char               *values[CLI_OPTIONS_MAX]; /* flags: "" */
    char                    **words;    /* what is not an option */
    int                       count;    /* of words */
};


/* A command's table entry. */
struct cli_command {
    const char               *name;
    const char               *words;    /* as shown in help: "MODEL..." */
    const char               *summary;  /* one line for the overview */
    const char               *about;    /* more, or NULL */
    const char               *example;
    const struct cli_option  *options;
    int                       min_words;
    int                       max_words;        /* -1: no limit */
    int                     (*run)(const struct cli_args *args);
};


extern const struct cli_command  command_list;
extern const struct cli_command  command_load;
extern const struct cli_command  command_ps;
extern const struct cli_command  command_pull;
extern const struct cli_command  command_run;
extern const struct cli_command  command_serve;
extern const struct cli_command  command_status;
extern const struct cli_command  command_stop;
extern const struct cli_command  command_unload;

/* The options of serve, which run has too. */
extern const struct cli_option  serve_options[];


/* What cli_parse found. */
enum cli_parsed {
    CLI_PARSED,
    CLI_PARSED_HELP,            /* --help or -h: nothing else counts */
    CLI_PARSED_WRONG,           /* one line was written to stderr */
};

/*
 * Sorts argv (argv[0] is the command's name) into args, which points into
 * argv and owns nothing.  Option names are not abbreviated.
 */
enum cli_parsed cli_parse(const struct cli_command *command, int argc,
    char **argv, struct cli_args *args);

/* Value of an option, "" for a flag, NULL when it was not given. */
const char *cli_value(const struct cli_args *args, const char *name);

/* Writes a command's help to stdout. */
void cli_help(const struct cli_command *command);


#endif /* LEMONADE_CLI_H */
