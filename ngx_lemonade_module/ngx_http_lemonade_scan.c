/* The JSON scanner; what it promises is described in its header. */

#include "ngx_http_lemonade_scan.h"

#include <string.h>


/* What the scanner expects next. */
enum {
    S_VALUE = 0,            /* a value */
    S_OBJECT_FIRST,         /* a name or '}' */
    S_OBJECT_NAME,          /* a name */
    S_COLON,
    S_OBJECT_NEXT,          /* ',' or '}' */
    S_ARRAY_FIRST,          /* a value or ']' */
    S_ARRAY_NEXT,           /* ',' or ']' */
    S_STRING,
    S_ESCAPE,
    S_HEX,
    S_LITERAL,
    S_MINUS,                /* numbers, by what was read last */
    S_ZERO,
    S_INTEGER,
    S_POINT,
    S_FRACTION,
    S_EXPONENT,
    S_EXPONENT_SIGN,
    S_EXPONENT_DIGIT,
    S_END                   /* white space */
};


/* lm_scan_t.in_key: in the name of a member that is none of ours. */
#define LM_SCAN_OTHER_KEY  2


typedef unsigned char  lm_vector_t __attribute__((vector_size(16)));


static const struct {
    const char  *name;
    size_t       len;
} lm_scan_names[LM_SCAN_MEMBERS] = {
    { "model", 5 },
    { "stream", 6 },
    { "max_tokens", 10 },
    { "max_completion_tokens", 21 },
};


void
lm_scan_init(lm_scan_t *s)
{
    unsigned  i;

    memset(s, 0, offsetof(lm_scan_t, key));

    s->wanted = -1;
    s->member[LM_SCAN_MODEL].value = s->model;

    for (i = 1; i < LM_SCAN_MEMBERS; i++) {
        s->member[i].value = s->numbers[i - 1];
    }
}


/* How many bytes of a member's value are kept. */
static size_t
lm_scan_room(int16_t member)
{
    return member == LM_SCAN_MODEL ? LM_SCAN_MODEL_MAX : LM_SCAN_NUMBER_MAX;
}


/* Stops the scan. */
static void
lm_scan_fail(lm_scan_t *s, lm_scan_result_t result)
{
    s->result = result;
}


/* Keeps decoded bytes of the current string or number if it is wanted. */
static void
lm_scan_keep(lm_scan_t *s, const unsigned char *p, size_t n)
{
    size_t            room;
    lm_scan_value_t  *v;

    if (s->in_key) {
        if (s->in_key == LM_SCAN_OTHER_KEY) {
            return;
        }

        if (n <= LM_SCAN_KEY_MAX - (size_t) s->key_len) {
            memcpy(s->key + s->key_len, p, n);
            s->key_len = (uint16_t) (s->key_len + n);

        } else {
            /* longer than any name we want */
            s->in_key = LM_SCAN_OTHER_KEY;
        }

        return;
    }

    if (s->wanted < 0) {
        return;
    }

    v = &s->member[s->wanted];
    room = lm_scan_room(s->wanted) - v->len;

    if (n > room) {
        v->too_long = 1;
        n = room;
    }

    memcpy(v->value + v->len, p, n);
    v->len = (uint16_t) (v->len + n);
}


/* Keeps one byte. */
static void
lm_scan_keep_byte(lm_scan_t *s, unsigned char c)
{
    lm_scan_keep(s, &c, 1);
}


/* Keeps a code point as UTF-8. */
static void
lm_scan_keep_code(lm_scan_t *s, uint32_t code)
{
    size_t         i, n;
    unsigned char  utf8[4];

    static const unsigned char  lead[] = { 0, 0, 0xc0, 0xe0, 0xf0 };

    n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;

    for (i = n - 1; i > 0; i--) {
        utf8[i] = (unsigned char) (0x80 | (code & 0x3f));
        code >>= 6;
    }

    utf8[0] = (unsigned char) (lead[n] | code);

    lm_scan_keep(s, utf8, n);
}


