/*
 * What lines of llama-server's output mean.
 *
 * link: helper/backend_llamacpp.c helper/words.c helper/text.c
 */

#define _GNU_SOURCE

#include "backend.h"
#include "helper.h"
#include "llamacpp_program.h"

#include <stdio.h>
#include <string.h>


struct helper  helper;

static unsigned  failed;


/*
 * What the file under test needs and this test does not.
 */

bool
registry_labelled(const struct registry_model *m, const char *label)
{
    return false;
}


void
backend_environment(struct words *env)
{
}


void
llamacpp_prepare(bool install, backend_prepared done, void *arg)
{
}


void
llamacpp_cancel(void *arg)
{
}


void
llamacpp_fini(void)
{
}


/* Lines and what they are. */
static const struct {
    const char         *line;
    enum backend_line   is;
} lines[] = {
    { "", LINE_PLAIN },
    { "0.00.038.538 I srv  init: hello", LINE_PLAIN },
    { "0.00.038.538 W srv  init: careful", LINE_PLAIN },
    { "0.00.038.538 E srv  init: wrong", LINE_ERROR },
    { "0.00.038.538 E main: exiting due to model loading error",
      LINE_FAREWELL },
    { "error loading model: tensor is missing", LINE_CAUSE },
    { "couldn't bind HTTP server socket", LINE_PORT_TAKEN },
    { "main: model loaded", LINE_READY },
    { "0.", LINE_PLAIN },
    { "0. E", LINE_PLAIN },
};


/* Judges each. */
static void
test_lines(void)
{
    size_t                  i;
    struct backend_timing   t;

    for (i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        if (backend_llamacpp.line(lines[i].line, &t) != lines[i].is) {
            printf("line \"%s\" is taken for something else\n",
                   lines[i].line);
            failed++;
        }
    }
}


/* A good line of timing is taken; one that cannot be is not. */
static void
test_timing(void)
{
    size_t                  i;
    struct backend_timing   t = { 0 };
    static const char *const  bad[] = {
        "eval time = nan ms / 1 tokens ( 1 ms per token, nan tokens per "
        "second)",
        "eval time = 1 ms / 1 tokens ( 0 ms per token, inf tokens per "
        "second)",
        "eval time = -1 ms / 1 tokens ( 1 ms per token, -1 tokens per "
        "second)",
        "eval time = 1 ms / -7 tokens ( 1 ms per token, 1 tokens per second)",
        "prompt eval time = inf ms / 1 tokens ( 1 ms per token, 1 tokens "
        "per second)",
        "eval time = 9 ms / 9 tokens",
    };

    backend_llamacpp.line("prompt eval time = 500.0 ms / 30 tokens ( 0.15 ms "
                          "per token, 60.0 tokens per second)", &t);
    backend_llamacpp.line("       eval time = 100.0 ms / 20 tokens ( 5.0 ms "
                          "per token, 200.0 tokens per second)", &t);

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        backend_llamacpp.line(bad[i], &t);
    }

    if (t.input_tokens != 30 || t.output_tokens != 20
        || t.time_to_first_token < 0.49 || t.time_to_first_token > 0.51
        || t.tokens_per_second < 199 || t.tokens_per_second > 201)
    {
        printf("timing: %ld %ld %f %f\n", t.input_tokens, t.output_tokens,
               t.time_to_first_token, t.tokens_per_second);
        failed++;
    }
}


int
main(void)
{
    test_lines();
    test_timing();

    return failed == 0 ? 0 : 1;
}
