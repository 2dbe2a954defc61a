/*
 * The lists of models: hostile files, odd names, several writers, crashes.
 *
 * link: helper/registry.c helper/file.c helper/log.c helper/paths.c
 * link: helper/text.c
 */

#define _GNU_SOURCE

#include "file.h"
#include "log.h"
#include "paths.h"
#include "registry.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>


#define WRITERS     4
#define PER_WRITER  15

#define BUILTIN                                                             \
    "{\"Ours\":{\"checkpoint\":\"share:a.gguf\",\"recipe\":\"llamacpp\","   \
    "\"suggested\":true,\"labels\":[\"demo\"]},"                            \
    "\"Hub\":{\"checkpoint\":\"org/repo:Q4\",\"recipe\":\"llamacpp\","      \
    "\"size\":1.5,\"labels\":[]}}"

#define ENTRY  "{\"checkpoint\":\"/x.gguf\",\"recipe\":\"llamacpp\"}"


static int   failed;
static char  top[64], user_path[96], gguf[96];


/* Says what was not as it should be. */
static void __attribute__((format(printf, 1, 2)))
complain(const char *format, ...)
{
    va_list  args;

    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);

    fputc('\n', stderr);
    failed = 1;
}


/* Writes a file in one go, new for whoever looks at its number or time. */
static void
put_file(const char *path, const char *data, size_t len)
{
    if (file_write(path, data, len, 0600) == -1) {
        complain("%s: %s", path, strerror(errno));
    }
}


/* Writes the user's list. */
static void
put_user(const char *data)
{
    put_file(user_path, data, strlen(data));
}


/* Adds an entry with our one good file. */
static int
put(struct registry *reg, const char *name, struct registry_error *error)
{
    struct registry_entry  entry = {
        .name = name, .checkpoint = gguf, .recipe = "llamacpp",
    };

    memset(error, 0, sizeof(*error));

    return registry_put(reg, &entry, error);
}


/* Counts a model. */
static void
count_one(const struct registry_model *m, void *arg)
{
    unsigned  *n = arg;

    (*n)++;
}


/* How many models there are. */
static unsigned
count(struct registry *reg)
{
    unsigned  n = 0;

    registry_each(reg, count_one, &n);

    return n;
}


/* Looks a name up and compares the name it has. */
static void
expect(struct registry *reg, const char *name, const char *wanted)
{
    struct registry_model  *m;

    m = registry_find(reg, name);

    if ((m == NULL) != (wanted == NULL)
        || (m != NULL && strcmp(m->name, wanted) != 0))
    {
        complain("\"%s\" is %s, not %s", name, m ? m->name : "nothing",
                 wanted ? wanted : "nothing");
    }

    registry_free_model(m);
}


/* Names in all their forms. */
static void
test_names(void)
{
    struct registry  *reg;

    put_user("{\"Mine\":" ENTRY ",\"Ours\":" ENTRY ",\"v:latest\":" ENTRY
             ",\"user.Mine\":" ENTRY ",\"\":" ENTRY ",\":latest\":" ENTRY
             ",\"a\\u001bb\":" ENTRY ",\"c\\u009bd\":" ENTRY "}");
    reg = registry_new(top);

    expect(reg, "Mine", "user.Mine");
    expect(reg, "user.Mine", "user.Mine");
    expect(reg, "Mine:latest", "user.Mine");
    expect(reg, "user.Mine:latest", "user.Mine");
    expect(reg, "user.Mine:latest:latest", NULL);
    expect(reg, "builtin.Mine", NULL);
    expect(reg, "user.user.Mine", "user.user.Mine");
    expect(reg, "Ours", "Ours");
    expect(reg, "builtin.Ours", "Ours");
    expect(reg, "builtin.Ours:latest", "Ours");
    expect(reg, "user.Ours", "user.Ours");
    expect(reg, "v:latest", "user.v:latest");
    expect(reg, "v", NULL);
    expect(reg, "user.", NULL);
    expect(reg, "builtin.", NULL);
    expect(reg, "user.:latest", "user.:latest");
    expect(reg, ":latest", "user.:latest");
    expect(reg, "builtin.:latest", NULL);
    expect(reg, "", NULL);
    expect(reg, "mine", NULL);
    expect(reg, "Mine ", NULL);
    expect(reg, "a\x1b""b", NULL);
    expect(reg, "user.c\xc2\x9b""d", NULL);
    expect(reg, "\xff\xfe", NULL);
    expect(reg, "user.\xed\xa0\x80", NULL);

    registry_free(reg);
}