/* Takes a whole \uXXXX, pairing surrogates in strings that are kept. */
static void
lm_scan_unicode(lm_scan_t *s)
{
    uint32_t  code = s->hex;

    s->state = S_STRING;

    if (s->in_key == LM_SCAN_OTHER_KEY || (!s->in_key && s->wanted < 0)) {
        return;
    }

    if (s->surrogate) {
        if (code < 0xdc00 || code > 0xdfff) {
            lm_scan_fail(s, LM_SCAN_INVALID);
            return;
        }

        code = 0x10000 + ((uint32_t) (s->surrogate - 0xd800) << 10)
               + (code - 0xdc00);
        s->surrogate = 0;

    } else if (code >= 0xd800 && code <= 0xdbff) {
        s->surrogate = (uint16_t) code;
        return;

    } else if (code >= 0xdc00 && code <= 0xdfff) {
        lm_scan_fail(s, LM_SCAN_INVALID);
        return;
    }

    lm_scan_keep_code(s, code);
}


/* Reads the character behind a backslash. */
static void
lm_scan_escape(lm_scan_t *s, unsigned char c)
{
    static const char  from[] = "\"\\/bfnrt";
    static const char  to[] = "\"\\/\b\f\n\r\t";
    const char        *at;

    if (c == 'u') {
        s->state = S_HEX;
        s->hex = 0;
        s->hex_digits = 0;
        return;
    }

    at = c ? strchr(from, c) : NULL;

    if (at == NULL || s->surrogate) {
        lm_scan_fail(s, LM_SCAN_INVALID);
        return;
    }

    s->state = S_STRING;
    lm_scan_keep_byte(s, (unsigned char) to[at - from]);
}


/* Reads one digit of \uXXXX. */
static void
lm_scan_hex(lm_scan_t *s, unsigned char c)
{
    unsigned  digit;

    if (c >= '0' && c <= '9') {
        digit = c - '0';

    } else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') {
        digit = (c | 0x20) - 'a' + 10;

    } else {
        lm_scan_fail(s, LM_SCAN_INVALID);
        return;
    }

    s->hex = (uint16_t) (s->hex << 4 | digit);

    if (++s->hex_digits == 4) {
        lm_scan_unicode(s);
    }
}


/* Is the innermost open bracket an array's? */
static int
lm_scan_in_array(lm_scan_t *s)
{
    unsigned  i = s->depth - 1u;

    return s->arrays[i / 8] >> (i % 8) & 1;
}


/* A value has ended: what may follow. */
static void
lm_scan_value_end(lm_scan_t *s)
{
    s->wanted = -1;

    if (s->depth == 0) {
        s->state = S_END;

    } else {
        s->state = lm_scan_in_array(s) ? S_ARRAY_NEXT : S_OBJECT_NEXT;
    }
}


/* A string has ended. */
static void
lm_scan_string_end(lm_scan_t *s)
{
    unsigned  i;

    if (s->surrogate) {
        lm_scan_fail(s, LM_SCAN_INVALID);
        return;
    }

    if (!s->in_key) {
        lm_scan_value_end(s);
        return;
    }

    s->state = S_COLON;

    if (s->in_key == LM_SCAN_OTHER_KEY) {
        s->in_key = 0;
        return;
    }

    s->in_key = 0;

    for (i = 0; i < LM_SCAN_MEMBERS; i++) {
        if (s->key_len == lm_scan_names[i].len
            && memcmp(s->key, lm_scan_names[i].name, s->key_len) == 0)
        {
            s->wanted = (int16_t) i;
            s->member[i].type = LM_SCAN_ABSENT;
            s->member[i].too_long = 0;
            s->member[i].len = 0;
            return;
        }
    }
}


/* The end of the plain bytes of a string: '"', '\\' or a control byte. */
static const unsigned char *
lm_scan_string_run(const unsigned char *p, const unsigned char *last)
{
    size_t                i;
    uint64_t              half[2];
    lm_vector_t           v;
    const unsigned char  *mask = (const unsigned char *) half;

    while (last - p >= 16) {
        memcpy(&v, p, 16);
        v = (lm_vector_t) (v < 0x20) | (lm_vector_t) (v == '"')
            | (lm_vector_t) (v == '\\');
        memcpy(half, &v, 16);

        if (half[0] | half[1]) {
            for (i = 0; mask[i] == 0; i++) {
                /* void */
            }

            return p + i;
        }

        p += 16;
    }

    while (p < last && *p >= 0x20 && *p != '"' && *p != '\\') {
        p++;
    }

    return p;
}


