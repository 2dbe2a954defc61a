/*
 * Debian's llama-server in a private root; see install.h.
 *
 * apt does the work, with lists, caches and sources of its own: it checks
 * the signature of the index and the digest of each package, as an ordinary
 * user too.  Of the system's apt we take the mirror, the keyring and how it
 * reaches the network (proxies); nothing of the system is changed.
 *
 *   DEST.staging/   apt's files, the packages, the root they unpack to
 *   DEST            that root, renamed, when llama-server has run in it
 */

#define _GNU_SOURCE

#include "install.h"
#include "backend.h"
#include "file.h"
#include "llamacpp_program.h"
#include "mirror.h"
#include "paths.h"
#include "run.h"
#include "text.h"
#include "words.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>


#define INSTALL_KEYRING  "/usr/share/keyrings/debian-archive-keyring.gpg"


/*
 * What the system's configuration adds, and is none of ours: commands to
 * run, which would clean the system's caches or rebuild its databases, and
 * indexes beside that of the packages.
 */
static const char  install_conf[] =
    "#clear APT::Update::Pre-Invoke;\n"
    "#clear APT::Update::Post-Invoke;\n"
    "#clear APT::Update::Post-Invoke-Success;\n"
    "#clear APT::Update::Post-Invoke-Stats;\n"
    "#clear AptCli::Hooks;\n"
    "#clear DPkg::Pre-Invoke;\n"
    "#clear DPkg::Post-Invoke;\n"
    "#clear DPkg::Pre-Install-Pkgs;\n"
    "#clear Acquire::IndexTargets::deb::DEP-11;\n"
    "#clear Acquire::IndexTargets::deb::DEP-11-icons;\n"
    "#clear Acquire::IndexTargets::deb::DEP-11-icons-small;\n"
    "#clear Acquire::IndexTargets::deb::DEP-11-icons-large;\n"
    "#clear Acquire::IndexTargets::deb::DEP-11-icons-hidpi;\n"
    "#clear Acquire::IndexTargets::deb::DEP-11-icons-large-hidpi;\n"
    "#clear Acquire::IndexTargets::deb::Contents-deb;\n"
    "#clear Acquire::IndexTargets::deb::Contents-deb-legacy;\n"
    "#clear Acquire::IndexTargets::deb::CNF;\n";


/* What llama-server needs, down to the C library. */
static const char *const  packages[] = {
    "llama.cpp-tools", "libllama0", "libggml0", "libc6", "libgcc-s1",
    "libstdc++6", "libgomp1", "libssl3t64", "zlib1g", "libzstd1",
};

#define PACKAGES  (sizeof(packages) / sizeof(packages[0]))


/* The folders of one installation. */
struct install {
    const char  *dest;
    char        *staging;
    char        *root;
    char        *debs;
};


/* Says why it failed; the last line on stderr is what the user reads. */
static int __attribute__((format(printf, 1, 2)))
install_fail(const char *format, ...)
{
    va_list  args;

    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);

    fputc('\n', stderr);
    fflush(stderr);

    return -1;
}


/* Tells how far it is. */
static void __attribute__((format(printf, 1, 2)))
install_say(const char *format, ...)
{
    va_list  args;

    va_start(args, format);
    vprintf(format, args);
    va_end(args);

    putchar('\n');
    fflush(stdout);
}


/* Runs apt-get in our own corner of the world. */
static int
install_apt(const struct install *in, const char *command, char *error,
    size_t error_size)
{
    int           rc;
    size_t        i;
    struct words  argv = { 0 };

    words_add(&argv, "apt-get");
    words_add(&argv, "-q");
    words_addf(&argv, "-c%s/apt.conf", in->staging);
    words_addf(&argv, "-oDir::Etc::sourcelist=%s/sources.list", in->staging);
    words_add(&argv, "-oDir::Etc::sourceparts=/dev/null");
    words_add(&argv, "-oDir::Etc::preferences=/dev/null");
    words_add(&argv, "-oDir::Etc::preferencesparts=/dev/null");
    words_addf(&argv, "-oDir::State=%s/state", in->staging);
    words_addf(&argv, "-oDir::State::Lists=%s/lists", in->staging);
    words_addf(&argv, "-oDir::State::status=%s/status", in->staging);
    words_addf(&argv, "-oDir::Cache=%s/cache", in->staging);
    words_add(&argv, "-oAcquire::Languages=none");
    words_add(&argv, "-oAcquire::PDiffs=false");
    words_add(&argv, "-oAcquire::Retries=2");
    words_add(&argv, "-oAPT::Update::Error-Mode=any");
    words_add(&argv, "-oAPT::Get::AllowUnauthenticated=false");
    words_add(&argv, "-oAPT::Sandbox::User=");
    words_add(&argv, "-oDebug::NoLocking=1");
    words_add(&argv, command);

    if (strcmp(command, "download") == 0) {
        for (i = 0; i < PACKAGES; i++) {
            words_add(&argv, packages[i]);
        }
    }

    rc = run_program(argv.item, in->debs, NULL, 0, error, error_size);
    words_free(&argv);

    return rc;
}


