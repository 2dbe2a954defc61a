/*
 * What the user sees: error lines, tables, JSON.  Text that came from
 * somewhere else is shown without control characters.
 */

#ifndef LEMONADE_OUTPUT_H
#define LEMONADE_OUTPUT_H

#include <stdbool.h>
#include <stdio.h>

#include <jansson.h>


/* Sets up the locale for widths.  Call it once, first. */
void output_init(void);

/*
 * Flushes stdout; false, with a line on stderr, when it could not be
 * written (a full disk).  A reader that left is no error.
 */
bool output_finish(void);

/* "lemonade-cli: MESSAGE\n" on stderr, always one line. */
void output_error(const char *format, ...)
    __attribute__((format(printf, 1, 2)));

/* One line with the message on the stream, without a prefix. */
void output_line(FILE *stream, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The JSON as it is for programs: indented, ends with a newline. */
void output_json(const json_t *value);


/*
 * A table in the "simple" style: header, a rule of dashes, rows.
 */

#define OUTPUT_COLUMNS_MAX  8

struct output_table;

/* headers are columns strings that outlive the table. */
struct output_table *output_table_new(const char *const *headers,
    int columns);
void output_table_free(struct output_table *table);

/* Adds a row of as many cells as there are columns; they are copied. */
void output_table_add(struct output_table *table,
    const char *const *cells);

void output_table_print(const struct output_table *table);


/* Columns that a UTF-8 text takes on a terminal. */
int output_width(const char *text);


#endif /* LEMONADE_OUTPUT_H */