/* Reads as much of a string as is there; returns where it stopped. */
static const unsigned char *
lm_scan_string(lm_scan_t *s, const unsigned char *p,
    const unsigned char *last)
{
    const unsigned char  *end;

    end = lm_scan_string_run(p, last);

    if (end > p) {
        if (s->surrogate) {
            lm_scan_fail(s, LM_SCAN_INVALID);
            return end;
        }

        lm_scan_keep(s, p, (size_t) (end - p));
    }

    if (end == last) {
        return end;
    }

    if (*end == '"') {
        lm_scan_string_end(s);

    } else if (*end == '\\') {
        s->state = S_ESCAPE;

    } else {
        lm_scan_fail(s, LM_SCAN_INVALID);
    }

    return end + 1;
}


/* Opens an object or array. */
static void
lm_scan_open(lm_scan_t *s, int array)
{
    unsigned  i = s->depth;

    if (i == LM_SCAN_DEPTH) {
        lm_scan_fail(s, LM_SCAN_TOO_DEEP);
        return;
    }

    s->arrays[i / 8] = (uint8_t) ((s->arrays[i / 8] & ~(1 << (i % 8)))
                                  | array << (i % 8));

    s->depth++;
    s->wanted = -1;
    s->state = array ? S_ARRAY_FIRST : S_OBJECT_FIRST;
}


/* Closes an object or array. */
static void
lm_scan_close(lm_scan_t *s)
{
    s->depth--;
    lm_scan_value_end(s);
}


/* Notes the type of the wanted member whose value begins. */
static void
lm_scan_type(lm_scan_t *s, lm_scan_type_t type)
{
    if (s->wanted >= 0) {
        s->member[s->wanted].type = (uint8_t) type;
    }
}


/* Begins a literal; its first letter has been read. */
static void
lm_scan_literal(lm_scan_t *s, const char *rest, lm_scan_type_t type)
{
    lm_scan_type(s, type);
    s->literal = rest;
    s->state = S_LITERAL;
}


/* Begins a value. */
static void
lm_scan_value(lm_scan_t *s, unsigned char c)
{
    if (s->depth == 0 && c != '{') {
        lm_scan_fail(s, c && strchr("[\"-0123456789tfn", c)
                        ? LM_SCAN_NOT_OBJECT : LM_SCAN_INVALID);
        return;
    }

    switch (c) {

    case '{':
    case '[':
        lm_scan_type(s, LM_SCAN_OTHER);
        lm_scan_open(s, c == '[');
        return;

    case '"':
        lm_scan_type(s, LM_SCAN_STRING);
        s->state = S_STRING;
        return;

    case 't':
        lm_scan_literal(s, "rue", LM_SCAN_TRUE);
        return;

    case 'f':
        lm_scan_literal(s, "alse", LM_SCAN_FALSE);
        return;

    case 'n':
        lm_scan_literal(s, "ull", LM_SCAN_NULL);
        return;
    }

    if (c == '-') {
        s->state = S_MINUS;

    } else if (c == '0') {
        s->state = S_ZERO;

    } else if (c >= '1' && c <= '9') {
        s->state = S_INTEGER;

    } else {
        lm_scan_fail(s, LM_SCAN_INVALID);
        return;
    }

    lm_scan_type(s, LM_SCAN_NUMBER);
    lm_scan_keep_byte(s, c);
}


/*
 * Reads one more byte of a number.  Returns 0 when the byte is not part of
 * it: the number has ended, if it may end here.
 */