/* Removes a tree; its absence is fine. */
static void
install_remove(const char *path)
{
    char          error[256];
    struct words  argv = { 0 };

    words_add(&argv, "rm");
    words_add(&argv, "-rf");
    words_add(&argv, "--");
    words_add(&argv, path);

    (void) run_program(argv.item, NULL, NULL, 0, error, sizeof(error));
    words_free(&argv);
}


/* Names the mirror without the password it may have. */
static void
install_say_mirror(const char *mirror)
{
    int          scheme;
    const char  *at, *host;

    host = strstr(mirror, "://");
    at = strrchr(mirror, '@');

    if (host == NULL || at == NULL) {
        install_say("Debian mirror %s", mirror);
        return;
    }

    scheme = (int) (host + 3 - mirror);
    install_say("Debian mirror %.*s%s", scheme, mirror, at + 1);
}


/* Writes one of apt's files. */
static int
install_write(const struct install *in, const char *name, const char *text)
{
    int    rc;
    char  *path;

    path = paths_join(in->staging, name);
    rc = file_write(path, text, strlen(text), 0600);
    free(path);

    return rc;
}


/* Writes where apt fetches from. */
static int
install_write_sources(const struct install *in)
{
    int    rc;
    char  *mirror, *text;

    mirror = mirror_find();
    install_say_mirror(mirror);

    text = text_format("deb [signed-by=" INSTALL_KEYRING "] %s sid main\n",
                       mirror);
    rc = install_write(in, "sources.list", text);
    free(text);
    free(mirror);

    return rc;
}


/* Makes the folders, the sources list and an empty status file. */
static int
install_lay_out(const struct install *in)
{
    int      rc;
    char    *path;
    size_t   i;
    static const char *const  folders[] = {
        "lists/partial", "cache/archives/partial", "state", "debs", "root"
    };

    rc = 0;

    for (i = 0; rc == 0 && i < sizeof(folders) / sizeof(folders[0]); i++) {
        path = paths_join(in->staging, folders[i]);
        rc = paths_mkdirs(path);
        free(path);
    }

    if (rc == -1 || install_write_sources(in) == -1
        || install_write(in, "apt.conf", install_conf) == -1
        || install_write(in, "status", "") == -1)
    {
        return install_fail("%s: %s", in->staging, strerror(errno));
    }

    return 0;
}


/* Has apt fetch and check everything. */
static int
install_fetch(const struct install *in)
{
    int   rc;
    char  error[512];

    install_say("reading the package index");

    rc = install_apt(in, "update", error, sizeof(error));

    if (rc == 127) {
        return install_fail("llama-server is not installed and there is no "
                            "apt to fetch it with; install llama.cpp and "
                            "set LEMONADE_LLAMACPP_CPU_BIN");
    }

    if (rc != 0) {
        return install_fail("apt-get update failed: %s; check the network, "
                            "or set LEMONADE_DEBIAN_MIRROR or "
                            "LEMONADE_LLAMACPP_CPU_BIN", error);
    }

    install_say("fetching %zu packages", PACKAGES);

    rc = install_apt(in, "download", error, sizeof(error));

    return rc == 0 ? 0 : install_fail("apt-get download failed: %s", error);
}


