/*
 * The mirror that apt's files name.
 *
 * link: helper/file.c helper/text.c
 */

#define _GNU_SOURCE

/* Its parts, too: the files that it looks at are the system's. */
#include "mirror.c"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>


static const struct {
    const char  *data;
    const char  *found;
} files[] = {
    { "", NULL },
    { "\n\n", NULL },
    { "deb http://a.org/debian stable main\n", "http://a.org/debian" },
    { "deb\thttp://a.org/debian/\tstable main", "http://a.org/debian/" },
    { "deb [arch=amd64 signed-by=/k] https://a.org/x/debian stable main\n",
      "https://a.org/x/debian" },
    { "deb file:/srv/debian stable main\n", "file:/srv/debian" },
    { "# deb http://no.org/debian stable main\n"
      "deb-src http://no.org/debian stable main\n"
      "deb http://a.org/debian-security stable main\n"
      "deb http://b.org/debian stable main\n"
      "deb http://c.org/debian stable main\n", "http://b.org/debian" },
    { "Types: deb\nURIs: http://a.org/debian\nSuites: sid\n",
      "http://a.org/debian" },
    { "uris: http://a.org/ubuntu http://b.org:8080/debian\n",
      "http://b.org:8080/debian" },
    { "URIs:\n", NULL },
    { "deb ", NULL },
    { "deb", NULL },
    { "debhttp://a.org/debian\n", NULL },
    { "deb cdrom:[Debian]/debian stable\n", NULL },
    { "deb ftp://a.org/debian stable\n", NULL },
    { "deb http://a.org/notdebian stable\n", NULL },
    { "deb http://a.org/;rm$IFS-rf/debian stable\n", NULL },
    { "deb http://a.org/`id`/debian stable\n", NULL },
    { "deb http://a.org/\x1b[31m/debian stable\n", NULL },
    { "deb http://\xff/debian stable\n", NULL },
    { "deb /debian stable\n", NULL },
    { "deb http:///\n", NULL },
};


static int   failed;
static char  path[] = "/tmp/test_mirror.XXXXXX";


/* Compares what was found, and frees it. */
static void
expect(const char *what, char *found, const char *wanted)
{
    if ((found == NULL) != (wanted == NULL)
        || (found != NULL && strcmp(found, wanted) != 0))
    {
        fprintf(stderr, "%s: %s, not %s\n", what, found ? found : "NULL",
                wanted ? wanted : "NULL");
        failed = 1;
    }

    free(found);
}


/* Every file of the table. */
static void
test_files(void)
{
    size_t  i;

    for (i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        if (file_write(path, files[i].data, strlen(files[i].data), 0600)
            == -1)
        {
            perror(path);
            failed = 1;
        }

        expect(files[i].data, mirror_in_file(path), files[i].found);
    }

    /* no text at all */

    if (file_write(path, "deb \0http://a.org/debian\n", 25, 0600) == 0) {
        expect("a NUL", mirror_in_file(path), NULL);
    }

    if (truncate(path, 2 << 20) == 0) {
        expect("a huge file", mirror_in_file(path), NULL);
    }

    unlink(path);
    expect("no file", mirror_in_file(path), NULL);
    expect("a folder", mirror_in_file("/etc"), NULL);
}


/* The variable, and what is not taken from it. */
static void
test_variable(void)
{
    char    *other, *found;
    size_t   i;
    static const char *const  bad[] = {
        "", "http://a.org/debian stable main", "[trusted=yes]",
        "http://a.org/debian\ndeb http://evil/debian"
    };

    unsetenv("LEMONADE_DEBIAN_MIRROR");
    other = mirror_find();

    if (!mirror_good(other)) {
        fprintf(stderr, "found %s\n", other);
        failed = 1;
    }

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        setenv("LEMONADE_DEBIAN_MIRROR", bad[i], 1);
        found = mirror_find();
        expect(bad[i], found, other);
    }

    setenv("LEMONADE_DEBIAN_MIRROR", "http://a.org/mine", 1);
    expect("the variable", mirror_find(), "http://a.org/mine");
    free(other);
}


/* Runs everything. */
int
main(void)
{
    int  fd;

    fd = mkstemp(path);
    if (fd == -1) {
        return 1;
    }

    close(fd);
    test_files();
    test_variable();

    return failed;
}