static int
lm_scan_number(lm_scan_t *s, unsigned char c)
{
    int  digit = (c >= '0' && c <= '9');

    switch (s->state) {

    case S_MINUS:
        if (!digit) {
            lm_scan_fail(s, LM_SCAN_INVALID);
            return 1;
        }
        s->state = (c == '0') ? S_ZERO : S_INTEGER;
        break;

    case S_ZERO:
    case S_INTEGER:
        if (c == '.') {
            s->state = S_POINT;
        } else if ((c | 0x20) == 'e') {
            s->state = S_EXPONENT;
        } else if (!digit || s->state == S_ZERO) {
            return 0;
        }
        break;

    case S_POINT:
        if (!digit) {
            lm_scan_fail(s, LM_SCAN_INVALID);
            return 1;
        }
        s->state = S_FRACTION;
        break;

    case S_FRACTION:
        if ((c | 0x20) == 'e') {
            s->state = S_EXPONENT;
        } else if (!digit) {
            return 0;
        }
        break;

    case S_EXPONENT:
        if (!digit && c != '+' && c != '-') {
            lm_scan_fail(s, LM_SCAN_INVALID);
            return 1;
        }
        s->state = digit ? S_EXPONENT_DIGIT : S_EXPONENT_SIGN;
        break;

    case S_EXPONENT_SIGN:
        if (!digit) {
            lm_scan_fail(s, LM_SCAN_INVALID);
            return 1;
        }
        s->state = S_EXPONENT_DIGIT;
        break;

    default: /* S_EXPONENT_DIGIT */
        if (!digit) {
            return 0;
        }
        break;
    }

    lm_scan_keep_byte(s, c);

    return 1;
}


/* Reads a byte that belongs to no string, number or literal. */
static void
lm_scan_token(lm_scan_t *s, unsigned char c)
{
    if (c == ' ' || c == '\n' || c == '\r' || c == '\t') {
        return;
    }

    switch (s->state) {

    case S_ARRAY_FIRST:
        if (c == ']') {
            lm_scan_close(s);
            return;
        }

        /* fall through */

    case S_VALUE:
        lm_scan_value(s, c);
        return;

    case S_OBJECT_FIRST:
        if (c == '}') {
            lm_scan_close(s);
            return;
        }

        /* fall through */

    case S_OBJECT_NAME:
        if (c == '"') {
            /* the names we want are at the top */
            s->in_key = (s->depth == 1) ? 1 : LM_SCAN_OTHER_KEY;
            s->key_len = 0;
            s->wanted = -1;
            s->state = S_STRING;
            return;
        }
        break;

    case S_COLON:
        if (c == ':') {
            s->state = S_VALUE;
            return;
        }
        break;

    case S_OBJECT_NEXT:
    case S_ARRAY_NEXT:
        if (c == ',') {
            s->state = (s->state == S_OBJECT_NEXT) ? S_OBJECT_NAME : S_VALUE;
            return;
        }

        if (c == (s->state == S_OBJECT_NEXT ? '}' : ']')) {
            lm_scan_close(s);
            return;
        }
        break;
    }

    lm_scan_fail(s, LM_SCAN_INVALID);
}


/* Reads one byte outside a string's plain run. */
static void
lm_scan_byte(lm_scan_t *s, unsigned char c)
{
    switch (s->state) {

    case S_ESCAPE:
        lm_scan_escape(s, c);
        return;

    case S_HEX:
        lm_scan_hex(s, c);
        return;

    case S_LITERAL:
        if (c != (unsigned char) *s->literal) {
            lm_scan_fail(s, LM_SCAN_INVALID);
        } else if (*++s->literal == '\0') {
            lm_scan_value_end(s);
        }
        return;

    case S_MINUS:
    case S_ZERO:
    case S_INTEGER:
    case S_POINT:
    case S_FRACTION:
    case S_EXPONENT:
    case S_EXPONENT_SIGN:
    case S_EXPONENT_DIGIT:
        if (lm_scan_number(s, c)) {
            return;
        }
        lm_scan_value_end(s);

        /* the byte is the next token */

        /* fall through */

    default:
        lm_scan_token(s, c);
    }
}


lm_scan_result_t
lm_scan_feed(lm_scan_t *s, const unsigned char *p, size_t n)
{
    const unsigned char  *start, *last;

    start = p;
    last = p + n;

    while (p < last && s->result == LM_SCAN_OK) {
        if (s->state == S_STRING) {
            p = lm_scan_string(s, p, last);
        } else {
            lm_scan_byte(s, *p++);
        }
    }

    s->offset += (uint64_t) (p - start);

    return (lm_scan_result_t) s->result;
}


lm_scan_result_t
lm_scan_finish(lm_scan_t *s)
{
    if (s->result == LM_SCAN_OK && s->state != S_END) {
        if (s->depth == 0) {
            s->result = LM_SCAN_EMPTY;
        } else {
            s->result = LM_SCAN_TRUNCATED;
        }
    }

    return (lm_scan_result_t) s->result;
}