/* The sha256 of a file in hex; false: it cannot be read. */
static bool
install_digest(const char *path, char *hex)
{
    int             fd;
    bool            good;
    unsigned        i, len;
    ssize_t         n;
    EVP_MD_CTX     *ctx;
    unsigned char   buf[65536], digest[EVP_MAX_MD_SIZE];

    fd = open(path, O_RDONLY | O_CLOEXEC);
    ctx = EVP_MD_CTX_new();

    good = fd != -1 && ctx != NULL
           && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1;

    while (good && (n = read(fd, buf, sizeof(buf))) != 0) {
        good = n > 0 && EVP_DigestUpdate(ctx, buf, (size_t) n) == 1;
    }

    good = good && EVP_DigestFinal_ex(ctx, digest, &len) == 1;

    EVP_MD_CTX_free(ctx);

    if (fd != -1) {
        close(fd);
    }

    for (i = 0; good && i < len; i++) {
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    }

    return good;
}


/* Unpacks one package and notes what it was. */
static int
install_unpack(const struct install *in, const char *deb, json_t *manifest)
{
    int           rc;
    char          error[512], fields[1024], hex[2 * EVP_MAX_MD_SIZE + 1];
    char         *version;
    struct words  extract = { 0 }, show = { 0 };

    words_add(&extract, "dpkg-deb");
    words_add(&extract, "-x");
    words_add(&extract, deb);
    words_add(&extract, in->root);
    rc = run_program(extract.item, NULL, NULL, 0, error, sizeof(error));
    words_free(&extract);

    if (rc != 0) {
        return install_fail("%s cannot be unpacked: %s", deb, error);
    }

    words_add(&show, "dpkg-deb");
    words_add(&show, "-W");
    words_add(&show, "--showformat=${Package}\\n${Version}\\n");
    words_add(&show, deb);
    rc = run_program(show.item, NULL, fields, sizeof(fields), error,
                     sizeof(error));
    words_free(&show);

    version = rc == 0 ? strchr(fields, '\n') : NULL;

    if (version == NULL || !install_digest(deb, hex)) {
        return install_fail("%s cannot be read", deb);
    }

    *version++ = '\0';
    version[strcspn(version, "\n")] = '\0';

    json_array_append_new(manifest,
                          json_pack("{s:s, s:s, s:s}", "name", fields,
                                    "version", version, "sha256", hex));
    install_say("unpacked %s %s", fields, version);

    return 0;
}


/* Unpacks all packages and writes the manifest into the root. */
static int
install_unpack_all(const struct install *in)
{
    int       rc;
    char     *path;
    glob_t    g;
    size_t    i;
    json_t   *manifest;

    path = paths_join(in->debs, "*.deb");
    rc = glob(path, 0, NULL, &g);
    free(path);

    if (rc != 0 || g.gl_pathc != PACKAGES) {
        return install_fail("apt-get fetched %zu of %zu packages",
                            rc == 0 ? g.gl_pathc : 0, PACKAGES);
    }

    manifest = json_array();
    rc = 0;

    for (i = 0; rc == 0 && i < g.gl_pathc; i++) {
        rc = install_unpack(in, g.gl_pathv[i], manifest);
    }

    globfree(&g);

    if (rc == 0) {
        path = paths_join(in->root, "manifest.json");

        if (file_write_json(path, manifest, 0644) == -1) {
            rc = install_fail("%s: %s", path, strerror(errno));
        }

        free(path);
    }

    json_decref(manifest);

    return rc;
}


/* Does the new llama-server run? */
static int
install_try(const struct install *in)
{
    int                      rc;
    char                     error[512], out[1024];
    struct backend_program   p = { 0 };

    if (!llamacpp_in_root(in->root, &p)) {
        return install_fail("the packages hold no llama-server");
    }

    words_add(&p.argv, "--version");
    rc = run_program(p.argv.item, p.cwd, out, sizeof(out), error,
                     sizeof(error));
    words_free(&p.argv);
    free(p.cwd);

    if (rc != 0) {
        return install_fail("the installed llama-server does not run: %s",
                            error);
    }

    out[strcspn(out, "\n")] = '\0';
    install_say("llama-server %s", out);

    return 0;
}


/* Makes the tree durable and visible under its name. */
static int
install_publish(const struct install *in)
{
    int    fd;
    char  *old;

    fd = open(in->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd == -1 || syncfs(fd) == -1) {
        install_fail("%s: %s", in->root, strerror(errno));

        if (fd != -1) {
            close(fd);
        }

        return -1;
    }

    close(fd);

    /* something incomplete may be in the way */

    old = paths_join(in->staging, "old");
    (void) rename(in->dest, old);
    free(old);

    if (rename(in->root, in->dest) == -1) {
        return install_fail("%s: %s", in->dest, strerror(errno));
    }

    return 0;
}


