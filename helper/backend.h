/*
 * A backend: a program that serves one model over HTTP, OpenAI's way.
 *
 * What Lemonade calls a WrappedServer is a struct of functions here.  A new
 * backend is one file with one such struct, and one line in backend.c.
 */

#ifndef LEMONADE_BACKEND_H
#define LEMONADE_BACKEND_H

#include "registry.h"
#include "words.h"

#include <stdbool.h>
#include <stddef.h>


/* The program of a backend, as it was found on this machine. */
struct backend_program {
    struct words  argv;     /* the program and what comes before our flags */
    char         *cwd;      /* NULL: "/" */
    long          build;    /* 0: unknown */
    bool          sockets;  /* can it listen on a Unix socket? */
};


/* One start: which model, where to listen, with which key. */
struct backend_job {
    const struct registry_model   *model;
    const struct backend_program  *program;
    const char                    *socket;  /* path, NULL: TCP */
    unsigned                       port;
    const char                    *key;
};


/* What a line of output says. */
enum backend_line {
    LINE_PLAIN = 0,
    LINE_ERROR,
    LINE_CAUSE,         /* the error that explains those around it */
    LINE_FAREWELL,      /* an error that only says that it failed */
    LINE_READY,         /* it may be ready: ask now */
    LINE_PORT_TAKEN,
};


/* Telemetry of the last request, as far as the output tells. */
struct backend_timing {
    long    input_tokens;
    long    output_tokens;
    double  time_to_first_token;    /* seconds */
    double  tokens_per_second;
};


/* program is NULL when there is none; error then says why. */
typedef void (*backend_prepared)(const struct backend_program *program,
    const char *error, void *arg);


struct backend {
    const char   *recipe;
    const char   *health_path;      /* 200 here means: can generate */

    /*
     * Finds the program, installs it if it is missing, learns its version.
     * done is called later, never before prepare returns.
     */
    void        (*prepare)(bool install, backend_prepared done, void *arg);

    /* The caller does not wait any more; done is not called. */
    void        (*cancel)(void *arg);

    /* Fills in the command line and the environment. */
    void        (*command)(const struct backend_job *job, struct words *argv,
                    struct words *env);

    /* The model's name the backend wants in bodies, NULL: any will do. */
    const char *(*name_in_body)(const struct registry_model *model);

    /* Judges a line of output; fills in what it tells about a request. */
    enum backend_line (*line)(const char *line, struct backend_timing *t);

    /* The part of a line a person wants to read. */
    const char *(*message)(const char *line);

    /* Ends whatever prepare still does. */
    void        (*fini)(void);
};


/* The backend of a recipe, or NULL. */
const struct backend *backend_find(const char *recipe);

/* Looks for every backend's program, so that the first load need not. */
void backend_warm(void);

/* Ends what all of them still do. */
void backend_fini(void);

/*
 * A clean environment for a child: what programs need to run, none of our
 * keys and none of the variables that backends read as flags.
 */
void backend_environment(struct words *env);


extern const struct backend  backend_llamacpp;


#endif /* LEMONADE_BACKEND_H */
