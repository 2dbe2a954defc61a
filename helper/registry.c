/*
 * The models we know; see registry.h.
 */

#define _GNU_SOURCE

#include "registry.h"
#include "file.h"
#include "log.h"
#include "paths.h"
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>


#define REGISTRY_FILE_MAX   (8 * 1024 * 1024)


struct registry {
    json_t       *builtin;
    json_t       *user;
    char         *user_path;
    struct stat   seen;         /* the user's file as it was last read */
    bool          corrupted;    /* what is on disk now cannot be parsed */
    int           unreadable;   /* errno: nor could it be read; 0: it could */
};


/* Parses a file; NULL with a reason, and an errno if it was not read. */
static json_t *
registry_load(const char *path, char *reason, size_t size, int *unreadable)
{
    char          *data;
    size_t         len;
    json_t        *root;
    json_error_t   error;

    *unreadable = 0;

    data = file_read(path, REGISTRY_FILE_MAX, &len);
    if (data == NULL) {
        *unreadable = errno;
        snprintf(reason, size, "%s", strerror(errno));
        return NULL;
    }

    root = json_loadb(data, len, JSON_REJECT_DUPLICATES, &error);
    free(data);

    if (root == NULL) {
        snprintf(reason, size, "line %d: %s", error.line, error.text);
        return NULL;
    }

    if (!json_is_object(root)) {
        json_decref(root);
        snprintf(reason, size, "not a JSON object");
        return NULL;
    }

    return root;
}


/* Did the file change between two looks? */
static bool
registry_changed(const struct stat *a, const struct stat *b)
{
    return a->st_ino != b->st_ino || a->st_size != b->st_size
           || a->st_mtim.tv_sec != b->st_mtim.tv_sec
           || a->st_mtim.tv_nsec != b->st_mtim.tv_nsec;
}


/* Reads the user's file again if need be. */
void
registry_refresh(struct registry *reg)
{
    bool          known;
    char          reason[256];
    json_t       *root;
    struct stat   sb;

    if (stat(reg->user_path, &sb) == -1) {
        memset(&sb, 0, sizeof(sb));
    }

    /* what could not be read may be readable now, for want of memory, say */

    if (reg->unreadable == 0 && !registry_changed(&sb, &reg->seen)) {
        return;
    }

    known = reg->unreadable != 0 && !registry_changed(&sb, &reg->seen);

    reg->seen = sb;
    reg->corrupted = false;
    reg->unreadable = 0;

    if (sb.st_ino == 0) {
        json_object_clear(reg->user);
        return;
    }

    root = registry_load(reg->user_path, reason, sizeof(reason),
                         &reg->unreadable);

    if (root == NULL) {
        reg->corrupted = reg->unreadable == 0;

        if (!known) {
            text_clean(reason);
            log_write(LOG_ERROR, "registry", "%s cannot be used (%s); "
                      "correct it or remove it", reg->user_path, reason);
        }

        return;
    }

    json_decref(reg->user);
    reg->user = root;
}


/* Reads both files. */
struct registry *
registry_new(const char *cache_dir)
{
    int                unreadable;
    char              *path, reason[256];
    struct registry   *reg;

    path = paths_share("registry/server_models.json");
    if (path == NULL) {
        log_write(LOG_ERROR, "registry", "registry/server_models.json not "
                  "found; set LEMONADE_SHARE_DIR");
        return NULL;
    }

    reg = text_alloc(sizeof(*reg));
    reg->builtin = registry_load(path, reason, sizeof(reason), &unreadable);

    if (reg->builtin == NULL) {
        log_write(LOG_ERROR, "registry", "%s: %s", path, reason);
        free(path);
        free(reg);
        return NULL;
    }

    free(path);

    reg->user = json_object();
    reg->user_path = paths_join(cache_dir, "user_models.json");
    registry_refresh(reg);

    return reg;
}