/* Is a llama-server there already? */
static bool
install_complete(const char *dest)
{
    bool                    found;
    struct backend_program  p = { 0 };

    found = llamacpp_in_root(dest, &p);
    words_free(&p.argv);
    free(p.cwd);

    return found;
}


/* Installs into dest; the lock is ours. */
static int
install_llamacpp(const char *dest)
{
    int             rc;
    struct install  in;

    if (install_complete(dest)) {
        return 0;
    }

    if (!file_readable(INSTALL_KEYRING, NULL)) {
        return install_fail("llama-server is not installed, and "
                            INSTALL_KEYRING " is missing, so none can be "
                            "fetched from Debian; install llama.cpp and set "
                            "LEMONADE_LLAMACPP_CPU_BIN");
    }

    in.dest = dest;
    in.staging = text_format("%s.staging", dest);
    in.root = paths_join(in.staging, "root");
    in.debs = paths_join(in.staging, "debs");

    /* what an interrupted one left */

    install_remove(in.staging);

    rc = install_lay_out(&in);

    if (rc == 0) {
        rc = install_fetch(&in);
    }

    if (rc == 0) {
        rc = install_unpack_all(&in);
    }

    if (rc == 0) {
        rc = install_try(&in);
    }

    if (rc == 0) {
        rc = install_publish(&in);
    }

    install_remove(in.staging);
    free(in.staging);
    free(in.root);
    free(in.debs);

    return rc;
}


/* The worker's main. */
int
install_worker(int argc, char **argv)
{
    int    fd, rc;
    char  *parent, *lock, *slash;

    if (argc != 2 || strcmp(argv[0], INSTALL_LLAMACPP_DEBIAN) != 0
        || argv[1][0] != '/')
    {
        install_fail("lemonade-helper: unknown job");
        return 1;
    }

    umask(0022);
    (void) setpriority(PRIO_PROCESS, 0, 10);

    parent = text_dup(argv[1]);
    slash = strrchr(parent, '/');
    *slash = '\0';
    rc = paths_mkdirs(parent);
    free(parent);

    /* not closed in children: who comes next waits for these too */

    lock = text_format("%s.lock", argv[1]);
    fd = rc == 0 ? open(lock, O_RDWR | O_CREAT, 0600) : -1;

    if (fd == -1 || flock(fd, LOCK_EX) == -1) {
        install_fail("%s: %s", lock, strerror(errno));
        free(lock);
        return 1;
    }

    rc = install_llamacpp(argv[1]);

    close(fd);
    free(lock);

    return rc == 0 ? 0 : 1;
}


/* What apt and the worker read beside what every child does. */
static void
install_environment(struct words *env)
{
    size_t              i;
    const char         *value;
    static const char  *names[] = {
        "LEMONADE_DEBIAN_MIRROR", "http_proxy", "https_proxy", "no_proxy",
        "APT_CONFIG", "ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS",
    };

    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        value = getenv(names[i]);

        if (value != NULL) {
            words_addf(env, "%s=%s", names[i], value);
        }
    }

    words_add(env, "LC_ALL=C");
}


/* The helper's side: starts a worker. */
struct runner *
install_start(struct runner_spec *spec, const char *job, const char *dest,
    char *error, size_t error_size)
{
    char            self[4096];
    ssize_t         n;
    struct words    argv = { 0 }, env = { 0 };
    struct runner  *r;

    if (text_yes(getenv("LEMONADE_OFFLINE"))) {
        snprintf(error, error_size, "llama-server is not installed and "
                 "LEMONADE_OFFLINE forbids to fetch it; set "
                 "LEMONADE_LLAMACPP_CPU_BIN");
        return NULL;
    }

    n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n <= 0) {
        snprintf(error, error_size, "/proc/self/exe: %s", strerror(errno));
        return NULL;
    }

    self[n] = '\0';

    words_add(&argv, self);
    words_add(&argv, "--worker");
    words_add(&argv, job);
    words_add(&argv, dest);

    backend_environment(&env);
    install_environment(&env);

    spec->argv = argv.item;
    spec->envp = env.item;
    r = runner_start(spec, error, error_size);

    words_free(&argv);
    words_free(&env);

    return r;
}
