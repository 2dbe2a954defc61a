/*
 * The GGUF file of a scripted model.
 *
 * The layout is the GGUF specification's, version 3: a head with metadata
 * and the list of tensors, then their data.  See scripted_model.c for what
 * the weights say.
 */

#define _GNU_SOURCE

#include "scripted_model.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>


#define ALIGNMENT       32          /* of each tensor's data */
#define HEAD_WIDTH      32          /* of the one attention head */

#define SPACE           "\xe2\x96\x81" /* how a vocabulary spells a space */

enum gguf_type { GGUF_U32 = 4, GGUF_I32, GGUF_F32, GGUF_BOOL, GGUF_STRING,
                 GGUF_ARRAY };
enum ggml_type { GGML_F32 = 0, GGML_F16 = 1 };
enum token_type { TOKEN_NORMAL = 1, TOKEN_UNKNOWN, TOKEN_CONTROL,
                  TOKEN_BYTE = 6 };
enum { UNKNOWN, BOS, EOS, FIRST_BYTE, FIRST_PIECE = FIRST_BYTE + 256 };


/* The head of the file, built in memory. */
struct head {
    char    *data;
    size_t   len;
    size_t   size;
};

struct tensor {
    char            name[48];
    enum ggml_type  type;
    uint64_t        columns;
    uint64_t        rows;           /* 0: one dimension */
    uint64_t        offset;
};

struct model {
    const struct options  *opt;
    const struct script   *script;
    uint32_t               vocab;
    uint32_t               width;
    struct tensor         *tensor;
    uint32_t               tensors;
    uint64_t               data_size;
};


static const char  default_template[] =
    "{%- for message in messages -%}"
    "{{ message['role'] + ': ' + message['content'] + '\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ 'assistant:\\n' }}{%- endif -%}";

/* The unfinished file. */
static char  *temp_path;


/* Prints one line, removes what is half written and ends the program. */
void
scripted_die(const char *format, ...)
{
    va_list  ap;

    fputs("scripted-model: ", stderr);
    va_start(ap, format);
    vfprintf(stderr, format, ap);
    va_end(ap);
    fputc('\n', stderr);

    if (temp_path != NULL) {
        unlink(temp_path);
    }

    exit(1);
}


/* realloc, or the end. */
void *
scripted_resize(void *p, size_t size)
{
    p = realloc(p, size);

    if (p == NULL) {
        scripted_die("out of memory");
    }

    return p;
}


/* Adds bytes to the head. */
static void
put(struct head *h, const void *data, size_t len)
{
    if (h->size - h->len < len) {
        h->size = (h->len + len) * 2;
        h->data = scripted_resize(h->data, h->size);
    }

    memcpy(h->data + h->len, data, len);
    h->len += len;
}


/* Adds an integer, little-endian on any machine. */
static void
put_int(struct head *h, uint64_t n, unsigned bytes)
{
    unsigned  i;
    uint8_t   byte;

    for (i = 0; i < bytes; i++) {
        byte = n >> (8 * i);
        put(h, &byte, 1);
    }
}


/* Adds a string with its length. */
static void
put_string(struct head *h, const char *text, size_t len)
{
    put_int(h, len, 8);
    put(h, text, len);
}


/* Adds the key of a value and the type of it. */
static void
put_key(struct head *h, const char *key, enum gguf_type type)
{
    put_string(h, key, strlen(key));
    put_int(h, type, 4);
}


/* Adds a key with a 32-bit value. */
static void
put_u32(struct head *h, const char *key, uint32_t n)
{
    put_key(h, key, GGUF_U32);
    put_int(h, n, 4);
}


/* Adds a key with a text. */
static void
put_text(struct head *h, const char *key, const char *text)
{
    put_key(h, key, GGUF_STRING);
    put_string(h, text, strlen(text));
}


/* Adds one piece of the answer as the vocabulary spells it. */
static void
put_piece(struct head *h, const struct piece *p)
{
    char    *name;
    size_t   i, len;

    name = scripted_resize(NULL, p->len * 3 + 1);

    for (i = 0, len = 0; i < p->len; i++) {
        if (p->text[i] == ' ') {
            memcpy(name + len, SPACE, 3);
            len += 3;

        } else {
            name[len++] = p->text[i];
        }
    }

    put_string(h, name, len);
    free(name);
}


