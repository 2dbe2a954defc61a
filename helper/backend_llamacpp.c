/*
 * llama-server, the first backend: its command line and its output.  Which
 * program it is: llamacpp_program.c.
 *
 * Flags: those that llama-server 0.7.0 and the builds of 2025 share.
 */

#define _GNU_SOURCE

#include "backend.h"
#include "helper.h"
#include "llamacpp_program.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


#define LLAMACPP_BATCH_MAX  8192


/* The command line of one server. */
static void
llamacpp_command(const struct backend_job *job, struct words *argv,
    struct words *env)
{
    long           batch;
    size_t         i;
    struct words  *args = &helper.opt.llamacpp_args;

    for (i = 0; i < job->program->argv.count; i++) {
        words_add(argv, job->program->argv.item[i]);
    }

    words_add(argv, "-m");
    words_add(argv, job->model->file);

    /* answers carry this name instead of a path; a comma would make two */

    if (strchr(job->model->name, ',') == NULL) {
        words_add(argv, "--alias");
        words_add(argv, job->model->name);
    }

    words_add(argv, "--ctx-size");
    words_addf(argv, "%ld", helper.opt.ctx_size);
    words_add(argv, "--host");

    if (job->socket != NULL) {
        words_add(argv, job->socket);

    } else {
        words_add(argv, "127.0.0.1");
        words_add(argv, "--port");
        words_addf(argv, "%u", job->port);
    }

    words_add(argv, "--jinja");
    words_add(argv, "--reasoning-format");
    words_add(argv, "auto");
    words_add(argv, "--keep");
    words_add(argv, "16");
    words_add(argv, "--no-webui");

    if (registry_labelled(job->model, "embeddings")
        || registry_labelled(job->model, "reranking"))
    {
        /* an input must fit into one batch there, 512 tokens by default */

        batch = helper.opt.ctx_size;

        if (batch <= 0 || batch > LLAMACPP_BATCH_MAX) {
            batch = LLAMACPP_BATCH_MAX;
        }

        words_add(argv, registry_labelled(job->model, "embeddings")
                        ? "--embeddings" : "--reranking");
        words_add(argv, "--batch-size");
        words_addf(argv, "%ld", batch);
        words_add(argv, "--ubatch-size");
        words_addf(argv, "%ld", batch);
    }

    if (job->model->mmproj != NULL) {
        words_add(argv, "--mmproj");
        words_add(argv, job->model->mmproj);
        words_add(argv, "--no-mmproj-offload");
    }

    words_add(argv, "-ngl");
    words_add(argv, "0");

    if (helper.opt.ci_mode) {
        words_add(argv, "--seed");
        words_add(argv, "42");
    }

    for (i = 0; i < args->count; i++) {
        words_add(argv, args->item[i]);
    }

    /* by the environment: an argument can be read by every user */

    backend_environment(env);
    words_addf(env, "LLAMA_API_KEY=%s", job->key);
}


/* llama-server serves whatever name a body has. */
static const char *
llamacpp_name_in_body(const struct registry_model *model)
{
    return NULL;
}


/*
 * "... prompt eval time = 4.48 ms / 30 tokens ( 0.15 ms per token,
 * 6697.92 tokens per second)"; without "prompt" it is the answer's.
 */
static void
llamacpp_timing(const char *line, struct backend_timing *t)
{
    long         tokens;
    double       ms, each, rate;
    const char  *p;

    p = strstr(line, "eval time =");

    if (p == NULL
        || sscanf(p, "eval time = %lf ms / %ld tokens ( %lf ms per token, "
                  "%lf tokens per second)", &ms, &tokens, &each, &rate) != 4
        || !isfinite(ms) || !isfinite(rate)
        || ms < 0 || rate < 0 || tokens < 0)
    {
        return;
    }

    if (p - line >= 7 && strncmp(p - 7, "prompt ", 7) == 0) {
        t->input_tokens = tokens;
        t->time_to_first_token = ms / 1000;

    } else {
        t->output_tokens = tokens;
        t->tokens_per_second = rate;
    }
}


/* Skips "0.00.038.538 E " and what older builds put there. */
static const char *
llamacpp_message(const char *line)
{
    const char  *p;

    p = line + strspn(line, "0123456789.");

    if (p != line && p[0] == ' ' && isupper((unsigned char) p[1])
        && p[2] == ' ')
    {
        line = p + 3;
    }

    return line;
}


/* Judges a line by its level letter, or by its words where it has none. */
static enum backend_line
llamacpp_line(const char *line, struct backend_timing *t)
{
    char         level;
    const char  *text;

    text = llamacpp_message(line);
    level = text != line ? text[-2] : 0;

    if (strcasestr(text, "couldn't bind")
        || strcasestr(text, "address already in use"))
    {
        return LINE_PORT_TAKEN;
    }

    if (strstr(text, "error loading model:")
        || strstr(text, "GGML_ASSERT") || strstr(text, "what():"))
    {
        return LINE_CAUSE;
    }

    if (level == 'E' || (level == 0 && (strcasestr(text, "error")
                                        || strcasestr(text, "failed"))))
    {
        return strstr(text, "exiting due to")
               || strstr(text, "failed to load model")
               || strstr(text, "encountered an error while trying to fit")
               ? LINE_FAREWELL : LINE_ERROR;
    }

    if (strstr(text, "eval time =")) {
        llamacpp_timing(text, t);
        return LINE_PLAIN;
    }

    if (strstr(text, "listening on") || strstr(text, "model loaded")) {
        return LINE_READY;
    }

    return LINE_PLAIN;
}


const struct backend  backend_llamacpp = {
    .recipe = "llamacpp",
    .health_path = "/health",
    .prepare = llamacpp_prepare,
    .cancel = llamacpp_cancel,
    .command = llamacpp_command,
    .name_in_body = llamacpp_name_in_body,
    .line = llamacpp_line,
    .message = llamacpp_message,
    .fini = llamacpp_fini,
};