/* Frees everything. */
void
registry_free(struct registry *reg)
{
    if (reg == NULL) {
        return;
    }

    json_decref(reg->builtin);
    json_decref(reg->user);
    free(reg->user_path);
    free(reg);
}


/* The path a checkpoint stands for, or NULL: it is on the Hub. */
static char *
registry_path(const char *checkpoint)
{
    if (checkpoint[0] == '/') {
        return text_dup(checkpoint);
    }

    if (strncmp(checkpoint, "share:", 6) == 0) {
        return paths_share(checkpoint + 6);
    }

    return NULL;
}


/* The labels of an entry, strings only; old files say "reasoning": true. */
static json_t *
registry_labels(const json_t *entry)
{
    size_t   i;
    json_t  *labels, *label;

    labels = json_array();

    json_array_foreach(json_object_get(entry, "labels"), i, label) {
        if (json_is_string(label)) {
            json_array_append(labels, label);
        }
    }

    if (json_is_true(json_object_get(entry, "reasoning"))) {
        json_array_append_new(labels, json_string("reasoning"));
    }

    return labels;
}


/* A model of an entry, or NULL when the entry cannot be one. */
static struct registry_model *
registry_make(const char *key, const json_t *entry, bool user)
{
    off_t                    size;
    const char              *checkpoint, *recipe, *mmproj;
    struct registry_model   *m;

    checkpoint = json_string_value(json_object_get(entry, "checkpoint"));
    recipe = json_string_value(json_object_get(entry, "recipe"));
    mmproj = json_string_value(json_object_get(entry, "mmproj"));

    if (checkpoint == NULL || recipe == NULL || *key == '\0'
        || !text_printable(key, strlen(key))
        || strlen(key) > REGISTRY_NAME_MAX)
    {
        return NULL;
    }

    m = text_alloc(sizeof(*m));
    m->name = user ? text_format("user.%s", key) : text_dup(key);
    m->checkpoint = text_dup(checkpoint);
    m->recipe = text_dup(recipe);
    m->file = registry_path(checkpoint);
    m->mmproj = mmproj != NULL ? registry_path(mmproj) : NULL;
    m->labels = registry_labels(entry);
    m->size = json_number_value(json_object_get(entry, "size"));
    m->suggested = json_is_true(json_object_get(entry, "suggested"));
    m->user = user;

    if (m->file == NULL) {
        return m;
    }

    m->downloaded = file_readable(m->file, &size);

    if (!m->downloaded) {
        m->unreadable = errno;

    } else if (m->size <= 0) {
        m->size = (double) size / 1e9;
    }

    return m;
}


/* Frees a model. */
void
registry_free_model(struct registry_model *m)
{
    if (m == NULL) {
        return;
    }

    free(m->name);
    free(m->checkpoint);
    free(m->recipe);
    free(m->file);
    free(m->mmproj);
    json_decref(m->labels);
    free(m);
}


/* Finds one exact form of a name. */
static struct registry_model *
registry_find_exact(struct registry *reg, const char *name)
{
    json_t  *entry;

    if (strncmp(name, "user.", 5) == 0) {
        entry = json_object_get(reg->user, name + 5);
        return entry ? registry_make(name + 5, entry, true) : NULL;
    }

    if (strncmp(name, "builtin.", 8) == 0) {
        entry = json_object_get(reg->builtin, name + 8);
        return entry ? registry_make(name + 8, entry, false) : NULL;
    }

    entry = json_object_get(reg->builtin, name);
    if (entry != NULL) {
        return registry_make(name, entry, false);
    }

    entry = json_object_get(reg->user, name);
    return entry ? registry_make(name, entry, true) : NULL;
}


/* Finds a model. */
struct registry_model *
registry_find(struct registry *reg, const char *name)
{
    char                   *bare;
    size_t                  len;
    struct registry_model  *m;

    registry_refresh(reg);

    m = registry_find_exact(reg, name);
    len = strlen(name);

    if (m == NULL && len > 7 && strcmp(name + len - 7, ":latest") == 0) {
        bare = text_dup(name);
        bare[len - 7] = '\0';
        m = registry_find_exact(reg, bare);
        free(bare);
    }

    return m;
}


