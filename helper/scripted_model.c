/*
 * scripted-model: writes a small GGUF file that always gives one answer.
 *
 * It is a real llama model with one attention head, so that any llama-server
 * loads it, but its weights are a script:
 *
 *   token_embd   one-hot: token t is the unit vector t
 *   layers       all zero, so they add nothing
 *   output       row next(t), column t is large: after t comes next(t)
 *
 * The answer is cut into pieces, each a token of its own; every piece is
 * followed by the next one, the last one by the end of the text.  All other
 * tokens (the 256 bytes, which any prompt is made of) are followed by the
 * first piece.  The layout of the file is the GGUF specification, version 3.
 *
 * Nearly all of the file is zeros, which are not written: it is sparse.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>


#define ALIGNMENT       32          /* of each tensor's data */
#define WIDTH_STEP      64          /* widths are a multiple of it */
#define HEAD_WIDTH      32          /* of the one attention head */
#define ANSWER_MAX      (1 << 20)
#define PIECES_MAX      16384
#define PIECE_CHARS     3           /* shortest piece, see cut_answer() */

#define SPACE           "\xe2\x96\x81" /* how a vocabulary spells a space */

enum gguf_type { GGUF_U32 = 4, GGUF_I32, GGUF_F32, GGUF_BOOL, GGUF_STRING,
                 GGUF_ARRAY };
enum ggml_type { GGML_F32 = 0, GGML_F16 = 1 };
enum token_type { TOKEN_NORMAL = 1, TOKEN_UNKNOWN, TOKEN_CONTROL,
                  TOKEN_BYTE = 6 };
enum { UNKNOWN, BOS, EOS, FIRST_BYTE, FIRST_PIECE = FIRST_BYTE + 256 };


struct options {
    const char  *answer;
    char        *file_answer;
    char        *template;
    const char  *path;
    uint32_t     context;
    uint32_t     layers;
    uint32_t     ff;
    uint32_t     embedding;
    bool         loop;
    bool         crash;
    bool         truncate;
};

struct piece {
    const char  *text;
    size_t       len;
};

struct script {
    struct piece  piece[PIECES_MAX];
    uint32_t      count;
};

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

static const char  usage[] =
    "usage: scripted-model [options] OUT.gguf\n"
    "  --answer TEXT        what the model says\n"
    "  --answer-file FILE   the same from a file, without its last newline\n"
    "  --loop               begin again at the end: a stream without end\n"
    "  --template FILE      chat template (Jinja)\n"
    "  --context N          context length, 4096 by default\n"
    "  --heavy LAYERS:FF    zero weights that cost time with each token\n"
    "  --slow-load MB       as many zero weights; 2 to 4 s for 1000\n"
    "  --embedding N        an embedding model of that width\n"
    "  --crash              llama-server aborts while loading it\n"
    "  --truncate           half of the weights are missing\n";


/* The unfinished file. */
static char  *temp_path;


/* Prints one line, removes what is half written and ends the program. */
static void __attribute__((noreturn, format(printf, 1, 2)))
die(const char *format, ...)
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
static void *
resize(void *p, size_t size)
{
    p = realloc(p, size);

    if (p == NULL) {
        die("out of memory");
    }

    return p;
}


/* Reads a whole small file as a string. */
static char *
read_text(const char *path)
{
    char    *text;
    FILE    *f;
    size_t   len;

    f = fopen(path, "re");
    if (f == NULL) {
        die("%s: %s", path, strerror(errno));
    }

    text = resize(NULL, ANSWER_MAX + 1);
    len = fread(text, 1, ANSWER_MAX + 1, f);

    if (ferror(f)) {
        die("%s: read error", path);
    }

    if (len > ANSWER_MAX) {
        die("%s: longer than %d bytes", path, ANSWER_MAX);
    }

    fclose(f);
    text[len] = '\0';

    if (strlen(text) != len) {
        die("%s: has a NUL byte; give a text file", path);
    }

    return text;
}


