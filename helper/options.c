/*
 * Command line, environment and saved settings; see options.h.
 */

#define _GNU_SOURCE

#include "options.h"
#include "file.h"
#include "paths.h"
#include "text.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


/* Did the command line or the environment give a log level? */
static bool  options_level_given;


static const struct option  options_long[] = {
    { "host",              required_argument, NULL, 'H' },
    { "port",              required_argument, NULL, 'p' },
    { "log-level",         required_argument, NULL, 'l' },
    { "llamacpp",          required_argument, NULL, 'b' },
    { "ctx-size",          required_argument, NULL, 'c' },
    { "llamacpp-args",     required_argument, NULL, 'a' },
    { "max-loaded-models", required_argument, NULL, 'm' },
    { "no-nginx",          no_argument,       NULL, 'N' },
    { "on-demand",         no_argument,       NULL, 'D' },
    { "version",           no_argument,       NULL, 'v' },
    { "help",              no_argument,       NULL, 'h' },
    { NULL, 0, NULL, 0 }
};


static const struct {
    int          option;
    const char  *variable;
} options_variables[] = {
    { 'H', "LEMONADE_HOST" },
    { 'p', "LEMONADE_PORT" },
    { 'l', "LEMONADE_LOG_LEVEL" },
    { 'b', "LEMONADE_LLAMACPP" },
    { 'c', "LEMONADE_CTX_SIZE" },
    { 'a', "LEMONADE_LLAMACPP_ARGS" },
    { 'm', "LEMONADE_MAX_LOADED_MODELS" },
    { 't', "LEMONADE_LOAD_TIMEOUT" },
};


/* Prints the help. */
static void
options_help(void)
{
    fputs(
"usage: lemonade-helper [OPTION...]\n"
"The control plane of Lemonade Server: owns models, children and nginx.\n"
"\n"
"  --host HOST              address nginx listens on (localhost)\n"
"  --port PORT              its port (8000)\n"
"  --log-level LEVEL        critical, error, warning, info, debug, trace\n"
"  --llamacpp BACKEND       llama.cpp backend (cpu)\n"
"  --ctx-size N             context size of models, 0: the model's (4096)\n"
"  --llamacpp-args ARGS     more arguments for llama-server\n"
"  --max-loaded-models N    models of one type loaded at once, -1: any (1)\n"
"  --no-nginx               serve a system nginx, start none\n"
"  --on-demand              no nginx; end when nobody asks any more\n"
"  --version                print the version\n"
"  --help                   print this\n"
"\n"
"Each option has a variable: LEMONADE_HOST, LEMONADE_CTX_SIZE, ...\n"
"Exit codes: 0 ok, 1 error, 2 another helper is running.\n",
        stdout);
}


/* Is it that flag, maybe with "=value"?  llama-server takes _ for -, too. */
static bool
options_is_flag(const char *arg, const char *flag)
{
    while (*flag != '\0' && (*arg == *flag || (*arg == '_' && *flag == '-'))) {
        arg++;
        flag++;
    }

    return *flag == '\0' && (*arg == '\0' || *arg == '=');
}


/* Is this argument of llama-server one that we set ourselves? */
static bool
options_managed(const char *arg)
{
    size_t               i;
    static const char   *managed[] = {
        "-m", "--model", "--host", "--port", "--api-key", "--api-key-file",
        "--api-prefix", "-a", "--alias", "-c", "--ctx-size", "--mmproj",
        "--embeddings", "--embedding", "--rerank", "--reranking", "-ngl",
        "--gpu-layers", "--n-gpu-layers", "--jinja", "--ssl-key-file",
        "--ssl-cert-file", "--log-file", "--log-jsonl", "--log-disable",
        "--models-dir", "--models-preset", "-hf", "--hf-repo", "-hfr",
        "-mu", "--model-url", "--reuse-port",
    };

    for (i = 0; i < sizeof(managed) / sizeof(managed[0]); i++) {
        if (options_is_flag(arg, managed[i])) {
            return true;
        }
    }

    return false;
}


/* Splits and checks the user's arguments of llama-server. */
static bool
options_set_args(struct options *opt, const char *value)
{
    size_t  i;

    words_free(&opt->llamacpp_args);

    if (!words_split(&opt->llamacpp_args, value)) {
        fprintf(stderr, "lemonade-helper: --llamacpp-args has an open "
                "quote: %s\n", value);
        return false;
    }

    for (i = 0; i < opt->llamacpp_args.count; i++) {
        if (options_managed(opt->llamacpp_args.item[i])) {
            fprintf(stderr, "lemonade-helper: Argument '%s' is managed by "
                    "Lemonade and cannot be overridden\n",
                    opt->llamacpp_args.item[i]);
            return false;
        }
    }

    return true;
}


/* Takes a number or says what is wrong with it. */
static bool
options_number(const char *name, const char *value, long min, long max,
    long *out)
{
    if (text_number(value, min, max, out)) {
        return true;
    }

    fprintf(stderr, "lemonade-helper: %s must be a number from %ld to %ld, "
            "not \"%s\"\n", name, min, max, value);
    return false;
}


