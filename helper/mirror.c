/*
 * Debian mirrors; see mirror.h.
 */

#define _GNU_SOURCE

#include "mirror.h"
#include "file.h"
#include "text.h"

#include <ctype.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>


#define MIRROR_DEFAULT  "http://deb.debian.org/debian"


/* Is it the address of a Debian archive?  Only plain characters, please. */
static bool
mirror_good(const char *word)
{
    size_t       len;
    const char  *p;

    if (strncmp(word, "http://", 7) != 0
        && strncmp(word, "https://", 8) != 0
        && strncmp(word, "file:/", 6) != 0)
    {
        return false;
    }

    for (p = word; *p != '\0'; p++) {
        if (!isalnum((unsigned char) *p) && strchr("./:_-@~%+", *p) == NULL) {
            return false;
        }
    }

    len = strlen(word);

    if (len > 0 && word[len - 1] == '/') {
        len--;
    }

    return len > 7 && strncmp(word + len - 7, "/debian", 7) == 0;
}


/* The first good address among the words of a line, or NULL. */
static char *
mirror_in_line(char *line)
{
    char  *word, *save;

    /* "deb [options] URI suite ..." or "URIs: URI ..." */

    if (strncmp(line, "deb ", 4) != 0 && strncmp(line, "deb\t", 4) != 0
        && strncasecmp(line, "URIs:", 5) != 0)
    {
        return NULL;
    }

    for (word = strtok_r(line, " \t", &save);
         word != NULL;
         word = strtok_r(NULL, " \t", &save))
    {
        if (mirror_good(word)) {
            return text_dup(word);
        }
    }

    return NULL;
}


/* The first good address in a file, or NULL. */
static char *
mirror_in_file(const char *path)
{
    char    *data, *line, *save, *found;
    size_t   len;

    data = file_read(path, 1 << 20, &len);
    if (data == NULL) {
        return NULL;
    }

    found = NULL;

    for (line = strtok_r(data, "\n", &save);
         line != NULL && found == NULL;
         line = strtok_r(NULL, "\n", &save))
    {
        found = mirror_in_line(line);
    }

    free(data);

    return found;
}


/* Finds one. */
char *
mirror_find(void)
{
    char        *found;
    size_t       i, k;
    glob_t       g;
    const char  *value;
    static const char *const  patterns[] = {
        "/etc/apt/sources.list", "/etc/apt/sources.list.d/*.sources",
        "/etc/apt/sources.list.d/*.list"
    };

    value = getenv("LEMONADE_DEBIAN_MIRROR");

    if (value != NULL && *value != '\0'
        && strpbrk(value, " \t\n[]") == NULL)
    {
        return text_dup(value);
    }

    found = NULL;

    for (i = 0; i < 3 && found == NULL; i++) {
        if (glob(patterns[i], 0, NULL, &g) != 0) {
            continue;
        }

        for (k = 0; k < g.gl_pathc && found == NULL; k++) {
            found = mirror_in_file(g.gl_pathv[k]);
        }

        globfree(&g);
    }

    return found != NULL ? found : text_dup(MIRROR_DEFAULT);
}
