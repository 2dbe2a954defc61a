/*
 * Error lines, tables and JSON on the terminal or into a pipe.
 */

#define _GNU_SOURCE

#include "output.h"

#include <errno.h>
#include <locale.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "memory.h"


#define LINE_MAX_BYTES  4096
#define GAP             2       /* blanks between two columns */

struct output_table {
    const char *const  *headers;
    int                 columns;
    int                 rows;
    int                 room;
    char              **cells;
};


static char *clean(const char *text);
static size_t character(const char *s, size_t len, wchar_t *wc);
static void print_row(const struct output_table *table,
    const char *const *cells, const int *widths);
static bool use_style(void);


/* Takes the user's locale, or at least one in which UTF-8 has widths. */
void
output_init(void)
{
    if (setlocale(LC_CTYPE, "") == NULL || MB_CUR_MAX == 1) {
        setlocale(LC_CTYPE, "C.UTF-8");
    }
}


/* Makes sure that the answer has left us; see output.h. */
bool
output_finish(void)
{
    int  failed;

    failed = ferror(stdout);

    if (fflush(stdout) == 0 && !failed) {
        return true;
    }

    if (errno != EPIPE) {
        output_error("cannot write to standard output: %s", strerror(errno));
    }

    return false;
}


/* Writes one line about what went wrong. */
void
output_error(const char *format, ...)
{
    char     line[LINE_MAX_BYTES];
    char    *shown;
    va_list  args;

    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);

    shown = clean(line);
    fflush(stdout);
    fprintf(stderr, "lemonade-cli: %s\n", shown);
    free(shown);
}


/* Writes one line. */
void
output_line(FILE *stream, const char *format, ...)
{
    char     line[LINE_MAX_BYTES];
    char    *shown;
    va_list  args;

    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);

    shown = clean(line);
    fprintf(stream, "%s\n", shown);
    free(shown);
}


/* Writes a value for programs; jansson escapes what is not printable. */
void
output_json(const json_t *value)
{
    json_dumpf(value, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    putchar('\n');
}


/* Starts an empty table. */
struct output_table *
output_table_new(const char *const *headers, int columns)
{
    struct output_table  *table;

    table = memory_zero(sizeof(*table));
    table->headers = headers;
    table->columns = columns;

    return table;
}


/* Frees a table and its cells. */
void
output_table_free(struct output_table *table)
{
    int  i;

    for (i = 0; i < table->rows * table->columns; i++) {
        free(table->cells[i]);
    }

    free(table->cells);
    free(table);
}


/* Adds one row. */
void
output_table_add(struct output_table *table, const char *const *cells)
{
    int  i;

    if (table->rows == table->room) {
        table->room = table->room * 2 + 8;
        table->cells = memory_resize(table->cells, sizeof(char *)
                           * (size_t) table->room * (size_t) table->columns);
    }

    for (i = 0; i < table->columns; i++) {
        table->cells[table->rows * table->columns + i] = clean(cells[i]);
    }

    table->rows++;
}


/* Prints header, rule and rows, each column as wide as its widest cell. */
void
output_table_print(const struct output_table *table)
{
    int                 i, width, widths[OUTPUT_COLUMNS_MAX];
    bool                style;
    const char *const  *row;

    for (i = 0; i < table->columns; i++) {
        widths[i] = output_width(table->headers[i]);
    }

    for (i = 0; i < table->rows * table->columns; i++) {
        width = output_width(table->cells[i]);

        if (width > widths[i % table->columns]) {
            widths[i % table->columns] = width;
        }
    }

    style = use_style();

    fputs(style ? "\033[1m" : "", stdout);
    print_row(table, table->headers, widths);
    fputs(style ? "\033[0m\n" : "\n", stdout);

    for (i = 0; i < table->columns; i++) {
        for (width = 0; width < widths[i]; width++) {
            putchar('-');
        }

        fputs(i + 1 < table->columns ? "  " : "\n", stdout);
    }

    for (i = 0; i < table->rows; i++) {
        row = (const char *const *) table->cells + i * table->columns;
        print_row(table, row, widths);
        putchar('\n');
    }
}


/* Prints one row without blanks or newline at its end. */
static void
print_row(const struct output_table *table, const char *const *cells,
    const int *widths)
{
    int  i, blanks;

    blanks = 0;

    for (i = 0; i < table->columns; i++) {
        if (cells[i][0] != '\0') {
            printf("%*s%s", blanks, "", cells[i]);
            blanks = 0;
        }

        blanks += widths[i] - output_width(cells[i]) + GAP;
    }
}


/* Whether stdout wants bold letters: a terminal, and nobody objects. */
static bool
use_style(void)
{
    const char  *plain, *term;

    plain = getenv("NO_COLOR");
    term = getenv("TERM");

    return isatty(STDOUT_FILENO) && (plain == NULL || plain[0] == '\0')
           && term != NULL && strcmp(term, "dumb") != 0;
}


/* Counts columns; what the locale does not know is taken for a wide one. */
int
output_width(const char *text)
{
    int      total, width;
    size_t   len, used;
    wchar_t  wc;

    total = 0;

    for (len = strlen(text); len > 0; text += used, len -= used) {
        used = character(text, len, &wc);
        width = wcwidth(wc);

        if (width < 0) {
            /* newer emoji than the C library's tables */
            width = wc >= 0x1f300 ? 2 : 1;
        }

        total += width;
    }

    return total;
}


/* Copies a text; what could steer a terminal becomes a question mark. */
static char *
clean(const char *text)
{
    char     *copy, *p;
    size_t    len, used;
    wchar_t   wc;

    len = strlen(text);
    copy = memory_zero(len + 1);

    for (p = copy; len > 0; text += used, len -= used) {
        used = character(text, len, &wc);

        if (wc < 0x20 || (wc >= 0x7f && wc < 0xa0)
            || (wc >= 0x202a && wc <= 0x202e)
            || (wc >= 0x2066 && wc <= 0x2069))
        {
            *p++ = wc == '\n' || wc == '\t' ? ' ' : '?';
            continue;
        }

        memcpy(p, text, used);
        p += used;
    }

    return copy;
}


/* Takes one character; a byte that is no UTF-8 counts as a control one. */
static size_t
character(const char *s, size_t len, wchar_t *wc)
{
    size_t     used;
    mbstate_t  state;

    memset(&state, 0, sizeof(state));
    used = mbrtowc(wc, s, len, &state);

    if (used == (size_t) -1 || used == (size_t) -2 || used == 0) {
        *wc = 0x7f;
        return 1;
    }

    return used;
}