/* Takes the name of a llama.cpp backend. */
static bool
options_set_backend(const char *name, const char *value)
{
    size_t              i;
    static const char  *known[] = {
        "auto", "cpu", "vulkan", "rocm", "cuda", "metal"
    };

    for (i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(value, known[i]) != 0) {
            continue;
        }

        if (i > 1) {
            fprintf(stderr, "lemonade-helper: llama.cpp backend \"%s\" is "
                    "not available in this version, using cpu\n", value);
        }

        return true;
    }

    fprintf(stderr, "lemonade-helper: %s: unknown llama.cpp backend \"%s\"; "
            "use cpu\n", name, value);
    return false;
}


/* Sets one option; name is what the user wrote it as. */
static bool
options_set(struct options *opt, int option, const char *name,
    const char *value)
{
    int     level;
    long    number;
    size_t  len;

    switch (option) {

    case 'H':
        len = strlen(value);

        if (len > 2 && value[0] == '[' && value[len - 1] == ']') {
            value++;        /* as in a URL */
            len -= 2;
        }

        if (len == 0 || len > 255 || !text_printable(value, len)) {
            fprintf(stderr, "lemonade-helper: %s must be a host name or an "
                    "address\n", name);
            return false;
        }

        free(opt->host);
        opt->host = text_format("%.*s", (int) len, value);
        return true;

    case 'p':
        if (!options_number(name, value, 1, 65535, &number)) {
            return false;
        }

        opt->port = (unsigned) number;
        return true;

    case 'l':
        level = log_level_parse(value);
        if (level == -1) {
            fprintf(stderr, "lemonade-helper: %s must be critical, error, "
                    "warning, info, debug or trace, not \"%s\"\n",
                    name, value);
            return false;
        }

        opt->log_level = (enum log_level) level;
        options_level_given = true;
        return true;

    case 'b':
        return options_set_backend(name, value);

    case 'c':
        return options_number(name, value, 0, 1 << 24, &opt->ctx_size);

    case 'a':
        return options_set_args(opt, value);

    case 't':
        return options_number(name, value, 1, 86400, &opt->load_timeout);

    default: /* 'm' */
        if (!options_number(name, value, -1, 64, &opt->max_loaded_models)) {
            return false;
        }

        if (opt->max_loaded_models == 0) {
            fprintf(stderr, "lemonade-helper: %s must not be 0; -1 means no "
                    "limit\n", name);
            return false;
        }

        return true;
    }
}


/* Takes what the environment says. */
static bool
options_environment(struct options *opt)
{
    size_t       i;
    const char  *value;

    for (i = 0;
         i < sizeof(options_variables) / sizeof(options_variables[0]);
         i++)
    {
        value = getenv(options_variables[i].variable);

        if (value != NULL && *value != '\0'
            && !options_set(opt, options_variables[i].option,
                            options_variables[i].variable, value))
        {
            return false;
        }
    }

    opt->ci_mode = text_yes(getenv("LEMONADE_CI_MODE"));

    return true;
}


/* Parses everything. */
int
options_parse(struct options *opt, int argc, char **argv)
{
    int   c, index;
    char  name[64];

    memset(opt, 0, sizeof(*opt));
    opt->host = text_dup("localhost");
    opt->port = 8000;
    opt->log_level = LOG_INFO;
    opt->ctx_size = 4096;
    opt->max_loaded_models = 1;
    opt->load_timeout = 600;

    if (!options_environment(opt)) {
        return 1;
    }

    while ((c = getopt_long(argc, argv, "vh", options_long, &index)) != -1) {

        switch (c) {

        case 'N':
            opt->mode = MODE_NO_NGINX;
            break;

        case 'D':
            opt->mode = MODE_ON_DEMAND;
            break;

        case 'v':
            puts(LEMONADE_VERSION);
            return 0;

        case 'h':
            options_help();
            return 0;

        case '?':
            return 1;

        default:
            snprintf(name, sizeof(name), "--%s", options_long[index].name);

            if (!options_set(opt, c, name, optarg)) {
                return 1;
            }
        }
    }

    if (optind < argc) {
        fprintf(stderr, "lemonade-helper: unexpected argument \"%s\"; see "
                "--help\n", argv[optind]);
        return 1;
    }

    return -1;
}


/* Reads user_settings.json; whatever is wrong with it is ignored. */
void
options_saved(struct options *opt, const char *cache_dir)
{
    int          level;
    char        *path, *data;
    size_t       len;
    json_t      *root;
    const char  *name;

    if (options_level_given) {
        return;
    }

    path = paths_join(cache_dir, "user_settings.json");
    data = file_read(path, 65536, &len);
    free(path);

    if (data == NULL) {
        return;
    }

    root = json_loadb(data, len, 0, NULL);
    free(data);

    name = json_string_value(json_object_get(root, "log_level"));
    level = name != NULL ? log_level_parse(name) : -1;

    if (level != -1) {
        opt->log_level = (enum log_level) level;
    }

    json_decref(root);
}


/* Frees what parsing made. */
void
options_free(struct options *opt)
{
    free(opt->host);
    words_free(&opt->llamacpp_args);
}


/* Names a mode. */
const char *
options_mode_name(enum helper_mode mode)
{
    static const char  *names[] = { "serve", "no-nginx", "on-demand" };

    return names[mode];
}