/* Entries that are not what they should be: none, or as good as it gets. */
static void
test_types(void)
{
    size_t                  i;
    char                    text[512];
    struct registry        *reg;
    struct registry_model  *m;
    static const struct {
        const char  *entry;
        bool         model;
    } cases[] = {
        { "null", false },
        { "7", false },
        { "\"text\"", false },
        { "[]", false },
        { "{}", false },
        { "{\"checkpoint\":\"/x\"}", false },
        { "{\"recipe\":\"llamacpp\"}", false },
        { "{\"checkpoint\":7,\"recipe\":\"llamacpp\"}", false },
        { "{\"checkpoint\":\"/x\",\"recipe\":[\"llamacpp\"]}", false },
        { "{\"checkpoint\":\"\",\"recipe\":\"\"}", true },
        { "{\"checkpoint\":\"/x\",\"recipe\":\"r\",\"size\":\"big\","
          "\"labels\":\"custom\",\"mmproj\":false,\"suggested\":1}", true },
        { "{\"checkpoint\":\"/x\",\"recipe\":\"r\",\"size\":-1e300,"
          "\"labels\":[1,null,{},[],\"custom\"],\"reasoning\":true}", true },
        { "{\"checkpoint\":\"share:../../../etc/passwd\",\"recipe\":\"r\"}",
          true },
    };

    reg = registry_new(top);

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        snprintf(text, sizeof(text), "{\"m\":%s}", cases[i].entry);
        put_user(text);
        m = registry_find(reg, "user.m");

        if ((m != NULL) != cases[i].model) {
            complain("entry %s", cases[i].entry);
        }

        if (m != NULL && json_array_size(m->labels) > 0
            && !registry_labelled(m, "custom"))
        {
            complain("labels of %s", cases[i].entry);
        }

        if (count(reg) != 2 + (cases[i].model ? 1 : 0)) {
            complain("number of models with %s", cases[i].entry);
        }

        registry_free_model(m);
    }

    registry_free(reg);
}


/* A file that cannot be used hides nothing, and is kept when we write. */
static void
test_corrupt(void)
{
    size_t                 i, len;
    char                  *aside, *kept;
    struct registry       *reg;
    struct registry_error  error;
    static const char *const  bad[] = {
        "", "{", "[]", "null", "{\"a\":1,\"a\":2}", "{\"a\":\"\\ud800\"}",
        "{\"a\":\"\xff\"}", "{\"a\":\"\\u0000\"}", "{} x", "{\"a\":1e999}",
    };

    aside = paths_join(top, "user_models.json.corrupted");

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        put_user(bad[i]);
        reg = registry_new(top);

        if (reg == NULL || count(reg) != 2) {
            complain("models beside %s", bad[i]);
        }

        /* one that was read before stays until the file is good again */

        put_user("{\"Old\":" ENTRY "}");
        expect(reg, "Old", "user.Old");
        put_user(bad[i]);
        expect(reg, "Old", "user.Old");

        if (put(reg, "user.New", &error) != 0) {
            complain("put beside %s: %s", bad[i], error.message);
        }

        expect(reg, "New", "user.New");
        expect(reg, "Old", "user.Old");

        kept = file_read(aside, 1000, &len);

        if (kept == NULL || strcmp(kept, bad[i]) != 0) {
            complain("%s was not kept", bad[i]);
        }

        free(kept);
        unlink(aside);
        registry_free(reg);
    }

    free(aside);
}


/* No regular file, or one that is too long or too deep. */
static void
test_strange_files(void)
{
    char             *data;
    size_t            len;
    struct registry  *reg;

    put_user("{\"a\":" ENTRY "}");
    reg = registry_new(top);
    unlink(user_path);

    if (mkdir(user_path, 0700) == -1 || count(reg) != 3) {
        complain("a folder: %u models", count(reg));
    }

    rmdir(user_path);

    if (mkfifo(user_path, 0600) == -1 || count(reg) != 3) {
        complain("a FIFO: %u models", count(reg));
    }

    unlink(user_path);

    if (count(reg) != 2) {
        complain("no file: %u models", count(reg));
    }

    put_user("{}");

    if (truncate(user_path, 9 * 1024 * 1024) == -1 || count(reg) != 2) {
        complain("a huge file");
    }

    len = 1000000;
    data = malloc(len);
    memset(data, '[', len);
    memcpy(data, "{\"a\":", 5);
    put_file(user_path, data, len);
    free(data);

    if (count(reg) != 2) {
        complain("a deep file");
    }

    registry_free(reg);
    unlink(user_path);
}