/* Walks one of the two lists. */
static void
registry_walk(json_t *list, bool user,
    void (*each)(const struct registry_model *m, void *arg), void *arg)
{
    json_t                  *entry;
    const char              *key;
    struct registry_model   *m;

    json_object_foreach(list, key, entry) {
        m = registry_make(key, entry, user);

        if (m != NULL) {
            each(m, arg);
            registry_free_model(m);
        }
    }
}


/* Walks both. */
void
registry_each(struct registry *reg,
    void (*each)(const struct registry_model *m, void *arg), void *arg)
{
    registry_refresh(reg);
    registry_walk(reg->builtin, false, each, arg);
    registry_walk(reg->user, true, each, arg);
}


/* Looks for a label. */
bool
registry_labelled(const struct registry_model *m, const char *label)
{
    size_t   i;
    json_t  *item;

    json_array_foreach(m->labels, i, item) {
        if (strcmp(json_string_value(item), label) == 0) {
            return true;
        }
    }

    return false;
}


/* Says no. */
static int __attribute__((format(printf, 5, 6)))
registry_refuse(struct registry_error *error, int status, const char *code,
    const char *param, const char *format, ...)
{
    va_list  args;

    error->status = status;
    error->code = code;
    error->param = param;

    va_start(args, format);
    vsnprintf(error->message, sizeof(error->message), format, args);
    va_end(args);

    text_clean(error->message);

    return -1;
}


/* Checks the name of a new entry. */
static int
registry_check_name(const char *name, struct registry_error *error)
{
    if (!text_printable(name, strlen(name)) || strchr(name, '/') != NULL) {
        return registry_refuse(error, 400, "invalid_request", "model_name",
                               "a model name must not contain '/' or "
                               "control characters");
    }

    if (strncmp(name, "user.", 5) != 0 || name[5] == '\0') {
        return registry_refuse(error, 400, "invalid_request", "model_name",
                               "a model of your own needs a name that "
                               "starts with \"user.\", as in "
                               "\"user.MyModel\"");
    }

    if (strlen(name) > REGISTRY_NAME_MAX) {
        return registry_refuse(error, 400, "invalid_request", "model_name",
                               "a model name has at most %d bytes",
                               REGISTRY_NAME_MAX);
    }

    return 0;
}


/* Checks a file that an entry names. */
static int
registry_check_file(const char *path, const char *param,
    struct registry_error *error)
{
    if (path[0] != '/') {
        return registry_refuse(error, 501, "not_implemented", param,
                               "\"%s\" is not an absolute path; downloads "
                               "from the Hub are not available yet, give "
                               "the path of a GGUF file", path);
    }

    if (!text_printable(path, strlen(path)) || strlen(path) > 4000) {
        return registry_refuse(error, 400, "invalid_request", param,
                               "%s must be a plain path", param);
    }

    if (!file_readable(path, NULL)) {
        return registry_refuse(error, 400, "invalid_request", param,
                               "%s cannot be read: %s", path,
                               errno == EINVAL ? "not a regular file"
                                               : strerror(errno));
    }

    if (!file_is_gguf(path)) {
        return registry_refuse(error, 400, "invalid_request", param,
                               "%s is not a GGUF file", path);
    }

    return 0;
}


/* Checks all of a new entry. */
static int
registry_check(const struct registry_entry *entry,
    struct registry_error *error)
{
    if (registry_check_name(entry->name, error) == -1) {
        return -1;
    }

    if (strcmp(entry->recipe, "llamacpp") != 0) {
        return registry_refuse(error, 400, "invalid_request", "recipe",
                               "recipe \"%.64s\" is not supported; use "
                               "\"llamacpp\"", entry->recipe);
    }

    if (registry_check_file(entry->checkpoint, "checkpoint", error) == -1) {
        return -1;
    }

