/*
 * The models we know: our own list (registry/server_models.json, read once)
 * and the user's (user_models.json in the cache dir, read again whenever it
 * changed on disk).
 *
 * Format of both: an object, name -> {"checkpoint", "recipe", "suggested",
 * "size" (GB), "labels" [], "mmproj"}.  Keys of user_models.json are names
 * without "user.", their labels begin with "custom".  Unknown keys are kept.
 *
 * Forms of a checkpoint:
 *   /path/to/file.gguf      a file
 *   share:models/X.gguf     a file of our own data
 *   org/repo[:variant]      on the Hub
 */

#ifndef LEMONADE_REGISTRY_H
#define LEMONADE_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>


#define REGISTRY_NAME_MAX   200     /* bytes of a model's name */


struct registry;


/* One model as it was when it was looked up; freed by registry_free_model. */
struct registry_model {
    char    *name;          /* as /v1/models lists it */
    char    *checkpoint;
    char    *recipe;
    char    *file;          /* path of the main file, NULL: on the Hub */
    char    *mmproj;        /* path or NULL */
    json_t  *labels;        /* array of strings */
    double   size;          /* GB, 0: unknown */
    bool     suggested;
    bool     user;
    bool     downloaded;    /* the file is there and readable */
    int      unreadable;    /* errno if it is not, 0: it is on the Hub */
};


/* What a new entry of the user is made of. */
struct registry_entry {
    const char  *name;          /* with "user." */
    const char  *checkpoint;
    const char  *recipe;
    const char  *mmproj;        /* may be NULL */
    bool         reasoning;
    bool         vision;
    bool         embedding;
    bool         reranking;
};


/* Why registry_put refused; status is that of HTTP. */
struct registry_error {
    int          status;
    const char  *code;
    const char  *param;
    char         message[512];
};


/* Reads both files.  NULL after a line in the log. */
struct registry *registry_new(const char *cache_dir);
void registry_free(struct registry *reg);

/* Reads the user's file again if it changed. */
void registry_refresh(struct registry *reg);

/*
 * Finds a model by NAME, user.NAME or builtin.NAME, each with or without
 * ":latest".  A bare NAME is ours before it is the user's.
 */
struct registry_model *registry_find(struct registry *reg, const char *name);
void registry_free_model(struct registry_model *m);

/* Calls each for every model, ours first, in the order of the files. */
void registry_each(struct registry *reg,
    void (*each)(const struct registry_model *m, void *arg), void *arg);

/* Has the model this label? */
bool registry_labelled(const struct registry_model *m, const char *label);

/*
 * Adds or replaces an entry of the user and writes the file.  0; -1 with
 * *error; 1 when another process is writing, to be tried again soon.
 */
int registry_put(struct registry *reg, const struct registry_entry *entry,
    struct registry_error *error);


#endif /* LEMONADE_REGISTRY_H */
