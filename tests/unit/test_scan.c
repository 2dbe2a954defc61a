/*
 * The JSON scanner: what it finds, what it refuses, and that neither depends
 * on how the text is cut into pieces.
 *
 * link: ngx_lemonade_module/ngx_http_lemonade_scan.c
 */

#include "ngx_http_lemonade_scan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>


#define ABSENT  LM_SCAN_ABSENT
#define STRING  LM_SCAN_STRING


static const struct {
    const char        *text;
    lm_scan_result_t   result;
    lm_scan_type_t     type;            /* of "model" */
    const char        *model;
    lm_scan_type_t     stream;
} cases[] = {
    /* members in any order, at the top level only */
    { "{\"model\":\"a\"}", LM_SCAN_OK, STRING, "a", ABSENT },
    { " \t\r\n{ \"stream\" : true , \"model\" : \"a\" } \n", LM_SCAN_OK,
      STRING, "a", LM_SCAN_TRUE },
    { "{\"x\":{\"model\":\"no\"},\"y\":[{\"model\":\"no\"}],\"model\":\"a\"}",
      LM_SCAN_OK, STRING, "a", ABSENT },
    { "{\"x\":\"\\\"model\\\":\\\"no\\\"\",\"model\":\"a\"}", LM_SCAN_OK,
      STRING, "a", ABSENT },
    { "{\"Model\":\"no\",\"modell\":\"no\",\"mode\":\"no\"}", LM_SCAN_OK,
      ABSENT, "", ABSENT },
    { "{}", LM_SCAN_OK, ABSENT, "", ABSENT },

    /* the last of several counts, with its type */
    { "{\"model\":\"a\",\"model\":\"b\"}", LM_SCAN_OK, STRING, "b", ABSENT },
    { "{\"model\":\"a\",\"model\":null}", LM_SCAN_OK, LM_SCAN_NULL, "",
      ABSENT },
    { "{\"stream\":true,\"stream\":false}", LM_SCAN_OK, ABSENT, "",
      LM_SCAN_FALSE },
    { "{\"model\":[\"a\"]}", LM_SCAN_OK, LM_SCAN_OTHER, "", ABSENT },
    { "{\"model\":{}}", LM_SCAN_OK, LM_SCAN_OTHER, "", ABSENT },
    { "{\"model\":12.5e-3}", LM_SCAN_OK, LM_SCAN_NUMBER, "12.5e-3", ABSENT },

    /* escapes, in names too */
    { "{\"\\u006dodel\":\"\\u0061\\n\\\"\\\\\\/\"}", LM_SCAN_OK, STRING,
      "a\n\"\\/", ABSENT },
    { "{\"model\":\"\\u00e9\\u20ac\\ud83d\\ude00\"}", LM_SCAN_OK, STRING,
      "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", ABSENT },
    { "{\"model\":\"\\ud83dx\"}", LM_SCAN_INVALID, STRING, NULL, ABSENT },
    { "{\"model\":\"\\ud83d\\n\"}", LM_SCAN_INVALID, STRING, NULL, ABSENT },
    { "{\"model\":\"\\ude00\"}", LM_SCAN_INVALID, STRING, NULL, ABSENT },
    { "{\"model\":\"\\ud83d\"}", LM_SCAN_INVALID, STRING, NULL, ABSENT },
    { "{\"model\":\"\\x\"}", LM_SCAN_INVALID, STRING, NULL, ABSENT },
    { "{\"x\":\"\\u12g4\"}", LM_SCAN_INVALID, ABSENT, NULL, ABSENT },

    /* values of every kind are stepped over */
    { "{\"a\":[1,-0,0.5,1e9,-1.25E+7,true,false,null,\"\",[],{}],"
      "\"model\":\"a\"}", LM_SCAN_OK, STRING, "a", ABSENT },

    /* not JSON */
    { "", LM_SCAN_EMPTY, ABSENT, NULL, ABSENT },
    { " \n", LM_SCAN_EMPTY, ABSENT, NULL, ABSENT },
    { "[]", LM_SCAN_NOT_OBJECT, ABSENT, NULL, ABSENT },
    { "\"model\"", LM_SCAN_NOT_OBJECT, ABSENT, NULL, ABSENT },
    { "12", LM_SCAN_NOT_OBJECT, ABSENT, NULL, ABSENT },
    { "<html>", LM_SCAN_INVALID, ABSENT, NULL, ABSENT },
    { "{", LM_SCAN_TRUNCATED, ABSENT, NULL, ABSENT },
    { "{\"model\":\"a\"", LM_SCAN_TRUNCATED, STRING, NULL, ABSENT },
    { "{\"model\":\"a", LM_SCAN_TRUNCATED, STRING, NULL, ABSENT },
    { "{\"a\":1", LM_SCAN_TRUNCATED, ABSENT, NULL, ABSENT },
    { "{\"model\":\"a\"}x", LM_SCAN_INVALID, STRING, NULL, ABSENT },
    { "{\"model\":\"a\"}{}", LM_SCAN_INVALID, STRING, NULL, ABSENT },
    { "{\"model\":\"a\",}", LM_SCAN_INVALID, STRING, NULL, ABSENT },
    { "{,}", LM_SCAN_INVALID, ABSENT, NULL, ABSENT },
    { "{\"a\"}", LM_SCAN_INVALID, ABSENT, NULL, ABSENT },
    { "{\"a\":}", LM_SCAN_INVALID, ABSENT, NULL, ABSENT },
    { "{\"a\":[1 2]}", LM_SCAN_INVALID, ABSENT, NULL, ABSENT },
    { "{\"a\":[1,]}", LM_SCAN_INVALID, ABSENT, NULL, ABSENT },
    { "{\"a\":[}", LM_SCAN_INVALID, ABSENT, NULL, ABSENT },
    { "{\"a\":[1}", LM_SCAN_INVALID, ABSENT, NULL, ABSENT },
    { "{a:1}", LM_SCAN_INVALID, ABSENT, NULL, ABSENT },
    { "{'a':1}", LM_SCAN_INVALID, ABSENT, NULL, ABSENT },
    { "{\"a\":01}", LM_SCAN_INVALID, ABSENT, NULL, ABSENT },
    { "{\"a\":1.}", LM_SCAN_INVALID, ABSENT, NULL, ABSENT },
    { "{\"a\":1e}", LM_SCAN_INVALID, ABSENT, NULL, ABSENT },
    { "{\"a\":-}", LM_SCAN_INVALID, ABSENT, NULL, ABSENT },
    { "{\"a\":+1}", LM_SCAN_INVALID, ABSENT, NULL, ABSENT },
    { "{\"a\":.5}", LM_SCAN_INVALID, ABSENT, NULL, ABSENT },
    { "{\"a\":tru}", LM_SCAN_INVALID, ABSENT, NULL, ABSENT },
    { "{\"a\":True}", LM_SCAN_INVALID, ABSENT, NULL, ABSENT },
    { "{\"a\":\"\n\"}", LM_SCAN_INVALID, ABSENT, NULL, ABSENT },
};