/* Adds the names and types of all tokens. */
static void
put_vocabulary(struct head *h, const struct model *m)
{
    char      name[8];
    uint32_t  i;

    put_key(h, "tokenizer.ggml.tokens", GGUF_ARRAY);
    put_int(h, GGUF_STRING, 4);
    put_int(h, m->vocab, 8);
    put_string(h, "<unk>", 5);
    put_string(h, "<s>", 3);
    put_string(h, "</s>", 4);

    for (i = 0; i < 256; i++) {
        /* Two tokens of one name are what llama-server aborts at. */
        snprintf(name, sizeof(name), "<0x%02X>", m->opt->crash ? 0 : i);
        put_string(h, name, 6);
    }

    for (i = 0; i < m->script->count; i++) {
        put_piece(h, &m->script->piece[i]);
    }

    put_key(h, "tokenizer.ggml.token_type", GGUF_ARRAY);
    put_int(h, GGUF_I32, 4);
    put_int(h, m->vocab, 8);

    for (i = 0; i < m->vocab; i++) {
        put_int(h, i >= FIRST_PIECE ? TOKEN_NORMAL
                   : i >= FIRST_BYTE ? TOKEN_BYTE
                   : i == UNKNOWN ? TOKEN_UNKNOWN : TOKEN_CONTROL, 4);
    }
}


/* Adds all keys with their values; the count of them comes back. */
static unsigned
put_metadata(struct head *h, const struct model *m)
{
    put_text(h, "general.architecture", "llama");
    put_text(h, "general.name", "Scripted");
    put_u32(h, "general.alignment", ALIGNMENT);
    put_u32(h, "general.file_type", 1);
    put_u32(h, "llama.context_length", m->opt->context);
    put_u32(h, "llama.embedding_length", m->width);
    put_u32(h, "llama.block_count", m->opt->layers);
    put_u32(h, "llama.feed_forward_length", m->opt->ff);
    put_u32(h, "llama.attention.head_count", 1);
    put_u32(h, "llama.attention.key_length", HEAD_WIDTH);
    put_u32(h, "llama.attention.value_length", HEAD_WIDTH);
    put_u32(h, "llama.rope.dimension_count", HEAD_WIDTH);
    put_u32(h, "llama.pooling_type", m->opt->embedding != 0 ? 1 : 0);

    put_key(h, "llama.attention.layer_norm_rms_epsilon", GGUF_F32);
    put_int(h, 0x3727c5ac, 4);      /* 1e-5 */

    put_text(h, "tokenizer.ggml.model", "llama");
    put_u32(h, "tokenizer.ggml.bos_token_id", BOS);
    put_u32(h, "tokenizer.ggml.eos_token_id", EOS);
    put_key(h, "tokenizer.ggml.add_space_prefix", GGUF_BOOL);
    put_int(h, 0, 1);
    put_vocabulary(h, m);
    put_text(h, "tokenizer.chat_template",
             m->opt->template != NULL ? m->opt->template : default_template);

    return 21;
}


/* Lays out one tensor behind those before it. */
static void
add_tensor(struct model *m, const char *name, uint64_t columns, uint64_t rows)
{
    struct tensor  *t;

    t = &m->tensor[m->tensors++];
    snprintf(t->name, sizeof(t->name), "%s.weight", name);
    t->type = rows == 0 ? GGML_F32 : GGML_F16;
    t->columns = columns;
    t->rows = rows;
    t->offset = m->data_size;

    m->data_size += scripted_round_up(columns * (rows == 0 ? 4 : 2 * rows),
                                      ALIGNMENT);
}


/* Lays out all tensors. */
static void
add_tensors(struct model *m)
{
    char      name[40];
    uint32_t  i, j;

    const struct { const char *name; uint64_t columns, rows; } part[] = {
        { "attn_norm", m->width, 0 },
        { "attn_q", m->width, HEAD_WIDTH },
        { "attn_k", m->width, HEAD_WIDTH },
        { "attn_v", m->width, HEAD_WIDTH },
        { "attn_output", HEAD_WIDTH, m->width },
        { "ffn_norm", m->width, 0 },
        { "ffn_gate", m->width, m->opt->ff },
        { "ffn_up", m->width, m->opt->ff },
        { "ffn_down", m->opt->ff, m->width },
    };

    m->tensor = scripted_resize(NULL, (3 + 9 * m->opt->layers)
                                      * sizeof(*m->tensor));

    add_tensor(m, "token_embd", m->width, m->vocab);
    add_tensor(m, "output_norm", m->width, 0);
    add_tensor(m, "output", m->width, m->vocab);

    for (i = 0; i < m->opt->layers; i++) {
        for (j = 0; j < sizeof(part) / sizeof(part[0]); j++) {
            snprintf(name, sizeof(name), "blk.%u.%s", i, part[j].name);
            add_tensor(m, name, part[j].columns, part[j].rows);
        }
    }
}