/* New entries that are refused, and what is said. */
static void
test_refused(void)
{
    int                    rc;
    char                   longest[REGISTRY_NAME_MAX + 2];
    size_t                 i;
    struct registry       *reg;
    struct registry_error  error;
    struct registry_entry  entry;
    const struct {
        const char  *name, *checkpoint, *recipe, *mmproj;
        int          status;
    } cases[] = {
        { "", gguf, "llamacpp", NULL, 400 },
        { "Mine", gguf, "llamacpp", NULL, 400 },
        { "user.", gguf, "llamacpp", NULL, 400 },
        { "builtin.Mine", gguf, "llamacpp", NULL, 400 },
        { "USER.Mine", gguf, "llamacpp", NULL, 400 },
        { "user.a/b", gguf, "llamacpp", NULL, 400 },
        { "user.a\nb", gguf, "llamacpp", NULL, 400 },
        { "user.\x1b[2J", gguf, "llamacpp", NULL, 400 },
        { "user.\xff", gguf, "llamacpp", NULL, 400 },
        { "user.\xc2\x85", gguf, "llamacpp", NULL, 400 },
        { longest, gguf, "llamacpp", NULL, 400 },
        { "user.a", gguf, "", NULL, 400 },
        { "user.a", gguf, "llamacpp\n", NULL, 400 },
        { "user.a", "", "llamacpp", NULL, 501 },
        { "user.a", "org/repo", "llamacpp", NULL, 501 },
        { "user.a", "share:a.gguf", "llamacpp", NULL, 501 },
        { "user.a", "/nowhere/\x1b", "llamacpp", NULL, 400 },
        { "user.a", "/nowhere", "llamacpp", NULL, 400 },
        { "user.a", "/dev/zero", "llamacpp", NULL, 400 },
        { "user.a", top, "llamacpp", NULL, 400 },
        { "user.a", "/proc/self/exe", "llamacpp", NULL, 400 },
        { "user.a", gguf, "llamacpp", "relative", 501 },
        { "user.a", gguf, "llamacpp", "/dev/null", 400 },
    };

    memset(longest, 'x', sizeof(longest));
    memcpy(longest, "user.", 5);
    longest[REGISTRY_NAME_MAX + 1] = '\0';

    reg = registry_new(top);

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        memset(&entry, 0, sizeof(entry));
        entry.name = cases[i].name;
        entry.checkpoint = cases[i].checkpoint;
        entry.recipe = cases[i].recipe;
        entry.mmproj = cases[i].mmproj;

        rc = registry_put(reg, &entry, &error);

        if (rc != -1 || error.status != cases[i].status
            || error.message[0] == '\0' || strpbrk(error.message, "\n\x1b"))
        {
            complain("case %zu of test_refused: %d, %d, %s", i, rc,
                     error.status, error.message);
        }
    }

    if (access(user_path, F_OK) == 0) {
        complain("something refused was written");
    }

    longest[REGISTRY_NAME_MAX] = '\0';

    if (put(reg, longest, &error) != 0
        || put(reg, "user.\xe6\x97\xa5 x", &error) != 0)
    {
        complain("a good name: %s", error.message);
    }

    expect(reg, longest, longest);
    registry_free(reg);
}


/* An entry anew: what we do not know is kept, what was said goes. */
static void
test_again(void)
{
    char                   *text;
    size_t                  len;
    struct registry        *reg;
    struct registry_error   error;
    struct registry_model  *m;

    put_user("{\"a\":{\"checkpoint\":\"/old\",\"recipe\":\"llamacpp\","
             "\"mmproj\":\"/m\",\"size\":9,\"labels\":[\"vision\"],"
             "\"theirs\":0.1},\"other\":7}");
    reg = registry_new(top);

    if (put(reg, "user.a", &error) != 0) {
        complain("again: %s", error.message);
    }

    m = registry_find(reg, "a");

    if (m == NULL || strcmp(m->file, gguf) != 0 || m->mmproj != NULL
        || m->size > 1 || !m->downloaded || registry_labelled(m, "vision"))
    {
        complain("an entry that was put again");
    }

    registry_free_model(m);
    registry_free(reg);

    text = file_read(user_path, 10000, &len);

    if (text == NULL || strstr(text, "\"theirs\": 0.1") == NULL
        || strstr(text, "\"other\": 7") == NULL)
    {
        complain("what others wrote is gone: %s", text);
    }

    free(text);
}