/* Parses a decimal number between min and max that ends at stop. */
static uint32_t
parse_number(const char **s, char stop, uint32_t min, uint32_t max,
    const char *option)
{
    char           *end;
    unsigned long   n;

    errno = 0;
    n = strtoul(*s, &end, 10);

    if (errno != 0 || **s < '0' || **s > '9' || *end != stop
        || n < min || n > max)
    {
        die("%s wants a number from %u to %u", option, min, max);
    }

    *s = stop == '\0' ? end : end + 1;

    return n;
}


/* The end of the word at pos: blanks, then all up to the next blank. */
static size_t
word_end(const char *text, size_t pos)
{
    pos += strspn(text + pos, " \t\n");

    return pos + strcspn(text + pos, " \t\n");
}


/* Characters in a piece of UTF-8, but no more than PIECE_CHARS. */
static unsigned
count_chars(const char *text, size_t len)
{
    size_t    i;
    unsigned  n;

    for (i = 0, n = 0; i < len && n < PIECE_CHARS; i++) {
        if ((text[i] & 0xc0) != 0x80) {
            n++;
        }
    }

    return n;
}


/* Is it too short, or the name of another token? */
static bool
piece_taken(const struct script *s, const char *text, size_t len)
{
    uint32_t  i;

    if (count_chars(text, len) < PIECE_CHARS) {
        return true;
    }

    for (i = 0; i < s->count; i++) {
        if (s->piece[i].len == len
            && memcmp(s->piece[i].text, text, len) == 0)
        {
            return true;
        }
    }

    return false;
}


/*
 * Cuts the answer into words that are all different: a word that was there
 * already takes the next one in, the last one goes to the word before it.
 *
 * Short pieces would be found in prompts: the tokenizer joins two characters
 * when the pair is a token, and only then looks for longer ones.  Without
 * tokens of one or two characters a prompt is made of bytes alone.
 */
static void
cut_answer(struct script *s, const char *text)
{
    size_t  start, end, len;

    len = strlen(text);

    for (start = 0; start < len; start = end) {
        end = word_end(text, start);

        while (end < len && piece_taken(s, text + start, end - start)) {
            end = word_end(text, end);
        }

        while (s->count > 0 && piece_taken(s, text + start, end - start)) {
            s->count--;
            start = s->piece[s->count].text - text;
        }

        if (s->count == PIECES_MAX) {
            die("the answer has more than %d words", PIECES_MAX);
        }

        s->piece[s->count].text = text + start;
        s->piece[s->count].len = end - start;
        s->count++;
    }
}


/* Refuses what a vocabulary cannot spell. */
static void
check_answer(const char *text)
{
    if (text[0] == '\0') {
        die("the answer is empty; give --answer TEXT");
    }

    if (strlen(text) > ANSWER_MAX) {
        die("the answer is longer than %d bytes", ANSWER_MAX);
    }

    if (strstr(text, SPACE) != NULL) {
        die("the answer has the character U+2581, which means a space");
    }

    if (text[0] == '<' && (strncmp(text, "<0x", 3) == 0
                           || strcmp(text, "<s>") == 0
                           || strcmp(text, "</s>") == 0
                           || strcmp(text, "<unk>") == 0))
    {
        die("the answer begins like a token of its own: %.8s", text);
    }
}