/* Builds the head of the file up to where the weights begin. */
static void
build_head(struct head *h, const struct model *m)
{
    static const char     zeros[ALIGNMENT];
    const struct tensor  *t;
    struct head           meta = { 0 };
    unsigned              keys;

    keys = put_metadata(&meta, m);

    put(h, "GGUF", 4);
    put_int(h, 3, 4);
    put_int(h, m->tensors, 8);
    put_int(h, keys, 8);
    put(h, meta.data, meta.len);
    free(meta.data);

    for (t = m->tensor; t < m->tensor + m->tensors; t++) {
        put_string(h, t->name, strlen(t->name));
        put_int(h, t->rows == 0 ? 1 : 2, 4);
        put_int(h, t->columns, 8);

        if (t->rows != 0) {
            put_int(h, t->rows, 8);
        }

        put_int(h, t->type, 4);
        put_int(h, t->offset, 8);
    }

    put(h, zeros, scripted_round_up(h->len, ALIGNMENT) - h->len);
}


/* Writes at a place of the file, all of it or the end. */
static void
write_at(int fd, const void *data, size_t len, uint64_t offset)
{
    ssize_t      n;
    const char  *p;

    for (p = data; len > 0; p += n, len -= n, offset += n) {
        n = pwrite(fd, p, len, offset);

        if (n < 0 && errno == EINTR) {
            n = 0;

        } else if (n <= 0) {
            scripted_die("cannot write: %s",
                         n < 0 ? strerror(errno) : "disk full");
        }
    }
}


/* Writes one weight of a matrix. */
static void
write_weight(int fd, uint64_t base, const struct tensor *t, uint64_t row,
    uint64_t column, uint16_t half)
{
    uint8_t  bytes[2] = { half & 0xff, half >> 8 };

    write_at(fd, bytes, 2, base + t->offset + 2 * (row * t->columns + column));
}


/* Writes the ones of a norm. */
static void
write_norm(int fd, uint64_t base, const struct tensor *t)
{
    static const uint8_t  one[4] = { 0x00, 0x00, 0x80, 0x3f };
    uint8_t              *ones;
    uint64_t              i;

    ones = scripted_resize(NULL, 4 * t->columns);

    for (i = 0; i < t->columns; i++) {
        memcpy(ones + 4 * i, one, 4);
    }

    write_at(fd, ones, 4 * t->columns, base + t->offset);
    free(ones);
}


/* The token that the script has after this one. */
static uint32_t
next_token(const struct model *m, uint32_t token)
{
    if (token < FIRST_PIECE) {
        return FIRST_PIECE;
    }

    if (token + 1 < m->vocab) {
        return token + 1;
    }

    return m->opt->loop ? FIRST_PIECE : EOS;
}


/* Writes the weights that are not zero. */
static void
write_weights(int fd, uint64_t base, const struct model *m)
{
    uint32_t  i;

    for (i = 0; i < m->tensors; i++) {
        if (m->tensor[i].rows == 0) {
            write_norm(fd, base, &m->tensor[i]);
        }
    }

    for (i = 0; i < m->vocab; i++) {
        /* 1.0 and 64.0 as half floats */
        write_weight(fd, base, &m->tensor[0], i, i % m->width, 0x3c00);
        write_weight(fd, base, &m->tensor[2], next_token(m, i), i % m->width,
                     0x5400);
    }
}


/* Writes the file beside its path, then puts it there in one step. */
static void
write_file(const struct model *m)
{
    int          fd;
    uint64_t     size;
    struct head  h = { 0 };

    build_head(&h, m);

    if (asprintf(&temp_path, "%s.%d", m->opt->path, (int) getpid()) == -1) {
        scripted_die("out of memory");
    }

    fd = open(temp_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd == -1) {
        scripted_die("%s: %s", temp_path, strerror(errno));
    }

    size = h.len + (m->opt->truncate ? m->data_size / 2 : m->data_size);
    write_at(fd, h.data, h.len, 0);
    write_weights(fd, h.len, m);

    if (ftruncate(fd, size) == -1 || fsync(fd) == -1 || close(fd) == -1
        || rename(temp_path, m->opt->path) == -1)
    {
        scripted_die("%s: %s", m->opt->path, strerror(errno));
    }

    free(h.data);
    free(temp_path);
}


/* Writes the model of a script; see scripted_model.h. */
void
scripted_write(const struct options *opt, const struct script *script)
{
    struct model  m = { 0 };

    m.opt = opt;
    m.script = script;
    m.vocab = FIRST_PIECE + script->count;
    m.width = scripted_round_up(opt->embedding != 0 ? opt->embedding
                                                    : m.vocab, WIDTH_STEP);
    add_tensors(&m);
    write_file(&m);
    free(m.tensor);
}