/* Ends the test when something is not as it should be. */
static void
check(int ok, const char *what, const char *text, size_t piece)
{
    if (!ok) {
        fprintf(stderr, "%s: %s (pieces of %zu)\n", text, what, piece);
        exit(1);
    }
}


/* Scans text in pieces of the given size. */
static lm_scan_result_t
scan(lm_scan_t *s, const char *text, size_t len, size_t piece)
{
    size_t  i, n;

    lm_scan_init(s);

    for (i = 0; i < len; i += n) {
        n = len - i < piece ? len - i : piece;
        (void) lm_scan_feed(s, (const unsigned char *) text + i, n);
    }

    return lm_scan_finish(s);
}


/* Runs the table, each text in pieces of every size. */
static void
test_table(void)
{
    size_t            i, len, piece;
    lm_scan_t         s;
    lm_scan_value_t  *model;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        len = strlen(cases[i].text);

        for (piece = 1; piece <= len + 1; piece++) {
            check(scan(&s, cases[i].text, len, piece) == cases[i].result,
                  "wrong result", cases[i].text, piece);

            if (cases[i].result != LM_SCAN_OK) {
                continue;
            }

            model = &s.member[LM_SCAN_MODEL];

            check(model->type == cases[i].type, "wrong type of model",
                  cases[i].text, piece);
            check(model->len == strlen(cases[i].model)
                  && memcmp(model->value, cases[i].model, model->len) == 0,
                  "wrong model", cases[i].text, piece);
            check(s.member[LM_SCAN_STREAM].type == cases[i].stream,
                  "wrong stream", cases[i].text, piece);
        }
    }
}


/* Nesting is counted, not recursed into, and has a limit. */
static void
test_depth(void)
{
    char       text[4 * LM_SCAN_DEPTH], *p;
    int        deep, i;
    lm_scan_t  s;

    for (deep = LM_SCAN_DEPTH - 1; deep <= LM_SCAN_DEPTH; deep++) {
        p = text + sprintf(text, "{\"a\":");

        for (i = 0; i < deep; i++) {
            *p++ = '[';
        }

        for (i = 0; i < deep; i++) {
            *p++ = ']';
        }

        p += sprintf(p, ",\"model\":\"m\"}");

        check(scan(&s, text, (size_t) (p - text), 1000)
              == (deep < LM_SCAN_DEPTH ? LM_SCAN_OK : LM_SCAN_TOO_DEEP),
              "wrong result", "nested arrays", 1000);
    }
}


/* A long string in front, with a quote at every place of a vector. */
static void
test_long_strings(void)
{
    char       text[512];
    size_t     len, pad;
    lm_scan_t  s;

    for (pad = 0; pad < 100; pad++) {
        len = (size_t) sprintf(text, "{\"i\":\"%.*s\\\"%.*s\",\"model\":"
                               "\"%.*s\"}", (int) pad,
                               "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
                               "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
                               "AAAAAA", (int) pad / 2,
                               "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB"
                               "BBBBBBBBBBB", (int) pad / 3,
                               "mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm");

        check(scan(&s, text, len, 37) == LM_SCAN_OK, "refused", text, 37);
        check(s.member[LM_SCAN_MODEL].len == pad / 3, "wrong length", text,
              37);
    }
}


/* A model's name that no route can have. */
static void
test_too_long(void)
{
    char       text[2 * LM_SCAN_MODEL_MAX];
    int        n;
    lm_scan_t  s;

    for (n = LM_SCAN_MODEL_MAX; n <= LM_SCAN_MODEL_MAX + 1; n++) {
        (void) snprintf(text, sizeof(text), "{\"model\":\"%0*d\"}", n, 0);

        check(scan(&s, text, strlen(text), 64) == LM_SCAN_OK, "refused",
              text, 64);
        check(s.member[LM_SCAN_MODEL].too_long == (n > LM_SCAN_MODEL_MAX),
              "wrong too_long", text, 64);
    }
}


int
main(void)
{
    test_table();
    test_depth();
    test_long_strings();
    test_too_long();

    return 0;
}
