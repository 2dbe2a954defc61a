/*
 * Whole small files: read with a limit, written so that a reader or a crash
 * never meets half of one.
 */

#ifndef LEMONADE_FILE_H
#define LEMONADE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include <jansson.h>


/*
 * Reads a regular file of at most limit bytes; NUL-terminated, malloc'ed.
 * NULL with errno (EFBIG: too long, EINVAL: not a regular file).
 */
char *file_read(const char *path, size_t limit, size_t *len);

/* Writes temp, fsyncs it and renames it over path.  -1 with errno. */
int file_write(const char *path, const char *data, size_t len, mode_t mode);

/* The same for a JSON value. */
int file_write_json(const char *path, const json_t *value, mode_t mode);

/* Is it a readable regular file?  size may be NULL. */
bool file_readable(const char *path, off_t *size);

/* Is it a regular file we may execute? */
bool file_executable(const char *path);

/* Does it begin with the bytes "GGUF"? */
bool file_is_gguf(const char *path);


#endif /* LEMONADE_FILE_H */