/* Adds bytes to the head. */
static void
put(struct head *h, const void *data, size_t len)
{
    if (h->size - h->len < len) {
        h->size = (h->len + len) * 2;
        h->data = resize(h->data, h->size);
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

    name = resize(NULL, p->len * 3 + 1);

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


/* Rounds up to a multiple of step, a power of two. */
static uint64_t
round_up(uint64_t n, uint64_t step)
{
    return (n + step - 1) & ~(step - 1);
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

    m->data_size += round_up(columns * (rows == 0 ? 4 : 2 * rows), ALIGNMENT);
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

    m->tensor = resize(NULL, (3 + 9 * m->opt->layers) * sizeof(*m->tensor));

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

    put(h, zeros, round_up(h->len, ALIGNMENT) - h->len);
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
            die("cannot write: %s", n < 0 ? strerror(errno) : "disk full");
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

    ones = resize(NULL, 4 * t->columns);

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
write_model(const struct model *m)
{
    int          fd;
    uint64_t     size;
    struct head  h = { 0 };

    build_head(&h, m);

    if (asprintf(&temp_path, "%s.%d", m->opt->path, (int) getpid()) == -1) {
        die("out of memory");
    }

    fd = open(temp_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd == -1) {
        die("%s: %s", temp_path, strerror(errno));
    }

    size = h.len + (m->opt->truncate ? m->data_size / 2 : m->data_size);
    write_at(fd, h.data, h.len, 0);
    write_weights(fd, h.len, m);

    if (ftruncate(fd, size) == -1 || fsync(fd) == -1 || close(fd) == -1
        || rename(temp_path, m->opt->path) == -1)
    {
        die("%s: %s", m->opt->path, strerror(errno));
    }

    free(h.data);
    free(temp_path);
}


/* "LAYERS:FF", or as many of them as make up MB at the usual width. */
static void
parse_heavy(struct options *opt, const char *heavy, const char *slow)
{
    if (heavy != NULL) {
        opt->layers = parse_number(&heavy, ':', 1, 256, "--heavy");
        opt->ff = parse_number(&heavy, '\0', 32, 1 << 20, "--heavy");
        opt->ff = round_up(opt->ff, WIDTH_STEP);
    }

    if (slow != NULL) {
        opt->layers = parse_number(&slow, '\0', 1, 65536, "--slow-load");
        opt->layers = opt->layers / 64 + 1;
        opt->ff = 32768;
    }
}


/* Reads the command line. */
static void
parse_options(struct options *opt, int argc, char **argv)
{
    int          c;
    size_t       len;
    const char  *heavy = NULL, *slow = NULL;

    static const struct option  longs[] = {
        { "answer", required_argument, NULL, 'a' },
        { "answer-file", required_argument, NULL, 'f' },
        { "template", required_argument, NULL, 't' },
        { "context", required_argument, NULL, 'c' },
        { "heavy", required_argument, NULL, 'h' },
        { "slow-load", required_argument, NULL, 's' },
        { "embedding", required_argument, NULL, 'e' },
        { "loop", no_argument, NULL, 'l' },
        { "crash", no_argument, NULL, 'x' },
        { "truncate", no_argument, NULL, 'r' },
        { "help", no_argument, NULL, '?' },
        { NULL, 0, NULL, 0 }
    };

    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        const char  *value = optarg;

        switch (c) {
        case 'a':
            opt->answer = value;
            break;
        case 'f':
            opt->file_answer = read_text(value);
            len = strlen(opt->file_answer);
            if (len > 0 && opt->file_answer[len - 1] == '\n') {
                opt->file_answer[len - 1] = '\0';
            }
            opt->answer = opt->file_answer;
            break;
        case 't':
            opt->template = read_text(value);
            break;
        case 'c':
            opt->context = parse_number(&value, '\0', 64, 1 << 24,
                                        "--context");
            break;
        case 'h':
            heavy = value;
            break;
        case 's':
            slow = value;
            break;
        case 'e':
            opt->embedding = parse_number(&value, '\0', WIDTH_STEP, 8192,
                                          "--embedding");
            break;
        case 'l':
            opt->loop = true;
            break;
        case 'x':
            opt->crash = true;
            break;
        case 'r':
            opt->truncate = true;
            break;
        default:
            fputs(usage, stderr);
            exit(2);
        }
    }

    if (optind != argc - 1) {
        fputs(usage, stderr);
        exit(2);
    }

    parse_heavy(opt, heavy, slow);
    opt->path = argv[optind];
}


int
main(int argc, char **argv)
{
    struct model           m = { 0 };
    static struct script   script;
    static struct options  opt = {
        .answer = "Hello! This is a scripted model.",
        .context = 4096, .layers = 1, .ff = 64,
    };

    parse_options(&opt, argc, argv);
    check_answer(opt.answer);
    cut_answer(&script, opt.answer);

    m.opt = &opt;
    m.script = &script;
    m.vocab = FIRST_PIECE + script.count;
    m.width = round_up(opt.embedding != 0 ? opt.embedding : m.vocab,
                       WIDTH_STEP);
    add_tensors(&m);
    write_model(&m);

    free(m.tensor);
    free(opt.file_answer);
    free(opt.template);

    return 0;
}