    if (entry->mmproj != NULL
        && registry_check_file(entry->mmproj, "mmproj", error) == -1)
    {
        return -1;
    }

    return 0;
}


/* The JSON of a new entry, over what an older one had. */
static json_t *
registry_entry_json(const struct registry_entry *entry, json_t *old)
{
    json_t  *value, *labels;

    labels = json_pack("[s]", "custom");

    if (entry->reasoning) {
        json_array_append_new(labels, json_string("reasoning"));
    }

    if (entry->vision) {
        json_array_append_new(labels, json_string("vision"));
    }

    if (entry->embedding) {
        json_array_append_new(labels, json_string("embeddings"));
    }

    if (entry->reranking) {
        json_array_append_new(labels, json_string("reranking"));
    }

    value = json_is_object(old) ? json_copy(old) : json_object();

    json_object_set_new(value, "checkpoint", json_string(entry->checkpoint));
    json_object_set_new(value, "recipe", json_string(entry->recipe));
    json_object_set_new(value, "suggested", json_true());
    json_object_set_new(value, "labels", labels);
    json_object_del(value, "reasoning");
    json_object_del(value, "size");
    json_object_del(value, "mmproj");

    if (entry->mmproj != NULL) {
        json_object_set_new(value, "mmproj", json_string(entry->mmproj));
    }

    return value;
}


/* Puts a file that cannot be parsed aside, under a free name; our lock. */
static int
registry_put_aside(struct registry *reg)
{
    int        rc, err;
    char      *aside;
    unsigned   i;

    aside = text_format("%s.corrupted", reg->user_path);

    for (i = 1; access(aside, F_OK) == 0; i++) {
        free(aside);
        aside = text_format("%s.corrupted.%u", reg->user_path, i);
    }

    rc = rename(reg->user_path, aside);
    err = errno;

    if (rc == 0) {
        log_write(LOG_WARNING, "registry", "%s could not be parsed and is now "
                  "%s", reg->user_path, aside);
    }

    free(aside);
    errno = err;

    return rc;
}


/* Writes the user's list with a new entry in it; the lock is ours. */
static int
registry_store(struct registry *reg, const struct registry_entry *entry,
    struct registry_error *error)
{
    json_t  *list, *value;

    registry_refresh(reg);

    if (reg->unreadable != 0) {
        return registry_refuse(error, 500, "server_error", NULL,
                               "%s cannot be read: %s; nothing was changed",
                               reg->user_path, strerror(reg->unreadable));
    }

    if (reg->corrupted && registry_put_aside(reg) == -1) {
        return registry_refuse(error, 500, "server_error", NULL,
                               "%s cannot be parsed, nor be put aside: %s; "
                               "correct it", reg->user_path,
                               strerror(errno));
    }

    value = registry_entry_json(entry,
                                json_object_get(reg->user, entry->name + 5));
    list = json_copy(reg->user);
    json_object_set_new(list, entry->name + 5, value);

    if (file_write_json(reg->user_path, list, 0644) == -1) {
        json_decref(list);
        return registry_refuse(error, 500, "server_error", NULL,
                               "%s cannot be written: %s", reg->user_path,
                               strerror(errno));
    }

    json_decref(list);
    registry_refresh(reg);

    return 0;
}


/* Adds an entry under a lock that other writers take too. */
int
registry_put(struct registry *reg, const struct registry_entry *entry,
    struct registry_error *error)
{
    int    fd, rc;
    char  *path;

    if (registry_check(entry, error) == -1) {
        return -1;
    }

    path = text_format("%s.lock", reg->user_path);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd == -1) {
        rc = registry_refuse(error, 500, "server_error", NULL,
                             "%s cannot be opened: %s", path,
                             strerror(errno));
        free(path);
        return rc;
    }

    free(path);

    if (flock(fd, LOCK_EX | LOCK_NB) == -1) {
        close(fd);
        return 1;
    }

    rc = registry_store(reg, entry, error);
    close(fd);

    return rc;
}
