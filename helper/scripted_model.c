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
 * first piece.  scripted_gguf.c writes the file.
 *
 * Nearly all of the file is zeros, which are not written: it is sparse.
 */

#define _GNU_SOURCE

#include "scripted_model.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


#define ANSWER_MAX      (1 << 20)
#define PIECE_CHARS     3           /* shortest piece, see cut_answer() */

#define SPACE           "\xe2\x96\x81" /* how a vocabulary spells a space */


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


/* Reads a whole small file as a string. */
static char *
read_text(const char *path)
{
    char    *text;
    FILE    *f;
    size_t   len;

    f = fopen(path, "re");
    if (f == NULL) {
        scripted_die("%s: %s", path, strerror(errno));
    }

    text = scripted_resize(NULL, ANSWER_MAX + 1);
    len = fread(text, 1, ANSWER_MAX + 1, f);

    if (ferror(f)) {
        scripted_die("%s: read error", path);
    }

    if (len > ANSWER_MAX) {
        scripted_die("%s: longer than %d bytes", path, ANSWER_MAX);
    }

    fclose(f);
    text[len] = '\0';

    if (strlen(text) != len) {
        scripted_die("%s: has a NUL byte; give a text file", path);
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
        scripted_die("%s wants a number from %u to %u", option, min, max);
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
            scripted_die("the answer has more than %d words", PIECES_MAX);
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
        scripted_die("the answer is empty; give --answer TEXT");
    }

    if (strlen(text) > ANSWER_MAX) {
        scripted_die("the answer is longer than %d bytes", ANSWER_MAX);
    }

    if (strstr(text, SPACE) != NULL) {
        scripted_die("the answer has the character U+2581, which means a "
                     "space");
    }

    if (text[0] == '<' && (strncmp(text, "<0x", 3) == 0
                           || strcmp(text, "<s>") == 0
                           || strcmp(text, "</s>") == 0
                           || strcmp(text, "<unk>") == 0))
    {
        scripted_die("the answer begins like a token of its own: %.8s", text);
    }
}


/* "LAYERS:FF", or as many of them as make up MB at the usual width. */
static void
parse_heavy(struct options *opt, const char *heavy, const char *slow)
{
    if (heavy != NULL) {
        opt->layers = parse_number(&heavy, ':', 1, 256, "--heavy");
        opt->ff = parse_number(&heavy, '\0', 32, 1 << 20, "--heavy");
        opt->ff = scripted_round_up(opt->ff, WIDTH_STEP);
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
    static struct script   script;
    static struct options  opt = {
        .answer = "Hello! This is a scripted model.",
        .context = 4096, .layers = 1, .ff = 64,
    };

    parse_options(&opt, argc, argv);
    check_answer(opt.answer);
    cut_answer(&script, opt.answer);

    scripted_write(&opt, &script);

    free(opt.file_answer);
    free(opt.template);

    return 0;
}