/* Several processes add entries at once; none is lost. */
static void
test_writers(void)
{
    int                    i, k, status;
    char                   name[32];
    struct registry       *reg;
    struct registry_error  error;

    put_user("{}");

    for (i = 0; i < WRITERS; i++) {
        if (fork() != 0) {
            continue;
        }

        reg = registry_new(top);

        for (k = 0; k < PER_WRITER; k++) {
            snprintf(name, sizeof(name), "user.%d-%d", i, k);

            while ((status = put(reg, name, &error)) == 1) {
                usleep(200);
            }

            if (status != 0) {
                fprintf(stderr, "%s: %s\n", name, error.message);
                _exit(1);
            }
        }

        _exit(0);
    }

    while (wait(&status) != -1) {
        if (status != 0) {
            complain("a writer failed");
        }
    }

    reg = registry_new(top);

    if (count(reg) != 2 + WRITERS * PER_WRITER) {
        complain("%u models of %d writers", count(reg), WRITERS);
    }

    registry_free(reg);
}


/* Somebody else holds the lock: come again. */
static void
test_lock(void)
{
    int                    fd;
    char                  *path;
    struct registry       *reg;
    struct registry_error  error;

    put_user("{}");
    reg = registry_new(top);
    path = paths_join(top, "user_models.json.lock");
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (flock(fd, LOCK_EX) == -1 || put(reg, "user.a", &error) != 1) {
        complain("a lock was not seen");
    }

    close(fd);

    if (put(reg, "user.a", &error) != 0) {
        complain("a lock that is gone: %s", error.message);
    }

    unlink(path);

    if (symlink("/nowhere/else", path) == -1
        || put(reg, "user.b", &error) != -1 || error.status != 500)
    {
        complain("a lock that is a link");
    }

    unlink(path);
    free(path);
    registry_free(reg);
}


/* Writes an entry in a process that may write 10 bytes to a file. */
static int
put_half(bool die)
{
    int                    status;
    pid_t                  pid;
    struct rlimit          limit = { 10, 10 };
    struct registry       *reg;
    struct registry_error  error;

    pid = fork();

    if (pid == 0) {
        reg = registry_new(top);
        signal(SIGXFSZ, die ? SIG_DFL : SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &limit);
        _exit(put(reg, "user.half", &error) == -1 && error.status == 500
              ? 42 : 1);
    }

    waitpid(pid, &status, 0);

    return status;
}


/* A crash in the middle of the new file, and a full disk. */
static void
test_half(void)
{
    int                    status;
    char                  *text;
    size_t                 len;
    struct registry       *reg;
    struct registry_error  error;

    put_user("{\"whole\":" ENTRY "}");

    status = put_half(true);

    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGXFSZ) {
        complain("a crash: %x", status);
    }

    status = put_half(false);

    if (!WIFEXITED(status) || WEXITSTATUS(status) != 42) {
        complain("a full disk: %x", status);
    }

    text = file_read(user_path, 1000, &len);

    if (text == NULL || strcmp(text, "{\"whole\":" ENTRY "}") != 0) {
        complain("half a file: %s", text);
    }

    free(text);
    reg = registry_new(top);
    expect(reg, "whole", "user.whole");
    expect(reg, "half", NULL);

    if (put(reg, "user.half", &error) != 0 || count(reg) != 4) {
        complain("after a crash: %s", error.message);
    }

    registry_free(reg);
}


/* Our own list is missing or no list: an error, no crash. */
static void
test_no_builtin(void)
{
    char  *path;

    path = paths_share("registry/server_models.json");
    put_file(path, "[1]", 3);

    if (registry_new(top) != NULL) {
        complain("a list that is none");
    }

    unlink(path);

    if (registry_new(top) != NULL) {
        complain("no list");
    }

    free(path);
}


/* Removes one thing. */
static int
clean(const char *path, const struct stat *sb, int type, struct FTW *ftw)
{
    return remove(path);
}


/* Runs everything in a folder of its own. */
int
main(void)
{
    char  *path;

    snprintf(top, sizeof(top), "/tmp/test_registry.XXXXXX");

    if (mkdtemp(top) == NULL) {
        return 1;
    }

    snprintf(user_path, sizeof(user_path), "%s/user_models.json", top);
    snprintf(gguf, sizeof(gguf), "%s/a.gguf", top);
    setenv("LEMONADE_SHARE_DIR", top, 1);
    log_level_set(LOG_CRITICAL);

    path = paths_join(top, "registry");
    mkdir(path, 0700);
    free(path);
    path = paths_share("registry/server_models.json");
    put_file(path, BUILTIN, strlen(BUILTIN));
    free(path);
    put_file(gguf, "GGUF....", 8);

    test_names();
    test_types();
    test_corrupt();
    test_strange_files();
    test_refused();
    test_again();
    test_writers();
    test_lock();
    test_half();
    test_no_builtin();

    nftw(top, clean, 10, FTW_DEPTH | FTW_PHYS);

    return failed;
}
